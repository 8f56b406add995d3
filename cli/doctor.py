"""`klake doctor`: what could keep klake from working here, and the way back from damage."""

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer

from .render import plural
from .session import Session, session_of
from .work import JsonOption

__all__ = ["doctor"]


def doctor(
    ctx: typer.Context,
    deep: Annotated[bool, typer.Option("--deep", help="Decode every file of the lake and every raw page, too.")] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Let go of damaged files (kept in _damaged/), replay what raw holds.")
    ] = False,
    rebuild_state: Annotated[
        bool, typer.Option("--rebuild-state", help="Make coverage anew from requests, raw pages and bars.")
    ] = False,
    migrate: Annotated[
        bool, typer.Option("--migrate", help="Bring a lake of an older format to this klake's; the old one is kept.")
    ] = False,
    as_json: JsonOption = False,
) -> int:  # fmt: skip
    """Check configuration, credentials, clock, disk, versions, lake; say what to do. Exit 1: something is wrong."""
    session = session_of(ctx)
    if migrate:
        return _migrated(session, as_json)
    from ..errors import ConfigError
    from ..jobs.doctor import examine

    try:
        session.settings()
    except ConfigError:
        pass  # the checks tell it, with what to do
    steps = _mended(session, deep=deep, repair=repair, rebuild_state=rebuild_state, silent=as_json)
    checks = list(examine(session.config, deep=deep))
    bad = sum(check.level == "bad" for check in checks)
    if as_json:
        told = {"steps": steps, "checks": [c.as_json() for c in checks], "bad": bad}
        print(json.dumps(told, ensure_ascii=False))
        return 1 if bad else 0
    for check in checks:
        print(f"{check.level:4}  {check.name}: {check.told}")
        if check.do:
            print(f"      -> {check.do}")
    session.say("all well" if not bad else f"{bad} to mend")
    return 1 if bad else 0


def _migrated(session: Session, as_json: bool) -> int:
    from ..jobs.migrate import migrate

    session.settings()
    done = migrate(session.config)
    if as_json:
        print(json.dumps(asdict(done), ensure_ascii=False))
    elif not done.kept:
        print(f"{done.path}: format {done.format} already, nothing to do")
    else:
        print(
            f"{done.path}: format {done.found} became {done.format}, {plural(sum(done.rows.values()), 'row')} compared"
        )
        session.say(f"the old lake is kept as {done.kept}: delete it when you have seen that all is well")
    return 0


def _mended(
    session: Session, *, deep: bool, repair: bool, rebuild_state: bool, silent: bool
) -> list[dict[str, Any]]:
    """Do what was asked for, and say it step by step."""
    from ..jobs import repair as jobs

    steps: list[dict[str, Any]] = []
    for wanted, job in (
        (repair, lambda desk: jobs.repair(desk, deep=deep)),
        (rebuild_state, jobs.rebuild_state),
    ):  # fmt: skip
        for step in job(session.desk()) if wanted else ():
            steps.append(step.as_json())
            if not silent:
                print(f"done  {step.name}: {step.told}")
                if step.do:
                    print(f"      -> {step.do}")
        if wanted and not steps and not silent:
            print("done  nothing was damaged")
    return steps
