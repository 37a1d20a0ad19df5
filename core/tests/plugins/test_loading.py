"""What loads, in which order, and what `import hud` leaves alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hud.errors import ConfigError
from hud.plugins.compatibility import core_refusal
from hud.plugins.policy import PluginPolicy
from hud.settings.hudtoml import PluginTable

LISTENER = """
from hud.plugins import hookimpl
@hookimpl
def hud_redact(event): return {**event.record, "seen": [*event.record.get("seen", []), __name__]}
"""

IMPORTED = "import os; os.write(1, b'imported %s\\n' % __name__.encode())\n"
"""A module that says when it is imported, past `sys.stdout`, which the host points elsewhere meanwhile."""


def test_importing_hud_scans_and_imports_nothing(site: Any) -> None:
    site.add("acme-loud", entry_points={"loud": "loud"}, files={"loud.py": IMPORTED})
    done = site.run("""
        import sys
        import hud
        hud.__version__
        from hud import eval, environment, agents, graders, capabilities, plugins
        heavy = {"pluggy", "pydantic", "asyncio", "anyio", "importlib.metadata", "rich", "click", "hud.plugins.host"}
        print(sorted(heavy & set(sys.modules)))
    """)
    assert done.stdout == "[]\n"


def test_plugins_load_by_name_and_distribution_never_by_folder_order(site: Any) -> None:
    for dist, name in (("zz-first", "alpha"), ("aa-last", "omega"), ("bb-two", "beta"), ("aa-two", "beta")):
        module = dist.replace("-", "_")
        site.add(dist, entry_points={name: module}, files={f"{module}.py": LISTENER})
    seen = site.answer("""
        import json
        from hud.plugins import Redact, current_host
        print(json.dumps(current_host().redact(Redact(kind="step", record={}))["seen"]))
    """)
    assert seen == ["zz_first", "aa_two", "bb_two", "aa_last"]


@pytest.mark.parametrize("name", ["loud", "acme-loud", "ACME_loud", "loud@acme-loud"])
def test_a_disabled_plugin_is_never_imported(site: Any, name: str) -> None:
    site.add("acme-loud", entry_points={"loud": "loud"}, files={"loud.py": IMPORTED})
    done = site.run(
        """
        from hud.plugins import current_host
        host = current_host()
        print([p.problem for p in host.plugins() if p.name == "loud"])
        host.registry.runtime("loud")
        """,
        HUD_PLUGINS_DISABLE=f"other,{name}",
    )
    assert done.stdout == "['disabled by HUD_PLUGINS_DISABLE']\n"
    assert "acme-loud 1.2, which is installed but disabled by HUD_PLUGINS_DISABLE" in done.stderr


def test_autoload_off_loads_only_what_is_enabled(site: Any) -> None:
    for name in ("one", "two"):
        site.add(f"acme-{name}", entry_points={name: name}, files={f"{name}.py": f"{IMPORTED}{LISTENER}"})
    off = site.run("from hud.plugins import current_host; current_host().plugins()", HUD_PLUGINS_AUTOLOAD="0")
    assert off.stdout == ""
    some = site.run(
        "from hud.plugins import current_host; current_host().plugins()",
        HUD_PLUGINS_AUTOLOAD="0",
        HUD_PLUGINS_ENABLE="two",
    )
    assert some.stdout == "imported two\n"


def test_hud_toml_is_honoured_before_any_import(site: Any) -> None:
    site.add("acme-loud", entry_points={"loud": "loud"}, files={"loud.py": IMPORTED})
    (site.folder / "hud.toml").write_text('[plugins]\ndisable = ["loud"]\n')
    done = site.run("""
        from hud.plugins import current_host
        print([p.problem for p in current_host().plugins() if p.name == "loud"])
    """)
    assert done.stdout == "['disabled by [plugins] disable in hud.toml']\n"


@pytest.mark.slow
def test_a_project_can_require_plugins(site: Any, runtime_source: Any) -> None:
    site.add("acme-old", entry_points={"old": "old"}, files={"old.py": runtime_source("old")})
    (site.folder / "hud.toml").write_text(
        '[plugins]\nrequires = ["acme-old>=2", "acme-none", "acme-old>=1"]\n'
    )
    findings = site.answer("""
        import json
        from hud.plugins import current_host
        print(json.dumps([[f.title, f.fix] for f in current_host().findings() if f.level == "error"]))
    """)
    assert findings == [
        ["the project requires the plugin acme-old>=2", "pip install 'acme-old>=2'"],
        ["the project requires the plugin acme-none", "pip install 'acme-none'"],
    ]
    (site.folder / "env.py").write_text("raise SystemExit('imported')")
    done = site.run("import sys; from hud.cli.program import run; sys.exit(run(['eval', 'env.py', 'noop']))")
    assert done.returncode == 2
    assert "requires the plugin acme-old>=2, but acme-old 1.2 is installed: pip install" in done.stderr
    assert "imported" not in done.stderr


def test_an_entry_point_may_name_an_object_or_a_class_of_the_specs(site: Any) -> None:
    source = """
        from hud.plugins import HookSpecs, RuntimeKind, hookimpl

        class Ours(HookSpecs):
            @hookimpl
            def hud_runtimes(self):
                return [RuntimeKind(name=f"of-{type(self).__name__.lower()}", target="a:b")]

        ours = type("Made", (Ours,), {})()
    """
    points = {"class": "specs:Ours", "object": "specs:ours"}
    site.add("acme-specs", entry_points=points, files={"specs.py": source})
    found = site.answer("""
        import json
        from hud.plugins import current_host
        host = current_host()
        print(json.dumps([[k.name for k in host.registry.runtimes()], [f.title for f in host.findings()]]))
    """)
    assert found == [["local", "of-made", "of-ours", "subprocess", "tcp"], []]


def test_two_entry_points_of_one_module_are_one_plugin_and_a_finding(site: Any, runtime_source: Any) -> None:
    points = {"first": "twice", "second": "twice"}
    site.add("acme-twice", entry_points=points, files={"twice.py": runtime_source("once")})
    found = site.answer("""
        import json
        from hud.plugins import current_host
        host = current_host()
        print(json.dumps([host.registry.runtime("once").name, [f.detail for f in host.findings()]]))
    """)
    assert found[0] == "once"
    assert found[1] == ["twice is declared already, by the entry point 'first' of acme-twice 1.2"]


def test_a_distribution_twice_on_the_path_counts_once(site: Any, runtime_source: Any, tmp_path: Path) -> None:
    site.add("acme-one", version="2.0", entry_points={"one": "one"}, files={"one.py": runtime_source("one")})
    older = type(site)(tmp_path / "older", site.third_parties)
    older.folder.mkdir()
    older.add("acme-one", version="1.0", entry_points={"one": "one"}, files={"one.py": runtime_source("one")})
    found = site.answer(
        """
        import json
        from hud.plugins import current_host
        host = current_host()
        print(json.dumps(host.registry.plugin_of(host.registry.runtime("one")).version))
        """,
        PYTHONPATH=f"{site.folder}:{older.folder}",
    )
    assert found == "2.0"


def test_metadata_in_a_zip_on_the_path_is_found(site: Any, runtime_source: Any, tmp_path: Path) -> None:
    import zipfile

    site.add("acme-zip", entry_points={"zip": "zipped"}, files={"zipped.py": runtime_source("zipped")})
    archive = tmp_path / "site.zip"
    with zipfile.ZipFile(archive, "w") as bundle:
        for path in site.folder.rglob("*"):
            if path.is_file():
                bundle.write(path, path.relative_to(site.folder))
    done = site.run(
        "from hud.plugins import current_host; print(current_host().registry.runtime('zipped').name)",
        PYTHONPATH=str(archive),
    )
    assert done.stdout == "zipped\n", done.stderr


def test_commands_are_listed_from_their_source(site: Any) -> None:
    source = """
        import os; os.write(1, b"imported")
        from hud.plugins import CommandKind, hookimpl
        @hookimpl
        def hud_commands():
            return [CommandKind(name="fly", summary="Fly away.", target="fly:command")]
    """
    site.add("acme-fly", entry_points={"fly": "fly_plugin"}, files={"fly_plugin.py": source})
    ask = """
        import json
        from hud.plugins.policy import PluginPolicy
        from hud.plugins.static import command_lines
        print(json.dumps([line for line in command_lines(PluginPolicy.read()) if line[2].startswith("acme")]))
    """
    done = site.run(ask)
    assert done.stdout == '[["fly", "Fly away.", "acme-fly"]]\n'
    assert site.answer(ask, HUD_PLUGINS_DISABLE="fly") == []


@pytest.mark.parametrize(
    ("requirement", "refused"),
    [
        ("hud-core", False),
        ("hud-core>=1.4,<2", False),
        ("hud_core (>=1.4)", False),
        ("hud-core>=1.4.1", True),
        ("hud-core<1.4", True),
        ("hud-core~=1.3", False),
        ("hud-core==1.4.*", False),
        ("hud-core[testing]>=2", True),
        ('hud-core>=9; python_version < "3"', False),
        ("hud-core>=not a version", True),
        ("hud-core-extras>=9", False),
    ],
)
def test_requirements_on_core_are_read_as_pip_reads_them(requirement: str, refused: bool) -> None:
    assert core_refusal(("httpx>=99", requirement), "1.4.0") == (requirement if refused else None)


def test_policy_joins_variables_and_table() -> None:
    table = PluginTable(disable=["a_b"], autoload=False, strict=True, requires=["x>=1"])
    policy = PluginPolicy.read({"HUD_PLUGINS_DISABLE": "c", "HUD_PLUGINS_AUTOLOAD": "1"}, table)
    assert policy.disable == {"a-b", "c"}
    assert policy.autoload
    assert policy.strict
    assert policy.requires == ("x>=1",)


def test_a_flag_that_is_neither_on_nor_off_is_refused() -> None:
    with pytest.raises(ConfigError, match="HUD_PLUGINS_STRICT='maybe' is neither on nor off"):
        PluginPolicy.read({"HUD_PLUGINS_STRICT": "maybe"})
