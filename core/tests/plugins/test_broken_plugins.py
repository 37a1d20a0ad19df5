"""A broken plugin takes down nothing but its own names, and using one says which distribution failed and why."""

from __future__ import annotations

from typing import Any

import pytest

BROKEN: dict[str, tuple[str, str]] = {
    "an import error": (
        "import no_such_module_at_all",
        "importing bad_plugin raised ModuleNotFoundError: No module named 'no_such_module_at_all'",
    ),
    "an exception": ("raise RuntimeError('half built')", "raised RuntimeError: half built"),
    "an exit at import": ("import sys; sys.exit(3)", "raised SystemExit: 3"),
    "a syntax error": ("def broken(:", "raised SyntaxError"),
    "a cancellation": ("import asyncio; raise asyncio.CancelledError", "raised CancelledError"),
    "no plugin at all": ("answer = 42", "implements no hook; mark its functions @hookimpl"),
    "an unmarked hook": ("def hud_runtimes(): return []", "implements no hook; mark its functions @hookimpl"),
    "an unknown hook": (
        """
        from hud.plugins import hookimpl
        @hookimpl
        def hud_runtime(): return []
        """,
        "implements hud_runtime, which this hud does not have; did you mean 'hud_runtimes'?",
    ),
    "a wrong signature of a noun": (
        """
        from hud.plugins import hookimpl
        @hookimpl
        def hud_runtimes(host): return []
        """,
        "asks for host; it takes no argument",
    ),
    "a wrong signature of a verb": (
        """
        from hud.plugins import hookimpl
        @hookimpl
        def hud_job_started(job): pass
        """,
        "names its argument 'job'; it must be `event`",
    ),
    "two arguments": (
        """
        from hud.plugins import hookimpl
        @hookimpl
        def hud_job_started(event, job): pass
        """,
        "asks for (event, job); it takes one argument, `event`",
    ),
    "a wrong colour": (
        """
        from hud.plugins import hookimpl
        @hookimpl
        async def hud_redact(event): return event.record
        """,
        "is `async def`; this hook is called synchronously, write `def`",
    ),
    "an asynchronous noun": (
        """
        from hud.plugins import hookimpl
        @hookimpl
        async def hud_runtimes(): return []
        """,
        "is `async def`",
    ),
    "a wrapper": (
        """
        from hud.plugins import hookimpl
        @hookimpl(wrapper=True)
        def hud_redact(event):
            return (yield)
        """,
        "wrappers are not offered",
    ),
    "a declaration that is none": (
        """
        from hud.plugins import hookimpl
        @hookimpl
        def hud_runtimes(): return ["docker"]
        """,
        "returned a list with str 'docker'; every item must be a RuntimeKind",
    ),
    "no list": (
        """
        from hud.plugins import hookimpl
        @hookimpl
        def hud_runtimes(): return 7
        """,
        "returned int 7; return a list of RuntimeKind",
    ),
    "a declaration of another kind": (
        """
        from hud.plugins import GraderKind, hookimpl
        @hookimpl
        def hud_runtimes(): return [GraderKind(name="bad", target="a:b")]
        """,
        "every item must be a RuntimeKind",
    ),
    "a target that is no path": (
        """
        from hud.plugins import RuntimeKind, hookimpl
        @hookimpl
        def hud_runtimes(): return [RuntimeKind(name="bad", target="bad.Runtime")]
        """,
        "declares 'bad' with target='bad.Runtime'; write 'package.module:attribute'",
    ),
    "one name twice": (
        """
        from hud.plugins import RuntimeKind, hookimpl
        @hookimpl
        def hud_runtimes(): return [RuntimeKind(name="bad", target="a:b"), RuntimeKind(name="bad", target="a:c")]
        """,
        "declares 'bad' twice",
    ),
    "a noun that raises": (
        """
        from hud.plugins import hookimpl
        @hookimpl
        def hud_runtimes(): raise OSError("no disk")
        """,
        "hud_runtimes raised OSError: no disk",
    ),
    "a noun that exits": (
        """
        from hud.plugins import hookimpl
        @hookimpl
        def hud_runtimes(): raise SystemExit
        """,
        "hud_runtimes raised SystemExit",
    ),
}

ASK = """
import json
from hud.errors import PluginBrokenError
from hud.plugins import current_host
host = current_host()
good = host.registry.load(host.registry.runtime("good"))
try:
    host.registry.runtime("bad")
    refused = None
except PluginBrokenError as error:
    refused = str(error)
findings = [f"{f.title}: {f.detail}" for f in host.findings() if f.level == "error"]
print(json.dumps([good, refused, findings]))
"""


@pytest.mark.parametrize(("source", "why"), BROKEN.values(), ids=list(BROKEN))
def test_breaks_its_own_names_only(site: Any, runtime_source: Any, source: str, why: str) -> None:
    site.add("acme-bad", version="3.4", entry_points={"bad": "bad_plugin"}, files={"bad_plugin.py": source})
    site.add(
        "acme-good",
        entry_points={"good": "good_plugin"},
        files={
            "good_plugin.py": runtime_source("good", "good_target:answer"),
            "good_target.py": "answer = 'works'",
        },
    )
    good, refused, findings = site.answer(ASK)
    assert good == "works"
    assert refused is not None
    assert "acme-bad 3.4, which is installed but broken" in refused
    assert why in refused
    assert "pip install" not in refused
    assert len(findings) == 1
    assert "acme-bad 3.4" in findings[0]
    assert why in findings[0]


def test_a_plugin_for_another_core_is_not_imported(site: Any) -> None:
    site.add(
        "acme-late",
        entry_points={"late": "late_plugin"},
        files={"late_plugin.py": "import os; os.write(1, b'imported')"},
        requires=["httpx>=0.1", "hud-core>=7.0,<8"],
    )
    done = site.run("""
        from hud.plugins import current_host
        current_host().registry.runtime("late")
    """)
    assert done.returncode == 1
    assert "acme-late 1.2, which is installed but broken: it requires hud-core>=7.0,<8" in done.stderr
    assert "imported" not in done.stdout


def test_names_a_broken_plugin_declares_are_known_from_its_source(site: Any) -> None:
    site.add(
        "acme-many",
        entry_points={"many": "many_plugin"},
        files={
            "many_plugin.py": """
                import not_there
                from hud.plugins import AgentKind, hookimpl
                @hookimpl
                def hud_agents():
                    return [AgentKind(name="whistler", target="many.agent:Whistler")]
            """
        },
    )
    done = site.run("""
        from hud.plugins import current_host
        current_host().registry.agent("whistler")
    """)
    assert "agent 'whistler' is provided by acme-many 1.2, which is installed but broken" in done.stderr


def test_a_target_that_fails_says_which_distribution_and_why(site: Any, runtime_source: Any) -> None:
    site.add(
        "acme-good",
        entry_points={"good": "good_plugin"},
        files={
            "good_plugin.py": runtime_source("good", "good_target:Missing"),
            "good_target.py": "import missing_sdk",
        },
    )
    message = site.answer("""
        import json
        from hud.plugins import current_host
        registry = current_host().registry
        try:
            registry.load(registry.runtime("good"))
        except ImportError as error:
            print(json.dumps([type(error).__name__, str(error), type(error.__cause__).__name__]))
    """)
    assert message == [
        "PluginBrokenError",
        (
            "target of runtime 'good' is provided by acme-good 1.2, which is installed but cannot be used: "
            "importing good_target:Missing raised ModuleNotFoundError: No module named 'missing_sdk'"
        ),
        "ModuleNotFoundError",
    ]


def test_unreadable_metadata_is_a_finding(site: Any) -> None:
    site.add("acme-torn", entry_points={"torn": "torn_plugin"})
    folder = site.folder / "acme_torn-1.2.dist-info"
    (folder / "METADATA").write_bytes(b"Name: \xff\xfe")
    (site.folder / "acme_odd-1.dist-info").mkdir()
    (site.folder / "acme_odd-1.dist-info" / "entry_points.txt").write_text("[hud]\nno equals sign\n")
    titles = site.answer("""
        import json
        from hud.plugins import current_host
        print(json.dumps([f.title for f in current_host().findings() if f.level == "error"]))
    """)
    assert titles == [
        "metadata of acme_odd-1.dist-info cannot be read",
        "metadata of acme_torn-1.2.dist-info cannot be read",
    ]


def test_strict_turns_a_broken_plugin_into_an_error(site: Any) -> None:
    site.add("acme-bad", entry_points={"bad": "bad_plugin"}, files={"bad_plugin.py": "1 / 0"})
    done = site.run("from hud.plugins import current_host; current_host().plugins()", HUD_PLUGINS_STRICT="1")
    assert done.returncode == 1
    assert "HUD_PLUGINS_STRICT is on and plugins are broken: bad (acme-bad 1.2)" in done.stderr
    assert "ZeroDivisionError" in done.stderr


@pytest.mark.slow
def test_a_slow_declaration_module_is_named(site: Any, runtime_source: Any) -> None:
    source = "import time; time.sleep(0.25)\n" + runtime_source("slow")
    site.add("acme-slow", entry_points={"slow": "slow_plugin"}, files={"slow_plugin.py": source})
    findings = site.answer("""
        import json
        from hud.plugins import current_host
        print(json.dumps([f.title for f in current_host().findings()]))
    """)
    assert [f for f in findings if "acme-slow 1.2" in f and "s to import" in f]


def test_another_distribution_of_the_package_hud_is_found(site: Any) -> None:
    site.add("hud-python", version="0.6.21", entry_points={})
    (site.folder / "hud_python-0.6.21.dist-info" / "RECORD").write_text("hud/__init__.py,sha256=x,1\n")
    findings = site.answer("""
        import json
        from hud.plugins.findings import other_distributions_of_hud
        print(json.dumps([[f.title, f.fix] for f in other_distributions_of_hud()]))
    """)
    assert findings == [
        [
            "hud-python 0.6.21 also provides the package `hud`",
            "pip uninstall hud-python, then pip install --force-reinstall --no-deps hud-core",
        ]
    ]
