"""The zygotes of this process: one for each source and variables, replaced when the source changes."""

from __future__ import annotations

import asyncio
import atexit
import os
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from hud.errors import RuntimeStartError
from hud.runtime import folders
from hud.runtime.gate import with_remedy
from hud.runtime.zygotes import ZygoteHandle, ZygoteKey, reap

if TYPE_CHECKING:
    from collections import defaultdict

_table: dict[ZygoteKey, ZygoteHandle] = {}
_early: dict[ZygoteKey, ZygoteHandle] = {}
"""Started ahead of need and not yet asked for."""
# One start at a time of one zygote. Loops of different threads may start one each; the later one stays.
_starting: WeakKeyDictionary[asyncio.AbstractEventLoop, defaultdict[ZygoteKey, asyncio.Lock]] = (
    WeakKeyDictionary()
)


def start_early(key: ZygoteKey) -> None:
    """Start the zygote of `key` without waiting for it; the first lease takes it over."""
    if key not in _table and key not in _early:
        _early[key] = ZygoteHandle(key)


async def lease(key: ZygoteKey, timeout_s: float, tell: Callable[[str], None]) -> ZygoteHandle:
    """Return the zygote of `key`, started if need be; the caller calls its `release`.

    `tell` is called with what a user should know: that the source changed, or cannot be forked.
    """
    reap()
    _replace_changed(key, tell)
    if (found := _table.get(key)) is None:
        from collections import defaultdict

        locks = _starting.setdefault(asyncio.get_running_loop(), defaultdict(asyncio.Lock))
        async with locks[key]:
            if (found := _table.get(key)) is None:
                found = await _start(key, timeout_s, tell)
                _table[key] = found
    found.users += 1
    return found


def _replace_changed(key: ZygoteKey, tell: Callable[[str], None]) -> None:
    found = _table.get(key)
    if found is not None and found.users and (edited := found.lower.edited()):
        tell(
            f"{', '.join(edited)} changed while rollouts run; those that run may have seen it before or after"
        )
    if found is not None and (changed := found.changed_modules()):
        if found.users:
            tell(f"{', '.join(changed)} changed; rollouts that start from now on use the new source")
        retire(found)


async def _start(key: ZygoteKey, timeout_s: float, tell: Callable[[str], None]) -> ZygoteHandle:
    zygote = await _ready(key, timeout_s)
    if zygote.spawn_reason is None:
        return zygote
    tell(f"{key.source.place}: {zygote.spawn_reason}; each rollout imports it anew, which is slower")
    modules = zygote.modules
    zygote.close()
    zygote = await _ready(replace(key, preimport=False), timeout_s)
    zygote.modules = modules
    return zygote


async def _ready(key: ZygoteKey, timeout_s: float) -> ZygoteHandle:
    # In a thread: what a killed job left may be large.
    await asyncio.to_thread(folders.sweep_all)
    try:
        zygote = _early.pop(key, None) or ZygoteHandle(key)
    except OSError as error:
        text = f"cannot start a zygote for {key.source.place}: {error.strerror or error}"
        raise RuntimeStartError(with_remedy(text, error.errno)) from error
    try:
        await zygote.wait_ready(timeout_s)
    except BaseException:
        zygote.close()
        raise
    return zygote


def retire(zygote: ZygoteHandle) -> None:
    """Fork nothing more from `zygote`; it ends once the children it has are gone."""
    for key, other in list(_table.items()):
        if other is zygote:
            del _table[key]
    zygote.retire()


def end(key: ZygoteKey) -> None:
    """End the zygote of `key` as soon as nobody uses it."""
    if (found := _table.get(key)) is not None:
        retire(found)


def end_all() -> None:
    """End every zygote as soon as nobody uses it."""
    for zygote in list(_table.values()):
        retire(zygote)
    while _early:
        _early.popitem()[1].close()


atexit.register(end_all)
os.register_at_fork(after_in_child=_table.clear)
os.register_at_fork(after_in_child=_early.clear)
