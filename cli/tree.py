"""The tree of verbs: what `klake --help` shows, and how one line of it is run."""

import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any, cast

import typer
from typer.core import TyperGroup

from . import (
    bars,
    bring,
    collect,
    compact,
    demo,
    doctor,
    history,
    init,
    plan,
    replay,
    sandbox,
    shell,
    sql,
    status,
    symbols,
    sync,
    vacuum,
    vendors,
    views,
)  # fmt: skip
from .session import Session

__all__ = ["app", "invoke"]

_WRONG_USE = cast("type[Exception]", typer.BadParameter.__base__)  # UsageError, which typer does not export

_SECTIONS = {
    "Begin": ("init", "demo", "doctor", "vendors", "symbols"),
    "Fill the lake": ("plan", "sync", "status", "import", "collect", "replay"),
    "Ask it": ("sql", "shell", "bars", "views"),
    "Keep it": ("compact", "vacuum", "history"),
    "Practise": ("sandbox",),
}


class _Sections(TyperGroup):
    """Lists the verbs under headings, in the order in which one meets them."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the sections."""
        for title, names in _SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(n, self.commands[n].get_short_help_str(limit=90)) for n in names])


app = typer.Typer(
    cls=_Sections, rich_markup_mode=None, pretty_exceptions_enable=False, no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Data goes to stdout, talk to stderr. Exit 0: done, 1: some work failed, 2: wrong use or "
    "configuration, 3: interrupted, run it again. KLAKE_LANG=zh: errors and the talk of plan, sync, status and demo in Chinese.",
)  # fmt: skip


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"klake {version('klake')}")
        raise typer.Exit


@app.callback()
def _root(
    ctx: typer.Context,
    config: Annotated[
        str | None, typer.Option("--config", metavar="FILE", help="Default: the nearest klake.toml upwards, else the environment.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:  # fmt: skip
    """K-lines from your vendors, kept in a lake of your own: sync, SQL, DataFrames."""
    ctx.obj = session = Session(config, quiet)
    ctx.call_on_close(session.close)


app.command("init")(init.init)
app.command("demo")(demo.demo)
app.command("doctor")(doctor.doctor)
app.command("plan")(plan.plan)
app.command("sync")(sync.sync)
app.command("status")(status.status)
app.command("import")(bring.bring)
app.command("collect")(collect.collect)
app.command("replay")(replay.replay)
app.command("sql")(sql.sql)
app.command("shell")(shell.shell)
app.command("bars")(bars.bars)
app.command("views")(views.views)
app.command("compact")(compact.compact)
app.command("vacuum")(vacuum.vacuum)
app.command("history")(history.history)
app.add_typer(vendors.app, name="vendors")
app.add_typer(symbols.app, name="symbols")
app.add_typer(sandbox.app, name="sandbox")


def invoke(argv: Sequence[str]) -> int:
    """Run one command line and return its exit code.

    Wrong use is one sentence on stderr and exit 2; every other error is the caller's.
    """
    command = typer.main.get_command(app)
    if "_KLAKE_COMPLETE" in os.environ:  # the shell asks what could come next
        command.main(prog_name="klake")
    try:
        with command.make_context("klake", list(argv)) as ctx:
            result = command.invoke(ctx)
    except typer.Exit as leave:
        return leave.exit_code
    except _WRONG_USE as error:
        return _misused(error)
    return result if isinstance(result, int) else 0


def _misused(error: Any) -> int:
    text = " ".join(str(error.format_message()).split())
    ctx = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        print(error.format_message(), file=sys.stderr)
        return 2
    path = ctx.command_path if ctx is not None else "klake"
    print(f"klake: {text.rstrip('.')}: see `{path} --help`", file=sys.stderr)
    return 2
