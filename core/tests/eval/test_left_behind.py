"""An agent's files between the environment and its orchestrator, and graders' replies in the job's file."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from hud.environment.kept_state import PART_BYTES, exchange_state, pack, unpack
from hud.errors import BadParamsError, HudProtocolError
from hud.eval.leftbehind import PACKED_BYTES, LeftBehind
from hud.eval.verdicts import JobVerdicts
from hud.store.reader import JobFile
from hud.store.writer import JobWriter

pytestmark = pytest.mark.anyio


def state(**contents: bytes) -> dict[str, Any]:
    files = [{"path": path, "mode": 0o644, "mtime_ns": 7, "content": data} for path, data in contents.items()]
    return {"files": files, "folders": [], "deleted": ["old"]}


class Desk:
    """A backing that keeps a state."""

    name = "desk"

    def __init__(self, left: dict[str, Any] | None = None) -> None:
        self.left = left
        self.restored: Mapping[str, Any] | None = None
        self.limit = 0

    async def take_state(self, limit_bytes: int) -> dict[str, Any] | None:
        self.limit = limit_bytes
        return self.left

    async def restore_state(self, state: Mapping[str, Any]) -> None:
        self.restored = state

    async def start(self) -> list[Any]:
        return []

    async def stop(self) -> None: ...


class Host:
    """The orchestrator's end; `repeat` answers each call twice, as after a connection that broke."""

    def __init__(self, end: LeftBehind | None, *, repeat: bool = False) -> None:
        self.end = end
        self.repeat = repeat

    async def model(
        self, *, dialect: str, model: str, body: Mapping[str, Any], deadline_s: float
    ) -> dict[str, Any]:
        assert (dialect, deadline_s > 0) == ("hud.state", True)
        if self.end is None:
            raise HudProtocolError(-32602, f"unknown dialect {dialect!r}")
        if self.repeat and model != "wish":
            self.end.answer(model, body)
        return self.end.answer(model, body)


LARGE = {"a.txt": b"text\n" * 1000, "b.bin": os.urandom(3 * PART_BYTES), "empty": b"", "c": bytes(range(256))}


@pytest.mark.parametrize("repeat", [False, True])
async def test_a_state_goes_out_and_comes_back_as_it_was(repeat: bool) -> None:
    end, desk = LeftBehind(keep_bytes=1234), Desk(state(**LARGE))
    assert await exchange_state(Host(end, repeat=repeat), [desk]) == {}
    assert desk.limit == 1234
    assert end.states() == {"desk": desk.left}
    back, fresh = LeftBehind(restoring=end.states()), Desk()
    assert back.missing == ["desk"]
    assert await exchange_state(Host(back, repeat=repeat), [fresh]) == {"restored:desk": True}
    assert (fresh.restored, back.missing) == (desk.left, [])
    assert back.states() == end.states(), "what is put back is kept with the new grade too"


async def test_nothing_moves_where_nobody_keeps_or_nobody_came_in() -> None:
    desk = Desk(state(**LARGE))
    assert await exchange_state(None, [desk]) == {}
    assert await exchange_state(Host(None), [desk]) == {}
    assert desk.limit == 0
    end = LeftBehind()
    await exchange_state(Host(end), [Desk(None)])
    assert end.is_empty


async def test_another_try_begins_anew() -> None:
    end = LeftBehind()
    await exchange_state(Host(end), [Desk(state(a=b"first"))])
    await exchange_state(Host(end), [Desk(state(a=b"second"))])
    assert end.states()["desk"]["files"][0]["content"] == b"second"


@pytest.mark.slow
def test_an_environment_cannot_send_without_end() -> None:
    end = LeftBehind()
    end.answer("wish", {})
    part = {"workspace": "w", "data": base64.b64encode(bytes(PART_BYTES)).decode(), "of": 10_000}
    fits = PACKED_BYTES // PART_BYTES
    for number in range(fits):
        end.answer("keep", {**part, "part": number})
    with pytest.raises(BadParamsError, match="passes"):
        end.answer("keep", {**part, "part": fits})
    for what in ("part", "else"):
        with pytest.raises(BadParamsError):
            end.answer(what, {"workspace": "w", "part": 0})


@pytest.mark.parametrize("packed", [b"", b"7", b"3\nabc", b"x\ny", pack(state(a=b"cut off" * 99))[:-3]])
def test_what_is_no_packed_state_is_refused(packed: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        unpack(packed)


async def test_files_are_kept_once_and_without_secrets(tmp_path: Path) -> None:
    secret = b"sk-ant-" + b"Ab9" * 20
    noise = os.urandom(100_000)
    left = state(small=b"key " + secret, large=noise + b" " + secret + b" " + noise, text="ü".encode() * 5000)
    writer = JobWriter(tmp_path, "job")
    writer.job({"job_id": "job", "name": "j", "started_at": 1.0})
    writer.state("one", {"desk": left})
    writer.state("two", {"desk": left})
    await writer.close()
    path = tmp_path / "job.db"
    assert secret not in path.read_bytes()
    assert path.stat().st_size < 500_000, "the same content is kept once"
    with JobFile(path) as file:
        assert file.state("three") is None
        found = file.state("two")
    assert found is not None
    contents = {one["path"]: one["content"] for one in found["desk"]["files"]}
    assert contents["small"] == b"key [redacted]"
    assert contents["large"] == noise + b" [redacted] " + noise
    assert contents["text"] == "ü".encode() * 5000
    assert found["desk"]["deleted"] == ["old"]


async def test_a_reply_is_found_in_the_files_of_before(tmp_path: Path) -> None:
    writer = JobWriter(tmp_path, "first")
    writer.job({"job_id": "first", "name": "j", "started_at": 1.0})
    cache = JobVerdicts(writer)
    assert cache.get("k") is None
    cache.put("k", {"text": "long " * 2000})
    assert cache.get("k") == {"text": "long " * 2000}
    await writer.close()
    later = JobVerdicts(None, [tmp_path / "missing.db", tmp_path / "first.db"])
    assert later.get("k") == {"text": "long " * 2000}
    assert later.get("other") is None
    later.close()
