"""Loading the configuration: the nearest `klake.toml`, the environment over it, secrets resolved."""

import os
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from ..errors import BadRequest, ConfigError, CredentialsMissing
from ..schemas.settings import Job, LakeSettings, SandboxSettings, Settings, Universe
from ..schemas.vendor import vendor_name

__all__ = ["FILE", "find", "load", "vendor_table"]

FILE: Final = "klake.toml"
_NO_FILE: Final = "environment"
_WORDS: Final = {
    **dict.fromkeys(
        ("date_parsing", "date_from_datetime_parsing", "date_type"), "write a date such as 2020-01-31"
    ),
    **dict.fromkeys(
        ("dict_type", "model_type", "mapping_type"), "a table stands here: [name] and its keys below it"
    ),
    "tuple_type": 'write a list such as ["600519.SH", "00700.HK"]',
    "string_type": "write a text in quotes",
    "missing": "must be given",
}


class _Sources(BaseSettings):
    """The file's tables with `KLAKE_LAKE__PATH=…` and the like laid over them."""

    model_config = SettingsConfigDict(
        env_prefix="KLAKE_", env_nested_delimiter="__", extra="forbid", case_sensitive=False
    )
    lake: LakeSettings = LakeSettings()
    vendors: dict[str, dict[str, Any]] = {}
    universe: dict[str, Universe] = {}
    jobs: dict[str, Job] = {}
    sandbox: SandboxSettings | None = None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment first, then what the file said."""
        return env_settings, init_settings


def find(start: Path | None = None) -> Path | None:
    """Return the nearest `klake.toml` at or above `start` (default: here), or None."""
    here = (start or Path.cwd()).absolute()
    for folder in (here, *here.parents):
        if (folder / FILE).is_file():
            return folder / FILE
    return None


def load(path: str | Path | None = None) -> Settings:
    """Return the configuration.

    Parameters
    ----------
    path : str, Path or None
        A file. None: the nearest `klake.toml` upwards, else the environment alone.

    Raises
    ------
    ConfigError
        The file is not there or not TOML, a key is unknown, a value is not allowed; names
        file, key, what was given and what is allowed.
    """
    file = Path(path) if path is not None else find()
    raw = _read(file) if file is not None else {}
    where = str(file) if file is not None else _NO_FILE
    base = file.absolute().parent if file is not None else Path.cwd()
    try:
        sources = _Sources(**raw)
    except ValidationError as error:
        raise _explained(error, where) from None
    except BadRequest as error:
        raise ConfigError(where, error.name, error.given, error.en, error.zh) from None
    settings = Settings(
        lake=sources.lake, vendors=sources.vendors, universe=sources.universe, jobs=sources.jobs,
        sandbox=sources.sandbox, where=where, base=base,
    )  # fmt: skip
    _check_names(settings)
    return settings


def vendor_table(settings: Settings, name: str) -> dict[str, Any]:
    """Return `[vendors.NAME]` with its secrets (`env:NAME`, `file:PATH`) put in.

    Raises
    ------
    BadRequest
        The configuration has no such vendor.
    CredentialsMissing
        A secret is named but is not there.
    ConfigError
        A secret's file may be read by others.
    """
    if name not in settings.vendors:
        raise BadRequest(
            "vendor", name, tuple(settings.vendors), hint=f"add [vendors.{name}] to {settings.where}"
        )
    table = settings.vendors[name]
    return {k: _secret(v, f"vendors.{name}.{k}", settings.where, settings.base) for k, v in table.items()}


def _read(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as handle:
            return tomllib.load(handle)
    except FileNotFoundError:
        raise ConfigError(str(file), "--config", str(file), "there is no such file") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(str(file), "syntax", str(error), "the file is not valid TOML") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(file), "file", str(error), "the file cannot be read") from None


def _explained(error: ValidationError, where: str) -> ConfigError:
    """Name the first wrong key, what stands there, and what is allowed."""
    first = error.errors(include_url=False)[0]
    path = [str(part) for part in first["loc"]]
    key, allowed = ".".join(path), _WORDS.get(first["type"], first["msg"].removeprefix("Value error, "))
    if first["type"] == "extra_forbidden":
        table = path[:-1]
        shapes: Mapping[str, type] = {
            "lake": LakeSettings,
            "universe": Universe,
            "jobs": Job,
            "sandbox": SandboxSettings,
        }
        fields = getattr(shapes.get(table[0]) if table else _Sources, "model_fields", {})
        allowed = f"unknown key; known here: {', '.join(fields)}"
    # A value under an unknown key, or anywhere in a vendor's table, may be a secret.
    hidden = first["type"] == "extra_forbidden" or path[:1] == ["vendors"]
    return ConfigError(where, key, "***" if hidden else first.get("input"), allowed)


def _secret(value: Any, key: str, where: str, base: Path) -> Any:
    """Return what `env:NAME` or `file:PATH` stands for; anything else as it is."""
    if not isinstance(value, str):
        return value
    if value.startswith("env:"):
        name = value[4:]
        found = os.environ.get(name, "")
        if not found:
            raise CredentialsMissing(where, key, value, f"the environment variable {name} is not set: export {name}=…",
                                     f"环境变量 {name} 没有设置：export {name}=…")  # fmt: skip
        return found
    if value.startswith("file:"):
        file = (base / value[5:]).expanduser()
        try:
            mode = file.stat().st_mode
            text = file.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise CredentialsMissing(
                where, key, value, f"the file cannot be read: {error.strerror}"
            ) from None
        if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise ConfigError(where, key, value, f"others may read this secret: chmod 600 {file}")
        return text
    return value


def _check_names(settings: Settings) -> None:
    for name in settings.vendors:
        try:
            vendor_name(name)
        except BadRequest as error:
            raise ConfigError(settings.where, f"vendors.{name}", name, error.hint, error.zh) from None
        if "kind" not in settings.vendors[name]:
            raise ConfigError(
                settings.where, f"vendors.{name}.kind", None, "say which kind of vendor it is, such as qos"
            )
    for name, job in settings.jobs.items():
        if job.vendor not in settings.vendors:
            known = ", ".join(settings.vendors) or "none"
            raise ConfigError(
                settings.where, f"jobs.{name}.vendor", job.vendor, f"no such [vendors.…]; known: {known}"
            )
        if job.universe and job.universe not in settings.universe:
            known = ", ".join(settings.universe) or "none"
            raise ConfigError(
                settings.where, f"jobs.{name}.universe", job.universe, f"no such [universe.…]; known: {known}"
            )
        if not job.universe and not job.symbols:
            raise ConfigError(settings.where, f"jobs.{name}", "", "give it a universe or symbols")
        if job.end is not None and job.end < job.start:
            raise ConfigError(
                settings.where, f"jobs.{name}.end", str(job.end), f"lies before start = {job.start}"
            )
