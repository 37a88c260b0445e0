"""Paths to routes: fixed segments first, either slash, encoded names, and why there is no route."""

import pytest

from api.matching import RouteTable
from api.problems import SERVICE
from api.routing import Route, Who


async def nothing(call: object) -> None:
    """A handler that is never called."""


def row(method: str, path: str, *, rest: bool = False) -> Route:
    return Route(
        method, path, nothing, dialect=SERVICE, who=Who.PUBLIC, tags=("t",), summary="s", rest=rest
    )


ROWS = [
    row("GET", "/things/"),
    row("POST", "/things/"),
    row("GET", "/things/mine"),
    row("GET", "/things/{id}"),
    row("DELETE", "/things/{id}"),
    row("POST", "/things/{id}/parts/{part}/"),
    row("GET", "/status.rss"),
    row("GET", "/"),
    row("PUT", "/models/{model}/", rest=True),
    row("POST", "/models/count"),
    row("GET", "/models/{model}/parts"),
]
TABLE = RouteTable(ROWS)


@pytest.mark.parametrize(
    ("method", "path", "expected", "parameters"),
    [
        ("GET", b"/things", 0, {}),
        ("GET", b"/things/", 0, {}),
        ("POST", b"/things/", 1, {}),
        ("GET", b"/things/mine", 2, {}),
        ("GET", b"/things/mine/", 2, {}),
        ("GET", b"/things/x", 3, {"id": "x"}),
        ("HEAD", b"/things/x/", 3, {"id": "x"}),
        ("DELETE", b"/things/mine", 4, {"id": "mine"}),
        ("POST", b"/things/mine/parts/p", 5, {"id": "mine", "part": "p"}),
        ("GET", b"/things/meta%2Fllama%203", 3, {"id": "meta/llama 3"}),
        ("GET", "/things/größe".encode(), 3, {"id": "größe"}),
        ("GET", b"/things/%C3%A4", 3, {"id": "ä"}),
        ("GET", b"/status.rss", 6, {}),
        ("GET", b"/", 7, {}),
        ("PUT", b"/models/m", 8, {"model": "m"}),
        ("PUT", b"/models/m/", 8, {"model": "m"}),
        ("PUT", b"/models/openai/gpt-4o/", 8, {"model": "openai/gpt-4o"}),
        ("PUT", b"/models/openai%2Fgpt-4o", 8, {"model": "openai/gpt-4o"}),
        ("PUT", b"/models/a/b%2Fc//d", 8, {"model": "a/b/c//d"}),
        ("PUT", b"/models/count", 8, {"model": "count"}),
        ("PUT", b"/models/m/parts", 8, {"model": "m/parts"}),
        ("PUT", b"/models/m/parts/x", 8, {"model": "m/parts/x"}),
        ("POST", b"/models/count", 9, {}),
        ("GET", b"/models/m/parts", 10, {"model": "m"}),
    ],
)
def test_a_path_finds_its_route(
    method: str, path: bytes, expected: int, parameters: dict[str, str]
) -> None:
    match = TABLE.match(method, path)
    assert match.route is ROWS[expected]
    assert match.parameters == parameters


@pytest.mark.parametrize(
    "path",
    [
        b"/nothing",
        b"/things//",
        b"//things",
        b"/things//parts/p",
        b"/things/x/parts",
        b"/things/%00",
        b"/things/a\x00b",
        b"/things/%ff",
        b"/things/" + b"x" * 1025,
        b"/models",
        b"/models/",
        b"/models//",
        b"things",
        b"*",
        b"",
    ],
)
def test_an_unknown_path_has_no_methods(path: bytes) -> None:
    match = TABLE.match("GET", path)
    assert match.route is None
    assert match.allowed == ()


def test_a_known_path_with_another_method_says_which_are_allowed() -> None:
    assert TABLE.match("PUT", b"/things").allowed == ("GET", "HEAD", "POST", "OPTIONS")
    assert TABLE.match("PUT", b"/things/mine").allowed == ("DELETE", "GET", "HEAD", "OPTIONS")
    assert TABLE.match("GET", b"/things/x/parts/p").allowed == ("POST", "OPTIONS")
    assert TABLE.match("GET", b"/models/a/b").allowed == ("PUT", "OPTIONS")
    assert TABLE.match("GET", b"/models/count").allowed == ("POST", "PUT", "OPTIONS")


def test_a_route_declared_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="declared twice"):
        RouteTable([row("GET", "/a/{id}"), row("GET", "/a/{other}/")])
