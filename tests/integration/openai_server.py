"""A server that speaks OpenAI's chat completions protocol, plain and streamed, and embeddings.

It answers every question with `ANSWER`, and counts tokens as the constants say, unless a test says
what else to send (`answering`).
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, NamedTuple

MODEL, SERVED_MODEL = "gpt-4o-mini", "gpt-4o-mini-2024-07-18"
ANSWER = "It ships on Monday."
TOKENS_IN, TOKENS_OUT = 17, 6
USAGE = {
    "prompt_tokens": TOKENS_IN,
    "completion_tokens": TOKENS_OUT,
    "total_tokens": TOKENS_IN + TOKENS_OUT,
}


class Asked(NamedTuple):
    """A request: its body, and its headers by their names in lower case."""

    body: dict[str, Any]
    headers: Mapping[str, str]


class Sent(NamedTuple):
    """An answer."""

    status: int
    body: bytes
    media_type: str = "application/json"


Answering = Callable[[Asked], Sent]
"""What to send to a question of the chat. It may wait: each request has a thread of its own."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    answering: Answering

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/v1/embeddings":
            usage = {"prompt_tokens": TOKENS_IN, "total_tokens": TOKENS_IN}
            vectors = [{"object": "embedding", "index": 0, "embedding": [0.25, -0.5]}]
            found = {"object": "list", "model": MODEL, "data": vectors, "usage": usage}
            self._send(json_sent(found))
        elif self.path != "/v1/chat/completions":
            self.send_error(404)
        else:
            headers = {name.lower(): value for name, value in self.headers.items()}
            self._send(self.answering(Asked(body, headers)))

    def _send(self, sent: Sent) -> None:
        try:
            self.send_response(sent.status)
            self.send_header("Content-Type", sent.media_type)
            self.send_header("Content-Length", str(len(sent.body)))
            self.end_headers()
            self.wfile.write(sent.body)
        except ConnectionError:
            self.close_connection = True  # who asked has waited long enough

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def json_sent(document: Any, status: int = 200) -> Sent:
    """An answer in JSON."""
    return Sent(status, json.dumps(document).encode())


def refused(status: int, message: str) -> Sent:
    """An error as OpenAI tells it."""
    error = {"message": message, "type": "some_error", "param": None, "code": None}
    return json_sent({"error": error}, status)


def answered(asked: Asked) -> Sent:
    """What it answers when nobody says otherwise."""
    if asked.body.get("stream"):
        return Sent(200, b"".join(_chunks()), "text/event-stream")
    return json_sent(completion())


def completion(answer: str | None = ANSWER) -> dict[str, Any]:
    """A chat completion."""
    message = {"role": "assistant", "content": answer, "refusal": None}
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
def openai_server(answering: Answering = answered) -> Iterator[str]:
    """The server, as the base URL for a client."""
    handler = type("Handler", (_Handler,), {"answering": staticmethod(answering)})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
