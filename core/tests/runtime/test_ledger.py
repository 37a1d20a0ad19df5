"""The ledger: what is about to be made is on record before, and only dead owners' things are removed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from hud.errors import RuntimeStartError
from hud.runtime import folders
from hud.runtime.ledger import (
    COMPACT_BYTES,
    Ledger,
    LedgerEntry,
    ledger,
    process_name,
    read_entries,
    read_ledgers,
)
from hud.runtime.reaper import ReapResult, anything_due, reap
from hud.testing.plugins import isolated_host

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="owners are told apart by /proc")


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr("hud.runtime.ledger._own", None)
    yield
    ledger()._let_go()


def entries() -> list[LedgerEntry]:
    return [entry for _, found in read_ledgers() for entry in found]


def test_an_intent_is_there_before_anything_is_made_and_goes_with_it() -> None:
    entry = ledger().intend("docker", "hud-abc", detail={"image": "x"})
    (found,) = entries()
    assert (found.kind, found.name, found.id, found.detail) == ("docker", "hud-abc", None, {"image": "x"})
    assert found.owner == folders.owner_record()
    entry.created("4f2a")
    assert entries()[0].id == "4f2a"
    entry.removed()
    entry.removed()
    assert entries() == []
    assert not ledger().has_open
    ledger().finish()
    assert not list(ledger().path.parent.iterdir())
    ledger().intend("docker", "hud-def")
    assert [entry.name for entry in entries()] == ["hud-def"]


def test_the_sync_comes_before_the_return_for_what_outlives_us(monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    real = os.fdatasync

    def seen(descriptor: int) -> None:
        real(descriptor)
        synced.append(len(entries()))

    monkeypatch.setattr(os, "fdatasync", seen)
    ledger().intend("docker", "hud-a")
    ledger().intend("folder", "/tmp/hud-b")
    assert synced == [1]


def test_a_ledger_that_cannot_be_written_lets_nothing_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    full = Ledger(Path("/dev"))
    full.path = Path("/dev/full")
    with pytest.raises(RuntimeStartError, match=r"docker 'hud-a' is not made.*No space left"):
        full.intend("docker", "hud-a")
    assert not full.has_open
    full._let_go()


def test_damaged_lines_lose_no_others() -> None:
    first = ledger().intend("docker", "hud-a")
    with ledger().path.open("ab") as file:
        file.write(b'{"op":"intend","n":2,"kind":"dock')  # a full disk cut it
    ledger().intend("docker", "hud-c")
    with ledger().path.open("ab") as file:
        file.write(b"\xff\x00\n[]\n7\n" + b'{"op":"intend","n":9}\n{"op":"removed","n":77}\n')
    assert [entry.name for entry in entries()] == ["hud-a", "hud-c"]
    first.removed()
    assert [entry.name for entry in entries()] == ["hud-c"]


def test_a_long_life_keeps_the_file_small() -> None:
    stays = ledger().intend("folder", "/tmp/hud-stays")
    for number in range(6000):
        ledger().intend("folder", f"/tmp/hud-{number}").removed()
    assert ledger().path.stat().st_size < 2 * COMPACT_BYTES
    assert [entry.name for entry in entries()] == [stays.name]
    stays.removed()
    assert entries() == []


WRITERS = """
import sys, threading
from hud.runtime.ledger import ledger

def write(thread):
    for number in range(40):
        entry = ledger().intend("docker", f"hud-{sys.argv[1]}-{thread}-{number}")
        entry.created(f"id-{number}")
        if number % 2:
            entry.removed()

threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print("written", flush=True)
sys.stdin.read()
"""


def start_writer(name: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITERS, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def end(process: subprocess.Popen[str], *, kill: bool = True) -> None:
    if kill:
        process.kill()
    process.communicate()


@pytest.mark.slow
def test_processes_and_threads_write_at_once() -> None:
    writers = [start_writer(str(number)) for number in range(4)]
    try:
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "written\n"
        found = entries()
        assert len(found) == 4 * 4 * 20
        assert len({entry.name for entry in found}) == len(found)
        assert all(entry.id for entry in found)
        assert not anything_due(), "their owners live"
    finally:
        for writer in writers:
            end(writer)
    assert anything_due()


async def removes_all(due: Sequence[LedgerEntry]) -> list[ReapResult]:
    seen.extend(due)
    return [ReapResult(entry, "removed") for entry in due]


async def is_broken(due: Sequence[LedgerEntry]) -> list[ReapResult]:
    raise ConnectionRefusedError("no engine")


seen: list[LedgerEntry] = []


@pytest.fixture
def acme(request: pytest.FixtureRequest) -> Iterator[None]:
    from hud.plugins import hookimpl
    from hud.plugins.kinds import RuntimeKind

    seen.clear()

    class Plugin:
        @hookimpl
        def hud_runtimes(self) -> list[RuntimeKind]:
            return [RuntimeKind(name="acme", target="os:path", reaper=f"{__name__}:{request.param}")]

    with isolated_host(Plugin()):
        yield


def dead_owner(*things: tuple[str, str]) -> None:
    """Leave entries of a process that was killed."""
    script = "import sys, os\nfrom hud.runtime.ledger import ledger\n"
    script += "".join(f"ledger().intend({kind!r}, {name!r})\n" for kind, name in things)
    subprocess.run([sys.executable, "-c", script + "os.kill(os.getpid(), 9)"], check=False)


@pytest.mark.parametrize("acme", ["removes_all"], indirect=True)
def test_a_plugin_removes_what_a_dead_owner_left_and_never_a_living_ones(acme: None) -> None:
    mine = ledger().intend("acme", "hud-mine")
    ledger().intend("acme", "hud-cloud", remote=True, expires_at=time.time() + 3600)
    dead_owner(("acme", "hud-theirs"))
    (would,) = asyncio.run(reap(dry_run=True))
    assert (would.entry.name, would.outcome) == ("hud-theirs", "due")
    assert seen == []
    (done,) = asyncio.run(reap())
    assert (done.entry.name, done.outcome) == ("hud-theirs", "removed")
    assert [entry.name for entry in seen] == ["hud-theirs"]
    assert sorted(entry.name for entry in entries()) == ["hud-cloud", "hud-mine"]
    assert list(ledger().path.parent.iterdir()) == [ledger().path]
    assert asyncio.run(reap()) == []
    mine.removed()


@pytest.mark.parametrize("acme", ["removes_all"], indirect=True)
def test_what_is_remote_goes_when_its_time_is_over_though_its_owner_lives(acme: None) -> None:
    ledger().intend("acme", "hud-old", remote=True, expires_at=time.time() - 1)
    ledger().intend("acme", "hud-new", remote=True, expires_at=time.time() + 3600)
    ledger().intend("acme", "hud-local", expires_at=time.time() - 1)
    (done,) = asyncio.run(reap())
    assert done.entry.name == "hud-old"
    assert sorted(entry.name for entry in entries()) == ["hud-local", "hud-new"]


@pytest.mark.parametrize("acme", ["is_broken"], indirect=True)
def test_what_cannot_be_removed_stays_on_record_with_the_reason(acme: None) -> None:
    dead_owner(("acme", "hud-a"), ("nobody-knows", "hud-b"))
    first, second = asyncio.run(reap())
    assert (first.outcome, first.note) == ("failed", "ConnectionRefusedError: no engine")
    assert second.outcome == "failed"
    assert "nobody-knows" in second.note
    assert sorted(entry.name for entry in entries()) == ["hud-a", "hud-b"]
    assert not anything_due(), "no start tries again at once"
    assert len(asyncio.run(reap())) == 2, "whoever asks for it does"


def test_another_boot_is_a_dead_owner_and_another_machine_is_not(tmp_path: Path) -> None:
    ledger().intend("docker", "hud-a")
    (path,) = ledger().path.parent.iterdir()
    event = json.loads(path.read_text())
    machine, _boot, *rest = event["owner"].split()
    path.write_text(json.dumps({**event, "owner": " ".join((machine, "other-boot", *rest))}))
    assert read_entries(path)[0].is_due
    path.write_text(json.dumps({**event, "owner": " ".join(("other-machine", "other-boot", *rest))}))
    assert not read_entries(path)[0].is_due
    path.write_text(json.dumps({**event, "owner": event["owner"].replace(f" {os.getuid()} ", " 4711 ")}))
    assert asyncio.run(reap()) == [], "another user's"


def test_local_things_of_a_dead_owner_are_removed(tmp_path: Path) -> None:
    folder = tmp_path / "hud-box-1"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "locked").mkdir(mode=0)
    precious = tmp_path / "precious"
    precious.mkdir()
    sleeper = subprocess.Popen(["sleep", "600"], start_new_session=True)
    other = subprocess.Popen(["sleep", "600"])
    try:
        things = [
            ("folder", str(folder)),
            ("folder", str(precious)),
            ("folder", "/"),
            ("process", process_name(sleeper.pid)),
            ("process", f"{other.pid} 1"),
            ("process", "nonsense"),
        ]
        dead_owner(*things)
        outcomes = {result.entry.name: result.outcome for result in asyncio.run(reap())}
        assert outcomes[str(folder)] == "removed"
        assert not folder.exists()
        assert outcomes[str(precious)] == "failed"
        assert precious.exists()
        assert outcomes["/"] == "failed"
        assert sleeper.wait(10) == -signal.SIGKILL
        assert outcomes[f"{other.pid} 1"] == "gone", "another process has that number now"
        assert other.poll() is None
    finally:
        sleeper.kill()
        other.kill()
        sleeper.wait()
        other.wait()


@pytest.mark.slow
@pytest.mark.parametrize("acme", ["removes_all"], indirect=True)
def test_two_that_reap_at_once_remove_nothing_twice(acme: None) -> None:
    for number in range(4):
        dead_owner(*(("acme", f"hud-{number}-{i}") for i in range(20)))
    threads = [threading.Thread(target=lambda: asyncio.run(reap())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    asyncio.run(reap())
    assert len(seen) == len({entry.name for entry in seen}) == 80


def test_a_forked_process_is_an_owner_of_its_own() -> None:
    ledger().intend("docker", "hud-parent")
    pid = os.fork()
    if pid == 0:
        try:
            ledger().intend("docker", "hud-child")
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    due = {entry.name: entry.is_due for entry in entries()}
    assert due == {"hud-parent": False, "hud-child": True}


ELSEWHERE = """
import sys
from hud.runtime import folders
folders._pid_namespace = lambda: "pid:[1]"
from hud.runtime.ledger import ledger
ledger().intend("folder", sys.argv[1])
print("made", flush=True)
sys.stdin.read()
"""


def test_an_owner_whose_number_says_nothing_here_is_dead_once_it_lets_go_of_its_file(tmp_path: Path) -> None:
    folder = tmp_path / "hud-elsewhere"
    folder.mkdir()
    words = [sys.executable, "-c", ELSEWHERE, str(folder)]
    owner = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"made\n"
        assert [entry.is_due for entry in entries()] == [False]
        asyncio.run(reap())
        assert folder.exists()
    finally:
        owner.kill()
        owner.communicate()
    assert [entry.is_due for entry in entries()] == [True]
    asyncio.run(reap())
    assert not folder.exists()
    assert entries() == []


@pytest.mark.slow
def test_the_command_says_what_it_removed(tmp_path: Path) -> None:
    folder = tmp_path / "hud-box-2"
    folder.mkdir()
    dead_owner(("folder", str(folder)))
    hud = Path(sys.executable).with_name("hud")

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([hud, "reap", *words], capture_output=True, text=True, check=False)

    dry = run("--dry-run")
    assert f"would remove  folder  {folder}" in dry.stdout
    assert folder.exists()
    done = run("--json")
    assert (done.returncode, json.loads(done.stdout)["results"][0]["outcome"]) == (0, "removed")
    assert not folder.exists()
    assert "nothing is left behind" in run().stderr
