"""The small market of the model's tests, for workers with a real bundle, and topics on which routers decide."""

from tests.model.conftest import _one_thread, small_bundle, small_cards, small_dev, small_folder, small_rows
from tests.workers.marketplace import market

__all__ = ["_one_thread", "market", "small_bundle", "small_cards", "small_dev", "small_folder", "small_rows"]
