"""Where databases may lie: damaged files are set aside, network file systems are found out."""

import os
from pathlib import Path
from typing import Final

__all__ = ["network_of", "set_aside"]

_NETWORK: Final = frozenset(
    ["afs", "beegfs", "ceph", "cifs", "fuse.ceph", "fuse.glusterfs", "fuse.sshfs", "glusterfs", "gpfs",
     "lustre", "ncpfs", "nfs", "nfs4", "smb3", "smbfs"]
)  # fmt: skip
_MOUNTS: Final = Path("/proc/self/mounts")


def set_aside(path: Path) -> Path:
    """Return where the damaged database at `path` was moved: beside it, as `.broken-N`.

    Its write-ahead log goes with it, or the next database of that name might replay it.
    """
    n = 1
    while (broken := path.with_name(f"{path.name}.broken-{n}")).exists():
        n += 1
    for tail in ("", "-wal", "-shm"):
        old = path.with_name(path.name + tail)
        if old.exists():
            os.replace(old, broken.with_name(broken.name + tail))
    return broken


def network_of(path: Path, mounts: str | None = None) -> str:
    """Return the type of the network file system that holds `path`; empty for a local disk.

    Parameters
    ----------
    path : Path
        Absolute; it need not exist yet.
    mounts : str, optional
        Lines as in `/proc/self/mounts`, which is read when they are not given. Where there is
        none (macOS, Windows), only a UNC path is found out.
    """
    if str(path).startswith("\\\\"):
        return "smb"
    if mounts is None:
        try:
            mounts = _MOUNTS.read_text(errors="replace")
        except OSError:
            return ""
    deepest, kind = 0, ""
    for line in mounts.splitlines():
        _, where, found, *_ = [*line.split(" "), "", "", ""]
        point = Path(where.replace("\\040", " "))
        # A later line hides an earlier one of the same mount point.
        if where and path.is_relative_to(point) and len(point.parts) >= deepest:
            deepest, kind = len(point.parts), found
    return kind if kind in _NETWORK else ""
