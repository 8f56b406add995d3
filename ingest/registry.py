"""Which vendor kinds there are, and how a `[vendors.NAME]` table becomes an open vendor."""

import dataclasses
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Final, cast, get_args

import httpx
from pydantic import SecretStr, TypeAdapter, ValidationError

from ..errors import BadRequest, ConfigError, CredentialsMissing, MissingExtra
from ..schemas.capability import Capability, Evidence, Label
from ..schemas.clock import Clock
from ..schemas.freq import Freq
from ..schemas.settings import VendorOptions
from .vendor import Vendor

__all__ = ["kinds", "open_parser", "open_vendor", "options_of", "overridden", "vendor_class"]

_GROUP: Final = "klake.vendors"
_SECRETS: Final = ("key", "token", "secret", "app_key", "app_secret", "access_token")
_SHOWN: Final = (
    "kind",
    "quota",
    "products",
    "depth",
    "timeout_s",
    "key_in",
)  # all else may be a secret, misplaced
_PLAN: Final = ("quota", "products", "depth")
_FIXED: Final = ("venues", "classes", "freqs", "volume_factor", "label", "floor", "evidence")


@lru_cache
def kinds() -> tuple[str, ...]:
    """Return the vendor kinds that are installed, ascending."""
    return tuple(sorted({point.name for point in entry_points(group=_GROUP)}))


def vendor_class(kind: str) -> type[Vendor]:
    """Return the class that serves `kind`; BadRequest lists the known kinds.

    Raises
    ------
    MissingExtra
        The kind is known, its library is not installed.
    """
    found = entry_points(group=_GROUP, name=kind)
    if not found:
        raise BadRequest("kind", kind, kinds())
    try:
        return cast("type[Vendor]", next(iter(found)).load())
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or kind, kind) from error


def open_vendor(
    name: str, table: Mapping[str, Any], clock: Clock, where: str = "klake.toml", run: str = "",
    client: httpx.Client | None = None,
) -> Vendor:  # fmt: skip
    """Return the vendor that `[vendors.NAME]` describes, with its own plan put over the Capability.

    Parameters
    ----------
    table : mapping
        The table as it stands in the file, secrets already resolved.
    where : str
        The file, for messages.
    client : httpx.Client, optional
        For vendors that speak HTTP; made by the vendor when absent.

    Raises
    ------
    ConfigError, CredentialsMissing
        With file, key, what was given and what is allowed. Sends nothing.
    """
    kind = str(table.get("kind", ""))
    if kind not in kinds():
        raise ConfigError(where, f"vendors.{name}.kind", kind, f"one of {', '.join(kinds())}")
    made = vendor_class(kind)
    beside = Path(where).parent  # a file that a table names lies beside the configuration
    table = {
        k: str(beside / v) if k.endswith("_file") and isinstance(v, str) else v for k, v in table.items()
    }
    options = options_of(name, made, table, where)
    vendor = cast("Any", made)(name, options, clock, run, client)
    vendor.capability = overridden(vendor.capability, options, where, name)
    return cast("Vendor", vendor)


def open_parser(name: str, table: Mapping[str, Any], clock: Clock, where: str = "klake.toml") -> Vendor:
    """Return the vendor that `[vendors.NAME]` describes for parsing pages only: it must not be asked to send.

    Its secrets are neither looked up nor needed, so that pages can be read on a machine that has
    no key. ConfigError as in `open_vendor`.
    """
    kind = str(table.get("kind", ""))
    fields = vendor_class(kind).options.model_fields if kind in kinds() else {}
    blank = {
        key: "-"
        for key, field in fields.items()
        if SecretStr in (field.annotation, *get_args(field.annotation))
    }
    return open_vendor(name, {**table, **blank}, clock, where)


def options_of(name: str, made: type[Vendor], table: Mapping[str, Any], where: str) -> VendorOptions:
    """Return the options of one vendor table, checked; never repeats a secret in an error."""
    try:
        return made.options.model_validate(dict(table))
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0]) if first["loc"] else ""
        key = f"vendors.{name}.{'.'.join(str(part) for part in first['loc'])}"
        if field in _SECRETS and (first["type"] == "missing" or not table.get(field)):
            line = f'{field} = "env:{name.upper().replace("-", "_")}_{field.upper()}"'
            raise CredentialsMissing(
                where, key, "", f"not set; write {line} under [vendors.{name}] and set that variable",
                f"未设置；请在 [vendors.{name}] 下写 {line} 并设置该环境变量",
            ) from None  # fmt: skip
        if first["type"] == "extra_forbidden":
            allowed = f"no such key; known: {', '.join(made.options.model_fields)}"
        else:
            allowed = first["msg"]
        shown = field in _SHOWN and first["type"] != "extra_forbidden"
        raise ConfigError(where, key, first.get("input") if shown else "***", allowed) from None


def overridden(capability: Capability, options: VendorOptions, where: str, name: str) -> Capability:
    """Return the Capability with the user's plan over it: quota, products, depth, `capability{…}`.

    What the user says of their own account counts as documented.
    """
    changes: dict[str, Any] = {}
    if options.quota is not None:
        changes["quotas"] = options.quota
    if options.products is not None:
        changes["products"] = options.products
    if options.depth is not None:
        changes["depth"] = options.depth
    fields = {f.name: f for f in dataclasses.fields(Capability) if f.name not in _FIXED}
    for field, value in options.capability.items():
        key = f"vendors.{name}.capability.{field}"
        if field == "volume_factor":
            changes[field] = {**capability.volume_factor, **_factors(value, key, where)}
            continue
        if field == "label":
            changes[field] = {**capability.label, **_labels(value, key, where)}
            continue
        if field not in fields:
            known = ", ".join(sorted([*fields, "label", "volume_factor"]))
            raise ConfigError(where, key, "***", f"no such field; known: {known}")
        try:
            changes[field] = TypeAdapter(cast("Any", fields[field].type)).validate_python(value)
        except ValidationError as error:
            raise ConfigError(where, key, value, error.errors()[0]["msg"]) from None
    evidence = {**capability.evidence, **{field: Evidence("documented") for field in changes}}
    return dataclasses.replace(capability, **changes, evidence=evidence) if changes else capability


def _labels(value: object, key: str, where: str) -> dict[Freq, Label]:
    """`{"1m" = "end"}` → freq → what its time means."""
    try:
        plain = TypeAdapter(dict[str, Label]).validate_python(value)
        return {Freq.parse(name): label for name, label in plain.items()}
    except (ValidationError, BadRequest):
        raise ConfigError(where, key, value, 'a table such as { "1m" = "end" }: start or end') from None


def _factors(value: object, key: str, where: str) -> dict[tuple[str, Any], float]:
    """`{"SH.stock" = 100}` → (venue, class) → shares per unit."""
    from ..schemas.symbol import Class

    try:
        plain = TypeAdapter(dict[str, float]).validate_python(value)
        return {(k.partition(".")[0].upper(), Class(k.partition(".")[2])): v for k, v in plain.items()}
    except (ValidationError, ValueError):
        raise ConfigError(where, key, value, 'a table such as { "SH.stock" = 100 }') from None
