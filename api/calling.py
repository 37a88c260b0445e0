"""The API as the command line calls it: with a key, and with one line for each mistake."""

from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

Data = Annotated[
    Path, typer.Option("--data", help="Folder of a running `weir up`, to find its API and key by.")
]
Url = Annotated[str, typer.Option("--url", envvar="WEIR_URL", help="The API's address.")]

_TIMEOUT_SECONDS = 15.0


class CredentialsMissing(Exception):
    """Nothing says which API to call, or with which key; one line for a person."""


class RequestRefused(Exception):
    """The API said no, or could not be reached; one line for a person."""


class Api:
    """The API, called with a key."""

    def __init__(self, data: Path, url: str, api_key: str) -> None:
        """As given, else as the stack's folder says. Raises CredentialsMissing."""
        from infra.bootstrap import read_credentials

        if not (url and api_key):
            found = read_credentials(data / "credentials.json")
            if found is None:
                raise CredentialsMissing(
                    "set WEIR_URL and WEIR_API_KEY, or name a stack's folder with --data "
                    f"({data} is none)"
                )
            url, api_key = url or found.url, api_key or found.api_key
        self._url, self._api_key = url.rstrip("/"), api_key

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content: bytes | None = None,
        headers: dict[str, str] | None = None,
        timeout: float = _TIMEOUT_SECONDS,
    ) -> dict[str, Any]:
        """The decoded answer. body: sent as JSON; content: as it is. Raises RequestRefused."""
        import httpx

        try:
            response = httpx.request(
                method,
                self._url + path,
                json=body,
                content=content,
                headers={"X-Wax-Key": self._api_key, **(headers or {})},
                timeout=timeout,
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise RequestRefused(f"{self._url} cannot be reached: {error}") from error
        if not response.is_success:
            _refused(response.status_code, response.text)
        answer: dict[str, Any] = response.json() if response.content else {}
        return answer


def _refused(status: int, text: str) -> NoReturn:
    import msgspec

    try:
        error = msgspec.json.decode(text)["error"]
        message = f"{error['message']} (request {error['request_id']})"
    except (msgspec.DecodeError, KeyError, TypeError):
        message = text[:200]
    raise RequestRefused(f"{status}: {message}")
