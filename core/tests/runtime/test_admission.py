"""How many environments fit."""

from __future__ import annotations

import asyncio
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from hud.errors import RuntimeStartError
from hud.runtime.admission import Capacity, available_memory_mb, local_capacity, raise_descriptor_limit
from hud.runtime.gate import Gate


def test_the_smallest_limit_decides_and_is_named() -> None:
    found = local_capacity()
    assert found.children == min(found.by_memory, found.by_processes, found.by_descriptors) > 0
    assert found.children == getattr(found, f"by_{found.limiting}")
    assert local_capacity(child_mb=10 * found.memory_mb).children == 0


def test_asking_for_more_names_the_limit_and_how_to_raise_it() -> None:
    small = Capacity(3, "descriptors", 100, 100, 3, 4096.0)
    small.require(3)
    with pytest.raises(RuntimeStartError, match=r"3 environments at once, not 4.*descriptors.*ulimit -n"):
        small.require(4)


def test_the_soft_limit_of_descriptors_is_raised_to_the_hard_one() -> None:
    code = (
        "import resource; from hud.runtime.admission import raise_descriptor_limit; "
        "resource.setrlimit(resource.RLIMIT_NOFILE, (100, 300)); print(raise_descriptor_limit(), "
        "resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["300", "300"]


def test_what_is_measured_is_plausible() -> None:
    assert 0 < available_memory_mb() < 1 << 24
    assert raise_descriptor_limit() == resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def capacity(children: int) -> Capacity:
    return Capacity(children, "memory", children, 100, 100, 64.0)


@pytest.mark.anyio
async def test_what_does_not_fit_waits_for_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hud.runtime.gate.LOOK_AGAIN_S", 3600.0)
    gate = Gate(lambda: capacity(2))
    inside = most = done = 0

    async def hold() -> None:
        nonlocal inside, most, done
        async with gate.admitted(60):
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            inside -= 1
            done += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(hold())
    assert done == 20
    assert most == 2


@pytest.mark.anyio
async def test_a_full_machine_is_named_after_the_deadline() -> None:
    gate = Gate(lambda: capacity(0))
    with pytest.raises(RuntimeStartError, match=r"memory is the limit; give the container"):
        async with gate.admitted(0.01):
            pass


@pytest.mark.anyio
async def test_one_that_gives_up_leaves_its_turn_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hud.runtime.gate.LOOK_AGAIN_S", 3600.0)
    gate = Gate(lambda: capacity(1))
    entered = asyncio.Event()

    async def enter() -> None:
        async with gate.admitted(60):
            entered.set()

    async with gate.admitted(60):
        impatient = asyncio.ensure_future(enter())
        patient = asyncio.ensure_future(enter())
        await asyncio.sleep(0)
        impatient.cancel()
        await asyncio.wait((impatient,))
        assert not entered.is_set()
    async with asyncio.timeout(20):
        await patient
    assert entered.is_set()


@pytest.mark.slow
def test_running_out_of_descriptors_is_a_typed_error_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "env.py").write_text("from hud.environment import Environment\nenv = Environment('demo')\n")
    program = """
import asyncio, resource, sys
from hud.runtime.local import LocalRuntime
from hud.types import Task

async def main():
    held = []
    runtime = LocalRuntime(sys.argv[1])
    row = Task(env="demo", id="x")
    async with runtime(row):
        pass
    resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
    try:
        for _ in range(60):
            placed = runtime(row)
            await placed.__aenter__()
            held.append(placed)
    except Exception as error:
        print(type(error).__name__, error)
    for placed in held:
        await placed.__aexit__(None, None, None)
    async with runtime(row):
        print("and again")

asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "env.py")], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("RuntimeStartError")
    assert "ulimit -n" in done.stdout
    assert done.stdout.endswith("and again\n")
