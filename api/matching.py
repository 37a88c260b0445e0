"""The route table: a path's segments to the routes that have it, built once."""

from collections.abc import Iterable
from urllib.parse import unquote_to_bytes

from api.routing import Route

_MAX_SEGMENT = 1024  # bytes of one decoded path parameter; no name of ours is longer


class _Node:
    __slots__ = ("methods", "names", "parameter", "static")

    def __init__(self) -> None:
        self.static: dict[str, _Node] = {}
        self.parameter: _Node | None = None
        self.methods: dict[str, Route] = {}
        self.names: dict[str, tuple[str, ...]] = {}  # method -> its parameters' names


class Match:
    """What a request's path leads to: a route and its parameters, or why there is none.

    `allowed` is empty when no route has the path (404), else the methods that it has (405).
    """

    __slots__ = ("allowed", "parameters", "route")

    def __init__(
        self, route: Route | None, parameters: dict[str, str], allowed: tuple[str, ...]
    ) -> None:
        self.route, self.parameters, self.allowed = route, parameters, allowed


_MISSING = Match(None, {}, ())


class RouteTable:
    """All routes. A fixed segment wins over a parameter; one trailing slash is ignored.

    Raises ValueError when two routes have the same method and path.
    """

    def __init__(self, routes: Iterable[Route]) -> None:
        self._root = _Node()
        self._fixed: dict[bytes, dict[str, Match]] = {}
        for route in routes:
            self._add(route)

    def _add(self, route: Route) -> None:
        node, names = self._root, []
        for segment in _segments(route.path):
            if segment.startswith("{"):
                names.append(segment[1:-1])
                if node.parameter is None:
                    node.parameter = _Node()
                node = node.parameter
            else:
                node = node.static.setdefault(segment, _Node())
        if route.method in node.methods:
            raise ValueError(f"{route!r} is declared twice")
        node.methods[route.method] = route
        node.names[route.method] = tuple(names)
        if not names:
            bare = route.path.rstrip("/").encode()
            for path in (bare, bare + b"/"):
                self._fixed.setdefault(path, {})[route.method] = Match(route, {}, ())

    def match(self, method: str, raw_path: bytes) -> Match:
        """Find the route of a request; `raw_path` is percent-encoded, without the query.

        A GET route answers HEAD too.
        """
        wanted = "GET" if method == "HEAD" else method
        fixed = self._fixed.get(raw_path)
        if fixed is not None and wanted in fixed:
            return fixed[wanted]
        try:
            segments = [unquote_to_bytes(part).decode() for part in raw_path.split(b"/")]
        except UnicodeDecodeError:
            return _MISSING
        if segments[0] or any(_unfit(segment) for segment in segments):
            return _MISSING
        segments = segments[1:]
        if segments and segments[-1] == "":
            segments.pop()
        found: list[tuple[_Node, list[str]]] = []
        _walk(self._root, segments, 0, [], found)
        allowed: set[str] = set()
        for node, values in found:
            if wanted in node.methods:
                parameters = dict(zip(node.names[wanted], values, strict=True))
                return Match(node.methods[wanted], parameters, ())
            allowed.update(node.methods)
        if "GET" in allowed:
            allowed.add("HEAD")
        return Match(None, {}, (*sorted(allowed), "OPTIONS")) if allowed else _MISSING


def _segments(path: str) -> list[str]:
    return [part for part in path.strip("/").split("/") if part]


def _unfit(segment: str) -> bool:
    # Postgres text holds no NUL, so no name of ours does either.
    return "\0" in segment or len(segment) > _MAX_SEGMENT


def _walk(
    node: _Node,
    segments: list[str],
    index: int,
    values: list[str],
    found: list[tuple[_Node, list[str]]],
) -> None:
    if index == len(segments):
        if node.methods:
            found.append((node, values))
        return
    segment = segments[index]
    fixed = node.static.get(segment)
    if fixed is not None:
        _walk(fixed, segments, index + 1, values, found)
    if node.parameter is not None and segment:
        _walk(node.parameter, segments, index + 1, [*values, segment], found)
