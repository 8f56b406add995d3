"""`klake vendors`: who is configured, what they can do and how well that is known; `probe` asks them, `login` logs in."""

import json

import typer

from .render import plural, say_table
from .session import session_of
from .work import JsonOption

__all__ = ["app"]

app = typer.Typer(help="Vendors: what they can do and how well that is known.", invoke_without_command=True)


@app.callback()
def listing(ctx: typer.Context, as_json: JsonOption = False) -> None:
    """List the configured vendors with their plan and the evidence for each field; `probe` asks one."""
    if ctx.invoked_subcommand is not None:
        return
    session = session_of(ctx)
    desk = session.desk()
    from ..jobs.vendors import known

    found = known(desk)
    if as_json:
        print(
            json.dumps(
                {"sandbox": desk.sandbox, "vendors": [one.as_json() for one in found]}, ensure_ascii=False
            )
        )
        return
    if not found:
        session.say(
            f"{desk.settings.where} names no vendor: `klake init` writes a [vendors.qos] to start from"
        )
    for one in found:
        print(f"{one.name} ({one.kind}): {one.trouble or one.plan}")
        print(f"credentials: {'there' if one.credentials else 'MISSING: see `klake doctor`'}\n")
        if one.facts:
            rows = [(f.field, f.value, _evidence(f.basis, f.seen)) for f in one.facts]
            say_table(("field", "value", "evidence"), rows, fit=True)
            print()


@app.command("probe")
def probe(
    ctx: typer.Context, name: str = typer.Argument(metavar="NAME"), as_json: JsonOption = False
) -> None:
    """Ask a vendor what only it can answer (five requests at most) and keep the answers."""
    session = session_of(ctx)
    desk = session.desk()
    from ..jobs.vendors import probe as asked

    report = asked(desk, name)
    if as_json:
        print(json.dumps(report.as_json(), ensure_ascii=False))
        return
    rows = [
        (a.question, a.text, a.basis if a.basis == "observed" else "*unverified*", a.evidence)
        for a in report.answers
    ]
    say_table(("question", "answer", "known", "evidence"), rows, fit=True)
    session.say(
        f"{plural(report.requests, 'request')}; `klake vendors` shows the answers; the replies are in {report.recording}"
    )


@app.command("login")
def login(ctx: typer.Context, name: str = typer.Argument(metavar="NAME")) -> None:
    """Log in to a vendor in a browser, once; only Longbridge with a `client_id` needs it."""
    session = session_of(ctx)
    desk = session.desk()
    from ..jobs.vendors import login as asked

    until = asked(desk, name, lambda url: session.say(f"open this in a browser, and log in there: {url}"))
    session.say(f"logged in{f' until {until:%Y-%m-%d %H:%MZ}, renewed by itself' if until else ''}")


def _evidence(basis: str, seen: object) -> str:
    if basis == "assumed":
        return "*unverified*"
    return f"{basis} {seen}" if seen else basis
