"""One question over HTTP: a POST to the skill's endpoint, with bounds on all that comes back.

No redirects, no cookies, no proxies from the environment, TLS verified, connections to public addresses only.
"""

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import AddrInfoType, ClientResponse, ClientSession

from model.fulfilment import Question
from topics.events import Ability
from workers.asking_options import AskOptions
from workers.endpoints import AddressRefused, Endpoint, Refused, is_public
from workers.fulfil_wire import Broken, decode_answer, encode_question
from workers.lookups import Lookup, Lookups
from workers.signing import Signer

MAX_BODY_BYTES = 64 * 1024  # an honest answer with a hundred slots has 8 KiB
MAX_HEADER_BYTES = 8 * 1024  # one line of the head
MAX_HEADERS = 64
DNS_TTL_S = 30.0
KEPT_ALIVE_S = 15.0  # below what most servers keep, so that few connections are found closed when they are used
HEADERS = {
    "Content-Type": "application/json; charset=utf-8",
    "Accept": "application/json",
    "Accept-Encoding": "identity",  # nothing to unpack: a small body cannot grow
    "User-Agent": "namefree",
}


class Post:
    """Asks over one session. Belongs to the loop in which it was opened."""

    def __init__(self, session: ClientSession, signer: Signer | None) -> None:
        self._session = session
        self._signer = signer

    @classmethod
    @asynccontextmanager
    async def open(
        cls, options: AskOptions, signer: Signer | None, lookup: Lookup, tls: ssl.SSLContext
    ) -> AsyncIterator["Post"]:
        """A session while the body runs; what is under way at its end is cut."""
        connector = aiohttp.TCPConnector(
            limit=0,  # who asks counts: `workers.asking_loop`
            resolver=Lookups(lookup),
            ttl_dns_cache=int(DNS_TTL_S),
            keepalive_timeout=KEPT_ALIVE_S,
            ssl=tls,
            socket_factory=_any_socket if options.allow_private else _public_socket,
        )
        session = ClientSession(
            connector=connector,
            headers=HEADERS,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),  # who asks sets the time
            auto_decompress=False,
            trust_env=False,
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
            max_headers=MAX_HEADERS,
        )
        async with session:
            yield cls(session, signer)

    async def __call__(self, question: Question, endpoint: Endpoint) -> Ability:
        """The skill's answer. Raises Refused, or Broken where the skill gave none, whatever the reason."""
        body = encode_question(question)
        headers = self._signer.headers(body) if self._signer else None
        try:
            try:
                found = await self._post(endpoint, body, headers)
            except aiohttp.ServerDisconnectedError:
                # A connection that was kept, and that the other side had closed by now. Asking changes nothing
                # at the skill, so it may be asked again.
                found = await self._post(endpoint, body, headers)
        except aiohttp.InvalidURL as error:
            raise Refused(f"no URL that can be asked: {error}") from error
        except aiohttp.ClientConnectorError as error:
            if isinstance(error.os_error, AddressRefused):
                raise Refused(str(error.os_error)) from error
            raise Broken(f"no connection: {error}") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Broken(f"{type(error).__name__}: {error}") from error
        return decode_answer(found, question)

    async def _post(self, endpoint: Endpoint, body: bytes, headers: dict[str, str] | None) -> bytes:
        async with self._session.post(endpoint.url, data=body, headers=headers, allow_redirects=False) as response:
            try:
                return await _read(response)
            except Broken:
                response.close()  # the rest is not wanted: without this it would be read before the next request
                raise


async def _read(response: ClientResponse) -> bytes:
    if response.status != 200:
        raise Broken(f"status {response.status}")
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise Broken(f"content encoding {response.headers['Content-Encoding']!r}, which was not asked for")
    body = bytearray()
    async for part in response.content.iter_any():
        body += part
        if len(body) > MAX_BODY_BYTES:
            raise Broken(f"more than {MAX_BODY_BYTES // 1024} KiB")
    return bytes(body)


def _any_socket(address: AddrInfoType) -> socket.socket:
    family, kind, protocol, _, _ = address
    return socket.socket(family, kind, protocol)


def _public_socket(address: AddrInfoType) -> socket.socket:
    """Called for each address just before it is connected to, whether it came from a name or stood in the URL."""
    if not is_public(str(address[4][0])):
        raise AddressRefused
    return _any_socket(address)
