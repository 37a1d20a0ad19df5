"""What all contract kits share: features that gate, failures that are known, asynchronous tests without a plugin."""

from __future__ import annotations

import asyncio
import difflib
import functools
from collections.abc import Callable, Collection, Coroutine, Mapping
from typing import Any, ClassVar, ParamSpec

import pytest

P = ParamSpec("P")


class Contract:
    """Base of the kits.

    `known_failures` maps a test's name to the reason why this implementation fails it: an expected failure, strict,
    so that the entry must go when the fault is mended.
    """

    known_failures: ClassVar[Mapping[str, str]] = {}
    deadline_s: ClassVar[float] = 100.0
    """One test may take this long; a hang is then a failure with a stack instead of a stuck run."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name, reason in cls.__dict__.get("known_failures", {}).items():
            test = getattr(cls, name, None)
            if not name.startswith("test_") or test is None:
                close = difflib.get_close_matches(name, [n for n in dir(cls) if n.startswith("test_")], n=1)
                hint = f"; did you mean {close[0]!r}?" if close else ""
                raise TypeError(f"{cls.__name__}.known_failures: {name!r} is no test of the contract{hint}")
            if not reason.strip():
                raise TypeError(f"{cls.__name__}.known_failures: {name!r} needs a reason")
            setattr(cls, name, pytest.mark.xfail(reason=reason, strict=True)(_copied(test)))


def asynchronous(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Turn an asynchronous test into a plain one with a loop of its own; no plugin of pytest is needed."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        contract = args[0] if args else None

        async def bounded() -> None:
            async with asyncio.timeout(getattr(contract, "deadline_s", Contract.deadline_s)):
                await test(*args, **kwargs)

        asyncio.run(bounded())

    return run


async def becomes_true(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Wait until `condition()` holds, `seconds` at most, and return whether it does.

    For the outside world (a process table, an engine), which announces nothing that could be awaited.
    """
    pause, waited = 0.005, 0.0
    while not condition():
        if waited >= seconds:
            return False
        await asyncio.sleep(pause)
        waited += pause
        pause = min(pause * 1.5, 0.2)
    return True


async def assert_nothing_left(
    leftovers: Callable[[], Collection[str]], before: Collection[str], what: str
) -> None:
    """Assert that `leftovers()` becomes what it was `before`, within 10 s."""

    def rest() -> set[str]:
        return set(leftovers()) - set(before)

    assert await becomes_true(lambda: not rest()), f"{what}, and this was left behind: {sorted(rest())}"


def _copied(test: Callable[..., Any]) -> Callable[..., Any]:
    # A mark is written onto the function, which the other users of the contract share.
    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> Any:
        return test(*args, **kwargs)

    return run
