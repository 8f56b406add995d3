"""The pages are held to the program: commands, flags, keys, columns, views, links, examples."""

import ast
import contextlib
import importlib.util
import io
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import duckdb
import pytest
import typer
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

import klake
from klake.cli.app import run
from klake.cli.tree import app
from klake.ingest.registry import overridden, vendor_class
from klake.ingest.vendors.longbridge import LongbridgeOptions
from klake.ingest.vendors.multimarkets import MultiMarketsOptions
from klake.ingest.vendors.qos import Qos, QosOptions
from klake.jobs.config import load
from klake.sandbox.server import Sandbox
from klake.schemas.bar import SCHEMA, Flag
from klake.schemas.settings import Job, LakeSettings, SandboxSettings, Universe, VendorOptions
from klake.storage.tables import PUBLISHED, TABLES

ROOT = Path(__file__).parents[1]
READMES = (ROOT / "README.md", ROOT / "README.zh-CN.md")
PAGES = [*READMES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "data" / "README.md",
         *sorted((ROOT / "docs").glob("*.md"))]  # fmt: skip
ROOMS = ("schemas", "ingest", "storage", "sandbox", "research", "jobs", "cli")
NOON = datetime.fromisoformat("2026-11-20T08:30:00Z")


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: str
    line: int
    language: str
    text: str


def blocks(page: Path, *languages: str) -> list[Block]:
    text, name = page.read_text(encoding="utf-8"), str(page.relative_to(ROOT))
    found = re.finditer(r"(?ms)^```(\w*)\n(.*?)^```$", text)
    every = [Block(name, text.count("\n", 0, m.start()) + 1, m[1], m[2]) for m in found]
    return [block for block in every if not languages or block.language in languages]


def prose(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return re.sub(r"(?ms)^```.*?^```$", "", page.read_text(encoding="utf-8"))


def typed(page: Path) -> Iterator[tuple[str, str]]:
    """Yield (where, command line) of everything that a reader is told to type."""
    for block in blocks(page, "console", "bat", "cron"):
        for number, line in enumerate(block.text.splitlines(), block.line + 1):
            if block.language != "console" or line.startswith("$ "):
                yield f"{block.page}:{number}", line.removeprefix("$ ")


def mentioned(page: Path) -> Iterator[tuple[str, str]]:
    """Yield (where, command line) of the commands that stand in running text."""
    for found in re.finditer(r"`((?:klake|make) [^`\n]+)`", prose(page)):
        yield str(page.relative_to(ROOT)), found[1]


def words_of(line: str) -> list[str]:
    plain = line.replace("\\", "/") if ".exe" in line or "Scripts" in line else line
    try:
        return shlex.split(plain, comments=True)
    except ValueError:
        return plain.split()


def klake_lines(where: str, line: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the arguments of each klake in a command line; a scheduler's line may quote one."""
    words = words_of(line)
    for place, word in enumerate(words):
        if word.rsplit("/", 1)[-1] in {"klake", "klake.exe"}:
            end = next(
                (n for n, w in enumerate(words) if n > place and re.match(r"[|;&]|\d?>", w)), len(words)
            )
            yield where, words[place + 1 : end]
        elif " " in word and re.search(r"klake(\.exe)? ", word):
            yield from klake_lines(where, word)


@cache
def program() -> Any:
    return typer.main.get_command(app)


def wrong(arguments: list[str], *, whole: bool) -> str:
    """Return what is wrong with the arguments of a klake; empty: nothing. `whole`: all that is needed is there."""
    command, given = program(), list(arguments)
    placed = 0
    while given:
        word = given.pop(0)
        name, _, value = word.partition("=")
        options = {
            name: p for p in command.params for name in (*p.opts, *p.secondary_opts) if name.startswith("-")
        }
        if name.startswith("-") and name != "-":
            if name in {"--help", "-h"}:
                return ""
            if name not in options:
                return f"{command.name} has no {name}"
            if not options[name].is_flag and not value:
                if not given:
                    return f"{name} wants a value" if whole else ""
                given.pop(0)
        elif hasattr(command, "commands"):
            if word not in command.commands:
                return f"no verb {word}"
            command = command.commands[word]
        else:
            placed += 1
    arguments_ = [p for p in command.params if p.param_type_name == "argument"]
    if placed > len(arguments_) and not any(a.nargs == -1 for a in arguments_):
        return f"{command.name} takes {len(arguments_)} arguments, not {placed}"
    if whole and placed < sum(a.required for a in arguments_):
        return f"{command.name} lacks an argument"
    return ""


@cache
def targets() -> tuple[str, ...]:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    found = re.search(r"(?m)^\.PHONY: (.*)$", text)
    assert found
    return tuple(name for name in found[1].split() if name != "help")


# Commands


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_klake_command_of_a_page_exists_with_its_flags(page: Path) -> None:
    shown = [(*found, True) for at in typed(page) for found in klake_lines(*at)]
    shown += [(*found, False) for at in mentioned(page) for found in klake_lines(*at)]

    bad = [
        f"{where}: klake {shlex.join(a)}: {why}"
        for where, a, whole in shown
        if (why := wrong(a, whole=whole))
    ]

    assert not bad


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_make_command_of_a_page_is_a_target(page: Path) -> None:
    lines = [(where, words_of(line)) for where, line in (*typed(page), *mentioned(page))]

    bad = [
        f"{where}: make {word}"
        for where, words in lines
        if words[:1] == ["make"]
        for word in words[1:]
        if "=" not in word and word not in targets()
    ]

    assert not bad


@pytest.mark.parametrize("room", ROOMS)
def test_every_command_that_a_message_names_exists(room: str) -> None:
    bad: list[str] = []

    for path in sorted((ROOT / room).rglob("*.py")):
        for line, text in texts(path):
            for found in re.finditer(r"`(klake [^`]+)`", text):
                for _, arguments in klake_lines("", found[1]):
                    if why := wrong(arguments, whole=False):
                        bad.append(f"{path.relative_to(ROOT)}:{line}: {found[1]}: {why}")

    assert not bad


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of every string of a module; what an f-string fills in is the letter X."""
    inside: set[ast.AST] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            inside.update(node.values)
            parts = (v.value if isinstance(v, ast.Constant) else "X" for v in node.values)
            yield node.lineno, "".join(str(part) for part in parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in inside:
            yield node.lineno, node.value


def test_every_message_that_the_how_to_explains_is_one_of_the_program() -> None:
    said = [text for room in ROOMS for path in (ROOT / room).rglob("*.py") for _, text in texts(path)]
    said += [text for _, text in texts(ROOT / "errors.py")]
    rows = re.findall(
        r"(?m)^\| (?!message|---)(.*?) \|", prose(ROOT / "docs" / "how-to.md").partition("## What to do")[2]
    )

    parts = [part.strip(" :;.") for row in rows for part in re.sub(r"\(for .*?\)", "", row).split("…")]

    assert len(rows) > 15
    assert [part for part in parts if not any(part in text for text in said)] == []


def test_make_alone_prints_every_target_with_one_line() -> None:
    make = shutil.which("make")
    if make is None:
        pytest.skip("no make on this machine")

    alone = {k: v for k, v in os.environ.items() if not k.startswith("MAKE") and k != "MFLAGS"}
    done = subprocess.run(
        [make], cwd=ROOT, env=alone, capture_output=True, text=True, encoding="utf-8", check=True
    )
    printed = re.findall(r"(?m)^ *(?:make )?(\w+) +(\S.*)$", done.stdout)

    assert {name for name, _ in printed} >= set(targets())
    assert len(done.stdout.splitlines()) <= len(targets()) + 2


# The reference


@cache
def reference() -> ModuleType:
    found = importlib.util.spec_from_file_location("cli_reference", ROOT / "etc" / "cli_reference.py")
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_the_reference_is_what_the_program_says() -> None:
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == reference().page(), "run `make docs`"


def test_every_verb_and_flag_is_in_the_reference() -> None:
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")

    for path, command in reference().verbs(program(), "klake"):
        section = text.partition(f"\n## {path}\n")[2].partition("\n## ")[0]
        assert section, path
        for parameter in (p for p in command.params if not getattr(p, "hidden", False)):
            for name in (*parameter.opts, *parameter.secondary_opts):
                assert not name.startswith("-") or f"`{name}`" in section, f"{path} {name}"


# Keys, columns, views, names


def tables(page: str, heading: str) -> list[list[str]]:
    """Return the rows of the tables below a heading (its sub-headings not included), cells stripped."""
    found = re.search(rf"(?ms)^#+ {re.escape(heading)}$(.*?)(?=^#|\Z)", prose(ROOT / "docs" / page))
    assert found, heading
    lines = [line for line in found[1].splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in rows if row[0].startswith("`")]


def keys(rows: list[list[str]]) -> list[str]:
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row[0]) for name in name.split()]


@pytest.mark.parametrize(
    "heading, shapes",
    [
        ("`[lake]`", (LakeSettings,)),
        ("`[vendors.NAME]`", (VendorOptions, QosOptions)),
        ("Kind longbridge", (LongbridgeOptions,)),
        ("Kind multimarkets", (MultiMarketsOptions,)),
        ("`[universe.NAME]`", (Universe,)),
        ("`[jobs.NAME]`", (Job,)),
        ("`[sandbox]`", (SandboxSettings,)),
    ],
)
def test_the_config_page_has_every_key_with_its_default_and_no_other(
    heading: str, shapes: tuple[type[BaseModel], ...]
) -> None:
    rows = tables("config.md", heading)
    fields = {name: field for shape in reversed(shapes) for name, field in shape.model_fields.items()}
    if heading.startswith("Kind"):  # what every kind has stands above
        fields = {name: field for name, field in fields.items() if name not in VendorOptions.model_fields}

    assert sorted(keys(rows)) == sorted(fields)
    for name, default, *_ in rows:
        if default.startswith("`"):
            field = fields[name.strip("`")]
            told = tomllib.loads(f"value = {default.strip('`')}")["value"]
            held = field.get_default(call_default_factory=True)
            assert (list(held) if isinstance(held, tuple) else held) == told, name
        else:
            held = fields[name.strip("`")].default
            assert held in (None, "", {}, PydanticUndefined) or name.strip("`") == "kind" or not held, name


def test_the_environment_variables_of_the_config_page_are_those_of_the_program() -> None:
    source = "".join(p.read_text(encoding="utf-8") for room in ROOMS for p in (ROOT / room).rglob("*.py"))
    source += (ROOT / "errors.py").read_text(encoding="utf-8")
    read = set(re.findall(r"environ(?:\.get\(|\[)\"(KLAKE_[A-Z_]+)\"", source))

    told = {name for name in keys(tables("config.md", "Environment")) if "__" not in name}

    assert told == read


def test_every_toml_block_is_a_configuration(tmp_path: Path) -> None:
    for page in PAGES:
        for block in blocks(page, "toml"):
            file = tmp_path / "klake.toml"
            file.write_text(block.text, encoding="utf-8")

            settings = load(file)

            for table in settings.vendors.values():
                made = vendor_class(table["kind"])
                capability = sys.modules[made.__module__].CAPABILITY
                given = {**({"key": "k"} if made is Qos else {}), **table}
                overridden(capability, made.options.model_validate(given), block.page, table["kind"])


def test_the_lake_page_has_every_column_of_bars() -> None:
    rows = tables("lake.md", "The table bars")

    assert keys(rows) == SCHEMA.names
    flags = next(row[2] for row in rows if row[0] == "`flags`")
    assert [int(bit) for bit in re.findall(r"\d+", flags)] == [flag.value for flag in Flag]


def test_the_lake_page_has_every_table() -> None:
    told = set(keys(tables("lake.md", "The other tables")))

    assert told == {*TABLES, *PUBLISHED} - {"bars", "yields"}


def test_the_python_page_names_the_whole_face() -> None:
    first = (ROOT / "docs" / "python.md").read_text(encoding="utf-8").partition("\n## ")[0]
    sentence = first[first.index("The public names are") :].partition("\n")[0]

    assert sorted(re.findall(r"`(\w+)`", sentence)) == sorted(klake.__all__)


def test_the_changelog_has_the_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    assert f"## [{project['version']}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


# Pages among themselves


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_link_points_to_something(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", prose(page)):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), target
        assert ROOT in (file, *file.parents), target
        assert not anchor or anchor in anchors(file), target


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"(?m)^#+ (.*)$", prose(page))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_both_readmes_say_the_same() -> None:
    shapes: list[Any] = []

    for page, other in zip(READMES, reversed(READMES), strict=True):
        text = page.read_text(encoding="utf-8")
        shapes.append({
            "headings": re.findall(r"(?m)^#+(?= )", prose(page)),
            "blocks": [(b.language, re.sub(r" +# .*", "", b.text)) for b in blocks(page)],
            "links": [t for t in re.findall(r"\]\(([^)]+)\)", text) if t != other.name],
            "images": len(re.findall(r"!\[", text)),
        })  # fmt: skip
        assert other.name in text
        assert len(text.splitlines()) <= 70

    assert shapes[0] == shapes[1]


def test_the_picture_is_an_svg_of_its_own() -> None:
    text = (ROOT / "docs" / "demo.svg").read_text(encoding="utf-8")

    assert text.startswith("<svg")
    assert not re.search(r"(?:href|src|url\()\s*=?\s*[\"']?https?://", text), "it must not load anything"
    assert "klake demo" in re.sub(r"&#160;|\xa0", " ", text)


# Examples


@dataclass(frozen=True)
class Done:
    """What one command line did."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Place:
    """A folder as the pages suppose it: klake.toml and data/lake, and what `make demo` leaves."""

    folder: Path
    sandbox: Sandbox

    @contextlib.contextmanager
    def stand(self, folder: Path) -> Iterator[None]:
        """Stand in `folder`, with quotas of our own."""
        with pytest.MonkeyPatch.context() as patch, contextlib.chdir(folder):
            patch.setenv("KLAKE_STATE", str(self.folder / "state"))
            yield

    def run(self, *arguments: str, cwd: Path | None = None) -> Done:
        """Run one command line as `klake` does, in this process: a new one costs seconds each."""
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
        before, shown = signal.getsignal(signal.SIGTERM), warnings.showwarning
        try:
            with (
                self.stand(cwd or self.folder),
                contextlib.redirect_stdout(out),
                contextlib.redirect_stderr(err),
            ):
                code = run(list(arguments))
        finally:
            signal.signal(signal.SIGTERM, before)
            warnings.showwarning = shown
        return Done(code, *(stream.buffer.getvalue().decode() for stream in (out, err)))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("place")
    with Sandbox(clock_start=NOON, rate=0) as sandbox:
        text = (
            f'[lake]\npath = "PATH"\n[sandbox]\ncontrol = "{sandbox.control_url}"\n'
            f'[vendors.qos]\nkind = "qos"\nkey = "{sandbox.secrets["qos"]["default"]}"\nurl = "{sandbox.qos_url}"\n'
            '[universe.mine]\nsymbols = ["600519.SH", "00700.HK", "AAPL.US", "BTCUSDT.P.QOS"]\n'
            '[jobs.daily]\nvendor = "qos"\nuniverse = "mine"\nfreq = ["1d"]\nstart = "2024-11-01"\n'
        )
        demo = folder / "data" / "demo"
        demo.mkdir(parents=True)
        (demo / "klake.toml").write_text(text.replace("PATH", "lake"), encoding="utf-8")
        (folder / "klake.toml").write_text(text.replace("PATH", "data/lake"), encoding="utf-8")
        made = Place(folder, sandbox)
        for config in ("klake.toml", "data/demo/klake.toml"):
            done = made.run("--config", config, "sync", "--job", "daily")
            assert done.code == 0, done.err
        yield made


@pytest.fixture
def inside(place: Place) -> Iterator[Place]:
    with place.stand(place.folder):
        yield place


@pytest.mark.parametrize(
    "page", ["README.md", "README.zh-CN.md", "docs/python.md", "docs/how-to.md", "docs/lake.md"]
)
@pytest.mark.filterwarnings("error::klake.ShortAnswer")
def test_the_python_examples_run(page: str, inside: Place) -> None:
    names: dict[str, Any] = {}
    shown = blocks(ROOT / page, "python")

    for block in shown:
        code = "\n" * block.line + block.text
        exec(compile(code, str(ROOT / page), "exec"), names)  # noqa: S102

    assert shown
    assert inside.folder.is_dir()


ASKING = [
    (where, arguments)
    for page in PAGES
    for at in typed(page)
    for where, arguments in klake_lines(*at)
    if {"sql", "bars", "status", "plan", "doctor"} & set(arguments) and page.name != "tutorial.md"
]


@pytest.mark.parametrize("where, arguments", ASKING, ids=[where for where, _ in ASKING])
def test_the_asking_examples_run(where: str, arguments: list[str], place: Place) -> None:
    done = place.run(*arguments)

    assert done.code == 0, f"{where}: {done.err}"
    assert done.out.strip() or any(a in arguments for a in ("-o", "--output"))


PLAIN = [(where, line) for page in PAGES for where, line in typed(page) if line.startswith("duckdb ")]


@pytest.mark.parametrize("where, line", PLAIN, ids=[where for where, _ in PLAIN])
def test_the_plain_duckdb_examples_run(where: str, line: str, place: Place) -> None:
    _, flag, path, query = shlex.split(line)

    with duckdb.connect(str(place.folder / path), read_only=flag == "-readonly") as con:
        rows = con.execute(query).fetchall()

    assert rows, where


def test_the_views_of_the_lake_page_are_those_of_the_lake(place: Place) -> None:
    cells = " ".join(row[0] for row in tables("lake.md", "Views"))
    told = set(re.findall(r"[a-z]\w+", re.sub(r"\(.*?\)", "", cells)))
    with duckdb.connect(str(place.folder / "data" / "lake" / "lake.duckdb"), read_only=True) as con:
        views = con.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()
        macros = con.execute(
            "SELECT DISTINCT function_name FROM duckdb_functions() WHERE NOT internal"
        ).fetchall()

    held = {name for (name,) in (*views, *macros)}

    assert held - {f"bars_{freq.value}" for freq in klake.Freq} == told - {"bars_1m", "bars_1y"}
    assert {"bars_1m", "bars_1y"} <= held & told


@pytest.mark.skipif(os.name != "posix", reason="links need a privilege on Windows")
def test_views_for_another_mount_can_be_written_as_the_how_to_says(place: Place, tmp_path: Path) -> None:
    line = next(line for _, line in typed(ROOT / "docs" / "how-to.md") if " --at " in line)
    _, verb, flag, _, out, name = words_of(line)
    (tmp_path / "main").symlink_to(place.folder / "data" / "lake")

    done = place.run(verb, flag, str(tmp_path / "main"), out, str(tmp_path / name))

    assert done.code == 0, done.err
    with duckdb.connect(str(tmp_path / name), read_only=True) as con:
        assert con.execute("SELECT count(*) > 0 FROM bars_1d").fetchall() == [(True,)]


def test_the_tutorial_can_be_followed_from_top_to_bottom(place: Place, tmp_path: Path) -> None:
    folder, names = tmp_path, dict[str, Any]()
    page = ROOT / "docs" / "tutorial.md"

    for block in blocks(page, "console", "csv", "python"):
        if block.language == "csv":
            (folder / "mine.csv").write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            with place.stand(folder):
                exec(compile(block.text, str(page), "exec"), names)  # noqa: S102
        else:
            for line in (line[2:] for line in block.text.splitlines() if line.startswith("$ ")):
                folder = follow(place, folder, line, f"{block.page}:{block.line}")

    assert (folder / "klake.toml").is_file()


def follow(place: Place, folder: Path, line: str, where: str) -> Path:
    """Do what one line of the tutorial says; return the folder in which one stands afterwards."""
    words = words_of(line)
    if words[0] == "cd":
        return folder / words[1]
    for _, arguments in klake_lines(where, line):
        if arguments[0] in {"demo", "shell"} or arguments[:2] == ["sandbox", "run"] or "export" in words:
            continue
        told = [place.sandbox.control_url if a.startswith("http://127.0.0.1") else a for a in arguments]
        done = place.run(*told, cwd=folder)
        assert done.code == 0, f"{where}: {line}: {done.err}"
    return folder
