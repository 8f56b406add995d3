"""Random numbers that are looked up, not drawn: the same key gives the same number anywhere.

Everything in the sandbox market comes from these, so that any bar of any day is computed
directly, in any order, in any process.
"""

from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Floats", "Ints", "key", "normal", "smooth", "uniform"]

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]

_MASK: Final = (1 << 64) - 1
_GOLDEN: Final = 0x9E3779B97F4A7C15
_ONE: Final = (_MASK >> 43) + 1  # 2**21: a hash holds three numbers of 21 bits


def key(seed: int, *words: int | str) -> int:
    """Return a 64-bit key for `words` under `seed`; the same in every process."""
    out = _mix(seed & _MASK)
    for word in words:
        parts = [word] if isinstance(word, int) else list(word.encode())
        for part in parts:
            out = _mix(out ^ ((part * _GOLDEN) & _MASK))
    return out


def uniform(key: int, index: Any) -> Floats:
    """Return numbers in [0, 1), one per element of the integer array `index`."""
    out: Floats = (_hashed(key, index) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return out


def normal(key: int, index: Any) -> Floats:
    """Return bell-shaped numbers in [-3, 3], mean 0, deviation 1, one per element of `index`."""
    bits = _hashed(key, index)
    total = (
        (bits & np.uint64(_ONE - 1)) + (bits >> np.uint64(21) & np.uint64(_ONE - 1)) + (bits >> np.uint64(43))
    )
    out: Floats = total.astype(np.float64) * (2.0 / _ONE) - 3.0
    return out


def smooth(key: int, days: Ints, octaves: int) -> Floats:
    """Return value noise at `days` that wanders like a price: n values, unit change per day.

    Octave k is a line between random points 2**k days apart, its height growing with the
    root of its length, as in a random walk; `days` must be ascending.
    """
    out = np.zeros(days.size)
    for octave in range(octaves):
        first = int(days[0]) >> octave
        last = (int(days[-1]) >> octave) + 2
        points = normal(key + octave * 7_919, np.arange(first, last)) * (0.42 * 2.0 ** (octave / 2))
        spot = (days >> octave) - first
        part = (days & ((1 << octave) - 1)) * (1.0 / (1 << octave))
        out += points[spot] * (1.0 - part) + points[spot + 1] * part
    return out


def _hashed(key: int, index: Any) -> npt.NDArray[np.uint64]:
    """splitmix64, vectorised."""
    z = np.asarray(index, np.int64).astype(np.uint64) * np.uint64(_GOLDEN) + np.uint64(key & _MASK)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _mix(z: int) -> int:
    z = (z + _GOLDEN) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)
