"""`klake doctor`: what could keep klake from working here."""

import json

import typer

from .session import session_of
from .work import JsonOption

__all__ = ["doctor"]


def doctor(ctx: typer.Context, as_json: JsonOption = False) -> int:
    """Check configuration, credentials, clock, disk, versions, lake; say what to do. Exit 1: something is wrong."""
    session = session_of(ctx)
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
