"""The flags that `route` and `ask` share."""

import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from topics.errors import UsageError
from workers.asking_options import AskOptions, asking_options
from workers.cli import root


def asking_of(*arguments: str) -> AskOptions | None:
    """What a command with these flags is given."""
    found: list[AskOptions | None] = []

    @click.command()
    @asking_options
    @click.option("--other", default="x")
    def command(asking: AskOptions | None, other: str) -> None:
        assert other == "x"
        found.append(asking)

    result = CliRunner().invoke(command, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return found[0]


def test_nothing_is_asked_by_default() -> None:
    assert asking_of() is None
    assert asking_of("--no-ask", "--ask-allow-http") is None


def test_what_is_asked_by_default_is_public_and_encrypted() -> None:
    assert asking_of("--ask") == AskOptions(deadline_ms=50.0, allow_http=False, allow_private=False, cache_s=300.0)


def test_every_setting_has_its_flag(tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    key.touch()
    flags = "--ask --ask-deadline-ms 80 --ask-allow-http --ask-allow-private --ask-concurrency 7 --ask-per-host 3"
    more = ["--ask-cache-s", "9", "--ask-key", str(key), "--ask-certificate-url", "https://example.com/c.pem"]
    assert asking_of(*flags.split(), *more) == AskOptions(
        deadline_ms=80.0,
        allow_http=True,
        allow_private=True,
        key=key,
        certificate_url="https://example.com/c.pem",
        concurrency=7,
        per_host=3,
        cache_s=9.0,
    )


def test_half_a_signature_is_refused_though_nothing_is_asked() -> None:
    with pytest.raises(UsageError, match="both --ask-key and --ask-certificate-url"):
        asking_of("--ask-certificate-url", "https://example.com/c.pem")


@pytest.mark.parametrize("name", ["route", "ask"])
def test_the_commands_that_decide_take_the_same_flags(name: str) -> None:
    command = root.get_command(click.Context(root), name)
    assert command is not None
    flags = {parameter.name for parameter in command.params}
    assert {"ask", *(f"ask_{setting}" for setting in AskOptions.__struct_fields__)} <= flags


def test_half_a_signature_is_asked_wrongly() -> None:
    arguments = [
        sys.executable,
        "-m",
        "workers",
        "route",
        "--ask",
        "--ask-certificate-url",
        "https://example.com/c",
    ]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "both --ask-key and --ask-certificate-url" in done.stderr
