"""Every error that klake raises on purpose: one root, one sentence each, in English or Chinese.

KlakeError
├── BadRequest            an argument cannot mean anything              exit 2
│   ├── UnknownSymbol     no venue or vendor knows this spelling
│   └── AmbiguousSymbol   the spelling means more than one thing
├── ConfigError           klake.toml or the environment is wrong        exit 2
│   └── CredentialsMissing
├── MissingExtra          an optional library is not installed          exit 2
├── VendorError           what a vendor answered, classed once          exit 1
│   ├── VendorDown        nobody answers, or a gateway does             retry
│   ├── RateLimited       too fast: wait `wait_s`                       retry
│   ├── BadPage           the reply cannot be read                      retry
│   ├── SymbolRefused     give up for this symbol
│   ├── VendorRefused     give up for this vendor
│   ├── BadCredentials    the key is wrong or expired                   exit 2
│   ├── MonthQuota        the month's allowance is spent
│   └── UnitMismatch      a canary says that unit or label is false
├── LakeError             the lake cannot be used as it is              exit 1
│   ├── LakeTooNew        made by a later klake                         exit 2
│   ├── LakeOrigin        sandbox and real bars must not meet           exit 2
│   ├── LakeHolds         a lake where collected pages belong, or v.v.  exit 2
│   ├── LakeUnwritable    no permission, no space
│   ├── LakeDamaged       a file that must be there is not, or is torn
│   └── CommitConflict    another writer was first                      retry
├── Incomplete            bars asked for with require="complete" are missing
└── Interrupted           stopped by the user; run again to resume      exit 3
"""

import os
from typing import ClassVar

__all__ = [
    "AmbiguousSymbol",
    "BadCredentials",
    "BadPage",
    "BadRequest",
    "CommitConflict",
    "ConfigError",
    "CredentialsMissing",
    "Incomplete",
    "Interrupted",
    "KlakeError",
    "LakeDamaged",
    "LakeError",
    "LakeHolds",
    "LakeOrigin",
    "LakeTooNew",
    "LakeUnwritable",
    "MissingExtra",
    "MonthQuota",
    "RateLimited",
    "SymbolRefused",
    "UnitMismatch",
    "UnknownSymbol",
    "VendorDown",
    "VendorError",
    "VendorRefused",
]


class KlakeError(Exception):
    """Everything that klake raises on purpose.

    `en` and `zh` are the same sentence in two languages; `str()` gives the one that
    the environment variable `KLAKE_LANG` asks for, English by default.
    """

    retryable: ClassVar[bool] = False
    exit_code: ClassVar[int] = 1

    def __init__(self, en: str, zh: str = "") -> None:
        self.en, self.zh = en, zh
        super().__init__(en)

    def __str__(self) -> str:
        chinese = os.environ.get("KLAKE_LANG", "").lower().startswith("zh")
        return self.zh if chinese and self.zh else self.en


class BadRequest(KlakeError, ValueError):
    """An argument cannot mean anything; says what it was and what it could have been."""

    exit_code = 2

    def __init__(
        self, name: str, given: object, known: tuple[str, ...] = (), hint: str = "", hint_zh: str = ""
    ) -> None:
        self.name, self.given, self.known, self.hint = name, given, known, hint
        en, zh = f"{name}={given!r} cannot be used", f"{name}={given!r} 无效"
        if known:
            en = f"{name}={given!r} is not one of {', '.join(known)}"
            zh = f"{name}={given!r} 不在可选值之内：{', '.join(known)}"
        if hint:
            en, zh = f"{en}: {hint}", f"{zh}：{hint_zh or hint}"
        super().__init__(en, zh)


class UnknownSymbol(BadRequest):
    """No venue knows this spelling, or the lake and the vendor have no such symbol."""


class AmbiguousSymbol(BadRequest):
    """The spelling means more than one instrument; `known` lists them."""


class ConfigError(KlakeError):
    """klake.toml or the environment is wrong: file, key, what was given, what is allowed."""

    exit_code = 2

    def __init__(self, where: str, key: str, given: object, allowed: str, zh: str = "") -> None:
        self.where, self.key, self.given, self.allowed = where, key, given, allowed
        super().__init__(
            f"{where}: {key} = {given!r}: {allowed}", f"{where}：{key} = {given!r}：{zh or allowed}"
        )


class CredentialsMissing(ConfigError):
    """A vendor's key is not set."""


class MissingExtra(KlakeError, ImportError):
    """An optional library is not installed; says the line that installs it."""

    exit_code = 2

    def __init__(self, library: str, extra: str) -> None:
        self.library, self.extra = library, extra
        line = f'pip install "klake[{extra}]"'
        super().__init__(f"{library} is not installed: {line}", f"缺少 {library}：请运行 {line}")


class VendorError(KlakeError):
    """What a vendor answered, classed once, at the edge; never holds a key."""

    def __init__(self, vendor: str, en: str, zh: str = "") -> None:
        self.vendor = vendor
        super().__init__(f"{vendor}: {en}", f"{vendor}：{zh or en}")


class VendorDown(VendorError):
    """Nobody answers, or a gateway does: try again later.

    `replied`: something came back, so another request may fare better than this one.
    """

    retryable = True

    def __init__(self, vendor: str, en: str, zh: str = "", *, replied: bool = False) -> None:
        self.replied = replied
        super().__init__(vendor, en, zh)


class RateLimited(VendorError):
    """The vendor asks for a pause of `wait_s` seconds (0: it did not say how long)."""

    retryable = True

    def __init__(self, vendor: str, en: str, wait_s: float = 0.0) -> None:
        self.wait_s = wait_s
        super().__init__(vendor, en)


class BadPage(VendorError):
    """The reply cannot be read at all; a second try may be better."""

    retryable = True


class SymbolRefused(VendorError):
    """The vendor gives nothing for `symbol`; others go on."""

    def __init__(self, vendor: str, symbol: str, en: str) -> None:
        self.symbol = symbol
        super().__init__(vendor, f"{symbol}: {en}")


class VendorRefused(VendorError):
    """The vendor refuses everything, for a reason that retrying does not cure."""


class BadCredentials(VendorError):
    """The key is wrong or expired."""

    exit_code = 2


class MonthQuota(VendorError):
    """The allowance of the month is spent."""


class UnitMismatch(VendorError):
    """A canary says that the declared unit or label is false; the page was not stored."""


class LakeError(KlakeError):
    """The lake cannot be used as it is."""


class LakeTooNew(LakeError):
    """The lake was made by a later klake."""

    exit_code = 2

    def __init__(self, path: str, found: int, known: int) -> None:
        self.path, self.found, self.known = path, found, known
        super().__init__(
            f"{path}: lake format {found} is newer than this klake knows ({known}): upgrade klake",
            f"{path}：数据湖格式 {found} 比本程序支持的 {known} 新：请升级 klake",
        )


class LakeOrigin(LakeError):
    """Sandbox bars and real bars must not meet in one lake."""

    exit_code = 2

    def __init__(self, path: str, lake: str, config: str) -> None:
        self.path, self.lake, self.config = path, lake, config
        super().__init__(
            f"{path}: this lake holds {lake} bars, the configuration is for {config} ones: "
            "give [lake] another path",
            f"{path}：该数据湖存放的是 {lake} 数据，而配置属于 {config}：请为 [lake] 换一个 path",
        )


class LakeHolds(LakeError):
    """A folder of collected pages stands where a lake is meant, or a lake where such a folder is."""

    exit_code = 2

    def __init__(self, path: str, holds: str) -> None:
        self.path, self.holds = path, holds
        if holds == "pages":
            super().__init__(
                f"{path}: this folder holds collected pages and no bars: bring them into a lake with "
                f"`klake replay {path}`",
                f"{path}：该目录只有收集到的数据页，没有 K 线：请用 `klake replay {path}` 存入数据湖",
            )
        else:
            super().__init__(
                f"{path}: this is a lake of bars, no folder of collected pages: give another folder",
                f"{path}：这是存放 K 线的数据湖，不是收集数据页的目录：请换一个目录",
            )


class LakeUnwritable(LakeError):
    """No permission or no space where the lake should be written."""


class LakeDamaged(LakeError):
    """A file that must be there is not, or is torn."""


class CommitConflict(LakeError):
    """Another writer was first, again and again."""

    retryable = True


class Incomplete(KlakeError):
    """Bars that were asked for with require="complete" are missing."""


class Interrupted(KlakeError):
    """Stopped by the user; nothing received is lost, the same command resumes."""

    exit_code = 3

    def __init__(self, command: str = "klake sync") -> None:
        self.command = command
        super().__init__(
            f"interrupted: nothing received is lost; run `{command}` again to resume",
            f"已中断：收到的数据没有丢失；再次运行 `{command}` 即可继续",
        )
