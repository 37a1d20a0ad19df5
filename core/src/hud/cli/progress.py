"""How a job looks while it runs: lines where nobody watches, a live line and bar on a terminal."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from hud.cli.table import duration, number
from hud.cli.tally import Tally
from hud.cli.terminal import safe

if TYPE_CHECKING:
    from hud.eval.run import Run

LINE_EVERY_S = 5.0
FRAMES_PER_S = 8
MOST_KINDS = 20
"""Errors of more kinds than this have no lines of their own; the table counts them."""
MOST_LINES = 15
"""Lines of one error's message below its first, such as the end of what a process printed before it died."""


class Progress(Protocol):
    """Is told of each finished rollout; `running` is the number in flight."""

    def start(self) -> None:
        """Begin to show."""
        ...

    def update(self, run: Run | None, running: int) -> None:
        """Show the tally as it is now; `run` is the rollout that just ended."""
        ...

    def note(self, text: str) -> None:
        """Print one line that stays."""
        ...

    def stop(self) -> None:
        """End showing; safe to call twice."""
        ...


def summary_line(tally: Tally, running: int) -> str:
    """Return done, running, failed, mean reward, rate and time left in one line."""
    total = "" if tally.expected is None else f"/{tally.expected}"
    left = tally.seconds_left
    parts = [
        f"done {tally.done}{total}",
        f"running {running}",
        f"failed {tally.errors}",
        f"mean {number(tally.mean)}",
        f"{tally.per_second:.1f}/s",
    ]
    if left is not None and tally.done != tally.expected:
        parts.append(f"left {duration(left)}")
    return "  ".join(parts)


def told(run: Run, *, with_traceback: bool) -> str:
    """Return one finished rollout in one line, and the author's own frames below it where something raised."""
    line = safe(run_line(run))
    failure = run.failure
    if not with_traceback or failure is None:
        return line
    below = [
        *safe(failure.message).strip().splitlines()[1:][-MOST_LINES:],
        *safe(failure.traceback or "").strip().splitlines(),
        *(f"hint: {safe(h)}" for h in failure.hints),
    ]
    return "\n".join([line, *(f"    {text}" for text in below)])


def run_line(run: Run) -> str:
    """Return one finished rollout in one line."""
    first = (run.error or "").strip().partition("\n")[0]
    if run.reward is None:
        return f"{run.slug}: error: {first or run.grade.content or 'no reward'}"
    line = f"{run.slug}: {run.reward:.3f} in {duration(sum(run.phases_s.values()))}"
    return f"{line}, although {first}" if first else line


class Lines:
    """Plain lines on `stream`: one at most every five seconds, and a line for each error (the first of a kind).

    With `every_run` each finished rollout has its line; without `timed` nothing is printed but what happens.
    """

    def __init__(
        self, tally: Tally, *, stream: TextIO | None = None, every_run: bool = False, timed: bool = True
    ) -> None:
        self.tally = tally
        self.timed = timed
        self.stream = stream if stream is not None else sys.stderr
        self.every_run = every_run
        self._last = 0.0
        self._seen: set[str] = set()

    def start(self) -> None:
        """Remember when it began; the first line comes after five seconds."""
        self._last = time.monotonic()

    def update(self, run: Run | None, running: int) -> None:
        """Print a line if one is due."""
        if run is not None and (line := self.line_of(run)):
            self.note(line)
        now = time.monotonic()
        if self.timed and now - self._last >= LINE_EVERY_S:
            self._last = now
            self.note(summary_line(self.tally, running))

    def note(self, text: str) -> None:
        """Print one line; a closed stream is passed over, since the results matter more."""
        try:
            print(text, file=self.stream, flush=True)
        except (OSError, ValueError):
            self.stream = _Nowhere()

    def stop(self) -> None:
        """Print nothing more."""

    def line_of(self, run: Run) -> str | None:
        """Return what is told of this rollout, None for nothing: the first error of a kind is told in full."""
        cancelled = run.failure is not None and run.failure.kind == "cancelled"
        new = run.error is not None and run.error not in self._seen and len(self._seen) < MOST_KINDS
        new = new and not cancelled  # which is what was asked for, and is counted at the end
        if new:
            self._seen.add(str(run.error))
        if not new and not self.every_run:
            return None
        first, newline, below = told(run, with_traceback=new).partition("\n")
        return (
            f"{first}  [{run.trace_id[:8]}]{newline}{below}" if self.every_run else f"{first}{newline}{below}"
        )


class Live:
    """A bar and a line at the bottom of a terminal, drawn eight times a second by a thread of rich's.

    Rich is imported here and nowhere else.
    """

    def __init__(self, tally: Tally, *, every_run: bool = False) -> None:
        from rich.console import Console
        from rich.live import Live as RichLive

        self.tally = tally
        self.running = 0
        self.console = Console(stderr=True, highlight=False)
        self._lines = Lines(tally, every_run=every_run)
        self._live = RichLive(
            get_renderable=self._picture,
            console=self.console,
            refresh_per_second=FRAMES_PER_S,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def start(self) -> None:
        """Begin to draw."""
        self._live.start()

    def update(self, run: Run | None, running: int) -> None:
        """Take the new numbers; the next frame shows them."""
        self.running = running
        if run is not None and (line := self._lines.line_of(run)):
            self.note(line)

    def note(self, text: str) -> None:
        """Print one line above the bar."""
        self.console.print(text, markup=False, soft_wrap=True)

    def stop(self) -> None:
        """Draw a last time, remove the bar and give the cursor back."""
        self._live.stop()

    def _picture(self) -> Any:
        from rich.text import Text

        line = summary_line(self.tally, self.running)
        plain = self.console.options.ascii_only
        bar = progress_bar(self.tally, min(30, self.console.width - len(line) - 3), "=-" if plain else "━╌")
        return Text(f"{bar}{line}", no_wrap=True, overflow="crop" if plain else "ellipsis")


def progress_bar(tally: Tally, width: int, cells: str = "━╌") -> str:
    """Return a bar of `width` cells and a gap; nothing where the end is not known or there is no room."""
    if not tally.expected or width < 8:
        return ""
    filled = width * tally.done // tally.expected
    return f"{cells[0] * filled}{cells[1] * (width - filled)}  "


def progress_for(tally: Tally, *, every_run: bool = False, asks: bool = False) -> Progress:
    """Return the live display where stderr is a terminal, else plain lines; none of them breaks into a question."""
    import os

    if not asks and sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        return Live(tally, every_run=every_run)
    return Lines(tally, every_run=every_run, timed=not asks)


class _Nowhere:
    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        pass
