"""Which endpoints may be asked: the URL on the card, and the address that it leads to.

A card's URL is somebody else's word. It must not send the router to a machine that only the router can reach, so
addresses are judged when a connection is made, on what the name has resolved to just then.
"""

import ipaddress
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address

from yarl import URL

NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # an IPv4 address in IPv6 clothes, on networks with IPv6 only


class Refused(Exception):
    """An endpoint that must not be asked; `str()` says why."""


class AddressRefused(OSError):
    """The same, found when connecting. One text for all addresses, so that a name's several refusals are one."""

    def __init__(self) -> None:
        super().__init__("the address is not public")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a skill answers. `host` is what connections are counted by: host and port."""

    url: URL
    host: str


@lru_cache(maxsize=10_000)
def _read(text: str, allow_http: bool) -> Endpoint | str:
    """The endpoint, or why it is refused: a cached exception would drag its traceback along."""
    try:
        url = URL(text)
        host, port = url.host, url.port
    except ValueError as error:
        return f"no URL: {error}"
    if url.scheme != "https" and not (allow_http and url.scheme == "http"):
        return f"{url.scheme or 'no scheme'} where https is needed"
    if not host or not port:
        return "no host"
    if url.raw_user is not None or url.raw_password is not None:
        return "a user or a password in the URL"
    return Endpoint(url.with_fragment(None), f"{host}:{port}")


def read_endpoint(text: str, allow_http: bool) -> Endpoint:
    """The endpoint in `text`. Raises Refused where it may not be asked, whatever its address."""
    endpoint = _read(text, allow_http)
    if isinstance(endpoint, str):
        raise Refused(endpoint)
    return endpoint


def is_public(address: str) -> bool:
    """Whether the address is one of the public internet, and no multicast, private, reserved or local one.

    >>> is_public("93.184.215.14"), is_public("::ffff:127.0.0.1"), is_public("169.254.169.254")
    (True, False, False)
    """
    try:
        found = _unwrapped(ipaddress.ip_address(address))
    except ValueError:
        return False
    return found.is_global and not (found.is_multicast or found.is_reserved or found.is_unspecified)


def _unwrapped(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address that an IPv6 one stands for, if it does: that one decides where a packet ends up."""
    if isinstance(address, IPv4Address):
        return address
    inner = address.ipv4_mapped or address.sixtofour
    if inner is None and address in NAT64:
        inner = IPv4Address(int(address) & 0xFFFFFFFF)
    return inner or address
