"""Where traces go and what they hold: OpenTelemetry's own variables, then [sinks.otel] of hud.toml."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hud.errors import ConfigError

TRACES_PATH = "v1/traces"
KEYS = ("endpoint", "headers", "content", "trace", "timeout_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class OtelSettings:
    """`endpoint` is the whole url of the traces. `headers` often hold a key, so they are not shown."""

    endpoint: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Besides those of OTEL_EXPORTER_OTLP_HEADERS, which the SDK reads itself."""
    content: bool = False
    """Whether prompts, answers, and arguments and results of tools are sent too."""
    trace_per_rollout: bool = False
    """A trace for each rollout, linked with its job's, instead of one for the whole job."""
    timeout_s: float | None = None
    """Of one request; None leaves it to OTEL_EXPORTER_OTLP_TIMEOUT, or 10 s."""

    @property
    def shown_endpoint(self) -> str:
        """The endpoint without what a url may hold of credentials."""
        parts = urlsplit(self.endpoint)
        host = parts.netloc.rpartition("@")[2]
        return f"{parts.scheme}://{host}{parts.path}"


def read_settings(folder: str | Path | None = None) -> OtelSettings | None:
    """Return what is set, or None where no endpoint is named or OpenTelemetry is switched off.

    Raises:
        ConfigError: a value cannot work.
    Source: OpenTelemetry, "OpenTelemetry Protocol Exporter" and "Environment Variable Specification", read 2026-11.
    """
    from hud.settings import project

    own = _checked(project(folder).sinks.get("otel", {}))
    endpoint = _endpoint(own.get("endpoint"))
    if endpoint is None or _says("OTEL_SDK_DISABLED") == "true" or _says("OTEL_TRACES_EXPORTER") == "none":
        return None
    protocol = _says("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or _says("OTEL_EXPORTER_OTLP_PROTOCOL")
    if protocol not in ("", "http/protobuf"):
        raise ConfigError(
            f"OTEL_EXPORTER_OTLP_PROTOCOL={protocol}: hud-sink-otel speaks http/protobuf; point the endpoint to the "
            "collector's HTTP port (4318) and set http/protobuf, or leave the variable out"
        )
    content = own.get("content", False)
    if asked := _says("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"):
        content = asked in ("true", "1", "span_only", "span_and_event")
    return OtelSettings(
        endpoint=endpoint,
        headers=own.get("headers", {}),
        content=content,
        trace_per_rollout=own.get("trace", "job") == "rollout",
        timeout_s=own.get("timeout_s"),
    )


def _endpoint(own: str | None) -> str | None:
    if whole := os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "").strip():
        return _url(whole, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    base = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").strip()
    where = "OTEL_EXPORTER_OTLP_ENDPOINT" if base else "[sinks.otel] endpoint"
    base = base or (own or "").strip()
    if not base:
        return None
    url = _url(base, where)
    return url if url.endswith(f"/{TRACES_PATH}") else f"{url.rstrip('/')}/{TRACES_PATH}"


def _url(text: str, where: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"{where}={text!r} is no http or https url, such as http://localhost:4318")
    return text


def _checked(own: Mapping[str, Any]) -> dict[str, Any]:
    kinds: dict[str, tuple[type, ...]] = {
        "endpoint": (str,),
        "headers": (dict,),
        "content": (bool,),
        "trace": (str,),
        "timeout_s": (int, float),
    }
    for key, value in own.items():
        if key not in kinds:
            close = get_close_matches(key, KEYS, 1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ConfigError(f"[sinks.otel] has an unknown key {key!r}{hint}; allowed: {', '.join(KEYS)}")
        if not isinstance(value, kinds[key]) or (isinstance(value, bool) and kinds[key] != (bool,)):
            raise ConfigError(
                f"[sinks.otel] {key}={value!r} must be {' or '.join(k.__name__ for k in kinds[key])}"
            )
    if own.get("trace", "job") not in ("job", "rollout"):
        raise ConfigError(f"[sinks.otel] trace={own['trace']!r}; allowed: job, rollout")
    if any(not isinstance(value, str) for value in own.get("headers", {}).values()):
        raise ConfigError("[sinks.otel] headers must be a table of text")
    return dict(own)


def _says(variable: str) -> str:
    return os.environ.get(variable, "").strip().lower()
