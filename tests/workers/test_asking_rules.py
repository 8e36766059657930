"""What is never asked, whatever a card says: other schemes, machines that only the router can reach, redirects."""

import datetime
import ipaddress
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from model.fulfilment import Question
from tests.workers.asking import (
    HOME,
    YES_HOME,
    fresh_metrics,
    http_answer,
    local,
    question,
    raw_server,
    sandbox,
)
from workers.asking import SkillAsks
from workers.asking_options import AskOptions
from workers.breakers import Breakers
from workers.endpoints import Refused, is_public, read_endpoint
from workers.fulfil_wire import encode_answer
from workers.lookups import Lookup
from workers.sandbox import Fault, Sandbox

ANY = "0.0.0.0"  # noqa: S104 nothing is bound to it
HTTP = AskOptions(deadline_ms=5_000, allow_http=True)


def at(endpoint: str) -> Question:
    return Question("s", endpoint, "go", HOME)


def leads_to(*addresses: str) -> Lookup:
    """A look-up in which every name has these addresses."""

    def lookup(_host: str, port: int, **_: object) -> list[Any]:
        found = [ipaddress.ip_address(address) for address in addresses]
        kinds = [socket.AF_INET if one.version == 4 else socket.AF_INET6 for one in found]
        return [
            (kind, socket.SOCK_STREAM, 6, "", (str(one), port)) for kind, one in zip(kinds, found, strict=True)
        ]

    return lookup


def asked_once(options: AskOptions, endpoint: str, skills: Sandbox, **more: object) -> dict[str, int]:
    """What becomes of one question; nobody must have heard it where it is refused."""
    metrics = fresh_metrics()
    with SkillAsks(options, metrics, **more) as asks:  # type: ignore[arg-type]
        asks.ask([at(endpoint)])
    told = metrics.told()
    assert not ("refused" in told and skills.heard)
    return told


def test_http_is_refused_by_default() -> None:
    with sandbox(s="honest") as skills:
        private = AskOptions(deadline_ms=5_000, allow_private=True)
        assert asked_once(private, skills.endpoint("s"), skills) == {"refused": 1}
        assert asked_once(local(), skills.endpoint("s"), skills) == {"answered": 1}


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", ANY, "127.1"])
def test_loopback_is_refused_by_default_however_it_is_written(host: str) -> None:
    with sandbox(s="honest") as skills:
        endpoint = skills.endpoint("s").replace("127.0.0.1", host)
        assert asked_once(HTTP, endpoint, skills) == {"refused": 1}


@pytest.mark.parametrize(
    "addresses", [("127.0.0.1",), ("::1",), ("10.0.0.1", "127.0.0.1"), ("::ffff:127.0.0.1", "169.254.169.254")]
)
def test_a_name_that_resolves_to_no_public_address_is_refused(addresses: tuple[str, ...]) -> None:
    with sandbox(s="honest") as skills:
        endpoint = skills.endpoint("s").replace("127.0.0.1", "skill.example")
        assert asked_once(HTTP, endpoint, skills, lookup=leads_to(*addresses)) == {"refused": 1}


def test_a_name_is_looked_up_once_so_that_what_was_judged_is_what_is_connected_to() -> None:
    """Rebinding: were it looked up again after the judgement, the second answer could lead elsewhere."""
    looked_up = []

    def lookup(host: str, port: int, **_: object) -> list[Any]:
        looked_up.append(host)
        return leads_to("127.0.0.1")(host, port)

    with sandbox(s="honest") as skills:
        endpoint = skills.endpoint("s").replace("127.0.0.1", "skill.example")
        assert asked_once(HTTP, endpoint, skills, lookup=lookup) == {"refused": 1}
        assert asked_once(local(), endpoint, skills, lookup=lookup) == {"answered": 1}
    assert looked_up == ["skill.example"] * 2


def test_a_refused_address_opens_no_breaker() -> None:
    breakers, metrics = Breakers(faults=1), fresh_metrics()
    with SkillAsks(HTTP, metrics, breakers=breakers) as asks:
        for _ in range(3):
            asks.ask([at("http://127.0.0.1:9/")])
    assert metrics.told() == {"refused": 3}
    assert len(breakers) == 0


def test_a_redirect_is_not_followed() -> None:
    with sandbox(target="honest", s="redirecting") as skills:
        moved = {"Location": skills.endpoint("target")}
        for status in ("301 Moved", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"):
            with raw_server(http_answer(b"", status, moved)) as port:
                assert asked_once(local(), f"http://127.0.0.1:{port}/", skills) == {"broken": 1}
        assert asked_once(local(), skills.endpoint("s"), skills) == {"broken": 1}
        assert skills.heard == {"s": 1}


@pytest.mark.parametrize(
    "endpoint",
    [
        "", "nowhere", "//example.com/", "http://", "https://", "https://:443/", "file:///etc/passwd",
        "ftp://example.com/", "https://user@example.com/", "https://user:word@example.com/",
        "https://:word@example.com/", "https://example.com:99999/", "https://[::1/", "javascript:alert(1)",
    ],
)  # fmt: skip
def test_what_is_no_plain_https_url_is_refused(endpoint: str) -> None:
    with pytest.raises(Refused):
        read_endpoint(endpoint, allow_http=True)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", ANY,
        "192.0.2.1", "198.18.0.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "::", "::1",
        "::127.0.0.1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "ff02::1", "2001:db8::1",
        "::ffff:10.0.0.1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a00:1", "2002:7f00:1::",
        "2002:a00:1::1", "no address", "",
    ],
)  # fmt: skip
def test_no_such_address_is_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["93.184.215.14", "1.1.1.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]
)
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(address)


def test_no_proxy_is_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with raw_server(http_answer(b"{}")) as port, sandbox(s="honest") as skills:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
        assert asked_once(local(), skills.endpoint("s"), skills) == {"answered": 1}


def test_no_cookie_is_kept() -> None:
    cookie = http_answer(encode_answer(YES_HOME), headers={"Set-Cookie": "who=you; Path=/"})
    with sandbox(s="honest") as skills, raw_server(cookie) as port, SkillAsks(local(), fresh_metrics()) as asks:
        assert asks.ask([at(f"http://127.0.0.1:{port}/"), question(skills, "s")]) == [YES_HOME, YES_HOME]
        asks.ask([question(skills, "s", "work")])
        assert skills.last is not None
        assert "Cookie" not in skills.last.headers


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1, signed by itself, with its key."""
    key: RSAPrivateKey = generate_private_key(65_537, 2_048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "skill")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, SHA256())
    )
    file = tmp_path_factory.mktemp("certificate") / "chain.pem"
    own = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(own + made.public_bytes(Encoding.PEM))
    return file


def test_tls_is_verified(certificate: Path) -> None:
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(certificate)
    options = AskOptions(deadline_ms=5_000, allow_private=True)
    with sandbox(s="honest") as plain, Sandbox(plain.cards, {"s": Fault.HONEST}, tls=serving) as skills:
        assert skills.endpoint("s").startswith("https://")
        assert asked_once(options, skills.endpoint("s"), plain) == {"broken": 1}
        trusting = ssl.create_default_context(cafile=str(certificate))
        assert asked_once(options, skills.endpoint("s"), plain, tls=trusting) == {"answered": 1}
        elsewhere = skills.endpoint("s").replace("127.0.0.1", "skill.example")
        lookup = leads_to("127.0.0.1")
        assert asked_once(options, elsewhere, plain, tls=trusting, lookup=lookup) == {"broken": 1}
