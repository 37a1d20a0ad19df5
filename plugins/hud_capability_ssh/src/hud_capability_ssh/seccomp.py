"""Make the system call filter of a sandbox: a classic BPF program, as the kernel takes it.

A list of what is refused, on top of namespaces, no capabilities and no_new_privs: the calls that container
engines refuse too, those that make new namespaces, families of sockets that reach the kernel's back rooms, and
limits and priorities of other processes: the spawner, and without namespaces the server, have the same user.
Numbers: Linux `arch/x86/entry/syscalls/syscall_64.tbl` and `include/uapi/asm-generic/unistd.h`, 6.12.
"""

from __future__ import annotations

import errno
import platform
import struct
from functools import cache

from hud.errors import SandboxError

X86, ARM = "x86_64", "aarch64"
_AUDIT = {X86: 0xC000003E, ARM: 0xC00000B7}
_NONE = 0xFFFF
_REFUSED: dict[str, tuple[int, int]] = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "open_tree_attr": (467, 467),
    "unshare": (272, 97),
    "setns": (308, 268),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "open_by_handle_at": (304, 265),
    "name_to_handle_at": (303, 264),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "create_module": (174, _NONE),
    "iopl": (172, _NONE),
    "ioperm": (173, _NONE),
    "modify_ldt": (154, _NONE),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "reboot": (169, 142),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "syslog": (103, 116),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "vhangup": (153, 58),
    "lookup_dcookie": (212, 18),
    "nfsservctl": (180, 42),
    "fanotify_init": (300, 262),
    "mbind": (237, 235),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    "vmsplice": (278, 75),
    "memfd_secret": (447, 447),
}
_NOT_THERE = {
    # Programs fall back where these do not exist: clone3 to clone and openat2 to openat (whose
    # flags can be seen), io_uring to epoll.
    "clone3": (435, 435),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "openat2": (437, 437),
}
_SYSTEM_V = ((29, 194), (30, 196), (68, 186), (64, 190), (240, 180))
"""shmget, shmat, msgget, semget, mq_open: without an ipc namespace they are the machine's."""
_NAMESPACE_FLAGS = 0x7E020000
"""CLONE_NEWNS, CGROUP, UTS, IPC, USER, PID and NET; NEWTIME works in clone3 and unshare alone."""
_FAMILIES = (1, 2, 10, 16)
"""AF_UNIX, AF_INET, AF_INET6, AF_NETLINK."""
_TERMINAL_INPUT = (0x5412, 0x541C)
"""TIOCSTI and TIOCLINUX put words into another's mouth."""
_OF_OTHERS: tuple[tuple[int, int, int, int | None], ...] = (
    # Call, the place of whom it is about (only 0, the caller itself, passes), and what its first argument is not:
    # every process of a user.
    (144, 119, 0, None),  # sched_setscheduler
    (142, 118, 0, None),  # sched_setparam
    (314, 274, 0, None),  # sched_setattr
    (141, 140, 1, 2),  # setpriority
    (251, 30, 1, 3),  # ioprio_set
)
_SETRLIMIT, _PRLIMIT, _AFFINITY = (160, 164), (302, 261), (203, 122)
_MARK = 12
"""RLIMIT_MSGQUEUE: the spawner tells commands apart by it."""
_SETUID = 0o4000
_CREATES = 0o100 | 0o20000000
"""O_CREAT and O_TMPFILE: without them `open` takes no mode and the register holds anything."""
_MODES: dict[str, tuple[tuple[int, int | None, int], ...]] = {
    # Call, the place of its flags, the place of the mode that may not have the setuid bit.
    X86: (
        (90, None, 1),  # chmod
        (91, None, 1),  # fchmod
        (268, None, 2),  # fchmodat
        (452, None, 2),  # fchmodat2
        (85, None, 1),  # creat
        (133, None, 1),  # mknod
        (259, None, 2),  # mknodat
        (2, 1, 2),  # open
        (257, 2, 3),  # openat
    ),
    ARM: ((52, None, 1), (53, None, 2), (452, None, 2), (33, None, 2), (56, 2, 3)),
}

_HANDED: dict[str, tuple[int, int]] = {
    "chmod": (90, _NONE),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "utimensat": (280, 88),
}
"""What `modes` does for a sandbox that shares its user with others."""
_ATTRIBUTES = (
    *((188, 5), (189, 6), (190, 7), (463, 463)),  # setxattr and its like
    *((197, 14), (198, 15), (199, 16), (466, 466)),  # removexattr
    (469, 469),  # file_setattr
)
_OLD_TIMES = ((132, _NONE), (235, _NONE), (261, _NONE))
"""utime, utimes, futimesat: the C library uses utimensat."""

_LOAD, _JUMP_EQ, _JUMP_GE, _JUMP_SET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERRNO, _KILL, _NOTIFY = 0x7FFF0000, 0x00050000, 0x80000000, 0x7FC00000


class _Program:
    def __init__(self) -> None:
        self.code: list[tuple[int, int, int, int]] = []

    def load(self, offset: int) -> None:
        self.code.append((_LOAD, 0, 0, offset))

    def when(self, test: int, value: int, answer: int) -> None:
        """Answer at once where the loaded word passes `test`."""
        self.code.append((test, 0, 1, value))
        self.code.append((_RETURN, 0, 0, answer))

    def unless(self, test: int, value: int, answer: int) -> None:
        self.code.append((test, 1, 0, value))
        self.code.append((_RETURN, 0, 0, answer))

    def guarded(self, number: int, body: _Program) -> None:
        """Run `body` for one call only; it ends by answering or by falling out at its end."""
        self.code.append((_JUMP_EQ, 0, len(body.code) + 1, number))
        self.code += body.code
        self.code.append((_RETURN, 0, 0, _ALLOW))

    def packed(self) -> bytes:
        return b"".join(struct.pack("=HBBI", *line) for line in self.code)


def _argument(index: int) -> int:
    return 16 + 8 * index  # struct seccomp_data: nr, arch, instruction pointer, args; low word first


def filter_program(
    key: tuple[int, int],
    *,
    sockets: bool = True,
    memory_files: bool = True,
    pinned: bool = False,
    machine: str | None = None,
) -> bytes:
    """Return the program; without `sockets` none can be made, but for pairs, nor System V's segments and queues.

    Without `memory_files` there is no memfd: what is written to one belongs to no process that could be measured.
    `pinned` processes cannot choose their processors. Limits of others, and the mark of a command, are set only by
    who puts `key`, two numbers of 31 bits, into the two registers that `prlimit64` leaves unused.

    Raises:
        SandboxError: this processor is not known here.
    """
    machine = {"amd64": X86, "arm64": ARM}.get(machine or platform.machine(), machine or platform.machine())
    if machine not in _AUDIT:
        raise SandboxError(f"no system call filter for {machine!r}; x86_64 and aarch64 have one")
    program = _Program()
    program.load(4)
    program.unless(_JUMP_EQ, _AUDIT[machine], _KILL)
    program.load(0)
    program.guarded(_PRLIMIT[0 if machine == X86 else 1], _limits_of_others(key))
    return program.packed() + _unkeyed(sockets, memory_files, pinned, machine)


def _limits_of_others(key: tuple[int, int]) -> _Program:
    program = _Program()
    program.load(_argument(4))
    program.code.append((_JUMP_EQ, 0, 3, key[0]))
    program.load(_argument(5))
    program.when(_JUMP_EQ, key[1], _ALLOW)
    program.load(_argument(2))
    program.code.append((_JUMP_EQ, 0, 3, 0))
    program.load(_argument(2) + 4)
    program.when(_JUMP_EQ, 0, _ALLOW)  # nothing is set, only asked
    program.load(_argument(0))
    program.unless(_JUMP_EQ, 0, _ERRNO | errno.EPERM)
    program.load(_argument(1))
    program.when(_JUMP_EQ, _MARK, _ERRNO | errno.EPERM)
    return program


@cache
def _unkeyed(sockets: bool, memory_files: bool, pinned: bool, machine: str) -> bytes:
    """Return what is the same for every sandbox, and to be run with the call's number loaded."""
    column = 0 if machine == X86 else 1
    program = _Program()
    if machine == X86:
        program.when(_JUMP_GE, 0x40000000, _ERRNO | errno.ENOSYS)  # the x32 doors to the same calls
    if pinned:
        program.when(_JUMP_EQ, _AFFINITY[column], _ERRNO | errno.EPERM)
    for numbers in _REFUSED.values():
        number = numbers[column]
        if number != _NONE:
            program.when(_JUMP_EQ, number, _ERRNO | errno.EPERM)
    for numbers in _NOT_THERE.values():
        program.when(_JUMP_EQ, numbers[column], _ERRNO | errno.ENOSYS)
    for numbers in () if sockets else _SYSTEM_V:
        program.when(_JUMP_EQ, numbers[column], _ERRNO | errno.EPERM)
    if not memory_files:
        program.when(_JUMP_EQ, 319 if machine == X86 else 279, _ERRNO | errno.ENOSYS)
    mark = _Program()
    mark.load(_argument(0))
    mark.when(_JUMP_EQ, _MARK, _ERRNO | errno.EPERM)
    program.guarded(_SETRLIMIT[column], mark)
    for x86, arm, place, all_of_user in _OF_OTHERS:
        other = _Program()
        if all_of_user is not None:
            other.load(_argument(0))
            other.when(_JUMP_EQ, all_of_user, _ERRNO | errno.EPERM)
        other.load(_argument(place))
        other.unless(_JUMP_EQ, 0, _ERRNO | errno.EPERM)
        program.guarded((x86, arm)[column], other)
    clone = _Program()
    clone.load(_argument(0))
    clone.when(_JUMP_SET, _NAMESPACE_FLAGS, _ERRNO | errno.EPERM)
    program.guarded(56 if machine == X86 else 220, clone)
    family = _Program()
    family.load(_argument(0))
    for allowed in _FAMILIES if sockets else ():
        family.when(_JUMP_EQ, allowed, _ALLOW)
    family.code.append((_RETURN, 0, 0, _ERRNO | errno.EAFNOSUPPORT))
    program.guarded(41 if machine == X86 else 198, family)
    terminal = _Program()
    terminal.load(_argument(1))
    for request in _TERMINAL_INPUT:
        terminal.when(_JUMP_EQ, request, _ERRNO | errno.EPERM)
    program.guarded(16 if machine == X86 else 29, terminal)
    for call, flags_at, mode_at in _MODES[machine]:
        mode = _Program()
        if flags_at is not None:
            mode.load(_argument(flags_at))
            mode.unless(_JUMP_SET, _CREATES, _ALLOW)
        mode.load(_argument(mode_at))
        mode.when(_JUMP_SET, _SETUID, _ERRNO | errno.EPERM)
        program.guarded(call, mode)
    program.code.append((_RETURN, 0, 0, _ALLOW))
    return program.packed()


def handed_calls(machine: str | None = None) -> dict[int, str]:
    """Return the calls of which `modes` is told, by number."""
    column = 0 if (machine or platform.machine()) in (X86, "amd64") else 1
    return {numbers[column]: name for name, numbers in _HANDED.items() if numbers[column] != _NONE}


def modes_program() -> bytes:
    """Return a program on top of the other: it hands calls to `modes`, and refuses attributes."""
    column = 0 if platform.machine() in (X86, "amd64") else 1
    program = _Program()
    program.load(0)
    for number in handed_calls():
        program.when(_JUMP_EQ, number, _NOTIFY)
    for numbers in _ATTRIBUTES:
        program.when(_JUMP_EQ, numbers[column], _ERRNO | errno.EOPNOTSUPP)
    for numbers in _OLD_TIMES:
        if numbers[column] != _NONE:
            program.when(_JUMP_EQ, numbers[column], _ERRNO | errno.ENOSYS)
    program.code.append((_RETURN, 0, 0, _ALLOW))
    return program.packed()
