"""docs/configuration.md: what it shows is what there is."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from hud.settings import Settings, read_project
from hud.settings.hudtoml import LIMITS, PluginTable, Price, RedactTable, Route

PAGE = (Path(__file__).parents[3] / "docs" / "configuration.md").read_text(encoding="utf-8")


def test_the_example_is_read_and_shows_every_key(tmp_path: Path) -> None:
    found = re.search(r"^```toml file=hud.toml\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert found is not None
    (tmp_path / "hud.toml").write_text(found[1], encoding="utf-8")
    project = read_project(tmp_path)
    assert sorted(project.limits) == sorted(LIMITS)
    assert project.prices["acme-*"] == Price(1.0, 4.0, 0.1, 1.25)
    for table in (PluginTable, RedactTable):
        for field in dataclasses.fields(table):
            assert re.search(rf"^{field.name} = ", found[1], flags=re.MULTILINE), field.name
    shown = {name for route in project.routes for name in dataclasses.asdict(route) if getattr(route, name)}
    assert shown | {"compose"} == {field.name for field in dataclasses.fields(Route)}


def test_every_variable_is_listed() -> None:
    for field in dataclasses.fields(Settings):
        name = field.metadata["variable"]
        assert f"`{name}`" in PAGE or name == "HUD_CLI_ANALYTICS_ENABLED", name
