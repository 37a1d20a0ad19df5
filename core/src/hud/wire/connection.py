"""One connection of the server: frames in, replies out, and nothing a peer does beyond that."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from hud.errors import (
    ConnectionLostError,
    HudProtocolError,
    LimitReachedError,
    NotAuthorizedError,
)
from hud.wire import auth, frames
from hud.wire.faults import bad_params, failure_fragment, raised_from, refusal, wrong_state
from hud.wire.frames import BadParamsTypeError, InvalidRequestError, NotJsonError
from hud.wire.hostcalls import FEATURE as HOST_CALLS

if TYPE_CHECKING:
    from hud.wire.server import Server
    from hud.wire.sessions import Session

log = logging.getLogger("hud.wire")

_EMPTY = b'"result":{}'
_BATCH_BYTES = 64 * 1024
_JSON_STARTS = b'{["-0123456789tfnNI \t\r'
_LINGER_S = 2.0
_PROBED = frozenset({"ping", HOST_CALLS})


class ControlConnection(asyncio.Protocol):
    """Answers control frames in order; hands itself to a tunnel when the first frame asks for one."""

    __slots__ = (
        "_asked",
        "_batch",
        "_batched",
        "_buffer",
        "_closing",
        "_deciding",
        "_first",
        "_frame_timer",
        "_held",
        "_replies",
        "_server",
        "_stalled_at",
        "_transport",
        "_unread_timer",
        "authorized",
        "features",
        "heard",
        "session",
    )

    def __init__(self, server: Server) -> None:
        self._server = server
        self._transport: asyncio.Transport | None = None
        self._buffer: bytearray | None = None
        self._batch: list[bytes] | None = None  # replies to the frames of one read, written at once
        self._batched = 0
        self._held = False  # frames wait: for a slow reader, a takeover, a dial
        self._deciding = False  # a takeover or a goodbye is under way
        self._closing = False
        self._first = True
        self._frame_timer: asyncio.TimerHandle | None = None
        self._unread_timer: asyncio.TimerHandle | None = None
        self._stalled_at = 0
        self._asked = 0
        self._replies: dict[str, asyncio.Future[Any]] | None = None
        self.authorized = server.token is None
        self.features: frozenset[str] = frozenset()
        self.heard = 0
        self.session: Session | None = None

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not checked: uvloop's transports are asyncio's in kind, not in class.
        transport = cast("asyncio.Transport", transport)
        self._transport = transport
        settings = self._server.settings
        transport.set_write_buffer_limits(high=settings.unread_bytes)
        if not self._server.admit(self):
            self._fail(refusal(frames.OVER_LIMIT, "the server is at its limit of connections", "connect"))
            return
        self._frame_timer = self._server.loop.call_later(settings.handshake_s, self._too_late)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._server.dismiss(self)
        self._closing = True
        self._transport = None
        self._leave()
        for timer in (self._frame_timer, self._unread_timer):
            if timer is not None:
                timer.cancel()
        self._account(None)
        for waiting in (self._replies or {}).values():
            if not waiting.done():
                waiting.set_exception(ConnectionLostError("the client's connection ended"))
        self._replies = None

    def eof_received(self) -> bool:
        return False

    def data_received(self, data: bytes) -> None:
        self.heard += 1
        if self._closing:
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

    def pause_writing(self) -> None:
        self._hold()
        assert self._transport is not None
        self._stalled_at = self._transport.get_write_buffer_size()
        self._unread_timer = self._server.loop.call_later(self._server.settings.unread_s, self._unread)

    def resume_writing(self) -> None:
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None
        if not self._closing:
            self._server.loop.call_soon(self._release)

    # Bytes to frames

    def _consume(self, data: bytes) -> None:
        """Answer every whole frame of `data`, and keep the rest."""
        self._batch = []
        start = 0
        settings = self._server.settings
        while not self._held and not self._closing:
            end = data.find(b"\n", start)
            if end < 0:
                break
            limit = settings.frame_bytes if self.authorized else settings.unauthenticated_bytes
            if end - start > limit:
                self._too_long(limit)
                break
            line = data[start:end]
            start = end + 1
            self._frame(line)
            if self._batched > _BATCH_BYTES:
                self._flush()
        self._flush()
        self._batch = None
        self._account(None)
        if self._closing:
            return
        if start and self.authorized and self._frame_timer is not None:
            self._frame_timer.cancel()
            self._frame_timer = None
        if start < len(data):
            self._keep(data[start:])

    def _keep(self, data: bytes) -> None:
        """Hold bytes of a frame that has not ended, or that must wait."""
        buffer = self._buffer
        if buffer is None:
            if data[0] not in _JSON_STARTS and not self._held:  # a TLS hello, say, may never send a newline
                self._fail(
                    refusal(frames.PARSE_ERROR, "not JSON: a frame is one JSON object a line", "request")
                )
                return
            buffer = self._buffer = bytearray()
        buffer += data
        self._server.partial_bytes += len(data)
        settings = self._server.settings
        limit = settings.frame_bytes if self.authorized else settings.unauthenticated_bytes
        if len(buffer) > limit and not self._held:
            self._too_long(limit)
        elif self._server.partial_bytes > settings.partial_bytes:
            self._fail(refusal(frames.OVER_LIMIT, "the server holds too many unfinished frames", "connect"))
        elif self._frame_timer is None and not self._held:
            self._frame_timer = self._server.loop.call_later(settings.frame_s, self._too_late)

    def _account(self, buffer: bytearray | None) -> None:
        if self._buffer:
            self._server.partial_bytes -= len(self._buffer)
        self._buffer = buffer

    def _hold(self) -> None:
        """Let frames wait; the peer is not read meanwhile."""
        self._held = True
        if self._transport is not None:
            self._transport.pause_reading()

    def _release(self) -> None:
        if self._closing or not self._held or self._deciding or self._unread_timer is not None:
            return
        self._held = False
        assert self._transport is not None
        self._transport.resume_reading()
        if self._buffer:
            self._consume(bytes(self._buffer))

    # Frames to replies

    def _frame(self, line: bytes) -> None:
        request_id: Any = None
        phase = "request"
        first = False
        try:
            message = frames.decode(line)
            if type(message) is dict and "method" not in message and self._is_reply(message):
                return
            method, request_id, params, silent = frames.checked_request(message)
            first, self._first = self._first, False
            if method == "tunnel.open":
                phase = "tunnel"
                if self.authorized and not first:
                    raise wrong_state("tunnel.open must be the first frame of a connection")
                self._open_tunnel(request_id, params)
                return
            if silent:
                request_id = _SILENT
            phase = _PHASES.get(method, "request")
            if not self.authorized and method != "hello":
                raise NotAuthorizedError(
                    frames.NOT_AUTHORIZED, "not authorised; say hello with the token first"
                )
            handler = _HANDLERS.get(method)
            if handler is None:
                known = ", ".join(_HANDLERS)
                what = f"unknown method {method[:80]!r}; known: {known}"
                self.reply(request_id, refusal(frames.UNKNOWN_METHOD, what, phase, "UnknownMethodError"))
                return
            handler(self, request_id, params)
        except NotJsonError as exc:
            self._fail(refusal(frames.PARSE_ERROR, str(exc), phase, "NotJsonError"))
        except InvalidRequestError as exc:
            code = frames.BAD_PARAMS if isinstance(exc, BadParamsTypeError) else frames.WRONG_STATE
            fragment = refusal(code, str(exc), phase)
            if self.authorized:
                self.reply(exc.request_id, fragment)
            else:
                self._fail(fragment, exc.request_id)
        except NotAuthorizedError as exc:
            self._fail(failure_fragment(exc, phase), None if request_id is _SILENT else request_id)
        except HudProtocolError as exc:
            if phase == "tunnel" and first:
                self._fail(failure_fragment(exc, phase), request_id)
            else:
                self.reply(request_id, failure_fragment(exc, phase))
        except Exception as exc:
            log.exception("answering a request failed")
            self.reply(request_id, failure_fragment(exc, phase, debug=self._server.settings.debug))

    def _hello(self, request_id: Any, params: dict[str, Any]) -> None:
        self._check_token(params, needed=not self.authorized)
        wanted = _text(params, "session_id")
        features = _client_features(params)
        egress = self._egress_asked(params)
        session = self.session
        if wanted is not None and (session is None or wanted != session.id):
            if egress:
                raise bad_params(f"{next(iter(egress))} belong to the hello that opens a session")
            self._resume(request_id, wanted, features)
            return
        if session is None:
            session = self._server.sessions.open()
            try:
                session.allow_egress(egress)
            except BaseException:
                session.end("its hello was refused")
                raise
            self._join(session)
        else:
            session.allow_egress(egress)
        self._welcome(request_id, session, features)

    def _egress_asked(self, params: Mapping[str, Any]) -> dict[str, list[Any]]:
        """Return the ways out of the sandbox that a hello asks for; empty lists are nothing."""
        asked = {}
        for name in ("workspace_routes", "connections"):
            value = params.get(name)
            if not value:
                continue
            if type(value) is not list:
                raise bad_params(f"{name} must be an array, not {frames.kind_of(value)}")
            if getattr(self._server.service, "allow_egress", None) is None:
                raise bad_params(f"{name} is not allowed by this environment; leave it empty")
            asked[name] = value
        return asked

    def _check_token(self, params: Mapping[str, Any], *, needed: bool) -> None:
        token = self._server.token
        if token is None or not (needed or params.get("token") is not None):
            return
        if not auth.matches(token, params.get("token")):
            raise NotAuthorizedError(frames.NOT_AUTHORIZED, "not authorised: the token is missing or wrong")

    def _welcome(self, request_id: Any, session: Session, features: frozenset[str]) -> None:
        self.authorized = True
        if features:
            self.features = features
        self.reply(request_id, self._server.manifest.hello(session.id))

    def _resume(self, request_id: Any, wanted: str, features: frozenset[str]) -> None:
        session = self._server.sessions.find(wanted)
        own = self.session
        if own is not None and (own.operation is not None or own.has_task or own.outcomes):
            raise wrong_state("this connection holds a session with a task; resume the other on a new one")
        holder = session.connection
        if holder is None:
            self._join(session)
            self._welcome(request_id, session, features)
            return
        heard = holder.heard
        holder.probe()
        self._deciding = True
        self._hold()

        def decide() -> None:
            self._deciding = False
            if self._closing:
                return
            try:
                self._server.sessions.find(wanted)
                if session.connection is not None:
                    if session.connection is not holder or holder.heard != heard:
                        raise wrong_state("the session has a live connection")
                    holder.superseded()
                self._join(session)
                self._welcome(request_id, session, features)
            except HudProtocolError as exc:
                fragment = failure_fragment(exc, "connect")
                if self.authorized:
                    self.reply(request_id, fragment)
                else:
                    self._fail(fragment, request_id)
            self._release()

        self._server.loop.call_later(self._server.settings.takeover_s, decide)

    def _join(self, session: Session) -> None:
        if self.session is not None and self.session is not session:
            self.session.end("its connection resumed another session")
        self.session = session
        session.attach(self)

    def _ping(self, request_id: Any, params: dict[str, Any]) -> None:  # noqa: ARG002 - a handler's signature
        self.reply(request_id, _EMPTY)

    def _list(self, request_id: Any, params: dict[str, Any]) -> None:  # noqa: ARG002
        self.reply(request_id, self._server.manifest.tasks())

    def _start(self, request_id: Any, params: dict[str, Any]) -> None:
        task_id = params.get("id")
        if type(task_id) is not str:
            raise bad_params(f"id must be a task's name, a string, not {frames.kind_of(task_id)}")
        args = params.get("args")
        if args is None:
            args = {}
        elif type(args) is not dict:
            raise bad_params(f"args must be an object, not {frames.kind_of(args)}")
        if self.session is None:
            self._join(self._server.sessions.open())
        assert self.session is not None
        self.session.start(self, request_id, task_id, args)

    def _grade(self, request_id: Any, params: dict[str, Any]) -> None:
        if "answer" not in params:
            raise bad_params("answer is missing; send the agent's answer, or null")
        key = _text(params, "key")
        session = self.session
        if session is None or (
            session.operation is None and not session.has_task and (key is None or not session.outcomes)
        ):
            adopted = self._server.sessions.adoptable()
            if adopted is not None:
                self._join(adopted)
                session = adopted
        if session is None:
            raise wrong_state("no task in progress; send tasks.start first")
        session.grade(self, request_id, params["answer"], key)

    def _cancel(self, request_id: Any, params: dict[str, Any]) -> None:  # noqa: ARG002
        if self.session is None:
            self.reply(request_id, b'"result":{"cancelled":true}')
        else:
            self.session.cancel("tasks.cancel", self, request_id)

    def _bye(self, request_id: Any, params: dict[str, Any]) -> None:  # noqa: ARG002
        session, self.session = self.session, None
        if session is None:
            self.part(request_id, b'"result":{"goodbye":true}')
            return
        self._deciding = True
        self._hold()
        session.end("bye", self, request_id)

    def _open_tunnel(self, request_id: Any, params: dict[str, Any]) -> None:
        self._check_token(params, needed=True)
        name = params.get("capability")
        if type(name) is not str:
            raise bad_params(f"capability must be a name, a string, not {frames.kind_of(name)}")
        self.authorized = True
        self._deciding = True
        self._hold()
        if self._frame_timer is not None:
            self._frame_timer.cancel()
            self._frame_timer = None
        self._server.open_tunnel(self, request_id, name)

    # Replies out

    def reply(self, request_id: Any, fragment: bytes) -> None:
        """Send a reply; nothing happens for a notification or once the connection is gone."""
        if request_id is _SILENT or self._transport is None or self._closing:
            return
        data = frames.framed(request_id, fragment)
        if len(data) > self._server.settings.frame_bytes + 1:
            limit = self._server.settings.frame_bytes
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
            self._transport.write(data)
        else:
            self._batch.append(data)
            self._batched += len(data)

    def _flush(self) -> None:
        batch = self._batch
        if batch:
            self._batch = []
            self._batched = 0
            if self._transport is not None:
                self._transport.write(batch[0] if len(batch) == 1 else b"".join(batch))

    def part(self, request_id: Any, fragment: bytes) -> None:
        """Send a last reply and close."""
        if self._closing:
            return
        self.reply(request_id, fragment)
        self._flush()
        self._closing = True
        if self._transport is not None:
            self._transport.close()

    def superseded(self) -> None:
        """Close: another connection has taken the session over."""
        self.session = None
        self.drop()

    def drop(self) -> None:
        """End the connection now."""
        self._closing = True
        if self._transport is not None:
            self._transport.abort()

    def _fail(self, fragment: bytes, request_id: Any = None) -> None:
        """Send an error frame, stop listening, and close once the peer has had time to read it."""
        if self._closing:
            return
        self.reply(request_id, fragment)
        self._flush()
        self._closing = True
        self._leave()
        self._account(None)
        transport = self._transport
        if transport is None:
            return
        for timer in (self._frame_timer, self._unread_timer):
            if timer is not None:
                timer.cancel()
        self._frame_timer = self._unread_timer = None
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
        self._frame_timer = self._server.loop.call_later(_LINGER_S, transport.abort)

    def _leave(self) -> None:
        session, self.session = self.session, None
        if session is not None and session.connection is self:
            session.detach()

    def _too_long(self, limit: int) -> None:
        self._fail(
            refusal(frames.WRONG_STATE, f"the frame is longer than {limit} bytes, the limit here", "request")
        )

    def _too_late(self) -> None:
        self._frame_timer = None
        settings = self._server.settings
        if self.authorized and not self._first:
            what = f"a frame did not end within {settings.frame_s:g} s of its start"
        else:
            what = f"no complete hello or tunnel.open within {settings.handshake_s:g} s"
        self._fail(refusal(frames.WRONG_STATE, what, "connect"))

    def _unread(self) -> None:
        self._unread_timer = None
        if self._transport is None:
            return
        waiting = self._transport.get_write_buffer_size()
        if waiting >= self._stalled_at:
            self._transport.abort()
            return
        self._stalled_at = waiting
        self._unread_timer = self._server.loop.call_later(self._server.settings.unread_s, self._unread)

    # Requests of the server's own

    @property
    def answers_host_calls(self) -> bool:
        """Whether the client said it answers host calls."""
        return HOST_CALLS in self.features

    async def ask(self, method: str, params: Mapping[str, Any]) -> Any:
        """Send a request of the server's and return the client's result.

        Raises:
            ConnectionLostError: the connection ended first.
            HudProtocolError: the client refused.
        """
        request_id, future = self._request(method, params)
        try:
            return await future
        finally:
            if self._replies is not None:
                self._replies.pop(request_id, None)

    def _request(self, method: str, params: Mapping[str, Any]) -> tuple[str, asyncio.Future[Any]]:
        if self._transport is None or self._closing:
            raise ConnectionLostError("the client's connection ended")
        self._asked += 1
        request_id = f"s{self._asked}"
        data = frames.request(request_id, method, params)
        if len(data) > self._server.settings.frame_bytes + 1:
            raise LimitReachedError(frames.OVER_LIMIT, f"{method} is {len(data)} bytes, over the frame limit")
        future: asyncio.Future[Any] = self._server.loop.create_future()
        if self._replies is None:
            self._replies = {}
        self._replies[request_id] = future
        self._transport.write(data)
        return request_id, future

    def _is_reply(self, message: dict[str, Any]) -> bool:
        """Take the answer to a request of ours; False where it answers none."""
        request_id = message.get("id")
        if not isinstance(request_id, str) or not request_id.startswith("s"):
            return False
        if "result" not in message and "error" not in message:
            return False
        future = self._replies.get(request_id) if self._replies is not None else None
        if future is None or future.done():
            return self.session is not None  # late, or to a probe: nothing waits for it
        if "error" in message:
            future.set_exception(raised_from(message["error"]))
        else:
            future.set_result(message["result"])
        return True

    def probe(self) -> None:
        """Ask a client that answers requests for a sign of life; any frame counts as one."""
        if self.features & _PROBED and self._transport is not None:
            self._asked += 1
            self._transport.write(frames.request(f"s{self._asked}", "ping", {}))

    # The tunnel's side

    def surrender(self) -> tuple[asyncio.Transport, bytes] | None:
        """Give the transport and what was read ahead to a tunnel; None where the peer has gone meanwhile."""
        if self._transport is None or self._closing:
            return None
        transport, early = self._transport, bytes(self._buffer or b"")
        self._account(None)
        self._server.dismiss(self)
        return transport, early

    def refuse_tunnel(self, request_id: Any, exc: BaseException) -> None:
        """Answer that no stream can be had, and close."""
        self._fail(failure_fragment(exc, "tunnel", debug=self._server.settings.debug), request_id)


def _text(params: Mapping[str, Any], name: str) -> str | None:
    value = params.get(name)
    if value is None:
        return None
    if type(value) is not str:
        raise bad_params(f"{name} must be a string, not {frames.kind_of(value)}")
    if not 0 < len(value) <= 256:
        raise bad_params(f"{name} must have 1 to 256 characters, not {len(value)}")
    return value


def _client_features(params: Mapping[str, Any]) -> frozenset[str]:
    """Return what the client says it can do: `features` within `client`, or beside it."""
    client = params.get("client")
    if client is not None and type(client) not in (dict, str):
        raise bad_params(f"client must be an object, not {frames.kind_of(client)}")
    listed = client.get("features") if type(client) is dict else None
    listed = params.get("features") if listed is None else listed
    if listed is None:
        return frozenset()
    if type(listed) is not list or len(listed) > 64 or any(type(item) is not str for item in listed):
        raise bad_params("features must be an array of at most 64 strings")
    return frozenset(item[:64] for item in listed)


class _Silent:
    """Stands for the id of a notification, which gets no reply."""


_SILENT = _Silent()
_Handler = Callable[[ControlConnection, Any, dict[str, Any]], None]
_HANDLERS: dict[str, _Handler] = {
    "hello": ControlConnection._hello,
    "tasks.list": ControlConnection._list,
    "tasks.start": ControlConnection._start,
    "tasks.grade": ControlConnection._grade,
    "tasks.cancel": ControlConnection._cancel,
    "bye": ControlConnection._bye,
    "ping": ControlConnection._ping,
}
_PHASES = {"hello": "connect", "tasks.start": "start", "tasks.grade": "grade", "bye": "release"}
