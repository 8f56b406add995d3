"""What a vendor may be called: its name becomes part of a path, so that its form is strict."""

import re
from typing import Final

from ..errors import BadRequest

__all__ = ["vendor_name"]

_NAME: Final = re.compile(r"[a-z0-9_-]{1,64}")


def vendor_name(name: str) -> str:
    """Return `name` when a vendor may be called so; BadRequest otherwise."""
    if not _NAME.fullmatch(name):
        raise BadRequest(
            "vendor", name, hint="a vendor's name holds a-z, 0-9, - and _ only, 64 at most",
            hint_zh="vendor 名称只能含 a-z、0-9、- 和 _，最多 64 个字符",
        )  # fmt: skip
    return name
