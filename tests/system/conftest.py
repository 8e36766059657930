"""The small market of the model's tests, and topics on which real routers decide with its bundle."""

from collections.abc import Iterator

import pytest

from tests.model.conftest import _one_thread, small_bundle, small_cards, small_dev, small_folder, small_rows
from tests.secured import Secured, secured_broker
from tests.workers.marketplace import market

__all__ = ["_one_thread", "market", "small_bundle", "small_cards", "small_dev", "small_folder", "small_rows"]


@pytest.fixture(scope="session")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """One broker with certificates, users and an authorizer, for the session."""
    with secured_broker(tmp_path_factory.mktemp("secured")) as found:
        yield found
