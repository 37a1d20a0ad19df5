"""Names: one import each, conflicts only on use, `name@distribution`, and lazy public names."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from hud.errors import PluginBrokenError, PluginConflictError, PluginNotInstalledError
from hud.plugins import (
    AgentKind,
    CapabilityKind,
    GraderKind,
    PluginHost,
    RuntimeKind,
    TasksetFormatKind,
    TransportKind,
    hookimpl,
)
from hud.plugins.first_party import DECLARED, DISTRIBUTIONS, FIRST_PARTY, NOT_YET
from hud.testing.plugins import isolated_host


class Declares:
    """A plugin that declares whatever it is given."""

    def __init__(self, **answers: list[Any]) -> None:
        self.answers = answers

    @hookimpl
    def hud_runtimes(self) -> Any:
        return self.answers.get("runtimes", [])

    @hookimpl
    def hud_agents(self) -> Any:
        return self.answers.get("agents", [])

    @hookimpl
    def hud_graders(self) -> Any:
        return self.answers.get("graders", [])

    @hookimpl
    def hud_capabilities(self) -> Any:
        return self.answers.get("capabilities", [])

    @hookimpl
    def hud_taskset_formats(self) -> Any:
        return self.answers.get("formats", [])

    @hookimpl
    def hud_transports(self) -> Any:
        return self.answers.get("transports", [])


@pytest.fixture
def host() -> Iterator[PluginHost]:
    with isolated_host() as made:
        yield made


def test_core_declares_by_the_hooks_plugins_use(host: PluginHost) -> None:
    assert host.registry.runtime("local").target == "hud.runtime.local:LocalRuntime"
    assert [agent.name for agent in host.registry.agents()] == ["human", "noop", "oracle", "replay"]
    assert host.registry.transport("unix").scheme == "unix"
    assert host.findings() == []


def test_two_providers_of_a_name_are_an_error_only_on_use(host: PluginHost) -> None:
    for name in ("one", "two"):
        kinds = [RuntimeKind(name="cloud", target=f"{name}:Cloud"), RuntimeKind(name=name, target="a:b")]
        host.register(Declares(runtimes=kinds), name=name, dist=f"acme-{name}")
    assert host.registry.runtime("one").name == "one"
    with pytest.raises(PluginConflictError) as caught:
        host.registry.runtime("cloud")
    assert "2 distributions provide the runtime 'cloud': cloud@acme-one" in str(caught.value)
    assert "cloud@acme-two" in str(caught.value)
    assert host.registry.runtime("cloud@acme-two").target == "two:Cloud"
    assert [f.title for f in host.findings()] == ["2 plugins provide the runtime 'cloud'"]


def test_names_of_core_stay_cores_own(host: PluginHost) -> None:
    host.register(
        Declares(runtimes=[RuntimeKind(name="local", target="evil:Local")]), name="evil", dist="evil"
    )
    assert host.registry.runtime("local").target == "hud.runtime.local:LocalRuntime"
    assert host.registry.runtime("local@evil").target == "evil:Local"


def test_an_absent_name_of_ours_has_its_install_line(host: PluginHost) -> None:
    for kind, names in DECLARED.items():
        lookup = {
            "runtime": host.registry.runtime,
            "capability": host.registry.capability_for,
            "method": host.registry.capability_method,
            "grader": host.registry.grader,
            "agent": host.registry.agent,
            "command": host.registry.command,
        }[kind]
        for name, dist in names.items():
            line = "which has no release yet$" if dist in NOT_YET else f"pip install {dist}$"
            with pytest.raises(PluginNotInstalledError, match=line):
                lookup(name)


def test_an_unknown_name_is_answered_with_close_and_installed_ones(host: PluginHost) -> None:
    with pytest.raises(PluginNotInstalledError) as caught:
        host.registry.agent("oracel")
    assert str(caught.value) == (
        "no installed plugin provides the agent 'oracel'; did you mean 'oracle'?"
        " (installed: human, noop, oracle, replay)"
    )


def test_a_model_finds_the_agent_with_the_longest_pattern(host: PluginHost) -> None:
    kinds = [
        AgentKind(name="wide", target="a:b", models=("gpt-*",)),
        AgentKind(name="narrow", target="a:b", models=("gpt-5-codex*", "o3")),
    ]
    host.register(Declares(agents=kinds))
    assert host.registry.agent_for_model("gpt-5").name == "wide"
    assert host.registry.agent_for_model("gpt-5-codex-mini").name == "narrow"
    with pytest.raises(PluginNotInstalledError, match="pip install hud-agent-claude"):
        host.registry.agent_for_model("claude-sonnet-4-5")
    with pytest.raises(PluginNotInstalledError, match="agent for model 'llama-9'"):
        host.registry.agent_for_model("llama-9")


def test_a_capability_is_found_by_protocol_family_and_name(host: PluginHost) -> None:
    kind = CapabilityKind(name="drone", protocols=("fly/1", "fly/2"), client="a:b", method="drone")
    host.register(Declares(capabilities=[kind]), dist="acme-drone")
    for wanted in ("fly/1", "fly/2", "fly", "drone", "fly/2@acme-drone"):
        assert host.registry.capability_for(wanted) is kind
    assert host.registry.capability_method("drone") is kind
    with pytest.raises(PluginNotInstalledError, match="speaks fly/3: acme-drone speaks fly/1, fly/2"):
        host.registry.capability_for("fly/3")


def test_a_format_is_found_by_scheme_and_by_file_name(host: PluginHost) -> None:
    scheme = TasksetFormatKind(name="harbor", pattern="harbor:", target="a:b")
    files = TasksetFormatKind(name="parquet", pattern="*.parquet", target="a:b")
    host.register(Declares(formats=[scheme, files]))
    assert host.registry.taskset_format_for("harbor:some/path") is scheme
    assert host.registry.taskset_format_for("rows/a.parquet") is files
    assert host.registry.taskset_format_for("rows/a.csv") is None


def test_a_transport_is_found_by_scheme(host: PluginHost) -> None:
    kind = TransportKind(name="websocket", scheme="wss", target="a:b")
    host.register(Declares(transports=[kind]))
    assert host.registry.transport("wss") is kind
    with pytest.raises(PluginNotInstalledError, match="transport for quic://"):
        host.registry.transport("quic")


def test_a_target_is_imported_once_and_only_on_load(
    host: PluginHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("counted_target")
    module.Thing = object()  # type: ignore[attr-defined]
    kind = GraderKind(name="counted", target="counted_target:Thing")
    host.register(Declares(graders=[kind]))
    found = host.registry.grader("counted")
    monkeypatch.setitem(sys.modules, "counted_target", module)
    first = host.registry.load(found)
    monkeypatch.delitem(sys.modules, "counted_target")
    assert host.registry.load(found) is first


def test_a_registration_can_be_undone(host: PluginHost) -> None:
    with host.register(Declares(graders=[GraderKind(name="brief", target="a:b")])) as registration:
        assert host.registry.grader("brief").name == "brief"
    with pytest.raises(PluginNotInstalledError):
        host.registry.grader("brief")
    registration.undo()


# Lazy public names


def test_a_public_name_wins_over_a_submodule_of_the_same_name() -> None:
    import hud.eval.rollout  # noqa: F401 - the submodule takes its package's attribute
    from hud.eval import rollout

    assert callable(rollout)


def test_an_object_is_registered_once(host: PluginHost) -> None:
    declares = Declares(graders=[GraderKind(name="brief", target="a:b")])
    first = host.register(declares)
    with pytest.raises(PluginBrokenError, match="declared already"):
        host.register(declares)
    assert [plugin.name for plugin in host.plugins()] == ["Declares", "core"]
    first.undo()
    host.register(declares)
    assert host.registry.grader("brief").name == "brief"


def test_the_seeds_import_line_works_with_one_plugin_of_three(site: Any) -> None:
    source = """
        from hud.plugins import RuntimeKind, hookimpl
        @hookimpl
        def hud_runtimes():
            target = "hud_runtime_modal.runtime:ModalRuntime"
            return [RuntimeKind(name="modal", target=target, exports={"hud.eval": {"ModalRuntime": target}})]
    """
    site.add(
        "hud-runtime-modal",
        entry_points={"modal": "hud_runtime_modal.plugin"},
        files={
            "hud_runtime_modal/__init__.py": "",
            "hud_runtime_modal/plugin.py": source,
            "hud_runtime_modal/runtime.py": "class ModalRuntime:\n    def __init__(self, image): self.image = image\n",
        },
    )
    site.add("acme-loud", entry_points={"loud": "loud"}, files={"loud.py": "raise SystemExit('loaded')"})
    answers = site.answer("""
        import inspect, json, sys
        from hud.eval import LocalRuntime, DockerRuntime, ModalRuntime, HUDRuntime
        loaded = "loud" in sys.modules
        refused = []
        for use in (
            lambda: DockerRuntime("my-env"),
            lambda: type("Mine", (DockerRuntime,), {}),
            lambda: DockerRuntime.features,
            lambda: HUDRuntime(),
        ):
            try:
                use()
            except ImportError as error:
                refused.append([type(error).__name__, str(error)])
        probes = [isinstance(3, DockerRuntime), hasattr(DockerRuntime, "__wrapped__"), repr(DockerRuntime)]
        import hud.eval
        names = dir(hud.eval)
        listed = ["ModalRuntime" in names, "DockerRuntime" in names, "DockerRuntime" in hud.eval.__all__]
        print(json.dumps([loaded, ModalRuntime("x").image, refused, probes, listed]))
    """)
    loaded, image, refused, probes, listed = answers
    assert not loaded
    assert image == "x"
    docker = "hud.eval.DockerRuntime needs hud-runtime-docker: pip install hud-runtime-docker"
    hosted = "hud.eval.HUDRuntime needs hud-runtime-hud, which has no release yet"
    assert refused == [["PluginNotInstalledError", docker]] * 3 + [["PluginNotInstalledError", hosted]]
    assert probes == [False, False, f"<DockerRuntime: PluginNotInstalledError: {docker}>"]
    assert listed == [True, False, False]


def test_an_absent_error_of_ours_can_be_named_in_an_except_clause(site: Any) -> None:
    done = site.run(
        "from hud.capabilities import SSHConnectionError\n"
        "try:\n    open('nowhere')\n"
        "except SSHConnectionError:\n    print('wrong')\n"
        "except OSError:\n    print('right')\n"
        "raise SSHConnectionError('x')\n"
    )
    assert done.stdout == "right\n", done.stderr
    assert "pip install hud-capability-ssh" in done.stderr


def test_a_broken_plugin_of_ours_is_never_answered_with_an_install_line(site: Any) -> None:
    site.add(
        "hud-runtime-docker",
        entry_points={"docker": "hud_runtime_docker.plugin"},
        files={
            "hud_runtime_docker/__init__.py": "",
            "hud_runtime_docker/plugin.py": "import docker_sdk_gone",
        },
    )
    done = site.run("from hud.eval import DockerRuntime; print('imported'); DockerRuntime()")
    assert done.stdout == "imported\n"
    assert (
        "hud.errors.PluginBrokenError: hud.eval.DockerRuntime is provided by hud-runtime-docker 1.2"
        in done.stderr
    )
    assert "docker_sdk_gone" in done.stderr
    assert "pip install" not in done.stderr


def test_a_folder_of_a_plugins_name_on_the_path_is_not_the_plugin(site: Any) -> None:
    (site.folder / "hud_runtime_docker").mkdir()
    done = site.run("import hud_runtime_docker; from hud.eval import DockerRuntime; DockerRuntime()")
    assert "pip install hud-runtime-docker" in done.stderr


def test_a_name_nobody_has_is_an_ordinary_import_error(site: Any) -> None:
    done = site.run("from hud.eval import DokcerRuntime")
    assert "ImportError: cannot import name 'DokcerRuntime' from 'hud.eval'" in done.stderr
    assert "Plugin" not in done.stderr


def test_installed_plugins_of_ours_export_what_the_table_says() -> None:
    host = PluginHost()
    exported: dict[str, dict[str, str]] = {}
    installed = set()
    for declaration, plugin in host.registry.declared():
        if plugin.dist not in DISTRIBUTIONS:
            continue
        installed.add(plugin.dist)
        for module, names in declaration.exports.items():
            for name in names:
                exported.setdefault(module, {})[name] = plugin.dist
    expected = {
        module: {name: dist for name, dist in names.items() if dist in installed}
        for module, names in FIRST_PARTY.items()
        if module != "hud"
    }
    assert exported == {module: names for module, names in expected.items() if names}
