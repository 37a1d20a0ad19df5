"""Limits and deadlines of the wire, each a setting. Times are seconds."""

from __future__ import annotations

from dataclasses import dataclass

from hud.wire.frames import FRAME_BYTES, UNAUTHENTICATED_BYTES

PROTOCOL = "hud/1.1"
SERVER_FEATURES = ("ping", "keyed_grade", "takeover", "host_calls")
SESSION_STREAMS = "session_streams"
"""The feature of a server whose sessions have capabilities of their own: `tunnel.open` names its `session_id`."""
DEFAULT_READY_TIMEOUT = 30.0
"""Seconds a placement has to answer `hello`, where nothing else is said."""
CLEANUP_REPLY_S = 2.0
"""How long replies to `grade`, `cancel` and `bye` wait for a template's own cleanup."""


@dataclass(slots=True, frozen=True, kw_only=True)
class ServerSettings:
    """What a server holds and for how long.

    `adopt` says whether a plain `tasks.grade` may take the only parked task; None: only where no token is needed.
    `partial_bytes` bounds what all connections together hold of frames that have not ended yet.
    """

    frame_bytes: int = FRAME_BYTES
    unauthenticated_bytes: int = UNAUTHENTICATED_BYTES
    partial_bytes: int = 256 * 1024 * 1024
    handshake_s: float = 10.0
    frame_s: float = 60.0
    """From the first byte of a frame to its end."""
    unread_s: float = 30.0
    """A peer that reads nothing of a reply for so long is disconnected."""
    unread_bytes: int = 256 * 1024
    """Replies that may wait for the peer before its requests wait too."""
    sessions: int = 10_000
    connections: int = 20_000
    tunnels_per_session: int = 64
    park_s: float = 24 * 3600.0
    outcome_s: float = 3600.0
    """How long the result of a keyed grade is kept for a peer that lost the reply."""
    takeover_s: float = 1.0
    orphan_s: float = 3600.0
    """How long a start or keyed grade may run on after its connection is gone."""
    dial_s: float = 10.0
    host_call_s: float = 600.0
    close_s: float = 10.0
    adopt: bool | None = None
    debug: bool = False


@dataclass(slots=True, frozen=True, kw_only=True)
class ClientSettings:
    """How long a client waits for each phase, and what it accepts."""

    frame_bytes: int = FRAME_BYTES
    ready_s: float = DEFAULT_READY_TIMEOUT
    request_s: float = 30.0
    start_s: float = 600.0
    grade_s: float = 600.0
    cancel_s: float = 10.0
    bye_s: float = 5.0
    ping_every_s: float = 30.0
    ping_s: float = 10.0
    resume_s: float = 30.0
    """How long a client tries to come back after its connection broke."""
    open_attempts: int = 3
    host_calls_at_once: int = 64
