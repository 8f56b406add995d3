"""The door of the command line: runs one verb and turns whatever happens into an exit code.

0 done, 1 some work failed, 2 wrong use or configuration, 3 interrupted and resumable. This is
the only place that catches everything; it imports nothing heavy, so that Ctrl-C is answered
from the first moment on.
"""

import errno
import os
import shlex
import signal
import sys
import warnings
from collections.abc import Sequence
from io import TextIOWrapper
from typing import Final, NoReturn

from ..errors import Interrupted, KlakeError

__all__ = ["main", "run"]

_STOPS: Final[list[int]] = []
"""Signals that asked this process to stop."""


def main() -> NoReturn:
    """Run the verb that the command line names, and leave the process with its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a GBK or ASCII console must never stop a verb
            stream.reconfigure(errors="replace")
    _listen()
    code = run(sys.argv[1:])
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # from here on there is nothing left to stop
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            _to_nowhere(stream)
    sys.exit(code)


def run(argv: Sequence[str]) -> int:
    """Run one command line and return its exit code; what goes wrong is one sentence on stderr."""
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warned
            from .tree import invoke

            code = invoke(argv)
        # A stop that came while a run was tidying up lets it end by itself, perhaps with work left.
        return _interrupted(argv) if _STOPS and code == 1 else code
    except (KeyboardInterrupt, Interrupted):
        return _interrupted(argv)
    except Exception as error:  # noqa: BLE001  # the one place
        if _STOPS:  # engines turn the interruption of a call into errors of their own
            return _interrupted(argv)
        if isinstance(error, KlakeError):
            _tell(str(error))
            return error.exit_code
        if isinstance(error, OSError) and _nobody_reads(error):
            _to_nowhere(sys.stdout)
            return 0
        return _unexpected(error)


def _listen() -> None:
    """Let SIGTERM, and a terminal that closes, end a run as Ctrl-C does; what nohup ignores stays ignored."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stopped)


def _unexpected(error: Exception) -> int:
    """Say in one sentence that this is our fault; the traceback only where somebody asks for it."""
    if os.environ.get("KLAKE_DEBUG") == "1":
        import traceback

        traceback.print_exception(error)
    first = (str(error).splitlines() or [""])[0][:300]
    _tell(f"{type(error).__name__}: {first} (this is a bug in klake; run it again with KLAKE_DEBUG=1 and report "
          f"what it prints)")  # fmt: skip
    return 1


def _tell(text: str) -> None:
    try:
        print(f"klake: {text}", file=sys.stderr, flush=True)
    except OSError:
        _to_nowhere(sys.stderr)


def _interrupted(argv: Sequence[str]) -> int:
    error = Interrupted(shlex.join(["klake", *argv]))
    _tell(str(error))
    return error.exit_code


def _stopped(_number: int, _frame: object) -> None:
    _STOPS.append(_number)
    raise KeyboardInterrupt


def _warned(message: Warning | str, *_where: object, **_more: object) -> None:
    """Show a warning as one line, without the place in the code that gave it."""
    _tell(str(message))


def _nobody_reads(error: OSError) -> bool:
    """Tell whether the reader of our output went away (`klake sql … | head`)."""
    return isinstance(error, BrokenPipeError) or (os.name == "nt" and error.errno == errno.EINVAL)


def _to_nowhere(stream: object) -> None:
    """Point a closed stream at the null device, so that the interpreter's last flush is quiet."""
    if isinstance(stream, TextIOWrapper):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
