"""The `weir` command. Each command is a few lines here; what it does lives in a module of its own.

Modules are imported inside the commands, so that `weir --help` is quick and a broken installation
can still run `weir doctor`.
"""

import os
import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="weir",
    help="The control plane for AI agents, on a log.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
Data = Annotated[Path, typer.Option("--data", help="Folder that holds everything the stack keeps.")]


@app.command()
def up(
    data: Data = Path("data"),
    port: Annotated[
        int | None, typer.Option("--port", min=1, max=65535, help="Port of the API.")
    ] = None,
) -> None:
    """Start everything on this machine and stop it on Ctrl-C."""
    from infra.bootstrap import find_provision
    from infra.up import up as run_up

    run_up(data, port, find_provision())


@app.command()
def demo(
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Folder to keep the data in (default: a temporary one)."),
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the stack running until Ctrl-C.")
    ] = False,
) -> None:
    """Run the main job on a stack of its own, from an agent's run to a verified replay."""
    from infra.bootstrap import find_provision
    from infra.demo import demo as run_demo

    run_demo(data, keep, find_provision())


@app.command()
def run(
    roles: Annotated[list[str], typer.Argument(help="api decider analytics streams ...")],
) -> None:
    """Play one role, or several in one process, on the servers that the environment names."""
    from infra import logs
    from infra.config import load_settings
    from infra.roles import check_roles, play

    check_roles(roles)
    settings = load_settings()
    logs.configure(settings.log_level, settings.log_format)
    play(roles, settings)


@app.command()
def setup() -> None:
    """Create what is missing on the servers that the environment names: the topics."""
    import asyncio

    from infra.bootstrap import prepare
    from infra.config import load_settings

    created = asyncio.run(prepare(load_settings()))
    typer.echo(f"created {', '.join(created)}" if created else "all topics were there")


@app.command()
def doctor(
    data: Annotated[Path, typer.Option(help="Folder of a `weir up` to look at, too.")] = Path(
        "data"
    ),
) -> None:
    """Say what is wrong with this installation, in plain words."""
    from infra.doctor import examine, show

    raise typer.Exit(show(examine(data)))


def compose() -> typer.Typer:
    """The whole command line: the commands here and those that other packages bring.

    Raises ImportError when the installation lacks something.
    """
    from api.cli import register as register_credential_commands
    from api.fhe.cli import register as register_computing_commands
    from streams.cli import register as register_log_commands

    register_log_commands(app)
    register_credential_commands(app)
    register_computing_commands(app)
    return app


@app.command()
def openapi() -> None:
    """Print the OpenAPI 3.1 document of the API."""
    from infra.gen import openapi_files

    for text in openapi_files().values():
        sys.stdout.write(text)


def one_line(error: BaseException) -> str:
    """What went wrong, for a person: the error's own text on one line, or its kind."""
    text = " ".join(str(error).split())
    return text or type(error).__name__


def main() -> None:
    """Run the command line. A mistake costs one clear line and a non-zero exit, no traceback.

    `WEIR_DEBUG=1` adds the traceback, for those who repair Weir itself.
    """
    try:
        # What is broken elsewhere must not keep the doctor from saying so, and a role that starts
        # loads what it needs and no more.
        commands = app if sys.argv[1:2] in (["doctor"], ["run"]) else compose()
        code = commands(sys.argv[1:] or ["--help"], prog_name="weir", standalone_mode=False)
    except typer.TyperException as error:
        message = " ".join(error.format_message().split())
        print(f"weir: {message} (see weir --help)", file=sys.stderr)
        code = error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except BrokenPipeError:
        # Whoever read our output has gone (`weir tail | head`); nothing can be said to them.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except ImportError as error:
        print(f"weir: {one_line(error)}: run `make install`, then `weir doctor`", file=sys.stderr)
        code = 1
    except Exception as error:
        if os.environ.get("WEIR_DEBUG"):
            traceback.print_exc()
        print(f"weir: {one_line(error)}", file=sys.stderr)
        code = 1
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
