"""`klake doctor`: what could keep klake from working here."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from .render import plural
from .session import Session, session_of
from .work import JsonOption

__all__ = ["doctor"]


def doctor(
    ctx: typer.Context,
    migrate: Annotated[
        bool,
        typer.Option(
            "--migrate", help="Bring a lake of an older format to this klake's; the old one is kept."
        ),
    ] = False,
    as_json: JsonOption = False,
) -> int:
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
    checks = list(examine(session.config))
    bad = sum(check.level == "bad" for check in checks)
    if as_json:
        print(json.dumps({"checks": [c.as_json() for c in checks], "bad": bad}, ensure_ascii=False))
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
