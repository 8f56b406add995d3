"""The process's highest memory use so far."""

import sys

__all__ = ["peak_mb"]


def peak_mb() -> float:
    """Return the peak resident memory of this process in MB; 0.0 where the system does not say."""
    if sys.platform == "win32":
        return 0.0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1_000_000 if sys.platform == "darwin" else 1_000)
