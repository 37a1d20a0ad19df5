"""Garbage collection while a job runs."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

YOUNG = 20_000
"""Objects that may be allocated between two young collections; the interpreter's own default is 700."""

_lock = threading.Lock()
_jobs = 0
_before: tuple[int, int, int] | None = None


@contextmanager
def rare_collections() -> Iterator[None]:
    """Let the collector run less often until the block ends; the interpreter's own setting returns with the last job.

    A thousand rollouts in flight are a hundred thousand objects that live for a moment: with the default every
    few of them are traced again and again, which made a rollout cost twice as much at 1,000 in flight as at 10.
    """
    global _jobs, _before
    with _lock:
        _jobs += 1
        if _jobs == 1 and 0 < gc.get_threshold()[0] < YOUNG:
            _before = gc.get_threshold()
            gc.set_threshold(YOUNG, *_before[1:])
    try:
        yield
    finally:
        with _lock:
            _jobs -= 1
            if _jobs == 0 and _before is not None:
                gc.set_threshold(*_before)
                _before = None
