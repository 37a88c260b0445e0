"""The route table: a path's segments to the routes that have it, built once."""

from collections.abc import Iterable
from urllib.parse import unquote_to_bytes

from api.routing import Route

_MAX_SEGMENT = 1024  # bytes of one decoded path parameter; no name of ours is longer


class _Node:
    __slots__ = ("methods", "names", "parameter", "rest", "static")

    def __init__(self) -> None:
        self.static: dict[str, _Node] = {}
        self.parameter: _Node | None = None
        self.rest: _Node | None = None  # of a parameter that takes what is left
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
    """All routes. A fixed segment wins over a parameter, that over one that takes the whole rest;
    one trailing slash is ignored.

    Raises ValueError when two routes have the same method and path.
    """

    def __init__(self, routes: Iterable[Route]) -> None:
        self._root = _Node()
        self._fixed: dict[bytes, dict[str, Match]] = {}
        for route in routes:
            self._add(route)

    def _add(self, route: Route) -> None:
        node, names = self._root, []
        segments = _segments(route.path)
        for index, segment in enumerate(segments):
            if segment.startswith("{"):
                names.append(segment[1:-1])
                if route.rest and index == len(segments) - 1:
                    node.rest = node = node.rest or _Node()
                    continue
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
            for path in {bare or b"/", bare + b"/"}:
                self._fixed.setdefault(path, {})[route.method] = Match(route, {}, ())

    def match(self, method: str, raw_path: bytes) -> Match:
        """Find the route of a request; `raw_path` is percent-encoded, without the query.

        A GET route answers HEAD too.
        """
        wanted = "GET" if method == "HEAD" else method
        fixed = self._fixed.get(raw_path)
        if fixed is not None and wanted in fixed:
            return fixed[wanted]
        segments = _decoded(raw_path)
        if segments is None:
            return _MISSING
        values: list[str] = []
        node = _straight(self._root, segments, values)
        if node is None or wanted not in node.methods:
            values.clear()
            node = _find(self._root, segments, 0, values, wanted)
        if node is not None:
            names = node.names[wanted]
            return Match(node.methods[wanted], dict(zip(names, values, strict=True)), ())
        allowed: set[str] = set()
        _collect(self._root, segments, 0, allowed)
        if "GET" in allowed:
            allowed.add("HEAD")
        return Match(None, {}, (*sorted(allowed), "OPTIONS")) if allowed else _MISSING


def _segments(path: str) -> list[str]:
    return [part for part in path.strip("/").split("/") if part]


def _decoded(raw_path: bytes) -> list[str] | None:
    """The path's segments, percent-decoded each by itself; None for what can be no path of ours."""
    if not raw_path.startswith(b"/"):
        return None
    try:
        if b"%" in raw_path:
            # Only after the split: an encoded slash belongs to a name.
            segments = [unquote_to_bytes(part).decode() for part in raw_path.split(b"/")]
        else:
            segments = raw_path.decode().split("/")
    except UnicodeDecodeError:
        return None
    # Postgres text holds no NUL, so no name of ours does either.
    if b"%00" in raw_path or b"\0" in raw_path:
        return None
    if len(raw_path) > _MAX_SEGMENT and any(len(item) > _MAX_SEGMENT for item in segments):
        return None
    del segments[0]
    if segments and segments[-1] == "":
        segments.pop()
    return segments


def _straight(node: _Node, segments: list[str], values: list[str]) -> _Node | None:
    """The node that the path leads to when no choice has to be taken back: nearly always."""
    for index, segment in enumerate(segments):
        fixed = node.static.get(segment)
        if fixed is not None:
            node = fixed
        elif node.parameter is not None and segment:
            values.append(segment)
            node = node.parameter
        else:
            return _rest(node, segments, index, values)
    return node


def _rest(node: _Node, segments: list[str], index: int, values: list[str]) -> _Node | None:
    """The node whose parameter takes all segments from `index` on, if there is one."""
    left = "/".join(segments[index:])
    if node.rest is None or not left:
        return None
    values.append(left)
    return node.rest


def _find(
    node: _Node, segments: list[str], index: int, values: list[str], method: str
) -> _Node | None:
    """The node of a path that has the method; `values` gets the parameters on the way."""
    if index == len(segments):
        return node if method in node.methods else None
    segment = segments[index]
    fixed = node.static.get(segment)
    if fixed is not None:
        found = _find(fixed, segments, index + 1, values, method)
        if found is not None:
            return found
    if node.parameter is not None and segment:
        values.append(segment)
        found = _find(node.parameter, segments, index + 1, values, method)
        if found is not None:
            return found
        values.pop()
    if node.rest is not None and method in node.rest.methods:
        return _rest(node, segments, index, values)
    return None


def _collect(node: _Node, segments: list[str], index: int, methods: set[str]) -> None:
    """Every method that the path has."""
    if index == len(segments):
        methods.update(node.methods)
        return
    segment = segments[index]
    fixed = node.static.get(segment)
    if fixed is not None:
        _collect(fixed, segments, index + 1, methods)
    if node.parameter is not None and segment:
        _collect(node.parameter, segments, index + 1, methods)
    if node.rest is not None and any(segments[index:]):
        methods.update(node.rest.methods)
