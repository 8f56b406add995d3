"""`klake shell`: SQL, line by line, over the views; a statement ends with a semicolon."""

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import typer

from ..errors import BadRequest
from .rows import put
from .session import Session, session_of
from .sql import answer

if TYPE_CHECKING:
    from ..research.lake import Lake

__all__ = ["shell"]

_HELP = (
    "A statement ends with `;`. .tables lists the views, .help says this again, .quit (or Ctrl-D) leaves.\n"
    "Each statement sees the newest commit."
)


def shell(ctx: typer.Context) -> int:
    """Ask the lake in SQL, statement by statement; reads stdin when it is no terminal."""
    session = session_of(ctx)
    with session.lake() as lake:
        seen = sys.stdin.isatty()
        if seen:
            session.say(f"{lake!r}\n{_HELP}")
        with _History(seen):
            failed = 0
            for statement in _statements(seen):
                failed += not _answered(session, lake, statement)
    return 1 if failed and not seen else 0


def _answered(session: Session, lake: "Lake", statement: str) -> bool:
    """Print what a statement answers; False when it is wrong."""
    if statement in {".help", "help"}:
        print(_HELP)
        return True
    if statement == ".tables":
        statement = "SELECT view_name FROM duckdb_views() WHERE NOT internal ORDER BY 1"
    try:
        found = answer(lake, statement)
        if found is not None:
            put(found, "table", "")
    except BadRequest as error:
        print(f"klake: {error.hint or error}", file=sys.stderr)
        return False
    return True


def _statements(seen: bool) -> Iterator[str]:
    """Yield statements; Ctrl-C on a terminal drops what was typed so far."""
    held: list[str] = []
    while True:
        try:
            line = input(("   ...> " if held else "klake> ") if seen else "")
        except EOFError:
            break
        except KeyboardInterrupt:
            if not seen:
                raise
            held.clear()
            print(file=sys.stderr)
            continue
        text = line.strip()
        if not held and text in {".quit", ".exit", "quit", "exit"}:
            return
        if not held and text.startswith("."):
            yield text
            continue
        if text:
            held.append(line)
        if text.endswith(";"):
            yield "\n".join(held)
            held.clear()
    if held:
        yield "\n".join(held)


class _History:
    """Keeps what was typed for the next time, where readline and a home directory are there."""

    def __init__(self, seen: bool) -> None:
        self._seen = seen
        self._readline: Any = None
        self._file = ""

    def __enter__(self) -> None:
        if not self._seen:
            return
        with suppress(ImportError, OSError):
            import readline

            import platformdirs

            folder = platformdirs.user_state_path("klake", False)
            folder.mkdir(parents=True, exist_ok=True)
            self._file = os.fspath(folder / "shell_history")
            self._readline = readline
            with suppress(FileNotFoundError):
                readline.read_history_file(self._file)

    def __exit__(self, *_: object) -> None:
        if self._readline is not None:
            with suppress(OSError):
                self._readline.set_history_length(2000)
                self._readline.write_history_file(self._file)
