"""Be the first process of a sandbox: start commands, reap them, open files, all inside.

Run as a script by the sandbox's engine, with `python -I -S`, and nothing but the interpreter's built-in modules,
so that it is small (about 2.5 MB of its own) and starts in 10 ms. It serves one peer over the SEQPACKET socket
whose descriptor its argument names, and ends with it, which ends the whole pid namespace. A request is marshal's
(the peer is trusted), an answer is JSON (this side is not: agents run here).
"""

from __future__ import annotations

# pathlib and contextlib would double what this process weighs.
# ruff: noqa: PTH116, PTH123, PTH208, SIM105
import errno
import marshal
import os
import resource
import select
import stat
import sys
from _json import encode_basestring_ascii as quoted
from _signal import (  # type: ignore[import-not-found]  # `signal` itself would bring enum along
    SIG_IGN,
    SIGCHLD,
    SIGINT,
    SIGKILL,
    SIGPIPE,
    SIGSTOP,
    set_wakeup_fd,
    signal,
)
from _socket import (
    AF_INET,
    AF_UNIX,
    CMSG_SPACE,
    SCM_RIGHTS,
    SO_REUSEADDR,
    SOCK_SEQPACKET,
    SOCK_STREAM,
    SOL_SOCKET,
    socket,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

LARGE = 60_000
ROOM = 32
MARKS = 400_000
"""How many commands can be told apart: the soft limit on message queues, inherited by all a command starts."""
PR_SET_DUMPABLE = 4
MOST_FREE = 64
SOCKET_KB = 208
"""What one may have sent that nobody took, `net.core.wmem_default`."""
SYS_PRLIMIT64 = 302 if os.uname().machine in ("x86_64", "amd64") else 261


def text(value: object) -> str:
    """Write JSON for the few types an answer has."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, str):
        return str(quoted(value))
    if isinstance(value, (list, tuple)):
        return "[" + ",".join([text(item) for item in value]) + "]"
    raise TypeError(type(value).__name__)


class Spawner:
    """Serves requests in order; a request that could block is refused instead."""

    def __init__(self, control: socket) -> None:
        self.control = control
        self.commands: dict[int, int] = {}  # pid -> id of the command it leads
        self.leaders: dict[int, int] = {}
        self.processes = 512
        self.folders: list[str] = []
        self.whole_namespace = os.getpid() == 1
        most = resource.getrlimit(resource.RLIMIT_MSGQUEUE)[1]
        self.mark_base = 1 << 30 if most == resource.RLIM_INFINITY else most
        self.key = (0, 0)
        self.oom: int | None = None
        self.proc_device = os.stat("/proc").st_dev

    # The peer's requests; each returns the answer's fields and the descriptors that go with it.

    def setup(
        self, processes: int, file_bytes: int, open_files: int, key: tuple[int, int], folders: list[str]
    ) -> tuple[list[object], list[int]]:
        """Set the limits that every command inherits; files below `folders` are memory, and are counted as such.

        `key` is what the system call filter wants to see of who sets limits of others.
        """
        self.processes = processes
        self.key = key
        for limit, value in (
            (resource.RLIMIT_NPROC, processes + 3 * ROOM),
            (resource.RLIMIT_FSIZE, file_bytes),
            (resource.RLIMIT_NOFILE, open_files),
            (resource.RLIMIT_CORE, 0),
            (resource.RLIMIT_MEMLOCK, 1 << 20),
        ):
            hard = resource.getrlimit(limit)[1]
            bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(limit, (bound, bound))
        os.umask(0o022)
        self.folders = folders
        try:
            # Kept open: the file belongs to root once this process is not dumpable.
            self.oom = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
        except OSError:
            self.oom = None
        if self.whole_namespace:
            # Other processes of this uid must not read or write this one's memory.
            call("prctl", PR_SET_DUMPABLE, 0, 0, 0, 0)
        return [os.getpid()], []

    def spawn(
        self, ident: int, argv: list[bytes], env: dict[bytes, bytes], cwd: bytes, tty: bool, fds: list[int]
    ) -> tuple[list[object], list[int]]:
        """Start a command as leader of a session of its own; for a terminal, answer its master."""
        os.chdir(cwd)
        master = slave = -1
        note = None
        running = self.count()
        if running >= self.processes + ROOM:
            self.kill_everything()
            note = "processes"
        # Where what runs has used up its limit, a new command still gets room: to end the others, say.
        most = self.processes if running < self.processes - ROOM else self.processes + 2 * ROOM
        try:
            if tty:
                master, slave = os.openpty()
                path = os.ttyname(slave)
                actions = [
                    (os.POSIX_SPAWN_OPEN, 0, path, os.O_RDWR, 0),
                    (os.POSIX_SPAWN_DUP2, 0, 1),
                    (os.POSIX_SPAWN_DUP2, 0, 2),
                ]
            else:
                # Those above the standard three stay open in the command: a script too long for an argument.
                actions = [(os.POSIX_SPAWN_DUP2, fd, at) for at, fd in enumerate(fds)]
            soft = self.mark_base - 1 - ident % MARKS
            self.limit(0, resource.RLIMIT_MSGQUEUE, soft, self.mark_base)
            self.adjust_oom(b"300")
            try:
                pid = self.start(argv, env, actions)
            finally:
                self.adjust_oom(b"0")
            self.commands[pid] = ident
            self.leaders[ident] = pid
            try:
                self.limit(pid, resource.RLIMIT_NPROC, most, most)
            except OSError:
                pass
            if master >= 0:
                return [pid, note], [os.dup(master)]
            return [pid, note], []
        finally:
            for fd in (master, slave):
                if fd >= 0:
                    os.close(fd)
            os.chdir("/")

    def limit(self, pid: int, what: int, soft: int, hard: int) -> None:
        """Set a limit of a process, as nobody else in the sandbox can."""
        values = soft.to_bytes(8, sys.byteorder) + hard.to_bytes(8, sys.byteorder)
        call("syscall", SYS_PRLIMIT64, pid, what, values, 0, *self.key)

    def start(self, argv: list[bytes], env: dict[bytes, bytes], actions: list[Any]) -> int:
        """Run the program of that name on the command's own PATH."""
        program = argv[0]
        places = [b""] if b"/" in program else env.get(b"PATH", b"/usr/bin:/bin").split(b":")
        failure: OSError = FileNotFoundError(errno.ENOENT, "no such program")
        for place in places:
            try:
                return os.posix_spawn(
                    place + b"/" + program if place else program,
                    argv,
                    env,
                    file_actions=actions,
                    setsid=True,
                    setsigmask=[],
                    setsigdef=[SIGPIPE, SIGINT, SIGCHLD],
                )
            except FileNotFoundError:
                continue
            except (NotADirectoryError, PermissionError) as error:
                failure = error
        raise failure

    def signal(self, ident: int, number: int, whole: bool, since: int) -> tuple[list[object], list[int]]:
        """Signal a command's group, or with `whole` all it ever started; since a boot tick, all but its leader."""
        leader = self.leaders.get(ident)
        if not whole:
            if leader is not None:
                try:
                    os.killpg(leader, number)
                except ProcessLookupError:
                    os.kill(leader, number)
            return [leader is not None], []
        if since:
            return [self.end_younger(ident, number, since)], []
        # Stopped first, the leader starts nothing more; ended last, it is not reported before the rest is gone.
        kill_all([leader] if leader is not None else [], SIGSTOP)
        mark = self.mark_base - 1 - ident % MARKS
        killed = 0
        for _ in range(20):  # what forks meanwhile is found by the next look
            found = [
                pid for pid in self.pids() if pid != leader and self.mark_of(pid) == mark and not gone(pid)
            ]
            if not found:
                break
            killed += len(kill_all(found, number))
            self.until_gone(found)
        killed += len(kill_all([leader] if leader is not None else [], number))
        return [killed], []

    def end_younger(self, ident: int, number: int, since: int) -> int:
        """Signal what a command started since a boot tick, but not its leader.

        All are stopped before the first is ended: the leader, a shell, goes on to its next command as soon as the
        one it waits for is gone, and what that starts is not meant.
        """
        mark = self.mark_base - 1 - ident % MARKS
        leader = self.leaders.get(ident)
        stopped: set[int] = set()
        for _ in range(20):
            young = [
                pid
                for pid in self.pids()
                if pid != leader and pid not in stopped and self.mark_of(pid) == mark
            ]
            young = [pid for pid in young if self.started(pid) >= since]
            if not young:
                break
            stopped |= set(kill_all(young, SIGSTOP))
        # The shell waits for its own children: they go last, so that none of the rest is seen by what comes next.
        awaited = {pid for pid in stopped if parent_of(pid) == leader}
        kill_all(stopped - awaited, number)
        self.until_gone(stopped - awaited)
        kill_all(awaited, number)
        return len(stopped)

    def until_gone(self, pids: Iterable[int]) -> None:
        """Wait until they have ended, 3 s at most: on a busy machine the dead take their time."""
        for _ in range(600):
            self.reap()
            if all(gone(pid) for pid in pids):
                return
            select.select([], [], [], 0.005)

    def everything(self, number: int) -> tuple[list[object], list[int]]:
        """Signal every process but this one."""
        if number == SIGKILL:
            self.kill_everything()
        elif self.whole_namespace:
            try:
                os.kill(-1, number)
            except OSError:
                pass
        else:
            for pid in self.pids():
                try:
                    os.kill(pid, number)
                except OSError:
                    pass
        return [self.count()], []

    def open(self, path: bytes, flags: int, mode: int) -> tuple[list[object], list[int]]:
        """Open a regular file or a folder; nothing that could block or reach into a process."""
        fd = os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, mode)
        found = os.fstat(fd)
        if (
            not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode))
            or found.st_dev == self.proc_device
        ):
            os.close(fd)
            raise OSError(errno.EINVAL, "neither a regular file nor a folder")
        return [], [fd]

    def stat(self, path: bytes, follow: bool) -> tuple[list[object], list[int]]:
        found = os.stat(path, follow_symlinks=follow)
        return [describe(found)], []

    def names(self, path: bytes) -> tuple[list[object], list[int]]:
        """Answer a folder's entries with what `lstat` says of each, in a file: they may be many."""
        fd = os.memfd_create("names", os.MFD_CLOEXEC)
        with os.scandir(path) as entries, os.fdopen(os.dup(fd), "w") as out:
            out.write("[")
            first = True
            for entry in entries:
                try:
                    found = entry.stat(follow_symlinks=False)
                except OSError:
                    continue
                out.write(("" if first else ",") + text([os.fsdecode(entry.name), describe(found)]))
                first = False
            out.write("]")
        return [], [fd]

    def change(self, verb: str, *args: object) -> tuple[list[object], list[int]]:
        """Do one of the short file calls, by its name in `os`."""
        if verb not in (
            "mkdir",
            "rmdir",
            "unlink",
            "rename",
            "replace",
            "symlink",
            "link",
            "chmod",
            "truncate",
            "readlink",
            "utime",
            "realpath",
            "makedirs",
            "statvfs",
        ):
            raise OSError(errno.EINVAL, verb)
        call: Any = os.path.realpath if verb == "realpath" else getattr(os, verb)
        result = call(*args)
        if verb in ("readlink", "realpath"):
            return [os.fsdecode(result)], []
        if verb == "statvfs":
            return [[*result, result.f_fsid]], []
        return [], []

    def listen(self, port: int) -> tuple[list[object], list[int]]:
        """Listen on the sandbox's own loopback."""
        with_socket = socket(AF_INET, SOCK_STREAM)
        try:
            with_socket.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
            with_socket.bind(("127.0.0.1", port))
            with_socket.listen(128)
            return [with_socket.getsockname()[1]], [os.dup(with_socket.fileno())]
        finally:
            with_socket.close()

    def connect(self, port: int) -> tuple[list[object], list[int]]:
        """Connect to a port on the sandbox's own loopback."""
        made = socket(AF_INET, SOCK_STREAM)
        try:
            made.setblocking(False)
            try:
                made.connect(("127.0.0.1", port))
            except BlockingIOError:
                pass
            return [], [os.dup(made.fileno())]
        finally:
            made.close()

    def ports(self) -> tuple[list[object], list[int]]:
        """Answer the TCP ports that are listened on."""
        found = set()
        for name in ("/proc/self/net/tcp", "/proc/self/net/tcp6"):
            try:
                with open(name, "rb") as table:
                    rows = table.readlines()[1:]
            except OSError:
                continue
            for row in rows:
                fields = row.split()
                if fields[3] == b"0A":
                    found.add(int(fields[1].rpartition(b":")[2], 16))
        return [sorted(found)], []

    def relieve(self, most: int) -> tuple[list[object], list[int]]:
        """Kill the largest processes while all together hold more than `most` kB; 0 kills none.

        Answers kB held by processes (shared pages by parts once it matters), how many there are, kB held by the
        sandbox's memory folders, and how many were killed.
        """
        page = os.sysconf("SC_PAGE_SIZE") // 1024
        held = held_by_nobody(self.folders) if self.whole_namespace else 0
        sizes = {pid: resident(pid) * page + (held_by_sockets(pid) if most else 0) for pid in self.pids()}
        total = sum(sizes.values())
        if most and total + held > most:
            sizes = {pid: proportional(pid, size) + held_by_sockets(pid) for pid, size in sizes.items()}
            total = sum(sizes.values())
        killed = 0
        for pid in sorted(sizes, key=sizes.__getitem__, reverse=True) if most and total + held > most else ():
            try:
                os.kill(pid, SIGKILL)
            except OSError:
                continue
            killed += 1
            total -= sizes[pid]
            if total + held <= most * 4 // 5:
                break
        return [total, len(sizes), held, killed], []

    def nameless(self) -> tuple[list[object], list[int]]:
        """Answer the bytes on disks that only open or mapped files hold, and how many processes hide theirs."""
        in_memory = set()
        for folder in self.folders:
            try:
                in_memory.add(os.stat(folder).st_dev)
            except OSError:
                pass
        sizes: dict[int, int] = {}
        hiding = 0
        for pid in self.pids():
            try:
                for name in os.listdir(f"/proc/{pid}/fd"):
                    found = os.stat(f"/proc/{pid}/fd/{name}")
                    if not found.st_nlink and stat.S_ISREG(found.st_mode) and found.st_dev not in in_memory:
                        sizes[found.st_ino] = found.st_blocks * 512
                with open(f"/proc/{pid}/maps", "rb") as table:
                    for line in table:
                        if line.endswith(b" (deleted)\n"):
                            add_mapped(sizes, line, in_memory)
            except PermissionError:
                hiding += not gone(pid)
            except OSError:
                continue  # it ended, or closed the file, meanwhile
        return [sum(sizes.values()), hiding], []

    # What this process keeps.

    def pids(self) -> list[int]:
        """Return every process but this one; without a namespace, those that descend from this one."""
        own = os.getpid()
        found = [int(name) for name in os.listdir("/proc") if name.isdecimal()]
        if self.whole_namespace:
            return [pid for pid in found if pid != own]
        parents: dict[int, int] = {}
        for pid in found:
            fields = stat_fields(pid)
            if fields:
                parents[pid] = int(fields[1])
        return [pid for pid in list(parents) if pid != own and descends(pid, own, parents)]

    def count(self) -> int:
        """Return how many tasks (processes and their threads) run, this one left out; 0 where they are few."""
        with open("/proc/loadavg", "rb") as table:
            # Cheap, but of the whole machine: below the limit it settles the question.
            if int(table.read().split()[3].rpartition(b"/")[2]) < self.processes - ROOM:
                return 0
        total = 0
        for pid in self.pids():
            fields = stat_fields(pid)
            total += int(fields[17]) if fields else 0
        return total

    def mark_of(self, pid: int) -> int:
        """Return the mark that a process inherited from its command."""
        try:
            with open(f"/proc/{pid}/limits", "rb") as table:
                for line in table:
                    if line.startswith(b"Max msgqueue size"):
                        word = line.split()[3]
                        return -1 if word == b"unlimited" else int(word)
        except OSError:
            pass
        return -1

    def started(self, pid: int) -> int:
        """Return when a process started, in ticks since boot."""
        fields = stat_fields(pid)
        return int(fields[19]) if fields else 0

    def kill_everything(self) -> None:
        """End every process but this one, however fast they fork, and wait for their end for 2 s at most."""
        for _ in range(200):
            if self.whole_namespace:
                try:
                    os.kill(-1, SIGKILL)
                except OSError:
                    pass
            else:
                for pid in self.pids():
                    try:
                        os.kill(pid, SIGKILL)
                    except OSError:
                        pass
            self.reap()
            if not self.pids():
                return
            select.select([], [], [], 0.01)

    def adjust_oom(self, score: bytes) -> None:
        """Make what is started next likelier to be chosen by the kernel's memory killer than this process."""
        if self.oom is not None:
            try:
                os.pwrite(self.oom, score, 0)
            except OSError:
                pass

    def reap(self) -> None:
        """Collect every process that ended and report those that led a command."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            ident = self.commands.pop(pid, None)
            if ident is not None:
                self.leaders.pop(ident, None)
                signalled = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
                self.say([0, "ended", ident, os.WEXITSTATUS(status) if not signalled else -1, signalled], [])

    def say(self, answer: list[object], fds: list[int]) -> None:
        """Send one answer; a peer that is gone ends the sandbox."""
        rights = (
            [(SOL_SOCKET, SCM_RIGHTS, b"".join([fd.to_bytes(4, sys.byteorder) for fd in fds]))] if fds else []
        )
        self.control.sendmsg([text(answer).encode()], rights)

    def serve(self) -> None:
        """Answer until the peer is gone."""
        wake, woken = os.pipe()
        os.set_blocking(wake, False)
        os.set_blocking(woken, False)
        signal(SIGCHLD, lambda *_: None)
        set_wakeup_fd(woken, warn_on_full_buffer=False)
        poll = select.poll()
        poll.register(self.control.fileno(), select.POLLIN)
        poll.register(wake, select.POLLIN)
        while True:
            ready = poll.poll()
            if any(fd == wake for fd, _ in ready):
                try:
                    os.read(wake, 4096)
                except BlockingIOError:
                    pass
                self.reap()
            if any(fd != wake for fd, _ in ready) and not self.serve_one():
                return

    def serve_one(self) -> bool:
        """Answer one request; False at the end of the peer."""
        data, rights, _, _ = self.control.recvmsg(LARGE + 4096, CMSG_SPACE(4 * 16))
        if not data:
            return False
        fds: list[int] = []
        for _, _, raw in rights:
            fds += [
                int.from_bytes(raw[at : at + 4], sys.byteorder) for at in range(0, len(raw) - len(raw) % 4, 4)
            ]
        for fd in fds:
            os.set_inheritable(fd, False)
        request = marshal.loads(data)  # noqa: S302 - from the process that made this one
        if request[1] == "large":
            carried = fds.pop()
            request = marshal.loads(os.pread(carried, os.fstat(carried).st_size, 0))  # noqa: S302
            os.close(carried)
        number, verb, *args = request
        if verb == "spawn":
            args.append(fds)
        made: list[int] = []
        try:
            answer, made = getattr(self, verb)(*args)
            self.say([number, "done", *answer], made)
        except OSError as error:
            self.say([number, "failed", error.errno or 0, str(error)], [])
        except Exception as error:  # noqa: BLE001 - a path with NUL in it, say, must not end what runs here
            self.say([number, "failed", errno.EINVAL, str(error)], [])
        finally:
            for fd in [*fds, *made]:
                os.close(fd)
        return True


def call(name: str, *words: int | bytes) -> None:
    """Call a function of the C library that answers 0 when all went well."""
    if name not in FUNCTIONS:
        import _ctypes  # the package around it takes four times as long

        made: Any = _ctypes
        FUNCTIONS[name] = (made.call_function, made.dlsym(made.dlopen(None, 0), name))
    function, at = FUNCTIONS[name]
    if function(at, words):
        raise OSError(errno.EINVAL, f"{name} {words[0]!r}")


FUNCTIONS: dict[str, tuple[Any, int]] = {}


def kill_all(pids: Iterable[int], number: int) -> list[int]:
    """Signal each; return those that were there."""
    reached = []
    for pid in pids:
        try:
            os.kill(pid, number)
        except OSError:
            continue
        reached.append(pid)
    return reached


def add_mapped(sizes: dict[int, int], line: bytes, in_memory: set[int]) -> None:
    """Count a mapping of a file without a name, from a line of `/proc/PID/maps`, unless the file is counted."""
    span, _, _, numbers, inode, path = line.split(None, 5)
    first, _, last = span.partition(b"-")
    major, _, minor = numbers.partition(b":")
    kernels_own = path.startswith((b"/dev/zero ", b"/SYSV", b"/memfd:"))
    if not kernels_own and os.makedev(int(major, 16), int(minor, 16)) not in in_memory:
        sizes.setdefault(int(inode), int(last, 16) - int(first, 16))


def describe(found: os.stat_result) -> list[int]:
    """Return what a peer is told of a file: mode, size, owner, group, times in ns, links, inode."""
    return [
        found.st_mode,
        found.st_size,
        found.st_uid,
        found.st_gid,
        found.st_atime_ns,
        found.st_mtime_ns,
        found.st_nlink,
        found.st_ino,
    ]


def resident(pid: int) -> int:
    """Return a process's resident pages."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as table:
            return int(table.read().split()[1])
    except OSError:
        return 0


def proportional(pid: int, otherwise: int) -> int:
    """Return kB of a process, shared pages by parts; `otherwise` where it hides its maps."""
    total = 0
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as table:
            for line in table:
                if line.startswith((b"Pss:", b"SwapPss:")):
                    total += int(line.split()[1])
    except OSError:
        return otherwise
    return total


def held_by_sockets(pid: int) -> int:
    """Return kB that a process's sockets may hold in the kernel: no file says it, so each beyond 64 counts in full."""
    size = count = 0
    try:
        size = os.stat(f"/proc/{pid}/fd").st_size  # how many there are; 0 before Linux 6.2
        if 0 < size <= MOST_FREE:
            return 0
        names = os.listdir(f"/proc/{pid}/fd")
    except PermissionError:  # it hides them
        return max(0, size - MOST_FREE) * SOCKET_KB
    except OSError:
        return 0
    if len(names) <= MOST_FREE:
        return 0
    drawn = os.urandom(2 * MOST_FREE)  # thousands of processes may have thousands each
    for at in range(MOST_FREE):
        name = names[int.from_bytes(drawn[2 * at : 2 * at + 2], "little") % len(names)]
        try:
            count += stat.S_ISSOCK(os.stat(f"/proc/{pid}/fd/{name}").st_mode)
        except OSError:
            continue
    return max(0, count * len(names) // MOST_FREE - MOST_FREE) * SOCKET_KB


def held_by_nobody(folders: list[str]) -> int:
    """Return kB of memory that belong to no process: files in memory and System V segments."""
    held = 0
    for folder in folders:
        try:
            disk = os.statvfs(folder)
        except OSError:
            continue
        held += (disk.f_blocks - disk.f_bfree) * disk.f_frsize // 1024
        held += disk.f_files - disk.f_ffree  # about 1 kB of the kernel's for each name
    try:
        with open("/proc/sysvipc/shm", "rb") as table:
            held += sum(int(row.split()[14]) // 1024 for row in table.readlines()[1:])
    except (OSError, IndexError, ValueError):
        pass
    return held


def descends(pid: int, top: int, parents: dict[int, int]) -> bool:
    """Whether `pid` is below `top`; a parent that ended while `parents` was read is looked up once more."""
    for _ in range(2 * len(parents)):
        parent = parents[pid]
        if parent not in parents and parent not in (0, top):
            parent = parents[pid] = parent_of(pid)
            if parent not in parents and parent != top:
                return False
        if parent in (0, top):
            return parent == top
        pid = parent
    return False


def parent_of(pid: int) -> int:
    """Return a process's parent, 0 where it is gone."""
    fields = stat_fields(pid)
    return int(fields[1]) if fields else 0


def gone(pid: int) -> bool:
    """Whether a process has ended, collected or not."""
    fields = stat_fields(pid)
    return not fields or fields[0] in (b"Z", b"X")


def stat_fields(pid: int) -> list[bytes]:
    """Return the fields of `/proc/PID/stat` after the program's name, or nothing where it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as table:
            return table.read().rpartition(b")")[2].split()
    except OSError:
        return []


def ignore_signals() -> None:
    """Let neither a broken pipe nor an interrupt end this process."""
    signal(SIGINT, SIG_IGN)
    signal(SIGPIPE, SIG_IGN)


def main() -> None:
    """Serve at the descriptor given."""
    control = int(sys.argv[1])
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) != control:
            try:
                os.close(int(name))
            except OSError:
                pass
    os.set_inheritable(control, False)
    ignore_signals()
    spawner = Spawner(socket(AF_UNIX, SOCK_SEQPACKET, 0, control))
    try:
        spawner.serve()
    finally:
        spawner.kill_everything()
        os._exit(0)


if __name__ == "__main__":
    main()
