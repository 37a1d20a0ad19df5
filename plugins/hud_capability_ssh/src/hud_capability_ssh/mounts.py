"""What of the host a sandbox sees, and where."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

MountKind = Literal["ro", "rw", "tmpfs", "symlink", "proc", "dev"]


@dataclass(slots=True, frozen=True)
class Mount:
    """One thing put into the sandbox at `dst`: `src` of the host read-only (`ro`) or writable (`rw`), or made there.

    An `optional` one is left out where `src` is missing. `mode` is for `tmpfs`. A `symlink`'s `src` is its text.
    """

    kind: MountKind
    src: str = ""
    dst: str = ""
    optional: bool = False
    mode: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("ro", "rw", "tmpfs", "symlink", "proc", "dev"):
            raise ValueError(f"mount kind {self.kind!r}: use ro, rw, tmpfs, symlink, proc or dev")
        if not self.dst:
            object.__setattr__(self, "dst", self.src)
        if not self.dst.startswith("/"):
            raise ValueError(f"mount destination {self.dst!r} must be an absolute path in the sandbox")
        if self.kind in ("ro", "rw", "symlink") and not self.src:
            raise ValueError(f"a {self.kind} mount at {self.dst!r} needs src=")


DEFAULT_SYSTEM_MOUNTS: tuple[Mount, ...] = (
    Mount("ro", "/usr", "/usr"),
    Mount("ro", "/etc", "/etc"),
    Mount("symlink", "usr/lib", "/lib"),
    Mount("symlink", "usr/lib64", "/lib64"),
    Mount("symlink", "usr/bin", "/bin"),
    Mount("symlink", "usr/sbin", "/sbin"),
    Mount("proc", dst="/proc"),
    Mount("dev", dst="/dev"),
    Mount("tmpfs", dst="/tmp", mode=0o1777),  # noqa: S108 - inside
)

MASKED = ("shadow", "shadow-", "gshadow", "gshadow-", "sudoers", "krb5.keytab", "machine-id")
"""Files of /etc that are empty inside, whoever could read them."""


def account_files(guest_home: str, hostname: str, names: tuple[str, ...] = ()) -> dict[str, bytes]:
    """Return the files of /etc that speak of the sandbox instead of the host."""
    return {
        "/etc/passwd": (
            f"root:x:0:0:root:/root:/usr/sbin/nologin\nagent:x:1000:1000:agent:{guest_home}:/bin/bash\n"
            "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
        ).encode(),
        "/etc/group": b"root:x:0:\nagent:x:1000:\nnogroup:x:65534:\n",
        "/etc/hosts": f"127.0.0.1 {' '.join(('localhost', hostname, *names))}\n::1 localhost ip6-localhost\n".encode(),
        "/etc/hostname": f"{hostname}\n".encode(),
        "/etc/resolv.conf": b"# names are resolved by the proxy where the network is allowed\n",
    }


def effective(mount: Mount) -> Mount | None:
    """Return what to mount on this host: where `/lib` is no link into /usr, the folder; None to leave it out."""
    if mount.kind == "symlink":
        on_host = Path(mount.dst)
        if on_host.is_symlink():
            return mount
        if on_host.is_dir() and mount in DEFAULT_SYSTEM_MOUNTS:
            return Mount("ro", mount.dst, mount.dst)
        return None if mount in DEFAULT_SYSTEM_MOUNTS else mount
    if mount.kind in ("ro", "rw") and not Path(mount.src).exists():
        if mount.optional:
            return None
        raise FileNotFoundError(
            f"mount source {mount.src!r} does not exist; mark it optional=True or make it"
        )
    return mount
