"""Be a sandbox without namespaces: Landlock for files and signals, a filter for system calls, and a watcher.

Run as a script, as the spawner is: `python -I -S THIS CONTROL RULES SPAWNER MODES`, four descriptors. A first process
watches; its child confines itself for good and becomes the spawner, whose commands are confined once more, so that
they can signal each other and nothing above. Whatever they leave behind, the watcher ends: everything below it, and
where the sandbox has a user of its own, everything of that user.

Source: Documentation/userspace-api/landlock.rst, ABI 7 (Linux 6.15); no rule for it has a smaller one than 6.
"""

from __future__ import annotations

import ctypes
import marshal
import os
import sys
import types
from _socket import AF_UNIX, CMSG_SPACE, SCM_RIGHTS, SOCK_SEQPACKET, SOL_SOCKET, socket
from _socket import socketpair as pair

# pathlib and contextlib would double what this process weighs.
# ruff: noqa: PTH112, PTH123, PTH208, SIM105

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
ALL_FILES = (1 << 16) - 1
LIST = 1 << 3
READ = 1 << 0 | 1 << 2 | LIST
FILE_ONLY = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 14 | 1 << 15
ALL_NET = 3
SCOPED = 3
"""Abstract unix sockets and signals."""
SIGKILL = 9
SYS_SECCOMP = 317 if os.uname().machine in ("x86_64", "amd64") else 277
NEW_LISTENER = 1 << 3
TIOCSCTTY = 0x540E
NO_NEW_PRIVS, SECCOMP, SUBREAPER, DUMPABLE = 38, 22, 36, 4


class RulesetAttr(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class PathRule(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("access", ctypes.c_uint64), ("parent", ctypes.c_int32))


class Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))


LIBC = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> int:
    """Raise what the call that returned `result` met."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def ruleset(fs: int, net: int, scoped: int) -> int:
    """Return a descriptor of a new set of rules."""
    attr = RulesetAttr(fs, net, scoped)
    return check(LIBC.syscall(CREATE_RULESET, ctypes.byref(attr), ctypes.sizeof(attr), 0), "landlock")


def restrict(rules: int) -> None:
    """Hold this process, and all it starts, to `rules`."""
    check(LIBC.syscall(RESTRICT_SELF, rules, 0), "landlock")


def allow(rules: int, path: str, access: int) -> None:
    """Allow `access` below `path`; one that is missing is left out."""
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not os.path.isdir(path):
            access &= FILE_ONLY
        rule = PathRule(access, fd)
        check(LIBC.syscall(ADD_RULE, rules, 1, ctypes.byref(rule), 0), f"landlock rule for {path}")
    finally:
        os.close(fd)


def loaded(name: str, source: bytes, compiled: bool) -> Any:
    """Return one of our programs as a module."""
    module = types.ModuleType(name)
    code = marshal.loads(source[16:]) if compiled else compile(source, name, "exec")  # noqa: S302
    exec(code, module.__dict__)  # noqa: S102 - our own program
    return module


def start_modes(rules: dict[str, Any], source: bytes, control: int) -> socket:
    """Start the process that changes modes; return the socket on which it waits for the listener."""
    ours, theirs = pair()
    if os.fork():
        theirs.close()
        return ours
    try:
        ours.close()
        os.close(control)
        _, rights, _, _ = theirs.recvmsg(1, CMSG_SPACE(4))
        listener = int.from_bytes(rights[0][2], sys.byteorder)
        roots = [os.fsencode(os.path.realpath(path)) for path in rules["write"]]
        loaded("modes", source, rules["compiled"]).attend(listener, roots, rules["modes"][1])
    finally:
        os._exit(0)


def hand_modes_over(program_code: bytes, ask: socket) -> None:
    """Have another process do the calls that Landlock does not know."""
    program = Program(len(program_code) // 8, program_code)
    listener = check(LIBC.syscall(SYS_SECCOMP, 1, NEW_LISTENER, ctypes.byref(program)), "modes' filter")
    ask.sendmsg([b"!"], [(SOL_SOCKET, SCM_RIGHTS, listener.to_bytes(4, sys.byteorder))])
    os.close(listener)
    ask.close()
    LIBC.prctl(
        DUMPABLE, 1, 0, 0, 0
    )  # else its own calls could not be read; what it starts is kept off by Landlock


def confine(rules: dict[str, Any], ask: socket | None) -> int:
    """Confine this process; return the rules its commands get on top."""
    check(LIBC.prctl(NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    files = ruleset(ALL_FILES, ALL_NET, 0)
    for path in rules["read"]:
        allow(files, path, READ)
    for path in rules["listed"]:
        allow(files, path, LIST)
    for path in rules["devices"]:
        allow(files, path, FILE_ONLY | READ)
    for path in rules["write"]:
        allow(files, path, ALL_FILES & ~(1 << 6 | 1 << 11))
    restrict(files)
    os.close(files)
    if ask is not None:
        hand_modes_over(rules["modes"][0], ask)
    code = rules["filter"]
    program = Program(len(code) // 8, code)
    scope = ruleset(0, 0, SCOPED)
    check(LIBC.prctl(SECCOMP, 2, ctypes.byref(program), 0, 0), "system call filter")
    return scope


def watch(child: int, own_user: bool) -> None:
    """Wait for the spawner's end, then end all it left behind."""
    while True:
        try:
            ended, _ = os.waitpid(-1, 0)
        except ChildProcessError:
            break
        if ended == child:
            break
    while True:
        left = below(os.getpid())
        if own_user:
            try:
                os.kill(-1, SIGKILL)
            except OSError:
                pass
        for pid in left:
            try:
                os.kill(pid, SIGKILL)
            except OSError:
                pass
        try:
            while os.waitpid(-1, 0 if left else os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return


def below(top: int) -> list[int]:
    """Return every process that descends from `top`."""
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                with open(f"/proc/{name}/stat", "rb") as table:
                    parents[int(name)] = int(table.read().rpartition(b")")[2].split()[1])
            except OSError:
                pass
    found = []
    for pid, parent in parents.items():
        above = parent
        while above not in (0, top) and above in parents:
            above = parents[above]
        if above == top:
            found.append(pid)
    return found


def start_confined(scope: int) -> Any:
    """Return what starts a command in place of the spawner's own way: confined once more, between fork and exec."""

    def start(argv: list[bytes], env: dict[bytes, bytes], actions: list[Any]) -> int:
        broken, told = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.setsid()
                for action in actions:
                    if action[0] == os.POSIX_SPAWN_OPEN:
                        os.dup2(os.open(action[2], action[3]), action[1])
                    else:
                        os.dup2(action[1], action[2])
                import _signal  # type: ignore[import-not-found]

                for number in (_signal.SIGPIPE, _signal.SIGINT, _signal.SIGCHLD):
                    _signal.signal(number, _signal.SIG_DFL)
                if scope >= 0:
                    restrict(scope)
                if os.isatty(0):
                    LIBC.ioctl(0, TIOCSCTTY, 0)
                program = argv[0]
                places = (
                    [b""]
                    if b"/" in program
                    else [p + b"/" for p in env.get(b"PATH", b"/usr/bin:/bin").split(b":")]
                )
                failure = 2
                for place in places:
                    try:
                        os.execve(place + program, argv, env)  # noqa: S606 - the command
                    except OSError as error:
                        failure = error.errno or 2
                    except ValueError:  # a NUL in a word
                        failure = 22
                os.write(told, failure.to_bytes(4, "little"))
            finally:
                os._exit(127)
        os.close(told)
        try:
            failed = os.read(broken, 4)
        finally:
            os.close(broken)
        if failed:
            os.waitpid(pid, 0)
            number = int.from_bytes(failed, "little")
            raise OSError(number, os.strerror(number))
        return pid

    return start


def main() -> None:
    """Watch, and be the spawner in a child."""
    control, rules_fd, spawner_fd, modes_fd = map(int, sys.argv[1:5])
    rules = marshal.loads(os.pread(rules_fd, 1 << 20, 0))  # noqa: S302 - from the process that made this one
    source, modes = os.pread(spawner_fd, 1 << 20, 0), os.pread(modes_fd, 1 << 20, 0)
    keep = {0, 1, 2, control}
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in keep:
            try:
                os.close(int(name))
            except OSError:
                pass
    LIBC.prctl(SUBREAPER, 1, 0, 0, 0)
    LIBC.prctl(DUMPABLE, 0, 0, 0, 0)
    ask = None if rules["modes"] is None else start_modes(rules, modes, control)
    child = os.fork()
    if child:
        if ask is not None:
            ask.close()
        os.close(control)
        watch(child, rules["own_user"])
        os._exit(0)
    try:
        LIBC.prctl(SUBREAPER, 1, 0, 0, 0)
        scope = confine(rules, ask) if rules["confined"] else -1
        module = loaded("spawner", source, rules["compiled"])
        os.set_inheritable(control, False)
        if scope >= 0:
            os.set_inheritable(scope, False)
        module.ignore_signals()
        spawner = module.Spawner(socket(AF_UNIX, SOCK_SEQPACKET, 0, control))
        spawner.start = start_confined(scope)
        spawner.serve()
        spawner.kill_everything()
    except BaseException as error:  # noqa: BLE001 - told to who started this, then the end
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    main()
