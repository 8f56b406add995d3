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
from typing import NoReturn

from ..errors import Interrupted, KlakeError

__all__ = ["main", "run"]

_BUG = "https://github.com/klake/klake/issues"


def main() -> NoReturn:
    """Run the verb that the command line names, and leave the process with its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a GBK or ASCII console must never stop a verb
            stream.reconfigure(errors="replace")
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:  # nohup stays nohup
            signal.signal(number, _stopped)
    code = run(sys.argv[1:])
    if code == Interrupted.exit_code:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C has nothing left to stop
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

            return invoke(argv)
    except KlakeError as error:
        _tell(str(Interrupted(_command(argv))) if isinstance(error, Interrupted) else str(error))
        return error.exit_code
    except KeyboardInterrupt:
        _tell(str(Interrupted(_command(argv))))
        return Interrupted.exit_code
    except OSError as error:
        if _nobody_reads(error):
            _to_nowhere(sys.stdout)
            return 0
        return _unexpected(error)
    except Exception as error:  # noqa: BLE001  # the one place
        return _unexpected(error)


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


def _command(argv: Sequence[str]) -> str:
    return shlex.join(["klake", *argv])


def _stopped(_number: int, _frame: object) -> None:
    """SIGTERM, or a terminal that closes, ends a run as Ctrl-C does."""
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
