"""What the documents use of curl, for machines that have none: `python -m tests.docs.curl …`."""

import argparse
import sys
from pathlib import Path

import httpx

FAILED = 22  # as curl ends for an HTTP error under --fail


def main() -> None:
    """Send one request and write its answer as curl would."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for flag in ("-f", "-s", "-S"):
        parser.add_argument(flag, action="store_true")
    parser.add_argument("-H", action="append", default=[])
    parser.add_argument("-X")
    parser.add_argument("-d")
    parser.add_argument("-D", choices=["-"])
    parser.add_argument("-o")
    parser.add_argument("-w", default="")
    parser.add_argument("url")
    asked = parser.parse_args()
    answer = httpx.request(
        asked.X or ("GET" if asked.d is None else "POST"),
        asked.url,
        headers=[tuple(header.split(": ", 1)) for header in asked.H],
        content=asked.d,
        timeout=90,
    )
    if asked.f and answer.is_error:
        sys.exit(f"curl: ({FAILED}) The requested URL returned error: {answer.status_code}")
    out = sys.stdout.buffer
    if asked.D:
        lines = [
            f"HTTP/1.1 {answer.status_code}",
            *(f"{k}: {v}" for k, v in answer.headers.items()),
        ]
        out.write(("\r\n".join([*lines, "", ""])).encode())
    if asked.o:
        Path(asked.o).write_bytes(answer.content)
    else:
        out.write(answer.content)
    written = asked.w.replace("%{http_code}", str(answer.status_code)).replace("\\n", "\n")
    out.write(written.encode())


if __name__ == "__main__":
    main()
