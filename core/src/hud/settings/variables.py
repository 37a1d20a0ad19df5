"""HUD_* variables and provider keys, typed: arguments > process environment > ./.env > ~/.hud/.env."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from hud.errors import ConfigError

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})


def _setting(variable: str, default: Any, *, secret: bool = False) -> Any:
    return field(default=default, repr=not secret, metadata={"variable": variable, "secret": secret})


@dataclass(kw_only=True)
class Settings:
    """What variables say. A field given as an argument wins over every file and variable.

    Secrets are left out of `repr`. An empty variable counts as unset.
    """

    api_key: str | None = _setting("HUD_API_KEY", None, secret=True)
    api_url: str = _setting("HUD_API_URL", "https://api.hud.ai")
    web_url: str = _setting("HUD_WEB_URL", "https://hud.ai")
    gateway_url: str = _setting("HUD_GATEWAY_URL", "https://inference.hud.ai")
    runtime_url: str = _setting("HUD_RUNTIME_URL", "https://mcp.hud.ai")
    rl_url: str = _setting("HUD_RL_URL", "https://rl.hud.ai")
    telemetry_url: str = _setting("HUD_TELEMETRY_URL", "https://telemetry.hud.ai/v3/api")
    telemetry_enabled: bool = _setting("HUD_TELEMETRY_ENABLED", True)
    telemetry_local_dir: str | None = _setting("HUD_TELEMETRY_LOCAL_DIR", None)
    default_project: str | None = _setting("HUD_DEFAULT_PROJECT", None)
    file_tracking_enabled: bool = _setting("HUD_FILE_TRACKING_ENABLED", True)
    file_tracking_interval: float = _setting("HUD_FILE_TRACKING_INTERVAL", 2.0)
    client_timeout: float = _setting("HUD_CLIENT_TIMEOUT", 600.0)
    cli_analytics_enabled: bool = _setting("HUD_CLI_ANALYTICS_ENABLED", False)
    """HUD's own command line reports to its maker unless told not to; ours never does, the name is kept."""
    anthropic_api_key: str | None = _setting("ANTHROPIC_API_KEY", None, secret=True)
    openai_api_key: str | None = _setting("OPENAI_API_KEY", None, secret=True)
    gemini_api_key: str | None = _setting("GEMINI_API_KEY", None, secret=True)
    aws_access_key_id: str | None = _setting("AWS_ACCESS_KEY_ID", None, secret=True)
    aws_secret_access_key: str | None = _setting("AWS_SECRET_ACCESS_KEY", None, secret=True)
    aws_region: str | None = _setting("AWS_REGION", None)

    @classmethod
    def read(
        cls,
        *,
        environ: Mapping[str, str] | None = None,
        folder: Path | None = None,
        home: Path | None = None,
        **given: Any,
    ) -> Settings:
        """Read the variables; `given` are fields by name.

        Raises:
            ConfigError: a variable's text is not of its field's type; names the variable and where it was set.
        """
        sources = _sources(environ, folder, home)
        values = dict(given)
        for f in fields(cls):
            if f.name in values:
                continue
            for place, source in sources:
                text = source.get(f.metadata["variable"])
                if text:
                    values[f.name] = _typed(text, f.default, f.metadata["variable"], place)
                    break
        return cls(**values)

    def secrets(self) -> list[str]:
        """Return the values that must not be written anywhere."""
        found = [getattr(self, f.name) for f in fields(self) if f.metadata["secret"]]
        return [value for value in found if value]


def variable(
    name: str,
    *,
    environ: Mapping[str, str] | None = None,
    folder: Path | None = None,
    home: Path | None = None,
) -> str | None:
    """Return one variable from the process, ./.env or ~/.hud/.env, in this order; None if unset or empty."""
    for _, source in _sources(environ, folder, home):
        if source.get(name):
            return source[name]
    return None


def all_variables(
    *, environ: Mapping[str, str] | None = None, folder: Path | None = None, home: Path | None = None
) -> list[Mapping[str, str]]:
    """Return every place `variable` looks in, the first one first."""
    return [source for _, source in _sources(environ, folder, home)]


_read: dict[str, tuple[tuple[int, int], dict[str, str]]] = {}


def _sources(
    environ: Mapping[str, str] | None, folder: Path | None, home: Path | None
) -> list[tuple[str, Mapping[str, str]]]:
    files = [(folder or Path()) / ".env", (home or Path.home()) / ".hud" / ".env"]
    process = os.environ if environ is None else environ
    return [("the environment", process), *((str(path), _dotenv(path)) for path in files)]


def _dotenv(path: Path) -> dict[str, str]:
    try:
        status = path.stat()
    except OSError:
        return {}
    stamp = (status.st_mtime_ns, status.st_size)
    key = str(path.absolute())
    if key not in _read or _read[key][0] != stamp:
        from dotenv import dotenv_values

        try:
            values = dotenv_values(path, interpolate=True)
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path} is not UTF-8: {error}") from error
        _read[key] = stamp, {name: value for name, value in values.items() if value is not None}
    return _read[key][1]


def _typed(text: str, default: Any, name: str, place: str) -> Any:
    if isinstance(default, bool):
        if text.strip().lower() in _TRUE:
            return True
        if text.strip().lower() in _FALSE:
            return False
        raise ConfigError(f"{name}={text!r} in {place} is neither true nor false; use 1 or 0")
    if isinstance(default, float):
        try:
            return float(text)
        except ValueError:
            raise ConfigError(f"{name}={text!r} in {place} is no number") from None
    return text


_settings: Settings | None = None


def get_settings() -> Settings:
    """Return the settings of this process, read once."""
    global _settings
    if _settings is None:
        _settings = Settings.read()
    return _settings


class _Current:
    """`hud.settings.settings`: the settings of this process, read when a field is first read."""

    def __getattr__(self, name: str) -> Any:
        return getattr(get_settings(), name)

    def __repr__(self) -> str:
        return repr(get_settings())


settings: Any = _Current()
