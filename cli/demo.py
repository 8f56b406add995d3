"""`klake demo`: the main job from nothing to an answer, against a sandbox of its own."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from datetime import date, timedelta
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from ..errors import VendorDown
from .plan import tell as tell_plan
from .progress import Drawn
from .render import heading, plural, tongue
from .rows import put
from .session import Session, session_of
from .status import tell as tell_status
from .sync import tell as tell_sync

if TYPE_CHECKING:
    import polars as pl

__all__ = ["demo"]

_SYMBOLS: Final = (
    "600519.SH", "600000.SH", "000300.SH", "510300.SH", "601398.SH", "000001.SZ", "000002.SZ", "300750.SZ",
    "002594.SZ", "00700.HK", "09988.HK", "00005.HK", "AAPL.US", "MSFT.US", "TSLA.US", "BRK.B.US", "BTCUSDT.P.QOS",
    "ETHUSDT.P.QOS", "SOLUSDT.P.QOS", "DOGEUSDT.P.QOS",
)  # fmt: skip
_QUERY: Final = """SELECT symbol, count(*) AS days, min(session) AS since, round(max(high), 2) AS highest,
       round(100 * (last(close ORDER BY session) / first(close ORDER BY session) - 1), 1) AS change_percent
FROM bars_1d GROUP BY symbol ORDER BY change_percent DESC LIMIT 8"""
_FRAME: Final = 'import klake; klake.open("{lake}").bars("AAPL.US", "1m", last=6).pl()'
_MINUTES: Final = timedelta(days=3)
_A_MINUTE: Final = 60  # requests: who tries the demo twice in a minute should not wait
_STOP_S: Final = 5.0
_AGAIN: Final = 2  # requests; the first run needs more


def demo(
    ctx: typer.Context,
    folder: Annotated[
        str, typer.Option("--dir", metavar="DIR", help="Where the demo keeps its files.")
    ] = "data/demo",
) -> int:
    """Run the main job against a sandbox: no key, no network. Safe to run again."""
    session = session_of(ctx)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # talk and answers come in their order, in a log too
    with _sandbox() as control:
        session.sandbox(control)
        config = _set_up(session, control, Path(folder))
        code = _filled(session, config)
        _asked(session, config)
    _next(session, config)
    return code


@contextmanager
def _sandbox() -> Generator[str, None, None]:
    """Yield the control URL of a sandbox process that ends with this block, whatever happens."""
    command = [
        sys.executable,
        "-m",
        "klake",
        "--quiet",
        "sandbox",
        "run",
        "--clock",
        "now",
        "--rate",
        "1",
        "--until-eof",
    ]
    # A session of its own: Ctrl-C on the terminal is for us, we stop the sandbox ourselves.
    own: dict[str, Any] = {"start_new_session": True} if os.name == "posix" else {"creationflags": 0x200}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True, **own
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise VendorDown("sandbox", "it did not start: try `klake sandbox run` to see why",
                                 "未能启动：请用 `klake sandbox run` 查看原因")  # fmt: skip
            yield str(json.loads(line)["control"])
        finally:
            process.terminate()
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()


def _set_up(session: Session, control: str, folder: Path) -> Path:
    from ..jobs.setup import Wish, sandbox_facts, set_up
    from ..schemas.clock import SystemClock

    facts = sandbox_facts(control, a_minute=_A_MINUTE)
    recent = (SystemClock().now() - _MINUTES).date()
    jobs = (("daily", ("1d",), date(2020, 1, 1)), ("minutes", ("1m",), recent))
    made = set_up(folder, facts, Wish(_SYMBOLS, jobs, "lake"), replace=True)
    heading(tongue(f"1. The configuration: {made.config}", f"1. 配置：{made.config}"))
    session.say(tongue(
        f"{len(_SYMBOLS)} symbols in Shanghai, Shenzhen, Hong Kong, New York and crypto, from one vendor (qos)",
        f"沪、深、港、美与加密货币共 {len(_SYMBOLS)} 个标的，来自一个供应商（qos）",
    ))  # fmt: skip
    session.config = str(made.config)
    return made.config


def _filled(session: Session, config: Path) -> int:
    """Plan and sync both jobs; return the worse exit code."""
    from ..jobs.sync import plan, sync

    worst, requests, new = 0, 0, 0
    for number, (name, what) in enumerate((
        ("daily", tongue("daily bars since 2020", "2020 年以来的日线")),
        ("minutes", tongue("1-minute bars, last sessions", "最近几个交易日的 1 分钟线")),
    )):  # fmt: skip
        heading(f"{number + 2}. {what}: klake plan --job {name}; klake sync --job {name}")
        with Drawn(session) as drawn:
            desk = session.desk(drawn)
            drawn.clock = desk.clock
            tell_plan(session, plan(desk, name, desk.job(name)))
            report = sync(desk, name, desk.job(name))
        tell_sync(session, report)
        worst = max(worst, report.exit_code)
        requests += report.requests_sent + report.canaries
        new += report.written.new
    if not new:
        session.say(tongue(
            f"\nnothing new since the last time ({plural(requests, 'request')} sent)",
            f"\n自上次以来没有新数据（请求 {requests} 次）",
        ))  # fmt: skip
    elif requests <= _AGAIN:
        session.say(tongue(
            f"\nalmost nothing to fetch this time: {plural(requests, 'request')}, the rest was there already",
            f"\n这次几乎无需下载：请求 {requests} 次，其余已在库中",
        ))  # fmt: skip
    return worst


def _asked(session: Session, config: Path) -> None:
    """Show status, one SQL answer, one DataFrame."""
    from ..jobs.status import status

    heading(tongue("4. What is there: klake status", "4. 现状：klake status"))
    tell_status(status(session.desk()))
    with session.lake() as lake:
        heading(tongue("5. Ask in SQL: klake sql", "5. 用 SQL 提问：klake sql"))
        session.say(_QUERY)
        put(lake.sql(_QUERY).arrow(), "table", "")
        heading(tongue("6. Or as a DataFrame, in Python", "6. 或在 Python 中取 DataFrame"))
        session.say(f">>> {_FRAME.format(lake=_from_here(Path(lake.store.path)))}")
        columns = ["symbol", "ts", "open", "high", "low", "close", "volume"]
        _show_frame(lake.bars("AAPL.US", "1m", last=6, columns=columns).pl())


def _next(session: Session, config: Path) -> None:
    klake = f"{_program()} --config {_typed(os.fspath(config))}"
    heading(tongue("What to type next", "接下来可以输入"))
    for line, why in (
        (f'{klake} sql "SELECT * FROM bars_1d WHERE symbol = \'00700.HK\' ORDER BY session DESC LIMIT 5"', ""),
        (f"{klake} bars 600519.SH 1d --last 10", ""),
        (f"{klake} shell", tongue("SQL, line by line", "逐条执行 SQL")),
        (f"{_program()} init mylake", tongue("your own: put your QOS key there, then `klake sync`", "自己的库：填入 QOS key，然后 `klake sync`")),
    ):  # fmt: skip
        session.say(f"  {line}{f'   # {why}' if why else ''}")


def _program() -> str:
    """Return how this user calls klake: the path of the script beside this Python, from here."""
    script = Path(sys.executable).with_name("klake.exe" if os.name == "nt" else "klake")
    if not script.exists():
        return f"{_typed(sys.executable)} -m klake"
    return _typed(_from_here(script))


def _typed(path: str) -> str:
    """Return a path as this system's shell wants it."""
    if os.name == "nt":
        return f'"{path}"' if " " in path else path
    return shlex.quote(path)


def _from_here(path: Path) -> str:
    """Return a path as one would type it in this folder."""
    try:
        return os.fspath(path.relative_to(Path.cwd()))
    except ValueError:
        return os.fspath(path)


def _show_frame(frame: "pl.DataFrame") -> None:
    """Print a polars frame as Python prints it, with a frame of characters that the console has."""
    import polars as pl

    plain = not (sys.stdout.encoding or "").lower().startswith("utf")
    with pl.Config(ascii_tables=plain, tbl_cols=-1, tbl_width_chars=110):
        print(frame)
