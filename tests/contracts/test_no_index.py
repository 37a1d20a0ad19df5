"""No distribution of ours may ever come from an index: the names there belong to others."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from hud.plugins.first_party import DISTRIBUTIONS, NOT_YET

ROOT = Path(__file__).parents[2]
DISTS = sorted(
    path.parent
    for path in [
        ROOT / "core/pyproject.toml",
        *ROOT.glob("hud_*/pyproject.toml"),
        *ROOT.glob("plugins/*/pyproject.toml"),
    ]
)


def test_constraints_pin_no_name_of_ours() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if re.match(r"hud([-_.]|$|=)", line.strip(), flags=re.IGNORECASE)] == []


def test_constraints_pin_every_line_by_name_and_version_alone() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = re.compile(r"[A-Za-z0-9._-]+(\[[a-z,]+\])?==[^\s;@]+( ; .+)?")
    assert [line for line in lines if line and not line.startswith("#") and not pinned.fullmatch(line)] == []


@pytest.mark.parametrize("file", ["Makefile", ".ci/run"])
def test_ours_are_installed_from_folders_without_dependencies(file: str) -> None:
    text = (ROOT / file).read_text(encoding="utf-8")
    for line in re.findall(r"^.*pip install.*$", text, flags=re.MULTILINE):
        named = re.findall(r"(?<![./\w-])hud[-_][\w-]+", line)
        assert named == [], f"{file}: {line.strip()} names {named}; install ours from their folders"
        if "DISTS" in line or "-e " in line:
            assert "--no-deps" in line, f"{file}: {line.strip()} lets pip look for our names"


@pytest.mark.parametrize("folder", DISTS, ids=lambda path: path.name)
def test_each_distribution_is_what_its_folder_says(folder: Path) -> None:
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    if folder.name == "core":
        assert project["name"] == "hud-core"
        return
    assert project["name"] == folder.name.replace("_", "-")
    assert any(re.match(r"hud-core\b", requirement) for requirement in project["dependencies"])
    [(name, target)] = project.get("entry-points", {}).get("hud", {"none": f"{folder.name}.plugin"}).items()
    assert target.startswith(f"{folder.name}."), name
    assert (folder / "src" / folder.name / "py.typed").is_file(), (
        "type checkers skip a package without py.typed"
    )


def test_nobody_is_told_to_install_what_is_not_there() -> None:
    names = {dist.name.replace("_", "-") for dist in DISTS} - {"core"}
    assert names & DISTRIBUTIONS == DISTRIBUTIONS - NOT_YET
    assert not NOT_YET & names, "released: take it off the list"


def test_extras_pull_what_is_there() -> None:
    extras = tomllib.loads((ROOT / "core/pyproject.toml").read_text(encoding="utf-8"))["project"][
        "optional-dependencies"
    ]
    names = {dist.name.replace("_", "-") for dist in DISTS}
    ours = {name for extra, wanted in extras.items() if extra != "testing" for name in wanted}
    assert ours <= names
    assert set(extras["all"]) == ours
    assert ours >= DISTRIBUTIONS - NOT_YET
