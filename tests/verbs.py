"""Command lines run in this process, and what they came to."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Said:
    """What one command line came to."""

    code: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """The one line of trouble; fails where there is none, or more than one."""
        (line,) = [line for line in self.err.splitlines() if line.startswith("klake: ")]
        return line

    @property
    def json(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.out)


Klake = Callable[..., Said]
