"""Which file systems a job file can be written on."""

from __future__ import annotations

from pathlib import Path

_NETWORK = (
    *("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "afs", "glusterfs", "lustre", "gpfs", "beegfs"),
    *("davfs", "davfs2", "sshfs", "s3fs", "gcsfuse"),
)
"""Types whose locks or shared memory SQLite's write-ahead log cannot rely on (sqlite.org/wal.html)."""


def network_type(folder: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str | None:
    """Return the type of the network file system `folder` lies on, None where it is local or not known.

    Source: proc_pid_mountinfo(5): the mount point is the fifth field, the type the first after the lone hyphen.
    """
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        inside = folder.resolve()
    except OSError:
        return None
    found: tuple[int, str] = (-1, "")
    for line in lines:
        fields = line.split()
        if "-" not in fields[6:]:
            continue
        point = Path(fields[4].replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\"))
        if inside.is_relative_to(point) and len(point.parts) >= found[0]:
            found = (len(point.parts), fields[fields.index("-", 6) + 1])
    kind = found[1].removeprefix("fuse.")
    return kind if kind in _NETWORK else None
