"""Frames of one server connection: lines cut from bytes, replies written, and bounds on both."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

from hud.wire import frames
from hud.wire.faults import refusal

if TYPE_CHECKING:
    from hud.wire.server import Server

_BATCH_BYTES = 64 * 1024
_JSON_STARTS = b'{["-0123456789tfnNI \t\r'
_LINGER_S = 2.0


class Silent:
    """Stands for the id of a notification, which gets no reply."""


SILENT = Silent()


class FramedConnection(asyncio.Protocol):
    """Cuts lines and hands them to `frame_received` in order; replies of one read leave in one write.

    A peer is bounded in every direction: the length of a frame and the time it takes, replies it does not read,
    the time to its first frame.
    """

    __slots__ = (
        "_batch",
        "_batched",
        "_buffer",
        "_frame_timer",
        "_held",
        "_stalled_at",
        "_unread_timer",
        "authorized",
        "closing",
        "deciding",
        "greeted",
        "heard",
        "server",
        "transport",
    )

    def __init__(self, server: Server) -> None:
        self.server: Server = server
        self.transport: asyncio.Transport | None = None
        self.authorized: bool = server.token is None
        self.greeted: bool = False
        """Whether a first request has come."""
        self.deciding: bool = False
        """Whether frames wait for a decision: a takeover, a dial, a goodbye."""
        self.closing: bool = False
        self.heard: int = 0
        """How often something was received, for telling silence from life."""
        self._buffer: bytearray | None = None
        self._batch: list[bytes] | None = None  # replies to the frames of one read, written at once
        self._batched = 0
        self._held = False  # frames wait, for a decision or a slow reader
        self._frame_timer: asyncio.TimerHandle | None = None
        self._unread_timer: asyncio.TimerHandle | None = None
        self._stalled_at = 0

    def frame_received(self, line: bytes) -> None:
        """Answer one line, its newline cut off."""
        raise NotImplementedError

    def leave(self) -> None:
        """Let go of what the connection holds; called once or more when it ends or fails."""
        raise NotImplementedError

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not checked: uvloop's transports are asyncio's in kind, not in class.
        transport = cast("asyncio.Transport", transport)
        self.transport = transport
        settings = self.server.settings
        transport.set_write_buffer_limits(high=settings.unread_bytes)
        if not self.server.admit(self):
            self.fail(refusal(frames.OVER_LIMIT, "the server is at its limit of connections", "connect"))
            return
        self._frame_timer = self.server.loop.call_later(settings.handshake_s, self._too_late)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self.server.dismiss(self)
        self.closing = True
        self.transport = None
        self.leave()
        self._stop_timers()
        self._account(None)

    def data_received(self, data: bytes) -> None:
        self.heard += 1
        if self.closing:
            return
        if self._held:
            self._keep(data)
            return
        buffer = self._buffer
        if buffer:
            if data.find(b"\n") < 0:
                self._keep(data)
                return
            data = bytes(buffer) + data
        self._consume(data)

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self.hold()
        assert self.transport is not None
        self._stalled_at = self.transport.get_write_buffer_size()
        self._unread_timer = self.server.loop.call_later(self.server.settings.unread_s, self._unread)

    def resume_writing(self) -> None:
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None
        if not self.closing:
            self.server.loop.call_soon(self.release)

    def _consume(self, data: bytes) -> None:
        """Answer every whole frame of `data`, and keep the rest."""
        self._batch = []
        start = 0
        settings = self.server.settings
        while not self._held and not self.closing:
            end = data.find(b"\n", start)
            if end < 0:
                break
            limit = settings.frame_bytes if self.authorized else settings.unauthenticated_bytes
            if end - start > limit:
                self._too_long(limit)
                break
            line = data[start:end]
            start = end + 1
            self.frame_received(line)
            if self._batched > _BATCH_BYTES:
                self._flush()
        self._flush()
        self._batch = None
        self._account(None)
        if self.closing:
            return
        if start and self.authorized:
            self.stop_clock()
        if start < len(data):
            self._keep(data[start:])

    def _keep(self, data: bytes) -> None:
        """Hold bytes of a frame that has not ended, or that must wait."""
        buffer = self._buffer
        if buffer is None:
            if data[0] not in _JSON_STARTS and not self._held:  # a TLS hello, say, may never send a newline
                self.fail(
                    refusal(frames.PARSE_ERROR, "not JSON: a frame is one JSON object a line", "request")
                )
                return
            buffer = self._buffer = bytearray()
        buffer += data
        self.server.partial_bytes += len(data)
        settings = self.server.settings
        limit = settings.frame_bytes if self.authorized else settings.unauthenticated_bytes
        if len(buffer) > limit and not self._held:
            self._too_long(limit)
        elif self.server.partial_bytes > settings.partial_bytes:
            self.fail(refusal(frames.OVER_LIMIT, "the server holds too many unfinished frames", "connect"))
        elif self._frame_timer is None and not self._held:
            self._frame_timer = self.server.loop.call_later(settings.frame_s, self._too_late)

    def _account(self, buffer: bytearray | None) -> None:
        if self._buffer:
            self.server.partial_bytes -= len(self._buffer)
        self._buffer = buffer

    def hold(self) -> None:
        """Let frames wait; the peer is not read meanwhile."""
        self._held = True
        if self.transport is not None:
            self.transport.pause_reading()

    def release(self) -> None:
        if self.closing or not self._held or self.deciding or self._unread_timer is not None:
            return
        self._held = False
        assert self.transport is not None
        self.transport.resume_reading()
        if self._buffer:
            self._consume(bytes(self._buffer))

    def reply(self, request_id: Any, fragment: bytes) -> None:
        """Send a reply; nothing happens for a notification or once the connection is gone."""
        if request_id is SILENT or self.transport is None or self.closing:
            return
        data = frames.framed(request_id, fragment)
        if len(data) > self.server.settings.frame_bytes + 1:
            limit = self.server.settings.frame_bytes
            data = frames.framed(
                request_id,
                refusal(
                    frames.TASK_FAILED,
                    f"the reply would be {len(data)} bytes, over the limit of {limit} for one frame",
                    "request",
                    "LimitReachedError",
                ),
            )
        if self._batch is None:
            self.transport.write(data)
        else:
            self._batch.append(data)
            self._batched += len(data)

    def _flush(self) -> None:
        batch = self._batch
        if batch:
            self._batch = []
            self._batched = 0
            if self.transport is not None:
                self.transport.write(batch[0] if len(batch) == 1 else b"".join(batch))

    def part(self, request_id: Any, fragment: bytes) -> None:
        """Send a last reply and close."""
        if self.closing:
            return
        self.reply(request_id, fragment)
        self._flush()
        self.closing = True
        if self.transport is not None:
            self.transport.close()

    def drop(self) -> None:
        """End the connection now."""
        self.closing = True
        if self.transport is not None:
            self.transport.abort()

    def fail(self, fragment: bytes, request_id: Any = None) -> None:
        """Send an error frame, stop listening, and close once the peer has had time to read it."""
        if self.closing:
            return
        self.reply(request_id, fragment)
        self._flush()
        self.closing = True
        self.leave()
        self._account(None)
        transport = self.transport
        if transport is None:
            return
        self._stop_timers()
        if not transport.can_write_eof():
            transport.close()
            return
        # Closing with unread input would reset the connection and lose the error frame on its way.
        try:
            transport.write_eof()
        except OSError:  # the peer has reset the connection meanwhile
            transport.abort()
            return
        transport.resume_reading()
        self._frame_timer = self.server.loop.call_later(_LINGER_S, transport.abort)

    def _too_long(self, limit: int) -> None:
        self.fail(
            refusal(frames.WRONG_STATE, f"the frame is longer than {limit} bytes, the limit here", "request")
        )

    def _too_late(self) -> None:
        self._frame_timer = None
        settings = self.server.settings
        if self.authorized and self.greeted:
            what = f"a frame did not end within {settings.frame_s:g} s of its start"
        else:
            what = f"no complete hello or tunnel.open within {settings.handshake_s:g} s"
        self.fail(refusal(frames.WRONG_STATE, what, "connect"))

    def _unread(self) -> None:
        self._unread_timer = None
        if self.transport is None:
            return
        waiting = self.transport.get_write_buffer_size()
        if waiting >= self._stalled_at:
            self.transport.abort()
            return
        self._stalled_at = waiting
        self._unread_timer = self.server.loop.call_later(self.server.settings.unread_s, self._unread)

    def stop_clock(self) -> None:
        """End the deadline of a frame, or of the first one."""
        if self._frame_timer is not None:
            self._frame_timer.cancel()
            self._frame_timer = None

    def _stop_timers(self) -> None:
        self.stop_clock()
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None

    def surrender(self) -> tuple[asyncio.Transport, bytes] | None:
        """Give the transport and what was read ahead to a tunnel; None where the peer has gone meanwhile."""
        if self.transport is None or self.closing:
            return None
        transport, early = self.transport, bytes(self._buffer or b"")
        self._account(None)
        self.server.dismiss(self)
        return transport, early
