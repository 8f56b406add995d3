"""Values of the configuration: what `klake.toml` and the environment may say.

Loading is done in `jobs.config`; here are only the shapes and their rules.
"""

from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

from .freq import Freq
from .quota import Quota

__all__ = ["Job", "LakeSettings", "SandboxSettings", "Settings", "Universe", "VendorOptions"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


def _seconds(text: object) -> float:
    """`60`, `"60s"`, `"30 m"`, `"1h"`, `"1d"` → seconds."""
    if isinstance(text, int | float):
        return float(text)
    units = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
    plain = str(text).strip().lower()
    number, unit = (plain[:-1], plain[-1]) if plain[-1:] in units else (plain, "s")
    return float(number) * units[unit]


def _quotas(given: object) -> object:
    """`[[10, "60s"], [60, "30s"]]` → Quota records."""
    if not isinstance(given, list | tuple):
        return given
    items: list[Any] = list(given)  # pyright: ignore[reportUnknownArgumentType]
    return tuple(item if isinstance(item, Quota) else _quota(item) for item in items)


def _quota(item: Any) -> Quota:
    form = 'write [[requests, window]], such as [[10, "60s"], [200, "1h"]]'
    if not isinstance(item, list | tuple) or not 2 <= len(item) <= 3:  # pyright: ignore[reportUnknownArgumentType]
        raise ValueError(form)
    try:
        made = Quota(int(item[0]), _seconds(item[1]), *item[2:])
    except (TypeError, ValueError) as error:
        raise ValueError(form) from error
    if made.n < 1 or made.window_s <= 0:
        raise ValueError(f"{form}; both numbers are above 0")
    return made


def _freqs(given: object) -> object:
    """One freq or a list of them, in any usual spelling."""
    items: list[Any] = [given] if isinstance(given, str) else list(given)  # type: ignore[call-overload]
    return tuple(Freq.parse(str(item)) for item in items)


class VendorOptions(_Strict):
    """`[vendors.NAME]`: what every kind takes; each kind adds its own in its file.

    `quota`, `products` and `depth` override the Capability, because they depend on the
    user's plan; `capability` overrides any other field of it.
    """

    kind: str
    quota: Annotated[tuple[Quota, ...], BeforeValidator(_quotas)] | None = None
    products: int | None = Field(default=None, ge=1)
    depth: int | None = Field(default=None, ge=0)
    capability: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _secrets_can_be_sent(self) -> Self:
        for value in self.secrets():
            if not value.isascii() or not value.isprintable() or value != value.strip():
                raise ValueError("a secret holds printable ASCII characters only: was something else pasted?")
        return self

    def secrets(self) -> tuple[str, ...]:
        """Return the secret values, for masking; never for printing."""
        values = (getattr(self, name) for name in type(self).model_fields)
        return tuple(v.get_secret_value() for v in values if isinstance(v, SecretStr))


class LakeSettings(_Strict):
    """`[lake]`: where the lake lies, and how many days raw pages are kept (None: for ever).

    A relative path is relative to klake.toml.
    """

    path: str = "data/lake"
    raw_days: int | None = Field(default=None, ge=1)


class SandboxSettings(_Strict):
    """`[sandbox]`: the control face of a sandbox, which is also the clock."""

    control: str


class Universe(_Strict):
    """`[universe.NAME]`: a list, a file (one symbol per line, or a CSV column `symbol`), or both."""

    symbols: tuple[str, ...] = ()
    file: Path | None = None
    exclude: tuple[str, ...] = ()


class Job(_Strict):
    """`[jobs.NAME]`: a vendor, a universe, freqs, from when. `end` is for ad hoc work only.

    `start` and `end` are inclusive dates.
    """

    vendor: str
    universe: str = ""
    symbols: tuple[str, ...] = ()
    freq: Annotated[tuple[Freq, ...], BeforeValidator(_freqs)]
    start: date
    end: date | None = None
    hours: Literal["regular", "all"] = "regular"
    when: str = ""
    kind: Literal["bars"] = "bars"


class Settings(_Strict):
    """Everything that `klake.toml` says, secrets resolved.

    `vendors` holds each vendor's table as it stands in the file; the vendor's kind turns it
    into its own VendorOptions when it is opened. `where` names the file for messages.
    """

    lake: LakeSettings = LakeSettings()
    vendors: dict[str, dict[str, Any]] = Field(default_factory=dict, repr=False)
    universe: dict[str, Universe] = Field(default_factory=dict)
    jobs: dict[str, Job] = Field(default_factory=dict)
    sandbox: SandboxSettings | None = None
    where: str = "environment"
    base: Path = Path()

    @property
    def lake_path(self) -> str:
        """Return the lake's location: absolute for a local path, the URL itself for one."""
        path = self.lake.path
        return path if "://" in path else str((self.base / path).absolute())
