"""A server that speaks OpenAI's chat completions protocol, plain and streamed, and embeddings.

It answers every question with `ANSWER`, and counts tokens as the constants say.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

MODEL, SERVED_MODEL = "gpt-4o-mini", "gpt-4o-mini-2024-07-18"
ANSWER = "It ships on Monday."
TOKENS_IN, TOKENS_OUT = 17, 6
USAGE = {
    "prompt_tokens": TOKENS_IN,
    "completion_tokens": TOKENS_OUT,
    "total_tokens": TOKENS_IN + TOKENS_OUT,
}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/v1/embeddings":
            usage = {"prompt_tokens": TOKENS_IN, "total_tokens": TOKENS_IN}
            vectors = [{"object": "embedding", "index": 0, "embedding": [0.25, -0.5]}]
            self._json({"object": "list", "model": MODEL, "data": vectors, "usage": usage})
        elif self.path != "/v1/chat/completions":
            self.send_error(404)
        elif asked.get("stream"):
            self._send("text/event-stream", b"".join(_chunks()))
        else:
            self._json(_completion())

    def _json(self, document: Any) -> None:
        self._send("application/json", json.dumps(document).encode())

    def _send(self, media_type: str, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def _completion() -> dict[str, Any]:
    message = {"role": "assistant", "content": ANSWER, "refusal": None}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": SERVED_MODEL,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}],
        "usage": USAGE,
    }


def _chunks() -> Iterator[bytes]:
    head = {
        "id": "chatcmpl-2",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": SERVED_MODEL,
    }
    deltas = [{"role": "assistant", "content": ""}, *({"content": w + " "} for w in ANSWER.split())]
    for delta in deltas:
        choice = {"index": 0, "delta": delta, "finish_reason": None}
        yield _event({**head, "choices": [choice], "usage": None})
    choice = {"index": 0, "delta": {}, "finish_reason": "stop"}
    yield _event({**head, "choices": [choice], "usage": None})
    yield _event({**head, "choices": [], "usage": USAGE})
    yield b"data: [DONE]\n\n"


def _event(document: Any) -> bytes:
    return f"data: {json.dumps(document)}\n\n".encode()


@contextmanager
def openai_server() -> Iterator[str]:
    """The server, as the base URL for a client."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
