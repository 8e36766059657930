"""Names to addresses, in threads of its own: a name server that never answers takes a few of them, and no more.

asyncio's own look-ups share one small pool with all else, and a process cannot end while one of them hangs. These
threads are daemons.
"""

import asyncio
import socket
import threading
from collections.abc import Callable
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

MOST = 16  # look-ups at once; a hanging one keeps its place until the system gives it up
Lookup = Callable[..., list[Any]]


class Lookups(AbstractResolver):
    """aiohttp's resolver. `lookup` is called as `socket.getaddrinfo`."""

    def __init__(self, lookup: Lookup = socket.getaddrinfo, most: int = MOST) -> None:
        self._lookup = lookup
        self._places = asyncio.Semaphore(most)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The addresses of `host`. Raises OSError where it has none."""
        await self._places.acquire()  # given back when the thread has ended, not when nobody waits any more
        found: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        threading.Thread(
            target=self._look_up, args=(found, host, port, family), name=f"lookup {host}", daemon=True
        ).start()
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=found_family,
                proto=proto,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for found_family, _, proto, _, address in await found
        ]

    async def close(self) -> None:
        """Nothing to give back: a thread that still waits ends by itself."""

    def _look_up(self, found: "asyncio.Future[list[Any]]", host: str, port: int, family: int) -> None:
        result: list[Any] | Exception
        try:
            result = self._lookup(host, port, family=family, type=socket.SOCK_STREAM)
        except Exception as error:  # noqa: BLE001 raised again where the answer is awaited
            result = error if isinstance(error, OSError) else OSError(f"{host!r} is no name: {error}")
        try:
            found.get_loop().call_soon_threadsafe(self._tell, found, result)
        except RuntimeError:  # the loop has ended meanwhile: nobody waits
            return

    def _tell(self, found: "asyncio.Future[list[Any]]", result: list[Any] | Exception) -> None:
        self._places.release()
        if found.done():  # nobody waits any more
            return
        if isinstance(result, Exception):
            found.set_exception(result)
        else:
            found.set_result(result)
