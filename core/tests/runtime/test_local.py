"""What a rollout's own process is, and what a module may do to it."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from hud.errors import RuntimeStartError, SourceError, TemplateRaisedError, UnsupportedConfigError
from hud.plugins.hookspecs import hookimpl
from hud.plugins.host import current_host
from hud.plugins.kinds import RuntimeKind
from hud.runtime import zygote_table
from hud.runtime.admission import local_capacity, original_descriptor_limit
from hud.runtime.local import LocalRuntime
from hud.types import RuntimeConfig, RuntimeLimits, RuntimeResources, Task
from hud.wire.client import connect

from .conftest import Project, descendants, eventually, row, told

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.usefixtures("nothing_left"),
    pytest.mark.skipif(sys.platform != "linux", reason="zygotes are for Linux"),
]


async def test_a_rollout_is_graded_in_a_process_of_its_own(adder: Project) -> None:
    async with LocalRuntime(adder.file)(row("add", a=1, b=2)) as runtime:
        assert runtime.url.startswith("unix://")
        async with connect(runtime) as client:
            started = await client.start_task("add", {"a": 1, "b": 2})
            assert started["prompt"] == "1 + 2?"
            assert (await client.grade("3"))["score"] == 1.0


@pytest.mark.slow
async def test_the_source_may_be_a_folder_a_bare_name_or_an_attribute(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.folder)
    for source in (project.folder, "env", "env.py:env", Path("env.py")):
        assert await told(LocalRuntime(source), "6 * 7") == "42"


async def test_each_rollout_has_fresh_globals_and_its_own_number(project: Project) -> None:
    project.write("import env as _; seen = []", "state.py")
    runtime = LocalRuntime(project.file)
    expression = "(__import__('state').seen.append(1), len(__import__('state').seen), os.getpid())[1:]"
    first, second = [await told(runtime, expression) for _ in range(2)]
    assert first.startswith("(1,")
    assert second.startswith("(1,")
    assert first != second


@pytest.mark.slow
async def test_random_numbers_differ_between_rollouts(project: Project) -> None:
    pytest.importorskip("numpy")
    project.write("import random, numpy, numpy.random\n" + project.file.read_text())
    runtime = LocalRuntime(project.file)
    expression = "(random.random(), numpy.random.random(), __import__('uuid').uuid4())"
    seen = {part for _ in range(3) for part in (await told(runtime, expression)).strip("()").split(", ")}
    assert len(seen) == 9


async def test_the_child_works_in_the_sources_folder(project: Project) -> None:
    assert await told(LocalRuntime(project.file), "os.getcwd()") == str(project.folder)


@pytest.mark.slow
async def test_provider_keys_stay_outside_unless_they_are_named(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "HUD_API_KEY", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "MY_OWN"):
        monkeypatch.setenv(name, f"value of {name}")
    project.write(
        project.file.read_text()
        + """
def every_environment():
    found = b""
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            found += path.read_bytes()
        except OSError:
            continue
    return found
"""
    )
    look = "sorted(n for n in os.environ if os.environ[n].startswith('value of '))"
    everywhere = "b'value of OPENAI' in every_environment()"
    assert await told(LocalRuntime(project.file), look) == "['MY_OWN']"
    assert await told(LocalRuntime(project.file), everywhere) == "False"
    named = LocalRuntime(project.file, env_vars=["OPENAI_API_KEY"])
    assert await told(named, look) == "['MY_OWN', 'OPENAI_API_KEY']"
    given = LocalRuntime(project.file, env_vars={"HUD_API_KEY": "value of test"})
    assert await told(given, look) == "['HUD_API_KEY', 'MY_OWN']"


async def test_the_token_is_needed_and_shows_nowhere(project: Project) -> None:
    async with LocalRuntime(project.file)(row()) as runtime:
        token = runtime.params["token"]
        assert token not in repr(runtime)
        async with connect(runtime) as client:
            look = "open('/proc/self/cmdline').read() + str(os.environ) + open('/proc/1/cmdline').read()"
            assert token not in (await client.start_task("tell", {"what": look}))["prompt"]
        from hud.errors import NotAuthorizedError
        from hud.runtime.contract import Runtime

        with pytest.raises(NotAuthorizedError):
            async with connect(Runtime(runtime.url, {"token": "wrong"})):
                pass


async def test_the_child_holds_no_descriptor_of_ours(project: Project) -> None:
    look = "[os.readlink(link) for link in Path('/proc/self/fd').iterdir() if link.exists()]"
    with Path("/etc/hostname").open() as ours:
        os.set_inheritable(ours.fileno(), True)
        held = await told(LocalRuntime(project.file), look)
    assert "hostname" not in held
    assert "zygote.log" not in held


async def test_files_opened_at_import_stay_open(project: Project) -> None:
    project.write("data", "data.txt")
    project.write("handle = open('data.txt')\n" + project.file.read_text())
    assert await told(LocalRuntime(project.file), "handle.read()") == "data"


async def test_hooks_run_in_the_child_around_each_rollout(project: Project, tmp_path: Path) -> None:
    mark = tmp_path / "marks"
    project.write(f"""
        import os
        from hud.environment import Environment

        env = Environment(name="demo")

        def mark(what):
            with open({str(mark)!r}, "a") as file:
                file.write(f"{{what}} {{os.getpid()}}\\n")

        @env.initialize
        async def up():
            mark("up")

        @env.shutdown
        async def down():
            mark("down")

        @env.template()
        async def tell(what: str = ""):
            yield "go"
            yield 1.0
    """)
    runtime = LocalRuntime(project.file)
    for _ in range(2):
        async with runtime(row()):
            pass
    marks = [line.split() for line in mark.read_text().splitlines()]
    assert [what for what, _ in marks] == ["up", "down", "up", "down"]
    assert marks[0][1] == marks[1][1] != marks[2][1] == marks[3][1]


async def test_the_limits_of_open_files_are_the_users(project: Project) -> None:
    soft = original_descriptor_limit()
    look = "__import__('resource').getrlimit(7)[0]"
    assert await told(LocalRuntime(project.file), look) == str(soft)


async def test_a_child_has_no_more_power_than_its_user(project: Project) -> None:
    if os.getuid() == 0:
        pytest.skip("root keeps its powers")
    look = "[line.split()[1] for line in open('/proc/self/status') if line.startswith(('CapEff', 'CapPrm', 'CapAmb'))]"
    assert set(eval(await told(LocalRuntime(project.file), look))) == {"0" * 16}


async def test_tcp_is_there_for_clients_that_need_it(project: Project) -> None:
    async with LocalRuntime(project.file, transport="tcp")(row()) as runtime:
        assert runtime.url.startswith("tcp://127.0.0.1:")
        async with connect(runtime) as client:
            assert (await client.start_task("tell", {"what": "1"}))["prompt"] == "1"


@pytest.mark.slow
async def test_an_edited_module_is_used_from_the_next_rollout_on(
    project: Project, capfd: pytest.CaptureFixture[str]
) -> None:
    project.write("value = 'before'", "part.py")
    project.write("import part\n" + project.file.read_text())
    runtime = LocalRuntime(project.file)
    assert await told(runtime, "part.value") == "before"
    async with runtime(row()) as held:
        project.write("value = 'after, and longer'", "part.py")
        assert await told(runtime, "part.value") == "after, and longer"
        async with connect(held) as client:
            assert (await client.start_task("tell", {"what": "part.value"}))["prompt"] == "before"
    assert "part.py changed" in capfd.readouterr().err


@pytest.mark.slow
async def test_a_zygote_that_nobody_uses_ends_and_the_next_rollout_makes_another(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hud.runtime.zygotes.IDLE_S", 0.05)
    before = set(descendants())
    runtime = LocalRuntime(project.file)
    assert await told(runtime, "1") == "1"
    await eventually(lambda: not (set(descendants()) - before), "the zygote ends")
    assert await told(runtime, "2") == "2"


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


# What a module may do wrong.


async def test_a_missing_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"nowhere\.py: there is no such file"):
        async with LocalRuntime(tmp_path / "nowhere.py")(row()):
            pass


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def broken(:\n", "SyntaxError"),
        ("raise ValueError('of the author')\n", "of the author"),
        ("import no_such_module_here\n", "no_such_module_here"),
        ("import sys\nsys.exit(3)\n", "SystemExit"),
        ("x = 1\n", "declares no Environment"),
    ],
)
async def test_a_module_that_cannot_be_imported_says_why(project: Project, text: str, message: str) -> None:
    project.write(text)
    with pytest.raises(SourceError) as caught:
        async with LocalRuntime(project.file)(row()):
            pass
    assert message in str(caught.value)
    assert "env.py" in str(caught.value)


@pytest.mark.parametrize(
    ("ending", "message"),
    [
        ("os._exit(3)", "exited with status 3"),
        ("ctypes.string_at(0)", r"was killed by signal 11 \(SIGSEGV\)"),
    ],
)
async def test_a_module_that_ends_the_process_is_reported_with_its_last_words(
    project: Project, ending: str, message: str
) -> None:
    project.write(f"import os, ctypes\nprint('the last words')\n{ending}\n")
    with pytest.raises(RuntimeStartError, match=message) as caught:
        async with LocalRuntime(project.file)(row()):
            pass
    assert "the last words" in str(caught.value)


@pytest.mark.slow
async def test_a_module_that_blocks_at_import_meets_the_deadline(project: Project) -> None:
    project.write("import time\nprint('asleep', flush=True)\ntime.sleep(600)\n")
    with pytest.raises(RuntimeStartError, match="did not finish importing within 4 s") as caught:
        async with LocalRuntime(project.file, ready_timeout=4.0)(row()):
            pass
    assert "asleep" in str(caught.value)


@pytest.mark.slow
async def test_a_hook_that_blocks_meets_the_rows_deadline(project: Project) -> None:
    project.write("""
        import os, time
        from hud.environment import Environment

        env = Environment(name="demo")

        @env.initialize
        async def up():
            print("in the hook")
            if os.path.exists("block"):
                time.sleep(600)
    """)
    limits = RuntimeConfig(limits=RuntimeLimits(startup_timeout_s=3.0))
    runtime = LocalRuntime(project.file)
    async with runtime(row()):
        pass
    project.write("", "block")
    with pytest.raises(RuntimeStartError, match="did not serve within 3 s") as caught:
        async with runtime(Task(env="demo", id="tell", runtime_config=limits)):
            pass
    assert "in the hook" in str(caught.value)


async def test_a_failing_hook_is_the_environments_own_error(project: Project) -> None:
    project.write("""
        from hud.environment import Environment

        env = Environment(name="demo")

        @env.initialize
        async def up():
            raise LookupError("no fixtures")
    """)
    with pytest.raises(TemplateRaisedError, match="no fixtures") as caught:
        async with LocalRuntime(project.file)(row()):
            pass
    assert 'raise LookupError("no fixtures")' in caught.value.author_traceback
    assert "/hud/" not in caught.value.author_traceback, "the author's own frames alone"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (
            "import threading, time; threading.Thread(target=time.sleep, args=(600,), daemon=True).start()",
            "thread",
        ),
        ("import socket; held = socket.socket()", "socket"),
        ("import socket; held = socket.socketpair()", "socket"),
        ("import sqlite3; held = sqlite3.connect(':memory:')", "database connection"),
    ],
)
async def test_what_a_fork_would_lose_is_imported_by_each_child(
    project: Project, capfd: pytest.CaptureFixture[str], line: str, reason: str
) -> None:
    project.write(f"{line}\n{project.file.read_text()}")
    runtime = LocalRuntime(project.file)
    assert await told(runtime, "1 + 1") == "2"
    assert await told(runtime, "threading.active_count() > 2" if "threading" in line else "True") == "True"
    said = capfd.readouterr().err
    assert said.count(reason) == 1
    assert "slower" in said


@pytest.mark.slow
async def test_numpy_leaves_no_threads(project: Project, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("numpy")
    project.write("import numpy\n" + project.file.read_text())
    assert await told(LocalRuntime(project.file), "numpy.ones(3).sum()") == "3.0"
    assert "slower" not in capfd.readouterr().err


async def test_a_script_that_runs_itself_is_told_so(project: Project) -> None:
    project.write(
        project.file.read_text()
        + """
import asyncio
from hud.runtime.local import LocalRuntime
from hud.types import Task

async def run():
    async with LocalRuntime(__file__)(Task(env="demo", id="tell")):
        pass

asyncio.run(run())
"""
    )
    with pytest.raises(SourceError, match="__main__"):
        async with LocalRuntime(project.file)(row()):
            pass


def declare_cloud(self: object) -> list[RuntimeKind]:
    return [RuntimeKind(name="cloud", target="cloud:Cloud", features={"memory": True})]


async def test_what_it_cannot_give_is_refused_before_anything_starts(project: Project) -> None:
    config = RuntimeConfig(resources=RuntimeResources(memory_mb=4096))
    plugin = type("Plugin", (), {"hud_runtimes": hookimpl(declare_cloud)})()
    with (
        current_host().register(plugin, name="cloud"),
        pytest.raises(UnsupportedConfigError, match=r"cannot provide resources\.memory_mb; use .*cloud"),
    ):
        async with LocalRuntime(project.file)(Task(env="demo", id="tell", runtime_config=config)):
            pass
    assert not zygote_table._table


@pytest.mark.slow
async def test_many_at_once_all_start(project: Project) -> None:
    runtime = LocalRuntime(project.file)
    numbers = await asyncio.gather(*(told(runtime, "os.getpid()") for _ in range(40)))
    assert len(set(numbers)) == 40


@pytest.mark.slow
async def test_slow_hooks_of_many_run_at_the_same_time(project: Project, tmp_path: Path) -> None:
    count = 4 * (os.cpu_count() or 1) + 4
    project.write(f"""
        import asyncio, os
        from pathlib import Path
        from hud.environment import Environment

        env = Environment(name="demo")
        arrived = Path({str(tmp_path / "arrived")!r})

        @env.initialize
        async def up():
            # Ends only once all have come this far.
            arrived.mkdir(exist_ok=True)
            (arrived / str(os.getpid())).touch()
            while len(os.listdir(arrived)) < {count}:
                await asyncio.sleep(0.01)
    """)
    runtime = LocalRuntime(project.file, ready_timeout=60)

    async def place() -> None:
        async with runtime(row()):
            pass

    await asyncio.gather(*(place() for _ in range(count)))


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_five_hundred_at_once_all_finish_within_bounded_memory(adder: Project) -> None:
    count = 500
    if local_capacity().children < count:
        pytest.skip("this machine cannot hold so many")
    runtime = LocalRuntime(adder.file, ready_timeout=300)
    started = 0
    all_started = asyncio.Event()

    async def rollout(number: int) -> float:
        nonlocal started
        task = row("add", a=number, b=1)
        async with runtime(task) as placed, connect(placed) as client:
            await client.start_task("add", task.args)
            started += 1
            if started == count:
                all_started.set()
            await all_started.wait()
            score: float = (await client.grade(str(number + 1)))["score"]
            return score

    rollouts = asyncio.gather(*(rollout(number) for number in range(count)))
    await all_started.wait()
    held_mb = sum(pss_mb(pid) for pid in [os.getpid(), *descendants()])
    assert await rollouts == [1.0] * count
    assert held_mb < 10 * count


def pss_mb(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


@pytest.mark.slow
async def test_two_hundred_starts_one_after_another_leave_nothing(project: Project) -> None:
    runtime = LocalRuntime(project.file)
    descriptors = open_descriptors()
    for _ in range(200):
        async with runtime(row()) as placed:
            assert placed.url
    assert open_descriptors() <= descriptors + 4
