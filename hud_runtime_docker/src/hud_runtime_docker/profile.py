"""How tightly a container is held, and what is opened where its workspace's sandbox is made of namespaces.

Without capabilities, user 0 of a container is still the engine machine's user 0: with `/proc/sys` writable, as the
namespaces need it, it could write the machine's settings (`kernel.core_pattern` names a program that the machine runs
as root). So namespaces are given to other users only.
"""

from __future__ import annotations

import json
from typing import Any, Literal

from hud.errors import UnsupportedConfigError

Workspaces = Literal["landlock", "namespaces"]
"""What holds workspaces in a container: Landlock under the engine's own profile, or namespaces under a wider one."""

_REFUSED = """
    _sysctl acct add_key adjtimex bpf chroot clock_adjtime clock_adjtime64 clock_settime clock_settime64 create_module
    delete_module fanotify_init finit_module fsconfig fsmount fsopen fspick get_kernel_syms get_mempolicy init_module
    io_uring_enter io_uring_register io_uring_setup ioperm iopl kcmp kexec_file_load kexec_load keyctl lookup_dcookie
    mbind memfd_secret migrate_pages mount_setattr move_mount move_pages name_to_handle_at nfsservctl
    open_by_handle_at open_tree perf_event_open personality pidfd_getfd process_madvise process_vm_readv
    process_vm_writev ptrace query_module quotactl quotactl_fd reboot request_key set_mempolicy setdomainname
    settimeofday stime swapoff swapon sysfs syslog umount userfaultfd uselib ustat vhangup vm86 vm86old
    vserver
"""
"""What engines refuse to a container without capabilities, but for what bubblewrap needs: `clone clone3 mount
pivot_root sethostname setns umount2 unshare`.

Source: docs.docker.com/engine/security/seccomp, "Significant syscalls blocked by the default profile".
"""


def seccomp_for_namespaces() -> str:
    """Return a system call filter as engines take it: all that theirs refuses, but for what makes namespaces."""
    return json.dumps(
        {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": _REFUSED.split(), "action": "SCMP_ACT_ERRNO", "errnoRet": 1}],
        }
    )


def opened_for(workspaces: Workspaces) -> dict[str, Any]:
    """Return the parts of the engine's `HostConfig` that differ from the hardened ones."""
    if workspaces == "landlock":
        return {}
    return {
        "SecurityOpt": ["no-new-privileges", f"seccomp={seccomp_for_namespaces()}"],
        # A sandbox can mount its own /proc only where nothing of the container's is covered.
        "MaskedPaths": [],
        "ReadonlyPaths": [],
    }


def require_other_than_root(user: str, image: str) -> None:
    """Refuse user 0 where namespaces hold workspaces.

    Raises:
        UnsupportedConfigError: says how to run as another.
    """
    name = user.partition(":")[0]
    if name in ("", "0", "root"):
        raise UnsupportedConfigError(
            f"workspaces='namespaces' opens /proc, where user 0 of a container could write the machine's settings, and "
            f"image {image!r} runs as that: give run_args=['--user', '1000:1000'], or USER in the image"
        )
