"""The small market of the model's tests, and topics on which real routers decide with its bundle."""

from tests.model.conftest import _one_thread, small_bundle, small_cards, small_dev, small_folder, small_rows
from tests.workers.marketplace import market

__all__ = ["_one_thread", "market", "small_bundle", "small_cards", "small_dev", "small_folder", "small_rows"]
