"""The runs of a job, in order, however many."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar, SupportsIndex, overload

if TYPE_CHECKING:
    from hud.eval.run import Run
    from hud.store.tables import Place

READ_AT_ONCE = 64

KEPT_WHOLE = 10_000
KEPT_BYTES = 256 * 1024 * 1024
"""Runs held in memory, and their size as written; beyond either, a run is read back from the file when asked for."""


class RunList(Sequence["Run"]):
    """Finished runs in task-major order: rows as given, each row's group together.

    The first `keep` runs to finish stay in memory; of later ones only their place in the job file, so that a
    job of any length stays small. Without a job file all are kept.
    """

    __slots__ = ("_bytes", "_order", "_sorted", "_where", "keep", "keep_bytes", "load", "load_all")

    def __init__(self, runs: Iterable[Run] = (), *, keep: int = KEPT_WHOLE) -> None:
        self._where: dict[int, Run | Place] = {}
        self._order: list[int] = []
        self._sorted = True
        self._bytes = 0
        self.keep: int = keep
        self.keep_bytes: int = KEPT_BYTES
        self.load: Callable[[Place], Run] | None = None
        self.load_all: Callable[[Sequence[Place]], list[Run]] | None = None
        """The same for many at once, at less cost each."""
        for place, run in enumerate(runs):
            self.put(place, run)

    def put(self, index: int, run: Run, place: Place | None = None) -> None:
        """Add the run of position `index`; `place` is where the job file has it."""
        if index not in self._where:
            if self._order and index < self._order[-1]:
                self._sorted = False
            self._order.append(index)
        if place is not None and self.load is not None:
            if len(self._where) >= self.keep or self._bytes + place[1] > self.keep_bytes:
                self._where[index] = place
                return
            self._bytes += place[1]
        self._where[index] = run

    def put_place(self, index: int, place: Place) -> None:
        """Add the run of position `index`, which the job file has."""
        if index not in self._where:
            if self._order and index < self._order[-1]:
                self._sorted = False
            self._order.append(index)
        self._where[index] = place

    @property
    def next_index(self) -> int:
        """One more than the highest position."""
        return self._settle()[-1] + 1 if self._order else 0

    def append(self, run: Run) -> None:
        """Add a run after the last."""
        self.put(self.next_index, run)

    def extend(self, runs: Iterable[Run]) -> None:
        """Add runs after the last."""
        for run in runs:
            self.append(run)

    def _settle(self) -> list[int]:
        if not self._sorted:
            self._order.sort()
            self._sorted = True
        return self._order

    def _get(self, index: int) -> Run:
        found = self._where[index]
        if isinstance(found, tuple):
            assert self.load is not None
            return self.load(found)
        return found

    @overload
    def __getitem__(self, item: SupportsIndex) -> Run: ...
    @overload
    def __getitem__(self, item: slice) -> list[Run]: ...
    def __getitem__(self, item: SupportsIndex | slice) -> Run | list[Run]:
        order = self._settle()
        if isinstance(item, slice):
            return [self._get(index) for index in order[item]]
        return self._get(order[item])

    def __iter__(self) -> Iterator[Run]:
        order = self._settle()
        if self.load_all is None:
            yield from (self._get(index) for index in order)
            return
        for begin in range(0, len(order), READ_AT_ONCE):
            found = [self._where[index] for index in order[begin : begin + READ_AT_ONCE]]
            read = iter(self.load_all([item for item in found if isinstance(item, tuple)]))
            yield from (next(read) if isinstance(item, tuple) else item for item in found)

    def __len__(self) -> int:
        return len(self._where)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, (list, RunList)) and list(self) == list(other)

    __hash__: ClassVar[None]  # type: ignore[assignment] # a list has none either

    def __repr__(self) -> str:
        return f"<{len(self)} runs>"
