"""Ways out of a sandbox that a controller may ask for: refused unless the environment allows them."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import urlsplit

from hud.values import Value

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_HOSTNAME = re.compile(
    r"(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,62}))*"
)


@dataclass(slots=True, frozen=True)
class Connection(Value):
    """An authenticated HTTP upstream for one process in the sandbox; its `headers` are secrets, left out of `repr`."""

    name: str
    capability: str
    url: str
    headers: dict[str, str] = field(repr=False)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(
                f"connection name {self.name!r}: a letter, then letters, digits, _ or -, at most 63"
            )
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"connection {self.name!r}: url must be http or https with a host")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError(
                f"connection {self.name!r}: url must not hold credentials, a query or a fragment"
            )
        if not self.headers:
            raise ValueError(f"connection {self.name!r} needs headers")
        for key, value in self.headers.items():
            if not key or "\r" in key + value or "\n" in key + value:
                raise ValueError(f"connection {self.name!r}: header {key!r} is empty or holds a line break")

    @property
    def host(self) -> str:
        """The name the process reaches it by."""
        return f"{self.name}-{hashlib.sha256(self.url.encode()).hexdigest()[:12]}.hud.invalid"

    @property
    def port(self) -> int:
        """The port the process reaches it at."""
        return 80

    @property
    def client_url(self) -> str:
        """The url the process uses."""
        return f"http://{self.host}{urlsplit(self.url).path}"

    def to_wire(self) -> dict[str, Any]:
        """Return what `hello` carries."""
        return {
            "name": self.name,
            "capability": self.capability,
            "url": self.url,
            "headers": dict(self.headers),
        }

    @classmethod
    def from_wire(cls, entry: Mapping[str, Any]) -> Self:
        """Read what `hello` carried; `ValueError` names what is wrong."""
        texts = _texts(entry, "connection", ("name", "capability", "url"))
        headers = entry.get("headers")
        if not isinstance(headers, Mapping) or not all(
            isinstance(v, str) for v in (*headers, *headers.values())
        ):
            raise ValueError(f"connection {texts[0]!r}: headers must be an object of texts")
        return cls(texts[0], texts[1], texts[2], dict(headers))


@dataclass(slots=True, frozen=True)
class WorkspaceRoute(Value):
    """A named host and port that a workspace may reach; never an address."""

    capability: str
    host: str
    port: int

    def __post_init__(self) -> None:
        if not _HOSTNAME.fullmatch(self.host) or _is_address(self.host):
            raise ValueError(f"route to {self.host!r}: give a host's name, not an address")
        if isinstance(self.port, bool) or not 1 <= self.port <= 65535:
            raise ValueError(f"route to {self.host!r}: port {self.port!r} is not within 1 and 65535")

    def to_wire(self) -> dict[str, Any]:
        """Return what `hello` carries."""
        return {"capability": self.capability, "host": self.host, "port": self.port}

    @classmethod
    def from_wire(cls, entry: Mapping[str, Any]) -> Self:
        """Read what `hello` carried; `ValueError` names what is wrong."""
        capability, host = _texts(entry, "route", ("capability", "host"))
        port = entry.get("port")
        if not isinstance(port, int):
            raise ValueError(f"route to {host!r}: port must be a number, not {port!r}")
        return cls(capability, host, port)

    @classmethod
    def from_url(cls, capability: str, url: str) -> Self:
        """Make the route to a url's host; its port is the scheme's where it has none."""
        parts = urlsplit(url)
        if not parts.hostname:
            raise ValueError(f"url {url!r} has no host")
        return cls(
            capability, parts.hostname, parts.port or (443 if parts.scheme in ("https", "wss") else 80)
        )


def _texts(entry: Mapping[str, Any], what: str, keys: tuple[str, ...]) -> list[str]:
    for key in keys:
        if not isinstance(entry.get(key), str):
            raise ValueError(f"{what} {dict(entry)!r:.200} has no text field {key!r}")
    return [entry[key] for key in keys]


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
