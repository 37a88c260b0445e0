"""The `weir` commands that make and change credentials: `weir keys …` and `weir provision`.

`weir keys` is a client of the API: it acts as the API key that it finds, so that what it does is
decided, refused and audited like everybody else's. `weir provision` works on the servers that the
environment names, as the first start of an installation does.
"""

import asyncio
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from api.calling import Api, Data, Url
from commands.billing.plans import PLANS, PlanCode

keys = typer.Typer(help="Issue, list, rotate and revoke API keys.", no_args_is_help=True)

Key = Annotated[
    str, typer.Option("--api-key", envvar="WEIR_API_KEY", help="A key with the role admin.")
]
_PATH = "/api/v1/api-keys"


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
    made = Api(data, url, api_key).request("POST", _PATH, body=body)
    _say(f"{made['key']}\n", bare=True)
    _say(f"{made['id']} ({', '.join(made['roles'])}): keep the key, it is not shown again")


@keys.command("list")
def list_(data: Data = Path("data"), url: Url = "", api_key: Key = "") -> None:
    """Show the tenant's keys, newest first."""
    from rich.console import Console
    from rich.table import Table

    table = Table()
    shown = ("id", "name", "begins with", "roles", "created", "last used", "expires", "revoked")
    for column in shown:
        # An id that is cut short cannot be copied.
        table.add_column(column, no_wrap=column in ("id", "begins with"))
    api, cursor = Api(data, url, api_key), ""
    while True:
        page = api.request("GET", f"{_PATH}?limit=100&cursor={cursor}")
        for item in page["data"]:
            table.add_row(
                item["id"],
                item["name"],
                item["prefix"],
                ", ".join(item["roles"]),
                item["created_at"],
                item["last_used_at"] or "",
                item["expires_at"] or "",
                item["revoked_at"] or "",
            )
        cursor = page["next_cursor"]
        if not cursor:
            break
    console = Console()
    (console if console.is_terminal else Console(width=200)).print(table)


@keys.command()
def rotate(
    key_id: Annotated[str, typer.Argument(help="The key's id, key_...")],
    *,
    grace: Annotated[
        int, typer.Option("--grace", min=0, help="Seconds for which the secret so far works.")
    ] = 86_400,
    data: Data = Path("data"),
    url: Url = "",
    api_key: Key = "",
) -> None:
    """Give a key another secret and show it, this once."""
    path = f"{_PATH}/{quote(key_id, safe='')}/rotate"
    made = Api(data, url, api_key).request("POST", path, body={"grace_seconds": grace})
    _say(f"{made['key']}\n", bare=True)
    _say(f"{key_id} has another secret; the one before works until {made['previous_valid_until']}")


@keys.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="The key's id, key_...")],
    data: Data = Path("data"),
    url: Url = "",
    api_key: Key = "",
) -> None:
    """Stop a key for good."""
    Api(data, url, api_key).request("DELETE", f"{_PATH}/{quote(key_id, safe='')}")
    _say(f"{key_id} is revoked")


def provision(
    *,
    name: Annotated[str, typer.Option("--name", help="The tenant's name.")],
    email: Annotated[str, typer.Option("--email", help="The address its owner logs in with.")],
    out: Annotated[
        Path, typer.Option("--out", help="Where to write the credentials (mode 600).")
    ] = Path("credentials.json"),
    plan: Annotated[
        str, typer.Option("--plan", help="The plan agreed upon, e.g. enterprise.")
    ] = "",
) -> None:
    """Make a tenant, its owner and its first keys on the servers that the environment names."""
    from api.provision import connected, provision_tenant
    from infra.bootstrap import read_credentials, write_credentials
    from infra.config import load_settings

    settings, earlier = load_settings(), read_credentials(out)

    async def run() -> None:
        async with connected(settings) as installation:
            found = await provision_tenant(
                installation, name=name, email=email, earlier=earlier, plan=_plan(plan)
            )
        write_credentials(out, found)

    asyncio.run(run())
    _say(f"the credentials of {name} are in {out}")


def _plan(code: str) -> PlanCode | None:
    """A plan's code, None for an empty one. Raises typer.BadParameter."""
    if not code:
        return None
    for known in PLANS:
        if known == code:
            return known
    raise typer.BadParameter(f"plans are {', '.join(PLANS)}", param_hint="--plan")


def register(app: typer.Typer) -> None:
    """Add these commands to the `weir` command."""
    app.add_typer(keys, name="keys")
    app.command()(provision)


def _say(text: str, *, bare: bool = False) -> None:
    from rich.console import Console

    # What a script reads goes to standard output, what a person reads beside it.
    Console(stderr=not bare, highlight=False, soft_wrap=True).print(
        text, end="" if bare else "\n", markup=False
    )
