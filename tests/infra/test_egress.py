"""What we connect to for tenants: public addresses and what the settings allow, on real sockets."""

import asyncio
import contextlib
import gzip
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from infra.clock import SYSTEM_CLOCK
from infra.egress import AddressRefused, AnswerRefused, egress_client, may_reach

LOOPBACK = ("127.0.0.0/8",)
BYTES_MAX = 10_000
TIMEOUT = httpx.Timeout(5)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("1.1.1.1", True),
        ("2606:4700::1111", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("fe80::1", False),
        ("fd00::1", False),
        ("ff02::1", False),
        ("::ffff:10.0.0.1", False),
        ("::ffff:1.1.1.1", True),
        ("64:ff9b::a9fe:a9fe", False),
        ("2002:a00:1::", False),
    ],
)
def test_only_public_addresses_may_be_reached(address: str, public: bool) -> None:
    assert may_reach(ipaddress.ip_address(address), []) is public


@pytest.mark.parametrize(
    ("address", "reached"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("fd00::7", True),
        ("11.0.0.1", True),
        ("192.168.1.1", False),
        ("::1", False),
    ],
)
def test_what_is_allowed_may_be_reached_as_well(address: str, reached: bool) -> None:
    allowed = [ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8")]
    assert may_reach(ipaddress.ip_address(address), allowed) is reached


class Server:
    """A server on loopback that gives one answer; `asked` counts the connections it took."""

    def __init__(self, answer: bytes) -> None:
        self.answer, self.asked, self.port = answer, 0, 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked += 1
        self.request = await reader.readuntil(b"\r\n\r\n")
        writer.write(self.answer)
        with contextlib.suppress(ConnectionError):
            await writer.drain()
            writer.close()
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def server(answer: bytes, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    made = Server(answer)
    async with await asyncio.start_server(made.serve, "127.0.0.1", 0, ssl=tls) as listening:
        made.port = listening.sockets[0].getsockname()[1]
        yield made


def answer(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def client(allowed: tuple[str, ...] = LOOPBACK) -> httpx.AsyncClient:
    return egress_client(allowed, answer_bytes_max=BYTES_MAX, timeout=TIMEOUT)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0x7f000001"])
async def test_a_private_address_gets_no_connection(host: str) -> None:
    async with server(answer(b"inside")) as inside, client(()) as asking:
        with pytest.raises(AddressRefused):
            await asking.get(f"http://{host}:{inside.port}/")
        assert inside.asked == 0


async def test_an_allowed_network_is_reached_by_address_and_by_name() -> None:
    async with server(answer(b"inside")) as inside, client() as asking:
        for host in ("127.0.0.1", "localhost"):
            assert (await asking.get(f"http://{host}:{inside.port}/")).text == "inside"
        assert f"host: localhost:{inside.port}".encode() in inside.request.lower()


Resolve = Callable[[list[str]], None]


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> Resolve:
    """Says what a name means, one answer for each time that it is asked for."""

    def tell(answers: list[str]) -> None:
        left = iter(answers)

        async def getaddrinfo(host: Any, port: int, **more: Any) -> list[Any]:
            return [
                (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
                for address in next(left).split()
            ]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)

    return tell


async def test_a_name_that_means_another_address_a_moment_later_gains_nothing(
    resolve: Resolve,
) -> None:
    # The first answer is checked and connected to: nobody asks a second time.
    async with server(answer(b"inside")) as inside, client(("127.0.0.1/32",)) as asking:
        resolve(["127.0.0.1", "127.0.0.2"])
        assert (await asking.get(f"http://rebound.example:{inside.port}/")).text == "inside"
        with pytest.raises(AddressRefused):
            await asking.get(f"http://rebound.example:{inside.port}/")
        assert inside.asked == 1


async def test_of_several_addresses_those_that_may_be_reached_are_tried(resolve: Resolve) -> None:
    async with server(answer(b"inside")) as inside, client(("127.0.0.0/31",)) as asking:
        resolve(["169.254.169.254 127.0.0.0 127.0.0.1", "169.254.169.254 10.0.0.1"])
        assert (await asking.get(f"http://many.example:{inside.port}/")).text == "inside"
        with pytest.raises(AddressRefused):
            await asking.get(f"http://many.example:{inside.port}/")


@pytest.mark.parametrize("host", ["nowhere.invalid", "a..b", "x" * 64 + ".example"])
async def test_a_name_that_means_nothing_is_an_error_of_the_connection(host: str) -> None:
    async with client() as asking:
        with pytest.raises(httpx.ConnectError) as caught:
            await asking.get(f"http://{host}/")
        assert not isinstance(caught.value, AddressRefused)


async def test_a_redirect_is_not_followed() -> None:
    async with server(answer(b"")) as inside:
        moved = answer(b"", f"Location: http://127.0.0.1:{inside.port}/secret", status="302 Found")
        async with server(moved) as outside, client() as asking:
            found = await asking.get(f"http://127.0.0.1:{outside.port}/")
            assert (found.status_code, inside.asked) == (302, 0)


async def test_an_answer_may_be_as_large_as_allowed_and_no_larger() -> None:
    for size in (BYTES_MAX, BYTES_MAX + 1):
        async with server(answer(b"x" * size)) as far, client() as asking:
            url = f"http://127.0.0.1:{far.port}/"
            if size == BYTES_MAX:
                assert len((await asking.get(url)).content) == size
            else:
                with pytest.raises(AnswerRefused):
                    await asking.get(url)


async def test_a_compressed_answer_is_refused_unread() -> None:
    bomb = gzip.compress(b"x" * 10_000_000)
    async with server(answer(bomb, "Content-Encoding: gzip")) as far, client() as asking:
        with pytest.raises(AnswerRefused):
            await asking.get(f"http://127.0.0.1:{far.port}/")
        assert b"accept-encoding: identity" in far.request.lower()


def certificates(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """An authority's certificate, and a server's context with one of its for `localhost` alone."""
    key, now = ec.generate_private_key(ec.SECP256R1()), SYSTEM_CLOCK.now() / 1e6
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Weir's tests")])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(datetime.fromtimestamp(now - 60, UTC))
        .not_valid_after(datetime.fromtimestamp(now + 3600, UTC))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    authority, both = folder / "authority.pem", folder / "server.pem"
    authority.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    both.write_bytes(private + authority.read_bytes())
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(both)
    return authority, context


async def test_a_certificate_is_checked_for_the_name_that_was_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The connection is made to an address; what has to be proven is the name.
    authority, context = certificates(tmp_path)
    async with server(answer(b"inside"), context) as inside:
        async with client() as asking:
            with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                await asking.get(f"https://localhost:{inside.port}/")
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
        async with client() as asking:
            assert (await asking.get(f"https://localhost:{inside.port}/")).text == "inside"
            with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                await asking.get(f"https://127.0.0.1:{inside.port}/")


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with server(answer(b"proxy")) as proxy, server(answer(b"direct")) as far:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
        async with client() as asking:
            assert (await asking.get(f"http://127.0.0.1:{far.port}/")).text == "direct"
        assert proxy.asked == 0
