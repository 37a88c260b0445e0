"""Requests to addresses that a tenant chose: to public ones only, unless the settings allow more.

What is checked is the address that is connected to, after its name was resolved: a name that means
another address a moment later gains nothing. Redirects are not followed, proxies and credentials of
the environment not used, and an answer has a bound.
"""

import asyncio
import ipaddress
import socket
import time
from collections.abc import AsyncIterator, Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import httpcore
import httpx

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_NAT64 = IPv6Network("64:ff9b::/96")
_CONNECTIONS_KEPT = 50
_KEPT_SECONDS = 30.0


class AddressRefused(httpx.ConnectError):
    """A name that means no address which may be reached."""


class AnswerRefused(httpx.ReadError):
    """An answer that is larger than allowed, or compressed although it must not be.

    status_code: of the answer.
    """

    def __init__(self, message: str, status_code: int) -> None:
        super().__init__(message)
        self.status_code = status_code


def may_reach(address: Address, allowed: Iterable[Network]) -> bool:
    """Whether we may connect to an address for a tenant: it is public, or in an allowed network.

    An IPv4 address that is written as IPv6 counts as what it is.
    """
    found = _meant(address)
    if any(found in network for network in allowed if network.version == found.version):
        return True
    return found.is_global and not found.is_multicast


def _meant(address: Address) -> Address:
    """The IPv4 address that packets to an IPv6 address end up at, or the address itself."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour or address


class _CheckedNetwork(httpcore.AsyncNetworkBackend):
    """Resolves a name itself, and connects to those of its addresses that may be reached."""

    def __init__(self, allowed: Iterable[str]) -> None:
        self._allowed = [ipaddress.ip_network(network) for network in allowed]
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: "Iterable[httpcore.SOCKET_OPTION] | None" = None,
    ) -> httpcore.AsyncNetworkStream:
        """Raises AddressRefused, httpcore.ConnectError or ConnectTimeout."""
        deadline = None if timeout is None else time.monotonic() + timeout
        failure: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in await self._addresses(host, port, timeout):
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                return await self._network.connect_tcp(
                    str(address), port, left, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

    async def _addresses(self, host: str, port: int, timeout: float | None) -> list[Address]:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout):
                found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except TimeoutError:
            raise httpcore.ConnectTimeout(f"{host} could not be resolved in time") from None
        except (OSError, UnicodeError):
            raise httpcore.ConnectError(f"{host} could not be resolved") from None
        addresses = [ipaddress.ip_address(entry[4][0]) for entry in found]
        reachable = [address for address in addresses if may_reach(address, self._allowed)]
        if addresses and not reachable:
            raise AddressRefused(f"{host} is not a public address")
        return reachable


class _EgressTransport(httpx.AsyncHTTPTransport):
    """httpx's transport over checked connections, with a bound on each answer."""

    def __init__(self, allowed: Iterable[str], answer_bytes_max: int) -> None:
        self._bytes_max = answer_bytes_max
        # httpx has no parameter for the network, httpcore has.
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=httpx.create_ssl_context(),
            max_connections=None,
            max_keepalive_connections=_CONNECTIONS_KEPT,
            keepalive_expiry=_KEPT_SECONDS,
            network_backend=_CheckedNetwork(allowed),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Raises AddressRefused, AnswerRefused (also while the answer is read), httpx.HTTPError."""
        response = await super().handle_async_request(request)
        assert isinstance(response.stream, httpx.AsyncByteStream)
        if response.headers.get("content-encoding", "identity") != "identity":
            await response.stream.aclose()
            message = "a compressed answer, which was not asked for"
            raise AnswerRefused(message, response.status_code)
        response.stream = _Bounded(response.stream, self._bytes_max, response.status_code)
        return response


class _Bounded(httpx.AsyncByteStream):
    """A body that breaks off where it gets too large."""

    def __init__(self, stream: httpx.AsyncByteStream, bytes_max: int, status_code: int) -> None:
        self._stream, self._bytes_max, self._status_code = stream, bytes_max, status_code

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for chunk in self._stream:
            size += len(chunk)
            if size > self._bytes_max:
                message = f"an answer of more than {self._bytes_max} bytes"
                raise AnswerRefused(message, self._status_code)
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


def egress_client(
    allowed: Iterable[str], *, answer_bytes_max: int, timeout: httpx.Timeout
) -> httpx.AsyncClient:
    """A client for requests to addresses of tenants' choosing.

    allowed: networks that may be reached although they are not public. timeout: of each step of a
    request; who waits for a whole one bounds that himself.
    """
    return httpx.AsyncClient(
        transport=_EgressTransport(allowed, answer_bytes_max),
        headers={"accept-encoding": "identity"},
        follow_redirects=False,
        timeout=timeout,
        trust_env=False,
    )
