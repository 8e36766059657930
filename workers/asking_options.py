"""Whether and how skills are asked: the settings, and the flags that `route` and `ask` share."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from msgspec import Struct

from topics.errors import UsageError
from workers.answers import TTL_S

F = TypeVar("F", bound=Callable[..., Any])


class AskOptions(Struct, frozen=True, kw_only=True):
    """How skills are asked. Times in the unit of their name; `key` and `certificate_url` go together."""

    deadline_ms: float = 50.0
    allow_http: bool = False
    allow_private: bool = False
    key: Path | None = None
    certificate_url: str = ""
    concurrency: int = 32  # questions under way at once: some 2,000 a second are what one core can send and read
    per_host: int = 16  # of them, to one host and port
    cache_s: float = TTL_S

    def __post_init__(self) -> None:
        if (self.key is None) != (not self.certificate_url):
            raise UsageError(
                "a signature needs both --ask-key and --ask-certificate-url: a skill checks the one by the other"
            )


DEFAULTS = AskOptions()


def asking_options(command: F) -> F:
    """Gives a command the --ask flags and hands them on as one argument, `asking`: None where nothing is asked."""

    @functools.wraps(command)
    def wrapped(*args: Any, ask: bool, **values: Any) -> Any:
        own = {name: values.pop(f"ask_{name}") for name in AskOptions.__struct_fields__}
        options = AskOptions(**{**own, "certificate_url": own["certificate_url"] or ""})
        return command(*args, asking=options if ask else None, **values)

    for option in reversed(_OPTIONS):
        wrapped = option(wrapped)
    return wrapped  # type: ignore[return-value]  # the same command, but for the arguments that click gives it


_OPTIONS = (
    click.option(
        "--ask/--no-ask",
        default=False,
        show_default=True,
        help="Ask skills whose card names an endpoint whether they can (CanFulfillIntentRequest).",
    ),
    click.option(
        "--ask-deadline-ms",
        type=click.FloatRange(1, 2_000),
        default=DEFAULTS.deadline_ms,
        show_default=True,
        help="For all that is asked together; who is late is decided on without.",
    ),
    click.option("--ask-allow-http", is_flag=True, help="Ask endpoints without TLS too."),
    click.option(
        "--ask-allow-private",
        is_flag=True,
        help="Ask endpoints at private, loopback, link-local addresses too.",
    ),
    click.option(
        "--ask-key",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="RSA key (PEM, no passphrase) that signs what is asked; needs --ask-certificate-url.",
    ),
    click.option("--ask-certificate-url", metavar="URL", help="Where skills find that key's certificate chain."),
    click.option(
        "--ask-concurrency",
        type=click.IntRange(1, 1_000),
        default=DEFAULTS.concurrency,
        show_default=True,
        help="Most questions under way at once.",
    ),
    click.option(
        "--ask-per-host",
        type=click.IntRange(1, 1_000),
        default=DEFAULTS.per_host,
        show_default=True,
        help="Of them, to one host; half of it to one skill.",
    ),
    click.option(
        "--ask-cache-s",
        type=click.FloatRange(0),
        default=DEFAULTS.cache_s,
        show_default=True,
        help="Seconds for which an answer is remembered; 0 remembers none.",
    ),
)
