"""Each kit notices faults that were really made: planted one at a time into what `hud plugins new` writes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hud.cli.plugin_scaffold import write

pytestmark = pytest.mark.slow

FAULTS: dict[str, tuple[str, str, str, str, set[str]]] = {
    "a runtime that never ends what it started": (
        "runtime",
        "runtime.py",
        "            await _to_its_end(served.stop(starting))",
        "            pass",
        {
            "test_takes_everything_away_when_the_body_ends",
            "test_takes_everything_away_when_the_body_raises",
            "test_takes_everything_away_when_cancelled_in_the_body",
            "test_takes_everything_away_when_cancelled_while_starting",
        },
    ),
    "readiness awaited before the try": (
        "runtime",
        "runtime.py",
        (
            "        try:\n            # Shielded: cancelled midway, the start would leave a process nobody knows.\n"
            "            await asyncio.shield(starting)\n"
        ),
        "        await starting\n        await served.announced()\n        try:\n",
        {"test_takes_everything_away_when_cancelled_while_starting"},
    ),
    "a runtime that ignores what a row asks for": (
        "runtime",
        "runtime.py",
        '        self.features.require(task.runtime_config, runtime="acme")\n',
        "",
        {"test_refuses_what_it_cannot_give_before_creating_anything[gpu]"},
    ),
    "a token that is not asked for": (
        "runtime",
        "runtime.py",
        'env={**os.environ, "HUD_TOKEN": token}',
        "env={**os.environ}",
        {"test_a_wrong_token_opens_nothing"},
    ),
    "a start error without output": (
        "runtime",
        "runtime.py",
        'self._port.set_exception(RuntimeStartError(self.told(f"{ended} before it served")))',
        'self._port.set_exception(RuntimeStartError("it failed"))',
        {"test_an_environment_that_fails_to_start_is_an_error_with_its_output"},
    ),
    "a runtime that loses what the environment prints": (
        "runtime",
        "runtime.py",
        "                    log.write(line)",
        "                    pass",
        {"test_writes_what_the_environment_prints_to_the_run_s_log"},
    ),
    "a runtime that cannot place many at once": (
        "runtime",
        "runtime.py",
        "        served = _Served()\n",
        (
            "        if len(asyncio.all_tasks()) > 20:\n"
            '            raise RuntimeStartError("too many")\n'
            "        served = _Served()\n"
        ),
        {"test_places_many_at_once_and_takes_them_all_away"},
    ),
    "a cloud whose placements do not say whose they are": (
        "runtime",
        "runtime.py",
        "features: ClassVar[Features] = Features()",
        "features: ClassVar[Features] = Features(remote=True)",
        {"test_a_placement_says_whose_it_is"},
    ),
    "a grader that answers 0 where it cannot decide": (
        "grader",
        "grader.py",
        '            raise ValueError("words is empty: there is nothing to look for")',
        "            return 0.0, {}",
        {"test_a_failure_is_an_error_and_never_a_value"},
    ),
    "a grader that counts instead of scoring": (
        "grader",
        "grader.py",
        "1.0 - len(missing) / len(words)",
        "float(len(words) - len(missing))",
        {"test_gives_the_values_expected"},
    ),
    "an agent that keeps a rollout's answer in itself": (
        "agent",
        "agent.py",
        '        answer = told.group(1) if told else ""\n',
        (
            '        self.answer = told.group(1) if told else ""\n'
            "        import asyncio\n        await asyncio.sleep(0.05)\n        answer = self.answer\n"
        ),
        {"test_serves_many_rollouts_at_once_and_mixes_none"},
    ),
    "an agent that swallows its cancellation": (
        "agent",
        "agent.py",
        '        answer = told.group(1) if told else ""\n',
        (
            '        answer = told.group(1) if told else ""\n'
            "        import asyncio, time\n"
            "        until = time.monotonic() + 0.1\n"
            "        while time.monotonic() < until:\n"
            "            try:\n                await asyncio.sleep(0.05)\n"
            "            except asyncio.CancelledError:\n                until = time.monotonic() + 13\n"
        ),
        {"test_can_be_stopped_at_any_moment"},
    ),
    "tool names that providers refuse": (
        "capability",
        "tools.py",
        '"list_notes"',
        '"list notes!"',
        {"test_tools_are_well_formed"},
    ),
    "a backing whose second stop fails": (
        "capability",
        "backing.py",
        "        if server is None:\n            return\n",
        "        assert server is not None\n",
        {"test_a_backing_stops_twice_and_before_it_started"},
    ),
    "a protocol that was not declared": (
        "capability",
        "backing.py",
        'Capability(self.name, "acme/1"',
        'Capability(self.name, "acme/2"',
        {"test_the_backing_offers_its_protocol_in_the_manifest"},
    ),
    "rows that share a slug": (
        "format",
        "rows.py",
        "args={name: value for name, _, value in pairs})",
        'slug="same")',
        {"test_gives_rows_with_slugs_of_their_own"},
    ),
    "a complaint that does not say where": (
        "format",
        "rows.py",
        'raise TasksetError("\\n".join(wrong))',
        'raise TasksetError("bad file")',
        {"test_a_broken_source_is_one_error_that_names_it"},
    ),
}


@pytest.mark.parametrize(("kind", "file", "right", "wrong", "caught"), FAULTS.values(), ids=list(FAULTS))
def test_the_kit_catches(
    tmp_path: Path, kind: str, file: str, right: str, wrong: str, caught: set[str]
) -> None:
    write(kind, "acme", tmp_path)
    path = tmp_path / "src" / f"hud_{kind}_acme" / file
    text = path.read_text(encoding="utf-8")
    assert text.count(right) == 1, f"the scaffold has changed: {right!r}"
    path.write_text(text.replace(right, wrong), encoding="utf-8")
    failed = _failed(tmp_path, *sorted(name.partition("[")[0] for name in caught))
    assert caught <= failed, f"not caught: {sorted(caught - failed)}; failed: {sorted(failed)}"


def test_a_known_failure_is_strict_and_has_a_reason(tmp_path: Path) -> None:
    write("grader", "acme", tmp_path)
    test = tmp_path / "tests" / "test_contract.py"
    text = test.read_text(encoding="utf-8")
    named = "    grader = AcmeGrader\n"
    known = '    known_failures = {"test_combines_with_others": "says it fails, and does not"}\n'
    test.write_text(text.replace(named, named + known), encoding="utf-8")
    assert _failed(tmp_path) == {"test_combines_with_others"}
    for entry, complaint in (
        ('{"test_combine_with_others": "why"}', "did you mean 'test_combines_with_others'"),
        ('{"test_combines_with_others": " "}', "needs a reason"),
    ):
        test.write_text(text.replace(named, f"{named}    known_failures = {entry}\n"), encoding="utf-8")
        assert complaint in _pytest(tmp_path).stdout


def _failed(folder: Path, *tests: str) -> set[str]:
    done = _pytest(folder, *(["-k", " or ".join(tests)] if tests else []))
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return set(re.findall(r"^(?:FAILED|ERROR) \S+?::\w+::(\S+)", done.stdout, flags=re.MULTILINE))


def _pytest(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "pytest_timeout", "-q", "-rfE", "--tb=line", *options],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder / "src"), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
