"""The watchdog: a small process that outlives its owner by moments, ends it when it is wedged, and cleans up after it.

Run by its path with `python -I -S`: of hud it imports nothing, so that it costs 3 MB and 15 ms. What is to be done
after a death needs much more, and is another program that takes its place (execv).

On standard input come lines: `after WORDS` (that program, in hex, its words ended by zeros), `by JOB SECONDS FILE`
(CLOCK_MONOTONIC at which the job must have said something newer, `-` for never; its file in hex, `-` for none),
`over JOB`, `bye`. The end of input without `bye` is the owner's end.
"""

# What `signal` wraps: its enumerations are a third of this process.
import _signal as signal  # type: ignore[import-not-found]
import os
import select
import sys
import time

DEATH_WAIT_S = 10.0


class Bounds:
    """The jobs of the owner: when each must have ended or said more, and where its file is."""

    def __init__(self) -> None:
        self.jobs: dict[str, tuple[float | None, str]] = {}
        self.after: list[bytes] = []
        self.dismissed: bool = False
        self._rest = b""

    def take(self, data: bytes) -> None:
        """Take in what was read."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            words = line.decode("ascii", "replace").split()
            if words == ["bye"]:
                self.dismissed = True
            elif len(words) == 2 and words[0] == "after":
                self.after = bytes.fromhex(words[1]).split(b"\0")
            elif len(words) == 2 and words[0] == "over":
                self.jobs.pop(words[1], None)
            elif len(words) == 4 and words[0] == "by":
                self.jobs[words[1]] = (None if words[2] == "-" else float(words[2]), words[3])

    @property
    def next(self) -> float | None:
        """The earliest of them."""
        return min((by for by, _ in self.jobs.values() if by is not None), default=None)


def main(owner: int, started: str) -> None:
    """Wait for the owner's end, or end it; then become what is to be done after, told what happened."""
    os.chdir("/")
    _call_itself("hud-watchdog")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    alive = _open_process(owner, started)
    bounds = Bounds()
    poll = select.poll()
    poll.register(0, select.POLLIN)
    if alive >= 0:
        poll.register(alive, select.POLLIN)
    wedged = False
    while True:
        left = None if bounds.next is None else bounds.next - time.monotonic()
        if left is not None and left <= 0:
            wedged = True
            _end_wedged(owner, alive)
            break
        events = dict(poll.poll(None if left is None else min(left, 3600.0) * 1000 + 1))
        if 0 in events:
            data = os.read(0, 1 << 16)
            bounds.take(data)
            if bounds.dismissed:
                os._exit(0)
            if not data:
                # A death closes the pipe a moment before it can be seen; who lives on has let go by itself.
                if alive >= 0 and not _ends_within(alive, DEATH_WAIT_S):
                    os._exit(0)
                break
        elif alive in events:
            break
    if not bounds.after:
        os._exit(0)
    files = [bytes.fromhex(file) for _, file in bounds.jobs.values() if file != "-"]
    told = [b"wedged" if wedged else b"died", *files]
    os.execv(bounds.after[0], [*bounds.after, *told])  # noqa: S606 - the owner's own interpreter and program


def _call_itself(name: str) -> None:
    """Take a name for `ps` and `top`."""
    try:
        with open("/proc/self/comm", "w", encoding="ascii") as file:  # noqa: PTH123 - pathlib is 2 MB
            file.write(name)
    except OSError:
        pass


def _open_process(pid: int, started: str) -> int:
    """Return a descriptor of the owner; -1 where the system has none. One that is gone is no owner to wait for."""
    if not hasattr(os, "pidfd_open"):
        return -1
    try:
        alive = os.pidfd_open(pid)
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:  # noqa: PTH123 - pathlib is 2 MB
            now = file.read().rpartition(")")[2].split()[19]
    except OSError:
        now, alive = "", -1
    if now and now != started:
        os.close(alive)
        alive = -1
    return alive


def _ends_within(alive: int, seconds: float) -> bool:
    return bool(select.select([alive], [], [], seconds)[0])


def _end_wedged(owner: int, alive: int) -> None:
    """Kill the owner, having said so where it writes its own messages, and wait until it is gone."""
    text = "hud: every deadline has passed and this process does not answer: it is killed. What is done is kept.\n"
    try:
        terminal = os.open(f"/proc/{owner}/fd/2", os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY)
        os.write(terminal, text.encode())
        os.close(terminal)
    except OSError:
        pass
    try:
        if alive >= 0:
            signal.pidfd_send_signal(alive, signal.SIGKILL)
            _ends_within(alive, DEATH_WAIT_S)
        elif os.getppid() == owner:
            os.kill(owner, signal.SIGKILL)
    except OSError:
        pass


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
