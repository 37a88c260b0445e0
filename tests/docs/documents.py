"""The documents of the repository, taken apart: code blocks, links, generated parts.

A fenced block of `sh` or `python` is run by the tests. One that cannot be says why in its info
string: ```` ```sh not-run="needs a cluster" ````. Blocks of other languages are only read.
"""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
RUN = ("sh", "python")

_FENCE = re.compile(r"^(```+)([^\n`]*)\n(.*?)^\1[ \t]*$", re.M | re.S)
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.*)$", re.M)
_PART = re.compile(r"<!-- begin (\w+) -->\n(.*?)<!-- end \1 -->", re.S)


class Block(NamedTuple):
    """A fenced block. line: of its first line of code; reason: why it is not run, or nothing."""

    language: str
    text: str
    line: int
    reason: str

    @property
    def runs(self) -> bool:
        return self.language in RUN and not self.reason


def documents() -> list[Path]:
    """Every document that people read, READMEs at the domains' doors included."""
    found = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")]
    doors = [*(ROOT / "commands").rglob("README.md"), ROOT / "examples" / "README.md"]
    return sorted([*found, *doors])


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(path: Path) -> list[Block]:
    """The fenced blocks of a document, in order."""
    text, found = path.read_text(), []
    for match in _FENCE.finditer(text):
        language, _, info = match[2].strip().partition(" ")
        reason = re.fullmatch(r'not-run="([^"]+)"', info.strip())
        assert reason or not info, f"{name_of(path)}: {match[2]!r} is no info string of ours"
        line = text.count("\n", 0, match.start(3)) + 1
        found.append(Block(language, match[3], line, reason[1] if reason else ""))
    return found


def prose(path: Path) -> str:
    """A document without its fenced blocks."""
    return _FENCE.sub("", path.read_text())


def links(path: Path) -> list[str]:
    """Where the document's links go."""
    return _LINK.findall(prose(path))


def anchors(path: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    kept = (re.sub(r"[^\w\- ]", "", title.lower()) for title in _HEADING.findall(prose(path)))
    return {title.strip().replace(" ", "-") for title in kept}


def commands(path: Path) -> list[str]:
    """Every line of shell in a document, continued lines joined; those not run, too."""
    found = []
    for block in blocks(path):
        if block.language == "sh":
            text = re.sub(r"\\\n\s*", " ", block.text)
            found += [line for line in text.splitlines() if line and not line.startswith("#")]
    return found


def generated(text: str) -> dict[str, str]:
    """The parts of a document that are made from the code, by name."""
    return dict(_PART.findall(text))


def with_generated(text: str, parts: dict[str, str]) -> str:
    """The document with its generated parts as they should be."""

    def made(match: "re.Match[str]") -> str:
        return f"<!-- begin {match[1]} -->\n{parts[match[1]]}<!-- end {match[1]} -->"

    return _PART.sub(made, text)
