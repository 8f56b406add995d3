"""The rules of the house, as tests."""

import ast
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

import klake

ROOT = Path(__file__).parents[1]
FLOOR = {
    "errors": 0, "schemas": 1, "ingest": 2, "storage": 2, "sandbox": 2, "research": 3, "jobs": 4, "cli": 5, "web": 5,
}  # fmt: skip
ROOMS = [room for room in FLOOR if room != "errors"]
MODULES = sorted(p for room in ROOMS for p in (ROOT / room).rglob("*.py"))
FORBIDDEN_NAMES = {"common", "utils", "core", "helpers", "misc", "util"}
TALKING = {"cli", "sandbox"}
CLOCK = ROOT / "schemas" / "clock.py"


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def by_name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", MODULES, ids=by_name)
def test_imports_only_go_down(path: Path) -> None:
    here = path.relative_to(ROOT).parts
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.ImportFrom) and node.level == len(here):  # reaches another room
            there = (node.module or node.names[0].name).split(".")[0]
            assert there == here[0] or FLOOR[there] < FLOOR[here[0]], f"line {node.lineno}: {there}"
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            assert (node.module or "").split(".")[0] not in {*ROOMS, "klake"}, f"line {node.lineno}"


def test_no_import_goes_in_a_circle() -> None:
    edges = {path: list(_imported(path)) for path in MODULES}
    done: set[Path] = set()

    def visit(path: Path, trail: tuple[Path, ...]) -> None:
        assert path not in trail, " → ".join(by_name(p) for p in (*trail[trail.index(path) :], path))
        if path not in done:
            for other in edges.get(path, []):
                visit(other, (*trail, path))
            done.add(path)

    for path in MODULES:
        visit(path, ())


def _imported(path: Path) -> list[Path]:
    """The modules that a module imports when it is loaded (not inside functions, not for types only)."""
    out: list[Path] = []
    for node in parsed(path).body:
        if not isinstance(node, ast.ImportFrom) or node.level == 0:
            continue
        base = path.parent
        for _ in range(node.level - 1):
            base = base.parent
        base = base.joinpath(*(node.module or "").split("."))
        out += [base.with_suffix(".py")] if base.with_suffix(".py").is_file() else [
            f for a in node.names if (f := base / f"{a.name}.py").is_file()
        ]  # fmt: skip
    return out


def test_every_package_is_shipped() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"][
        "packages"
    ]

    found = {"klake"} | {"klake." + ".".join(p.parent.relative_to(ROOT).parts) for p in MODULES}

    assert found == set(listed)


def test_one_copy_of_every_module() -> None:
    for name in klake.__all__:
        getattr(klake, name)

    stray = [
        name for name, module in list(sys.modules.items())
        if (file := getattr(module, "__file__", None))
        and any((ROOT / room) in Path(file).parents for room in ROOMS)
        and not name.startswith("klake.")
    ]  # fmt: skip
    assert not stray


def test_the_face_opens_no_room_by_itself() -> None:
    code = "import sys, klake; print([m for m in sys.modules if m.startswith('klake.')])"

    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert said.strip() == "[]"


@pytest.mark.parametrize("path", MODULES, ids=by_name)
def test_no_module_is_too_long(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


@pytest.mark.parametrize("path", [*MODULES, ROOT / "errors.py"], ids=by_name)
def test_no_function_is_too_long(path: Path) -> None:
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or node.lineno) - node.lineno < 60, f"line {node.lineno}: {node.name}"


@pytest.mark.parametrize("path", [p for p in MODULES if p != CLOCK], ids=by_name)
def test_only_the_clock_reads_the_time(path: Path) -> None:
    banned = {
        ("datetime", "now"),
        ("datetime", "utcnow"),
        ("date", "today"),
        ("time", "time"),
        ("time", "sleep"),
    }
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert (node.value.id, node.attr) not in banned, f"line {node.lineno}"
        if isinstance(node, ast.ImportFrom) and node.module == "time":
            assert not {a.name for a in node.names} & {"time", "sleep"}, f"line {node.lineno}"


@pytest.mark.parametrize(
    "path", [p for p in MODULES if p.relative_to(ROOT).parts[0] not in TALKING], ids=by_name
)
def test_nothing_prints_but_the_command_line(path: Path) -> None:
    for node in ast.walk(parsed(path)):
        assert not (
            isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
        )


def test_no_room_is_a_lumber_room() -> None:
    assert not [by_name(p) for p in MODULES if {p.stem, *p.parent.parts} & FORBIDDEN_NAMES]


def test_every_error_has_the_one_root() -> None:
    for path in MODULES:
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.ClassDef):
                bases = {b.id for b in node.bases if isinstance(b, ast.Name)}
                assert not bases & {"Exception", "BaseException", "ValueError", "RuntimeError"}, (
                    f"{by_name(path)}: {node.name}"
                )


@pytest.mark.parametrize("path", [*MODULES, ROOT / "errors.py"], ids=by_name)
def test_every_public_name_is_documented(path: Path) -> None:
    tops = [n for n in parsed(path).body if isinstance(n, ast.FunctionDef | ast.ClassDef)]
    inside = [m for c in tops if isinstance(c, ast.ClassDef) and not c.name.startswith("_") for m in c.body]
    public = [
        n
        for n in [*tops, *inside]
        if isinstance(n, ast.FunctionDef | ast.ClassDef) and not n.name.startswith("_")
    ]

    assert not [n.name for n in public if not ast.get_docstring(n)]


def test_no_file_names_a_machine_or_a_registry() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    words = ["/" + folder + "/" for folder in ("work", "root", "farm")] + [
        "pypi" + ".org",
        "pythonhosted" + ".org",
    ]
    for name in listed.stdout.split("\n"):
        path = ROOT / name
        if path.suffix in {".py", ".md", ".toml", ".txt", ".in", ".cfg", ""} and path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace")
            assert not [w for w in words if w in text], name
