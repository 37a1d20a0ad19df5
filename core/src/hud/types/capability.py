"""What an environment exposes: a capability's wire value, and typed ways to declare one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Self
from urllib.parse import urlsplit, urlunsplit

from hud.values import Value


@dataclass(slots=True, frozen=True)
class Capability(Value):
    """One entry of the manifest: `protocol` is `family/version`, `url` has host and port.

    A url that cannot be parsed is kept as it is and reported when the capability is opened. Secrets among
    `params` are for the client alone: they are left out of `repr`.
    """

    name: str
    protocol: str
    url: str
    params: dict[str, Any] = field(default_factory=dict)

    SECRET_PARAMS: ClassVar[frozenset[str]] = frozenset({"client_key", "password", "auth_token", "token"})

    @property
    def family(self) -> str:
        """The protocol's name without its version: `ssh` of `ssh/2`."""
        return self.protocol.partition("/")[0]

    def __repr__(self) -> str:
        shown = {k: "…" if k in self.SECRET_PARAMS else v for k, v in self.params.items()}
        return (
            f"Capability(name={self.name!r}, protocol={self.protocol!r}, url={self.url!r}, params={shown!r})"
        )

    def to_manifest(self) -> dict[str, Any]:
        """Return the manifest's entry."""
        return {"name": self.name, "protocol": self.protocol, "url": self.url, "params": dict(self.params)}

    @classmethod
    def from_manifest(cls, entry: dict[str, Any]) -> Self:
        """Make one from a manifest's entry; a missing field raises `ValueError` that names it."""
        for key in ("name", "protocol", "url"):
            if not isinstance(entry.get(key), str):
                raise ValueError(f"manifest entry {entry!r} has no text field {key!r}")
        params = entry.get("params") or {}
        if not isinstance(params, dict):
            raise ValueError(f"manifest entry {entry['name']!r}: params must be an object, not {params!r}")
        return cls(entry["name"], entry["protocol"], entry["url"], dict(params))

    @classmethod
    def ssh(
        cls,
        *,
        name: str = "shell",
        url: str,
        user: str = "agent",
        host_pubkey: str,
        client_key: str | None = None,
        client_key_path: str | None = None,
        shell: str | None = "bash",
        cwd: str | None = None,
        isolation: str | None = None,
        process_connections: bool = False,
    ) -> Self:
        """Declare a shell over ssh (`ssh/2`, port 22 unless the url has one)."""
        params = _given(
            user=user,
            host_pubkey=host_pubkey,
            client_key=client_key,
            client_key_path=client_key_path,
            shell=shell,
            cwd=cwd,
            isolation=isolation,
            process_connections=process_connections or None,
        )
        return cls(name, "ssh/2", _with_port(url, "ssh", 22), params)

    @classmethod
    def mcp(
        cls, *, name: str = "tools", url: str, auth_token: str | None = None, transport: str | None = None
    ) -> Self:
        """Declare an MCP server; `transport` is `sse`, `streamable-http` or `websocket`, from the scheme if None."""
        scheme = urlsplit(url).scheme if not _is_placeholder(url) else "http"
        ports = {"http": 80, "ws": 80, "https": 443, "wss": 443}
        if scheme not in ports:
            raise ValueError(f"mcp url {url!r}: use http, https, ws or wss (a stdio server needs env.tools)")
        transport = transport or ("websocket" if scheme in ("ws", "wss") else "streamable-http")
        if transport not in ("sse", "streamable-http", "websocket"):
            raise ValueError(f"mcp transport {transport!r}: use sse, streamable-http or websocket")
        params = _given(auth_token=auth_token, transport=transport)
        return cls(name, "mcp/2025-11-25", _with_port(url, scheme, ports[scheme]), params)

    @classmethod
    def cdp(cls, *, name: str = "browser", url: str, target_id: str | None = None) -> Self:
        """Declare a browser over the Chrome DevTools protocol (`cdp/1.3`, port 9222)."""
        return cls(name, "cdp/1.3", _with_port(url, "ws", 9222), _given(target_id=target_id))

    @classmethod
    def rfb(cls, *, name: str = "screen", url: str, password: str | None = None, display: int = 0) -> Self:
        """Declare a desktop over VNC (`rfb/3.8`, port 5900 + display)."""
        params = _given(password=password, display=display)
        return cls(name, "rfb/3.8", _with_port(url, "rfb", 5900 + display), params)

    @classmethod
    def robot(cls, *, name: str = "robot", url: str, contract: dict[str, Any]) -> Self:
        """Declare a robot loop (`openpi/0`, port 9091)."""
        return cls(name, "openpi/0", _with_port(url, "ws", 9091), {"contract": contract})


def _given(**params: Any) -> dict[str, Any]:
    return {key: value for key, value in params.items() if value is not None}


def _is_placeholder(url: str) -> bool:
    return url.startswith("<") or "//<" in url


def _with_port(url: str, scheme: str, port: int) -> str:
    """Give `url` its family's scheme and port where it has none; leave what cannot be parsed as it is."""
    if not url:
        raise ValueError("a capability needs a url")
    if _is_placeholder(url):
        return url
    try:
        parts = urlsplit(url if "://" in url else f"{scheme}://{url}")
        if not parts.hostname:
            return url
        if parts.port is None:
            parts = parts._replace(netloc=f"{parts.netloc}:{port}")
    except ValueError:
        return url
    return urlunsplit(parts)
