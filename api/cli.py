"""The `weir` commands that make and change credentials: `weir keys …` and `weir provision`.

`weir keys` is a client of the API: it acts as the API key that it finds, so that what it does is
decided, refused and audited like everybody else's. `weir provision` works on the servers that the
environment names, as the first start of an installation does.
"""

import asyncio
from pathlib import Path
from typing import Annotated, Any, NoReturn
from urllib.parse import quote

import typer

keys = typer.Typer(help="Issue, list and revoke API keys.", no_args_is_help=True)

Data = Annotated[
    Path, typer.Option("--data", help="Folder of a running `weir up`, to find its API and key by.")
]
Url = Annotated[str, typer.Option("--url", envvar="WEIR_URL", help="The API's address.")]
Key = Annotated[
    str, typer.Option("--api-key", envvar="WEIR_API_KEY", help="A key with the role admin.")
]
_TIMEOUT_SECONDS = 15.0


class CredentialsMissing(Exception):
    """Nothing says which API to call, or with which key; one line for a person."""


class RequestRefused(Exception):
    """The API said no, or could not be reached; one line for a person."""


@keys.command()
def issue(
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    *,
    role: Annotated[
        list[str], typer.Option("--role", help="admin, developer, compute, billing or viewer.")
    ] = ["developer"],  # noqa: B006 - Typer reads it, nothing changes it
    expires: Annotated[str, typer.Option("--expires", help="ISO 8601 instant.")] = "",
    data: Data = Path("data"),
    url: Url = "",
    api_key: Key = "",
) -> None:
    """Make a key and show it, this once."""
    body: dict[str, Any] = {"name": name, "roles": role}
    if expires:
        body["expires_at"] = expires
    made = _Keys(data, url, api_key).request("POST", body=body)
    _say(f"{made['key']}\n", bare=True)
    _say(f"{made['id']} ({', '.join(made['roles'])}): keep the key, it is not shown again")


@keys.command("list")
def list_(data: Data = Path("data"), url: Url = "", api_key: Key = "") -> None:
    """Show the tenant's keys, newest first."""
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for column in ("id", "name", "begins with", "roles", "created", "expires", "revoked"):
        # An id that is cut short cannot be copied.
        table.add_column(column, no_wrap=column in ("id", "begins with"))
    api, cursor = _Keys(data, url, api_key), ""
    while True:
        page = api.request("GET", f"?limit=100&cursor={cursor}")
        for item in page["data"]:
            table.add_row(
                item["id"],
                item["name"],
                item["prefix"],
                ", ".join(item["roles"]),
                item["created_at"],
                item["expires_at"] or "",
                item["revoked_at"] or "",
            )
        cursor = page["next_cursor"]
        if not cursor:
            break
    console = Console()
    (console if console.is_terminal else Console(width=200)).print(table)


@keys.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="The key's id, key_...")],
    data: Data = Path("data"),
    url: Url = "",
    api_key: Key = "",
) -> None:
    """Stop a key for good."""
    _Keys(data, url, api_key).request("DELETE", "/" + quote(key_id, safe=""))
    _say(f"{key_id} is revoked")


def provision(
    *,
    name: Annotated[str, typer.Option("--name", help="The tenant's name.")],
    email: Annotated[str, typer.Option("--email", help="The address its owner logs in with.")],
    out: Annotated[
        Path, typer.Option("--out", help="Where to write the credentials (mode 600).")
    ] = Path("credentials.json"),
) -> None:
    """Make a tenant, its owner and its first keys on the servers that the environment names."""
    from api.provision import connected, provision_tenant
    from infra.bootstrap import read_credentials, write_credentials
    from infra.config import load_settings

    settings, earlier = load_settings(), read_credentials(out)

    async def run() -> None:
        async with connected(settings) as installation:
            found = await provision_tenant(installation, name=name, email=email, earlier=earlier)
        write_credentials(out, found)

    asyncio.run(run())
    _say(f"the credentials of {name} are in {out}")


def register(app: typer.Typer) -> None:
    """Add these commands to the `weir` command."""
    app.add_typer(keys, name="keys")
    app.command()(provision)


class _Keys:
    """The API key endpoints, called with a key."""

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

    def request(self, method: str, path: str = "", body: Any = None) -> dict[str, Any]:
        """The decoded answer. Raises RequestRefused."""
        import httpx

        try:
            response = httpx.request(
                method,
                f"{self._url}/api/v1/api-keys{path}",
                json=body,
                headers={"X-Wax-Key": self._api_key},
                timeout=_TIMEOUT_SECONDS,
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


def _say(text: str, *, bare: bool = False) -> None:
    from rich.console import Console

    # What a script reads goes to standard output, what a person reads beside it.
    Console(stderr=not bare, highlight=False, soft_wrap=True).print(
        text, end="" if bare else "\n", markup=False
    )
