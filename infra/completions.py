"""Chat completions of any server that speaks OpenAI's protocol, asked for through OpenAI's client.

Everything is bounded: how long an answer may take, how large it may be, how many are waited for at
once, of one tenant and in all. Nothing is asked twice: whether to try again is up to who asked.
The client is loaded when it is first needed, since it is large and most processes never need it.
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, cast

import httpx
import msgspec
from msgspec import Meta, Struct

from infra.egress import AddressRefused, AnswerRefused, egress_client

if TYPE_CHECKING:
    import openai

ANSWER_SECONDS = 120.0
ANSWER_BYTES_MAX = 2 * 1024 * 1024
AT_ONCE_MAX = 100
AT_ONCE_OF_ONE_MAX = 20
_CONNECT_SECONDS = 10.0
_HEADERS_SENT = {
    "accept",
    "accept-encoding",
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "host",
    "user-agent",
}
_TOLD_CHARACTERS = 1_000
_NAME_CHARACTERS = 200
_KEY_CHARACTERS = 8  # what is shorter is no key, and may be a part of any word

TokenCount = Annotated[int, Meta(ge=0, le=1_000_000_000_000)]


class CompletionFailed(Exception):
    """No completion came; the text says why, for people, and holds no key. latency_ms: how long it
    was waited for."""

    def __init__(self, told: str, latency_ms: int) -> None:
        super().__init__(told)
        self.latency_ms = latency_ms


class TooManyAtOnce(Exception):
    """More completions are waited for than may be; the request may be repeated."""

    retry_after = 5


class Provider(Struct, frozen=True):
    """A server and the key that it takes."""

    base_url: str
    api_key: str


class Question(Struct, frozen=True):
    """What a model is asked. messages: objects with `role` and `content`."""

    model: str
    messages: Sequence[Mapping[str, Any]]
    temperature: float
    max_tokens: int


class Completion(Struct, frozen=True):
    """What a model answered. Counts are 0 where the server gave none; model: as it calls itself.

    latency_ms: from the question to the end of the answer.
    """

    output: str
    tokens_in: int
    tokens_out: int
    model: str
    finish_reason: str
    latency_ms: int


class _Message(Struct):
    content: str | None = None


class _Choice(Struct):
    message: _Message
    finish_reason: str | None = None


class _Usage(Struct):
    prompt_tokens: TokenCount | None = 0
    completion_tokens: TokenCount | None = 0


class _Answer(Struct):
    choices: Annotated[list[_Choice], Meta(min_length=1)]
    model: str | None = ""
    usage: _Usage | None = None


class Completions:
    """The completions of one process; all of it on one event loop.

    allowed: networks that may be reached although they are not public. seconds: for how long an
    answer is waited.
    """

    def __init__(self, allowed: Iterable[str] = (), *, seconds: float = ANSWER_SECONDS) -> None:
        self._allowed, self._seconds = tuple(allowed), seconds
        self._opening: asyncio.Task[openai.AsyncOpenAI] | None = None
        self._waited: Counter[str] = Counter()

    @contextlib.contextmanager
    def reserved(self, owner: str, calls: int) -> Iterator[None]:
        """Room for so many completions of an owner. Raises TooManyAtOnce when there is none."""
        waited = self._waited
        if waited[owner] + calls > AT_ONCE_OF_ONE_MAX or waited.total() + calls > AT_ONCE_MAX:
            raise TooManyAtOnce
        waited[owner] += calls
        try:
            yield
        finally:
            waited[owner] -= calls
            if not waited[owner]:
                del waited[owner]

    async def complete(self, provider: Provider, question: Question) -> Completion:
        """Ask once. Raises CompletionFailed."""
        client = (await self._client()).with_options(
            base_url=provider.base_url,
            api_key=provider.api_key,
            # Else one of the environment's would be sent instead.
            default_headers={"Authorization": f"Bearer {provider.api_key}"},
        )
        began = time.perf_counter()
        try:
            async with asyncio.timeout(self._seconds):
                raw = await client.chat.completions.with_raw_response.create(
                    model=question.model,
                    messages=cast("Any", question.messages),
                    temperature=question.temperature,
                    max_tokens=question.max_tokens,
                )
            answer = msgspec.json.decode(raw.content, type=_Answer)
        except Exception as error:
            raise CompletionFailed(self._told(error, provider.api_key), _since(began)) from None
        usage, choice = answer.usage or _Usage(), answer.choices[0]
        return Completion(
            output=choice.message.content or "",
            tokens_in=usage.prompt_tokens or 0,
            tokens_out=usage.completion_tokens or 0,
            model=(answer.model or "")[:_NAME_CHARACTERS],
            finish_reason=(choice.finish_reason or "")[:_NAME_CHARACTERS],
            latency_ms=_since(began),
        )

    async def close(self) -> None:
        """Let the connections go."""
        if self._opening is not None:
            await (await self._opening).close()

    async def _client(self) -> "openai.AsyncOpenAI":
        if self._opening is None:
            self._opening = asyncio.create_task(asyncio.to_thread(self._open))
        return await asyncio.shield(self._opening)

    def _open(self) -> "openai.AsyncOpenAI":
        import openai

        client = egress_client(
            self._allowed,
            answer_bytes_max=ANSWER_BYTES_MAX,
            timeout=httpx.Timeout(self._seconds, connect=min(_CONNECT_SECONDS, self._seconds)),
        )
        client.event_hooks = {"request": [_without_ours]}
        return openai.AsyncOpenAI(
            api_key="none",
            base_url="http://provider.invalid",
            http_client=cast("Any", client),
            max_retries=0,
        )

    def _told(self, error: Exception, key: str) -> str:
        """What went wrong, for people. Raises the error again if it is a bug of ours."""
        import openai

        match error:
            case openai.APIStatusError():
                return f"The provider answered {error.status_code}: {_reason(error, key)}"
            case TimeoutError() | openai.APITimeoutError():
                return f"The provider did not answer within {self._seconds:g} s"
            case openai.APIConnectionError() if isinstance(error.__cause__, AddressRefused):
                return (
                    "The provider's address is not public, and not among those that "
                    "WEIR_EGRESS_ALLOW names"
                )
            case openai.APIConnectionError() if isinstance(error.__cause__, AnswerRefused):
                return f"The provider sent {error.__cause__}"
            case openai.APIConnectionError():
                return f"The provider cannot be reached: {error.__cause__ or error}"
            case msgspec.DecodeError() | UnicodeDecodeError() | RecursionError():
                return "The provider's answer is no chat completion"
        raise error


async def _without_ours(request: httpx.Request) -> None:
    """Take out what the environment tells the client to add: the server is a tenant's."""
    for name in set(request.headers) - _HEADERS_SENT:
        if not name.startswith("x-stainless-"):  # the client's own, which it also reads itself
            del request.headers[name]


def _reason(error: "openai.APIStatusError", key: str) -> str:
    """The provider's own words without its key: the message of its error, else what it sent."""
    body = error.body
    said = body.get("message") if isinstance(body, Mapping) else None
    text = said if isinstance(said, str) and said else error.response.text
    if len(key) >= _KEY_CHARACTERS:
        text = text.replace(key, "[the key]")
    # A JSON text may hold half a character, which can't be written.
    return text[:_TOLD_CHARACTERS].encode(errors="replace").decode() or "nothing more"


def _since(began: float) -> int:
    return round((time.perf_counter() - began) * 1000)
