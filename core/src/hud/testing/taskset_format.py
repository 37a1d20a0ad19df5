"""The contract of a taskset format: a source becomes rows that travel, or one error that says where it is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import ClassVar

import pytest

from hud.errors import TasksetError
from hud.eval.taskset import Taskset
from hud.plugins import TasksetFormatKind, hookimpl
from hud.testing.contract import Contract
from hud.testing.plugins import isolated_host
from hud.types import Task


class TasksetFormatContract(Contract):
    """Inherit it, name the declared `kind`, and supply `source`; `broken_source` where text can be wrong.

    `slugs` are those of the rows `source` must give, in order; None takes any.
    """

    kind: ClassVar[TasksetFormatKind]
    slugs: ClassVar[list[str] | None] = None

    @pytest.fixture
    def source(self) -> str:
        """Supply this: a source as a user writes it, of at least one row."""
        pytest.fail(f"{type(self).__name__} must supply the fixture source")

    @pytest.fixture
    def broken_source(self) -> str | None:
        """A source that is wrong, where there can be one."""
        return None

    @pytest.fixture
    def load(self) -> Callable[[str], Iterable[Task]]:
        """The format's loader, as the registry imports it."""
        with isolated_host(_Declares(self.kind)) as host:
            loader: Callable[[str], Iterable[Task]] = host.registry.load(self.kind)
            return loader

    def test_the_pattern_matches_the_source(self, source: str) -> None:
        with isolated_host(_Declares(self.kind)) as host:
            found = host.registry.taskset_format_for(source)
        assert found is self.kind, f"pattern {self.kind.pattern!r} does not match {source!r}"

    def test_gives_rows_with_slugs_of_their_own(
        self, load: Callable[[str], Iterable[Task]], source: str
    ) -> None:
        rows = list(load(source))
        assert rows, "the source has no rows"
        assert all(isinstance(row, Task) for row in rows)
        assert all(row.env and row.id for row in rows)
        slugs = [row.slug for row in rows]
        assert len(set(slugs)) == len(slugs), f"slugs repeat: {slugs}"
        if self.slugs is not None:
            assert slugs == self.slugs

    def test_reads_the_same_twice(self, load: Callable[[str], Iterable[Task]], source: str) -> None:
        assert list(load(source)) == list(load(source))

    def test_rows_travel_as_json(
        self, load: Callable[[str], Iterable[Task]], source: str, tmp_path: Path
    ) -> None:
        rows = Taskset("contract", list(load(source)))
        rows.to_file(tmp_path / "rows.jsonl")
        assert list(Taskset.from_file(tmp_path / "rows.jsonl")) == list(rows)

    def test_a_missing_source_is_named(self, load: Callable[[str], Iterable[Task]]) -> None:
        scheme, colon, _ = self.kind.pattern.partition(":")
        missing = f"{scheme}:no/such/place" if colon else self.kind.pattern.replace("*", "no-such-file")
        with pytest.raises((TasksetError, FileNotFoundError), match=r"no.such.(place|file)"):
            list(load(missing))

    def test_a_broken_source_is_one_error_that_names_it(
        self, load: Callable[[str], Iterable[Task]], broken_source: str | None
    ) -> None:
        if broken_source is None:
            pytest.skip("no broken source is supplied")
        name = Path(broken_source.partition(":")[2] or broken_source).name
        with pytest.raises(TasksetError) as caught:
            list(load(broken_source))
        assert name in str(caught.value), f"{caught.value} does not name {name}"


class _Declares:
    """A plugin of one format."""

    def __init__(self, kind: TasksetFormatKind) -> None:
        self.kind = kind

    @hookimpl
    def hud_taskset_formats(self) -> list[TasksetFormatKind]:
        return [self.kind]
