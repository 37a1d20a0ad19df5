"""The manifest: what a served environment is and offers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hud.errors import HudProtocolError
from hud.types import Capability
from hud.wire import frames
from hud.wire.settings import PROTOCOL, SERVER_FEATURES, SESSION_STREAMS

if TYPE_CHECKING:
    from hud.wire.service import Service
    from hud.wire.settings import ServerSettings


@dataclass(slots=True, frozen=True)
class ServerInfo:
    """The environment's name and version."""

    name: str
    version: str


@dataclass(slots=True, frozen=True)
class Manifest:
    """The reply to `hello`. `protocol_version` is `hud/1.0` for a peer that names none."""

    session_id: str = field(repr=False)
    protocol_version: str
    server_info: ServerInfo
    bindings: list[Capability]
    features: frozenset[str] = frozenset()
    limits: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_reply(cls, reply: Any) -> Manifest:
        """Read the result of `hello`; a malformed one raises `HudProtocolError` that says where."""
        try:
            env = reply["env"]
            return cls(
                session_id=str(reply["session_id"]),
                protocol_version=str(reply.get("protocol", "hud/1.0")),
                server_info=ServerInfo(str(env["name"]), str(env.get("version", ""))),
                bindings=[Capability.from_manifest(entry) for entry in reply.get("bindings", ())],
                features=frozenset(map(str, reply.get("features", ()))),
                limits=dict(reply.get("limits", {})),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as exc:
            raise HudProtocolError(-32603, f"the reply to hello is malformed: {exc!r}") from exc


class ManifestBytes:
    """The replies to `hello` and `tasks.list`, made once and again when the service's answers change."""

    __slots__ = ("_bindings", "_entries", "_features", "_hello", "_limits", "_service", "_tasks")

    def __init__(self, service: Service, settings: ServerSettings, *, needs_token: bool) -> None:
        self._service = service
        self._features = [*SERVER_FEATURES]
        if needs_token:
            self._features.append("token")
        if getattr(service, "places_sessions", False):
            self._features.append(SESSION_STREAMS)
        self._limits = {
            "frame_bytes": settings.frame_bytes,
            "sessions": settings.sessions,
            "tunnels_per_session": settings.tunnels_per_session,
            "park_s": settings.park_s,
        }
        self._bindings: list[Capability] | None = None
        self._entries: list[dict[str, Any]] | None = None
        self._hello = b""
        self._tasks = b""

    def hello(self, session_id: str, own: list[Capability] | None = None) -> bytes:
        """Return the fragment that answers `hello`; `own` are the capabilities of a session that has its own."""
        bindings = self._service.bindings() if own is None else own
        if bindings != self._bindings:
            rest = {
                "env": {"name": self._service.name, "version": self._service.version},
                "bindings": [entry.to_manifest() for entry in bindings],
                "protocol": PROTOCOL,
                "features": self._features,
                "limits": self._limits,
            }
            self._hello = b'",' + frames.encode(rest)[1:]
            self._bindings = list(bindings)
        return b'"result":{"session_id":"' + session_id.encode() + self._hello

    def tasks(self) -> bytes:
        """Return the fragment that answers `tasks.list`."""
        entries = self._service.task_entries()
        if entries is not self._entries:
            self._tasks = frames.result_fragment({"tasks": entries})
            self._entries = entries
        return self._tasks
