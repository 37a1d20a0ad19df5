"""How long reading an author's module may take: said after a while, ended at a deadline."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from hud.errors import SourceError

SLOW_S = 10.0


@contextmanager
def bounded_reading(what: str, seconds: float) -> Iterator[None]:
    """Bound the block, which runs author code on the main thread; after ten seconds say where it stands.

    Raises:
        SourceError: `seconds` passed; has the author's stack.
    """
    reader = threading.get_ident()
    if reader != threading.main_thread().ident:
        yield  # signals, which end the wait, reach the main thread alone
        return
    over, too_late = threading.Event(), threading.Event()
    stacks: list[str] = []

    def watch() -> None:
        if over.wait(min(SLOW_S, seconds)):
            return
        if seconds > SLOW_S:
            print(f"still reading {what}\n{_stack(reader)}", file=sys.stderr, flush=True)
            if over.wait(seconds - SLOW_S):
                return
        stacks.append(_stack(reader))
        too_late.set()
        signal.pthread_kill(reader, signal.SIGINT)

    threading.Thread(target=watch, name="hud-patience", daemon=True).start()
    try:
        yield
    except KeyboardInterrupt:
        if not too_late.is_set():
            raise
        raise SourceError(f"{what} is still being read after {seconds:g} s\n{stacks[0]}") from None
    finally:
        over.set()


def _stack(reader: int) -> str:
    """Return what the author's code does right now: the frames below ours."""
    import traceback

    from hud.environment.tracebacks import is_ours

    frame = sys._current_frames().get(reader)
    entries = traceback.extract_stack(frame) if frame is not None else []
    last = max((i for i, entry in enumerate(entries) if is_ours(entry.filename)), default=-1)
    theirs = [entry for entry in entries[last + 1 :] if not entry.filename.startswith("<frozen")]
    return "".join(traceback.format_list(theirs)).rstrip()
