"""The small market of the model's tests, for workers that train or decide with a real bundle."""

from tests.model.conftest import _one_thread, small_bundle, small_cards, small_dev, small_folder, small_rows

__all__ = ["_one_thread", "small_bundle", "small_cards", "small_dev", "small_folder", "small_rows"]
