"""Who is at the other end of a loopback connection: the uid of its process, from the kernel."""

from __future__ import annotations

import os
import socket
import struct
import sys
from pathlib import Path

_SOCK_DIAG = 4  # NETLINK_SOCK_DIAG; linux/netlink.h
_SOCK_DIAG_BY_FAMILY = 20  # linux/sock_diag.h
_NLM_F_REQUEST = 1
_HEADER = struct.Struct("=IHHII")
_REQUEST = struct.Struct("=BBBBI")
_NO_COOKIE = b"\xff" * 8


def same_user(accepted: socket.socket) -> bool:
    """Tell whether a process of this user holds the other end of an accepted loopback connection.

    Only Linux can say; elsewhere the answer is yes, since nothing better can be had. Where Linux cannot say
    either (no such socket any more), the answer is no.
    """
    if not sys.platform.startswith("linux"):
        return True
    if accepted.family == socket.AF_UNIX:
        uid: int = struct.unpack("3i", accepted.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1]
        return uid == os.geteuid()
    try:
        local, peer = accepted.getsockname(), accepted.getpeername()
    except OSError:
        return False
    owner = _uid_by_netlink(peer, local)
    if owner is None:
        owner = _uid_by_proc(peer, local)
    return owner == os.geteuid()


def _uid_by_netlink(source: tuple[str, int], target: tuple[str, int]) -> int | None:
    """Ask for the one socket bound to `source` and connected to `target` (sock_diag(7))."""
    wanted = (
        _REQUEST.pack(socket.AF_INET, socket.IPPROTO_TCP, 0, 0, 0xFFFFFFFF)
        + struct.pack(">HH", source[1], target[1])
        + socket.inet_aton(source[0]).ljust(16, b"\0")
        + socket.inet_aton(target[0]).ljust(16, b"\0")
        + struct.pack("=I", 0)
        + _NO_COOKIE
    )
    message = _HEADER.pack(_HEADER.size + len(wanted), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 1, 0) + wanted
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG) as link:
            link.settimeout(1.0)
            link.send(message)
            answer = link.recv(8192)
    except OSError:
        return None  # the kernel or the sandbox has no sock_diag
    _, kind, _, _, _ = _HEADER.unpack_from(answer)
    if kind != _SOCK_DIAG_BY_FAMILY or len(answer) < _HEADER.size + 72:
        return None
    # struct inet_diag_msg: 4 bytes, a 48-byte socket id, then expires, rqueue, wqueue, uid, inode.
    uid: int = struct.unpack_from("=I", answer, _HEADER.size + 4 + 48 + 12)[0]
    return uid


def _uid_by_proc(source: tuple[str, int], target: tuple[str, int]) -> int | None:
    wanted = f" {_hex(source)} {_hex(target)} "
    try:
        with Path("/proc/net/tcp").open(encoding="ascii") as table:
            for line in table:
                if wanted in line:
                    return int(line.split()[7])
    except (OSError, ValueError, IndexError):
        return None
    return None


def _hex(address: tuple[str, int]) -> str:
    (number,) = struct.unpack("=I", socket.inet_aton(address[0]))
    return f"{number:08X}:{address[1]:04X}"
