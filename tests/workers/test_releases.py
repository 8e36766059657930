"""The release store and the releases topic: whole or not at all, and the newest `current` is what serves."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.conftest import Broker
from tests.workers.doubles import flat_bundle
from topics.errors import BadBundle, BrokerError, UsageError
from topics.kafka import producer
from topics.registry import RELEASES, create_topics, topic_name
from topics.settings import Settings
from workers.commands.releases import command, find_release, read_measures
from workers.release_store import default_store, read_whole, store_bundle
from workers.releases import all_releases, current_release, publish


@pytest.fixture
def settings(broker: Broker, topic_prefix: str) -> Settings:
    settings = Settings(bootstrap=broker.bootstrap, prefix=topic_prefix)
    create_topics(settings, partitions=1)
    return settings


def test_the_last_published_release_serves_and_all_are_listed(settings: Settings, tmp_path: Path) -> None:
    assert current_release(settings) is None
    assert all_releases(settings) == []
    one = publish(settings, flat_bundle(tmp_path, "one"), tmp_path / "store", "", {"top1": 0.5}, "first")
    two = publish(settings, flat_bundle(tmp_path, "two"), tmp_path / "store", one.release, {}, "")
    assert current_release(settings) == two
    assert all_releases(settings) == [one, two]
    assert read_whole(Path(one.bundle)).digest == one.digest
    assert (one.measures, one.note, two.parent) == ({"top1": 0.5}, "first", one.release)


def test_a_malformed_event_on_the_topic_hides_nothing(settings: Settings, tmp_path: Path) -> None:
    one = publish(settings, flat_bundle(tmp_path, "one"), tmp_path / "store", "", {}, "")
    client = producer(settings)
    client.produce(topic_name(settings, RELEASES), key=b"current", value=b"{")
    client.flush(30)
    assert current_release(settings) == one


def test_list_and_show_tell_what_serves(settings: Settings, tmp_path: Path) -> None:
    bundle = flat_bundle(tmp_path, "one")
    arguments = ["publish", str(bundle), "--store", str(tmp_path / "store"), "--note", "first", "--json"]
    published = json.loads(CliRunner().invoke(command, arguments, obj=settings, catch_exceptions=False).stdout)
    listed = CliRunner().invoke(command, ["list", "--json"], obj=settings, catch_exceptions=False).stdout
    assert json.loads(listed) == [{**published, "serving": True}]
    table = CliRunner().invoke(command, ["list"], obj=settings, catch_exceptions=False).stdout
    assert published["release"] in table
    shown = CliRunner().invoke(command, ["show", "current"], obj=settings, catch_exceptions=False).stdout
    assert published["digest"] in shown
    assert "first" in shown
    assert find_release(settings, published["release"][:4]).digest == published["digest"]


def test_an_id_that_no_release_has_is_asked_wrongly(settings: Settings) -> None:
    with pytest.raises(UsageError, match="no release has an id that starts with 'abc'"):
        find_release(settings, "abc")


def test_a_topic_that_is_missing_is_said_before_anything_is_copied(
    broker: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    with pytest.raises(BrokerError, match="releases is missing"):
        publish(
            Settings(bootstrap=broker.bootstrap, prefix=topic_prefix),
            flat_bundle(tmp_path, "one"), tmp_path / "store", "", {}, "",
        )  # fmt: skip
    assert not (tmp_path / "store").exists()


def test_a_damaged_bundle_is_not_stored(tmp_path: Path) -> None:
    bundle = flat_bundle(tmp_path, "one")
    (bundle / "flat.txt").write_text("two")
    with pytest.raises(BadBundle, match=r"flat\.txt does not have the digest"):
        store_bundle(bundle, tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_a_damaged_copy_in_the_store_is_replaced_and_a_whole_one_left_alone(tmp_path: Path) -> None:
    bundle, store = flat_bundle(tmp_path, "one"), tmp_path / "store"
    manifest, place = store_bundle(bundle, store)
    before = place.stat().st_ino
    store_bundle(bundle, store)
    assert place.stat().st_ino == before
    (place / "flat.txt").unlink()
    store_bundle(bundle, store)
    assert read_whole(place) == manifest
    assert [path.name for path in store.iterdir()] == [manifest.release]


def test_what_is_no_part_of_a_bundle_is_not_stored(tmp_path: Path) -> None:
    bundle = flat_bundle(tmp_path, "one")
    (bundle / "notes.txt").write_text("private")
    _, place = store_bundle(bundle, tmp_path / "store")
    assert sorted(path.name for path in place.iterdir()) == ["flat.txt", "manifest.json"]


def test_a_store_that_cannot_be_written_is_asked_wrongly(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"cannot be written .*: use --store"):
        store_bundle(flat_bundle(tmp_path, "one"), tmp_path / "file")


def test_the_store_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_store() == tmp_path / "namefree" / "releases"
    monkeypatch.setenv("NAMEFREE_STORE", str(tmp_path / "own"))
    assert default_store() == tmp_path / "own"


def test_nested_measures_are_joined_and_what_is_no_number_left_out(tmp_path: Path) -> None:
    path = tmp_path / "measures.json"
    path.write_text('{"rows": 10, "shortlist": {"top1": 0.5}, "name": "x", "ok": true}')
    assert read_measures(path) == {"rows": 10.0, "shortlist.top1": 0.5}
    path.write_text("[1]")
    with pytest.raises(UsageError, match="expected an object"):
        read_measures(path)
