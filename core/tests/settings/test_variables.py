"""Variables: arguments > process environment > ./.env > ~/.hud/.env."""

from __future__ import annotations

from pathlib import Path

import pytest

from hud.errors import ConfigError
from hud.settings import Settings
from hud.settings.variables import variable


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    work, home = tmp_path / "work", tmp_path / "home"
    work.mkdir()
    (home / ".hud").mkdir(parents=True)
    (work / ".env").write_text(
        "HUD_API_URL=https://from.work\nHUD_WEB_URL=https://web.work\nexport X='1 2'\n"
    )
    (home / ".hud" / ".env").write_text(
        "HUD_API_URL=https://from.home\nHUD_API_KEY=sk-home\nHUD_GATEWAY_URL=https://gateway.home\n"
    )
    return work, home


def test_precedence(folders: tuple[Path, Path]) -> None:
    work, home = folders
    environ = {"HUD_WEB_URL": "https://web.process", "HUD_API_KEY": ""}
    found = Settings.read(environ=environ, folder=work, home=home, gateway_url="https://given")
    assert found.gateway_url == "https://given"
    assert found.web_url == "https://web.process"
    assert found.api_url == "https://from.work"
    assert found.api_key == "sk-home"  # an empty variable counts as unset
    assert found.rl_url == "https://rl.hud.ai"
    assert variable("X", environ={}, folder=work, home=home) == "1 2"
    assert variable("Y", environ={}, folder=work, home=home) is None


def test_secrets_stay_out_of_repr(folders: tuple[Path, Path]) -> None:
    work, home = folders
    found = Settings.read(environ={"OPENAI_API_KEY": "sk-open"}, folder=work, home=home)
    assert "sk-" not in repr(found)
    assert found.secrets() == ["sk-home", "sk-open"]


def test_types_and_their_complaints(tmp_path: Path) -> None:
    found = Settings.read(
        environ={"HUD_TELEMETRY_ENABLED": "off", "HUD_CLIENT_TIMEOUT": "5"}, folder=tmp_path
    )
    assert found.telemetry_enabled is False
    assert found.client_timeout == 5.0
    with pytest.raises(ConfigError, match="HUD_CLIENT_TIMEOUT='soon' in the environment is no number"):
        Settings.read(environ={"HUD_CLIENT_TIMEOUT": "soon"}, folder=tmp_path)
    (tmp_path / ".env").write_text("HUD_TELEMETRY_ENABLED=perhaps\n")
    with pytest.raises(
        ConfigError, match=r"HUD_TELEMETRY_ENABLED='perhaps' in .*\.env is neither true nor false"
    ):
        Settings.read(environ={}, folder=tmp_path)


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=1\n")
    assert variable("A", environ={}, folder=tmp_path, home=tmp_path) == "1"
    (tmp_path / ".env").write_text("A=22\n")
    assert variable("A", environ={}, folder=tmp_path, home=tmp_path) == "22"
