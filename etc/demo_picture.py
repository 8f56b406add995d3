"""Draw docs/demo.svg from a real run: `python etc/demo_picture.py`. Not on Windows (it needs a pty)."""

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

from rich import terminal_theme
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "demo.svg"
COLUMNS, ROWS = 112, 60
SECTIONS = ("2.", "5.", "6.")  # what fits one screen; the others are told by three dots
_FONTS = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"


def main() -> int:
    """Run the demo in an empty folder and draw what its terminal showed; return its exit code."""
    with tempfile.TemporaryDirectory() as folder:
        code, shown = recorded([sys.executable, "-m", "klake", "demo"], folder)
    if code:
        print("\n".join(shown), file=sys.stderr)
        return code
    PICTURE.write_text(drawn(chosen(shown)), encoding="utf-8", newline="\n")
    return 0


def recorded(command: list[str], folder: str) -> tuple[int, list[str]]:
    """Return the exit code of a command and the lines that its terminal showed in the end, colours in them."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    plain = {n: v for n, v in os.environ.items() if not n.startswith(("KLAKE_", "NO_COLOR"))}
    env = {**plain, "TERM": "xterm-256color", "KLAKE_STATE": folder, "PYTHONUTF8": "1"}
    with subprocess.Popen(
        command, cwd=folder, env=env, stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        held = bytearray()
        while piece := _read(ours):
            held += piece
    os.close(ours)
    return process.returncode, screen(held.decode("utf-8"))


def _read(file: int) -> bytes:
    try:
        return os.read(file, 65_536)
    except OSError:  # Linux says so when the other end is closed
        return b""


def screen(text: str) -> list[str]:
    """Return the lines that a terminal without scrolling limit shows after `text`.

    Knows what progress bars need: carriage return, line erase, cursor up.
    """
    lines, row, fresh = [""], 0, False
    for found in re.finditer(r"\x1b\[([?\d;]*)([A-Za-z])|(\r)|(\n)|([^\x1b\r\n]+)", text):
        argument, code, back, down, words = found.groups()
        if back:
            fresh = True
        elif down:
            row, fresh = row + 1, False
            lines += [""] * (row + 1 - len(lines))
        elif code == "A":
            row = max(0, row - int(argument or 1))
        elif code == "K":
            lines[row] = ""
        elif words or code == "m":
            if fresh and words:
                lines[row], fresh = "", False
            lines[row] += found[0]
    return lines


def chosen(shown: list[str]) -> list[str]:
    """Return the sections of the demo that the picture has, under the command that was typed."""
    out, keep = ["\x1b[1m$ klake demo\x1b[0m", shown[0], ""], False
    heads = [Text.from_ansi(line).plain for line in shown]
    for number, line in enumerate(shown):
        if re.match(r"\d\. |What to type", heads[number]):
            was, keep = keep, heads[number].startswith(SECTIONS)
            if was and not keep:
                out += ["...", ""]
        if keep:
            out.append(line)
    return out[:-2] if out[-2:] == ["...", ""] else out


def drawn(lines: list[str]) -> str:
    """Return the SVG; it brings no font and loads nothing."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    for line in lines:
        console.print(Text.from_ansi(line), overflow="fold", highlight=False)
    plain = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    plain = plain.replace("Fira Code, monospace", _FONTS).replace(
        "font-family: arial", f"font-family: {_FONTS}"
    )
    picture = console.export_svg(
        title="klake", code_format=plain, theme=terminal_theme.MONOKAI, unique_id="klake"
    )
    return "\n".join(line.rstrip() for line in picture.strip().splitlines()) + "\n"


if __name__ == "__main__":
    raise SystemExit(main())
