"""The release store and the releases topic: whole or not at all, and the newest `current` is what serves."""

import json
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from model.bundle import read_manifest
from tests.conftest import Broker
from tests.workers.doubles import flat_bundle
from topics.errors import BadBundle, BrokerError, UsageError
from topics.events import Release
from topics.kafka import producer
from topics.registry import RELEASES, create_topics, topic_name
from topics.settings import Settings
from workers.commands.releases import command, find_release, read_measures
from workers.release_store import default_store, read_whole, store_bundle
from workers.releases import (
    CANARY,
    SHADOW,
    all_releases,
    annotate,
    current_release,
    publish,
    roll_back,
    serve,
    serving_now,
    withdraw,
)


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
    assert json.loads(listed) == [{**published, "serving": True, "roles": {"current": 1.0}}]
    table = CliRunner().invoke(command, ["list"], obj=settings, catch_exceptions=False).stdout
    assert published["release"] in table
    shown = CliRunner().invoke(command, ["show", "current"], obj=settings, catch_exceptions=False).stdout
    assert published["digest"] in shown
    assert "first" in shown
    assert f"● {published['release']}" in shown  # the line of descent
    assert "serves" in shown
    assert find_release(settings, published["release"][:4]).digest == published["digest"]


def run(settings: Settings, *arguments: str) -> str:
    return CliRunner().invoke(command, arguments, obj=settings, catch_exceptions=False).stdout


def releases(settings: Settings, folder: Path) -> tuple[Release, Release]:
    """The one that serves, and its parent."""
    first = publish(settings, flat_bundle(folder, "one"), folder / "store", "", {}, "first", {"seed": "7"})
    second = publish(settings, flat_bundle(folder, "two"), folder / "store", first.release, {}, "")
    return second, first


def test_what_is_recorded_serves_nobody_and_is_on_trial_only_for_its_time(
    settings: Settings, tmp_path: Path
) -> None:
    second, first = releases(settings, tmp_path)
    assert first.provenance == {"seed": "7"}
    arguments = ["publish", str(flat_bundle(tmp_path, "three")), "--store", str(tmp_path / "store"), "--no-serve"]
    assert "is recorded, and lies in" in run(settings, *arguments)
    third = find_release(settings, read_manifest(tmp_path / "three").release)
    assert serving_now(settings) == {"current": second}
    later_ms = int(time.time() * 1000) + 3_600_000
    canary = serve(settings, third, CANARY, 0.25, later_ms)
    serve(settings, third, SHADOW, 0.5, 1)
    assert serving_now(settings) == {"current": second, "canary": canary}
    assert (canary.share, canary.until_ms) == (0.25, later_ms)
    assert all_releases(settings) == [first, second, third]
    listed = json.loads(run(settings, "list", "--json"))
    assert [one["roles"] for one in listed] == [{}, {"current": 1.0}, {"canary": 0.25}]
    assert "canary 25.00%" in run(settings, "list")
    assert find_release(settings, "canary") == canary
    withdraw(settings, CANARY)
    assert serving_now(settings) == {"current": second}


def test_a_rollback_restores_the_parent_ends_trials_and_is_noted(settings: Settings, tmp_path: Path) -> None:
    second, first = releases(settings, tmp_path)
    later_ms = int(time.time() * 1000) + 3_600_000
    for key in (CANARY, SHADOW):
        serve(settings, second, key, 0.1, later_ms)
    assert first.release in run(settings, "rollback")
    assert serving_now(settings) == {"current": first}
    assert f"rolled back to {first.release} at " in run(settings, "list")
    with pytest.raises(UsageError, match=f"{first.release} serves and it has no parent: name a release with --to"):
        run(settings, "rollback")
    assert json.loads(run(settings, "rollback", "--to", second.release[:6], "--json"))["release"] == second.release
    assert serving_now(settings)["current"].digest == second.digest


def test_a_rollback_to_what_serves_ends_trials_alone(settings: Settings, tmp_path: Path) -> None:
    second, first = releases(settings, tmp_path)
    serve(settings, first, CANARY, 0.1, int(time.time() * 1000) + 3_600_000)
    run(settings, "rollback", "--to", "current")
    assert serving_now(settings) == {"current": second}
    assert all_releases(settings) == [first, second]  # nothing is noted


def test_a_rollback_from_nothing_or_to_what_is_gone_changes_nothing(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing serves, so there is nothing to go back from"):
        roll_back(settings)
    orphan = publish(settings, flat_bundle(tmp_path, "one"), tmp_path / "store", "gone", {}, "")
    with pytest.raises(UsageError, match="its parent gone is not on the topic"):
        roll_back(settings)
    assert serving_now(settings) == {"current": orphan}


def test_what_serves_cannot_be_withdrawn(settings: Settings) -> None:
    with pytest.raises(ValueError, match="'current' is no trial"):
        withdraw(settings, "current")


def test_a_long_story_keeps_its_end(settings: Settings, tmp_path: Path) -> None:
    release = publish(settings, flat_bundle(tmp_path, "one"), tmp_path / "store", "", {}, "n" * 990)
    annotate(settings, release, "refused: at last")
    [noted] = all_releases(settings)
    assert noted.note.endswith("n; refused: at last")
    assert len(noted.note) == 1_000


def test_promote_tells_its_verdict_and_a_refusal_is_no_failure(settings: Settings, tmp_path: Path) -> None:
    second, first = releases(settings, tmp_path)
    told = CliRunner().invoke(command, ["promote", first.release, "--within", "0.005"], obj=settings)
    assert told.exit_code == 0
    assert f"{first.release} undecided: shadow: not enough traffic" in told.stdout
    told = CliRunner().invoke(
        command, ["promote", first.release, "--shadow-decisions", "0", "--within", "0.005", "--json"], obj=settings
    )
    found = json.loads(told.stdout)
    assert (found["verdict"], found["promoted"], found["parent"]) == ("undecided", False, second.release)
    assert [stage["name"] for stage in found["stages"]] == ["canary"]
    assert "without a guard" in run(settings, "promote", first.release, "--without-guard")
    assert serving_now(settings)["current"].digest == first.digest


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
