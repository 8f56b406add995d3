"""Write docs/cli.md from the program: `python etc/cli_reference.py [--check]`.

`--check` writes nothing and ends with 1 when the file is not what the program says.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

PAGE = Path(__file__).resolve().parents[1] / "docs" / "cli.md"

_HEAD = """# Command line

Written by `make docs` from the program; change the program, not this page.

Data goes to stdout, talk to stderr. Options of `klake` itself stand before the verb: `klake --config FILE sync`.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | some work failed |
| 2 | wrong use or configuration, credentials included |
| 3 | interrupted; the same command resumes |
"""


def main(arguments: list[str]) -> int:
    """Write or check the page; return an exit code."""
    made = page()
    if "--check" in arguments:
        same = PAGE.is_file() and PAGE.read_text(encoding="utf-8") == made
        if not same:
            print("docs/cli.md is not what the program says: run `make docs`", file=sys.stderr)
        return 0 if same else 1
    PAGE.write_text(made, encoding="utf-8", newline="\n")
    return 0


def page() -> str:
    """Return the whole page."""
    # Only here: the rooms of the program are heavy, and an import error should name this step.
    from klake.cli.tree import app

    root: Any = typer.main.get_command(app)
    parts = [_HEAD]
    for path, command in verbs(root, "klake"):
        parts.append("\n".join(_section(path, command)) + "\n")
    return "\n".join(parts)


def verbs(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield every command with the words that call it, in the order in which the program lists them."""
    yield path, command
    for name, below in getattr(command, "commands", {}).items():
        if not below.hidden:
            yield from verbs(below, f"{path} {name}")


def _section(path: str, command: Any) -> Iterator[str]:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and not p.hidden]
    usage = [path, *(["[OPTIONS]"] if options else []), *map(_argument, arguments)]
    if getattr(command, "commands", None):
        usage.append("VERB")
    yield f"## {path}"
    yield ""
    yield _plain(command.help)
    yield ""
    yield f"```text\n{' '.join(usage)}\n```"
    rows = [(f"`{_name(a)}`", _said(a)) for a in arguments] + [(_option(o), _said(o)) for o in options]
    if rows:
        yield ""
        yield "| argument or option | meaning |"
        yield "|---|---|"
        yield from (f"| {left} | {right} |" for left, right in rows)
    if below := getattr(command, "commands", None):
        yield ""
        yield "| verb | what it does |"
        yield "|---|---|"
        for name, sub in below.items():
            if not sub.hidden:
                yield f"| [`{name}`](#{f'{path} {name}'.replace(' ', '-')}) | {_cell(_plain(sub.help))} |"


def _name(argument: Any) -> str:
    return str(argument.metavar or argument.name.upper()).strip("[]").removesuffix("...")


def _argument(argument: Any) -> str:
    text = _name(argument) + ("..." if argument.nargs == -1 else "")
    return text if argument.required else f"[{text}]"


def _option(option: Any) -> str:
    names = ", ".join(f"`{name}`" for name in sorted((*option.opts, *option.secondary_opts), key=len))
    takes = "" if option.is_flag or option.count else f" `{option.metavar or option.type.name.upper()}`"
    return names + takes.replace("|", "\\|")


def _said(parameter: Any) -> str:
    text = _cell(_plain(getattr(parameter, "help", None)))
    default = parameter.default
    if isinstance(default, bool) or not isinstance(default, str | int | float) or default == "":
        return text
    shown = f"{default:g}" if isinstance(default, float) else default
    return f"{text.removesuffix('.')}. Default: `{shown}`."


def _plain(text: str | None) -> str:
    return " ".join((text or "").split())


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
