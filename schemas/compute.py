"""Arrow's compute functions; they are made at run time, so that no type checker sees them."""

from typing import Any, Final

import pyarrow.compute

__all__ = ["pc"]

pc: Final[Any] = pyarrow.compute
