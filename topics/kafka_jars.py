"""Apache Kafka's jars: pinned by `kafka_jars.lock`, fetched once from Maven Central, checked at every start.

The lock is the whole answer to "which jars": a line is `sha256  group:artifact:version`. A fetch asks for
exactly those, so that neither a changed POM nor a changed jar can come in. To move to another release of
Kafka, change `ROOTS` and write the lock anew with `python -m topics.kafka_jars > topics/kafka_jars.lock`.
"""

import fcntl
import hashlib
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from topics.errors import BrokerError
from topics.folders import cache_dir

KAFKA_VERSION = "4.3.0"
ROOTS = (
    f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}",
    # Kafka's POM leaves the logging backend to whoever packages it; without one the broker is mute.
    "org.apache.logging.log4j:log4j-slf4j-impl:2.25.4",
)
MAVEN_CENTRAL = "https://repo.maven.apache.org/maven2"
LOCK = Path(__file__).with_name("kafka_jars.lock")
# Longer than a slow first byte of a loaded mirror, shorter than a person's patience with a dead network.
TIMEOUT_S = 30
ATTEMPTS = 3
# Maven Central serves a handful of connections at once without slowing any of them down.
CONNECTIONS = 6


@dataclass(frozen=True)
class Jar:
    """One line of the lock."""

    sha256: str
    coordinate: str  # group:artifact:version

    @property
    def name(self) -> str:
        """File name in the cache, which is also the one on Maven Central."""
        _, artifact, version = self.coordinate.split(":")
        return f"{artifact}-{version}.jar"


def class_path(log: Callable[[str], None], cache: Path | None = None, lock: Path = LOCK) -> str:
    """Kafka's class path, in the order of the lock; what is missing in the cache is fetched first.

    Safe while another process does the same: one fetches, the other waits for it. A jar comes into the
    cache whole and checked or not at all, so an interrupted fetch goes on where it stood.

    Raises:
        BrokerError: no network, no space, or a jar whose SHA-256 is not the locked one.
    """
    jars = read_lock(lock)
    folder = (cache or cache_dir()) / f"kafka-{KAFKA_VERSION}"
    if _missing(jars, folder):
        with _sole_fetcher(folder):
            _fetch(_missing(jars, folder), folder, log)
    for jar in jars:
        _check(jar, folder / jar.name)
    return ":".join(str(folder / jar.name) for jar in jars)


def read_lock(lock: Path = LOCK) -> list[Jar]:
    """The pinned jars. Lines that start with `#` are remarks."""
    lines = lock.read_text(encoding="utf-8").splitlines()
    return [Jar(*line.split()) for line in lines if line and not line.startswith("#")]


def _missing(jars: list[Jar], folder: Path) -> list[Jar]:
    return [jar for jar in jars if not (folder / jar.name).exists()]


@contextmanager
def _sole_fetcher(folder: Path) -> Iterator[None]:
    """Holds the cache's lock file; the kernel lets go of it when the process dies, however it dies."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".fetching").open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise BrokerError(
            f"Kafka's jars cannot be kept in {folder}: {error.strerror or error}; "
            "free space there, or set NAMEFREE_CACHE to another folder"
        ) from error


def _fetch(jars: list[Jar], folder: Path, log: Callable[[str], None]) -> None:
    if not jars:  # the process that we waited for has fetched them
        return
    log(f"fetching Apache Kafka {KAFKA_VERSION} from Maven Central, once: {len(jars)} jars to {folder}")
    with (
        tempfile.TemporaryDirectory(prefix=".staging-", dir=folder) as staging,
        ThreadPoolExecutor(CONNECTIONS) as pool,
    ):
        fetched = pool.map(partial(_fetch_one, staging=Path(staging), folder=folder), jars)
        for count, jar in enumerate(fetched, 1):
            if count % 10 == 0 or count == len(jars):
                log(f"fetched {count} of {len(jars)} jars, last {jar.name}")


def _fetch_one(jar: Jar, staging: Path, folder: Path) -> Jar:
    arrived = _download(jar, staging)
    _check(jar, arrived)
    arrived.replace(folder / jar.name)
    return jar


def _download(jar: Jar, staging: Path) -> Path:
    # Imported here: jgo and its HTTP client take a third of a second, and only a first start needs them.
    import requests
    from jgo.maven import MavenContext, PythonResolver

    for attempt in range(ATTEMPTS):
        context = MavenContext(
            resolver=PythonResolver(),
            repo_cache=staging / str(attempt),  # a cut download of the attempt before is not taken for a jar
            local_repos=[],
            remote_repos={"central": MAVEN_CENTRAL},
            timeout=TIMEOUT_S,
        )
        try:
            return Path(context.create_dependency(jar.coordinate).artifact.resolve())
        except requests.RequestException as error:
            trouble: Exception = error
        except RuntimeError as error:  # jgo's answer to any status but 200
            trouble = error
    raise BrokerError(
        f"{jar.name} could not be fetched from {MAVEN_CENTRAL} in {ATTEMPTS} attempts "
        f"({_in_brief(trouble)}); the first start needs the network (HTTPS_PROXY is respected), "
        "or set NAMEFREE_BOOTSTRAP to a cluster that is there"
    ) from trouble


def _in_brief(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:160]}"


def _check(jar: Jar, path: Path) -> None:
    with path.open("rb") as handle:
        found = hashlib.file_digest(handle, "sha256").hexdigest()
    if found != jar.sha256:
        raise BrokerError(
            f"{path} is not the pinned {jar.coordinate}: its SHA-256 is {found}, not {jar.sha256}; "
            "it was not started; delete the file to have it fetched again"
        )


def print_lock() -> None:
    """Resolves `ROOTS` with all that they need, and prints the lock of what Maven Central serves today."""
    from jgo.maven import Dependency, MavenContext, PythonResolver

    with tempfile.TemporaryDirectory() as staging:
        context = MavenContext(
            resolver=PythonResolver(),
            repo_cache=Path(staging),
            local_repos=[],
            remote_repos={"central": MAVEN_CENTRAL},
            timeout=TIMEOUT_S,
        )
        chosen: dict[tuple[str, str], Dependency] = {}
        # One root at a time: jgo lets the managed versions of all roots decide together, and log4j's
        # would bring an older kafka-clients under a newer broker. What the first root chose stays.
        for root in ROOTS:
            inputs, transitive = context.resolver.resolve([context.create_dependency(root)])
            for found in [*inputs, *transitive]:
                chosen.setdefault((found.groupId, found.artifactId), found)
        print(f"# Apache Kafka {KAFKA_VERSION} with all that it needs, written by python -m topics.kafka_jars")
        for (group, artifact), found in sorted(chosen.items()):
            digest = hashlib.sha256(found.artifact.resolve().read_bytes()).hexdigest()
            print(f"{digest}  {group}:{artifact}:{found.version}")


if __name__ == "__main__":
    print_lock()
