"""The plugin author's handbook: every example runs, every hook is told of."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from hud.plugins.hookspecs import hook_names
from hud.plugins.validation import NOUNS

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs" / "plugins").glob("*.md"))
EXAMPLES = [page for page in PAGES if page.stem != "index"]
BLOCK = re.compile(r"^```(?:python|toml) file=(\S+)\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)


def install(page: Path, folder: Path) -> None:
    """Write a page's example into `folder` as an installed distribution."""
    entry_points = ""
    for name, text in BLOCK.findall(page.read_text(encoding="utf-8")):
        if name == "entry_points":
            entry_points = text.replace('"', "")
            continue
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    info = folder / f"example_{page.stem}-1.0.dist-info"
    info.mkdir()
    (info / "entry_points.txt").write_text(f"[hud]\n{entry_points}", encoding="utf-8")
    metadata = (
        f"Metadata-Version: 2.1\nName: example-{page.stem}\nVersion: 1.0\nRequires-Dist: hud-core>=0.1\n"
    )
    (info / "METADATA").write_text(metadata, encoding="utf-8")


def run(folder: Path, *command: str) -> str:
    environ = {k: v for k, v in os.environ.items() if not k.startswith("HUD_")}
    environ |= {"PYTHONPATH": str(folder), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("page", EXAMPLES, ids=lambda page: page.stem)
def test_a_pages_example_runs(page: Path, tmp_path: Path) -> None:
    install(page, tmp_path)
    told = run(tmp_path, "-m", "pytest", "-p", "pytest_timeout", "-q", "-W", "error")
    assert re.search(r"^\d+ passed", told, flags=re.MULTILINE), told
    listed = run(tmp_path, "-m", "hud.cli.main", "plugins", "show", f"example-{page.stem}")
    assert f"(example-{page.stem} 1.0): loaded" in listed


@pytest.mark.slow
def test_the_hooks_example_is_typed(tmp_path: Path) -> None:
    page = next(page for page in PAGES if page.stem == "hooks")
    install(page, tmp_path)
    run(tmp_path, "-m", "mypy", "--strict", "--config-file=", "acme_hooks/plugin.py")


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_hooks", ROOT / "docs" / "generate_hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("hook", hook_names())
def test_every_hook_says_what_it_must_and_is_in_reference_and_handbook(
    hook: str, generator: ModuleType
) -> None:
    first, said = generator.sections(hook)
    assert first.endswith(".")
    wanted = {"Fires", "On an exception", "Used by"}
    if hook not in NOUNS:
        wanted.add("Dispatch")
    assert wanted <= set(said), f"{hook} does not say: {sorted(wanted - set(said))}"
    assert f"### {hook}\n" in generator.reference()
    handbook = "".join(page.read_text(encoding="utf-8") for page in EXAMPLES)
    assert re.search(rf"def {hook}\(", handbook), f"no page of docs/plugins implements {hook}"
    used_by = re.findall(r"docs/plugins/[\w-]+\.md", said["Used by"])
    for path in used_by:
        assert hook in (ROOT / path).read_text(encoding="utf-8"), f"{path} does not use {hook}"
