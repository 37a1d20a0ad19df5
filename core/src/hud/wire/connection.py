"""One connection of the server: frames in, replies out, and nothing a peer does beyond that."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, cast

from hud.errors import (
    ConnectionLostError,
    HudProtocolError,
    LimitReachedError,
    NotAuthorizedError,
)
from hud.wire import auth, frames
from hud.wire.asking import Asking, is_answer
from hud.wire.faults import bad_params, failure_fragment, refusal, wrong_state
from hud.wire.frames import BadParamsTypeError, InvalidRequestError, NotJsonError
from hud.wire.framing import SILENT, FramedConnection
from hud.wire.hostcalls import FEATURE as HOST_CALLS

if TYPE_CHECKING:
    import asyncio

    from hud.wire.server import Server
    from hud.wire.service import PlacedSession
    from hud.wire.session import Session

log = logging.getLogger("hud.wire")

_EMPTY = b'"result":{}'
_LONGEST_CLEANUP_S = 3600.0
_PROBED = frozenset({"ping", HOST_CALLS})


class ControlConnection(FramedConnection):
    """Answers control frames in order; hands itself to a tunnel when the first frame asks for one."""

    __slots__ = ("_asking", "features", "session")

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self._asking: Asking | None = None
        self.features: frozenset[str] = frozenset()
        self.session: Session | None = None

    def frame_received(self, line: bytes) -> None:
        try:
            message = frames.decode(line)
        except NotJsonError as exc:
            self.fail(refusal(frames.PARSE_ERROR, str(exc), "request", "NotJsonError"))
            return
        asking = self._asking
        if asking is not None and type(message) is dict and "method" not in message and is_answer(message):
            asking.answered(message)
        else:
            self._answer(message)

    def _answer(self, message: Any) -> None:
        request_id: Any = None
        phase = "request"
        first = False
        try:
            method, request_id, params, silent = frames.checked_request(message)
            first, self.greeted = not self.greeted, True
            if method == "tunnel.open":
                phase = "tunnel"
                if self.authorized and not first:
                    raise wrong_state("tunnel.open must be the first frame of a connection")
                self._open_tunnel(request_id, params)
                return
            if silent:
                request_id = SILENT
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
        except InvalidRequestError as exc:
            code = frames.BAD_PARAMS if isinstance(exc, BadParamsTypeError) else frames.WRONG_STATE
            fragment = refusal(code, str(exc), phase)
            if self.authorized:
                self.reply(exc.request_id, fragment)
            else:
                self.fail(fragment, exc.request_id)
        except NotAuthorizedError as exc:
            self.fail(failure_fragment(exc, phase), None if request_id is SILENT else request_id)
        except HudProtocolError as exc:
            if phase == "tunnel" and first:
                self.fail(failure_fragment(exc, phase), request_id)
            else:
                self.reply(request_id, failure_fragment(exc, phase))
        except Exception as exc:
            log.exception("answering a request failed")
            self.reply(request_id, failure_fragment(exc, phase, debug=self.server.settings.debug))

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
        if self.server.places_sessions:
            self._place(request_id, session, egress, features)
            return
        if session is None:
            session = self.server.sessions.open()
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
            if not (self.server.places_sessions or hasattr(self.server.service, "allow_egress")):
                raise bad_params(f"{name} is not allowed by this environment; leave it empty")
            asked[name] = value
        return asked

    def _check_token(self, params: Mapping[str, Any], *, needed: bool) -> None:
        token = self.server.token
        if token is None or not (needed or params.get("token") is not None):
            return
        if not auth.matches(token, params.get("token")):
            raise NotAuthorizedError(frames.NOT_AUTHORIZED, "not authorised: the token is missing or wrong")

    def _welcome(self, request_id: Any, session: Session, features: frozenset[str]) -> None:
        self.authorized = True
        if features:
            self.features = features
        own = cast("PlacedSession", session.opened()).bindings() if self.server.places_sessions else None
        self.reply(request_id, self.server.manifest.hello(session.id, own))

    def _place(
        self, request_id: Any, held: Session | None, egress: Mapping[str, Any], features: frozenset[str]
    ) -> None:
        """Answer `hello` once the session's own environment is there; frames wait until then."""
        session = held or self.server.sessions.open()
        self.authorized = True  # its token was right: from here on it waits for us
        self.features = features or self.features
        if held is None:
            self._join(session)
        side = cast("PlacedSession", session.opened())
        self.deciding = True
        self.hold()

        def placed(placing: asyncio.Task[Exception | None]) -> None:
            self.deciding = False
            if placing.cancelled() or self.session is not session:
                return  # the server closes, or the peer has left
            failure = placing.result()
            if failure is None:
                self._welcome(request_id, session, features)
            else:
                if held is None:
                    self.session = None
                    session.end("it could not be placed")
                fragment = failure_fragment(failure, "connect", debug=self.server.settings.debug)
                self.reply(request_id, fragment)
            self.release()

        self.server.sessions.spawn(_failure_of(side.place(egress))).add_done_callback(placed)

    def _resume(self, request_id: Any, wanted: str, features: frozenset[str]) -> None:
        session = self.server.sessions.find(wanted)
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
        self.deciding = True
        self.hold()

        def decide() -> None:
            self.deciding = False
            if self.closing:
                return
            try:
                self.server.sessions.find(wanted)
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
                    self.fail(fragment, request_id)
            self.release()

        self.server.loop.call_later(self.server.settings.takeover_s, decide)

    def _join(self, session: Session) -> None:
        if self.session is not None and self.session is not session:
            self.session.end("its connection resumed another session")
        self.session = session
        session.attach(self)

    def _ping(self, request_id: Any, params: dict[str, Any]) -> None:  # noqa: ARG002 - a handler's signature
        self.reply(request_id, _EMPTY)

    def _list(self, request_id: Any, params: dict[str, Any]) -> None:  # noqa: ARG002
        self.reply(request_id, self.server.manifest.tasks())

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
            self._join(self.server.sessions.open())
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
            adopted = self.server.sessions.adoptable()
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

    def _bye(self, request_id: Any, params: dict[str, Any]) -> None:
        wait_s = params.get("cleanup_s", 0)
        if type(wait_s) not in (int, float) or not 0 <= wait_s <= _LONGEST_CLEANUP_S:
            raise bad_params(f"cleanup_s must be a number from 0 to {_LONGEST_CLEANUP_S:g}")
        session, self.session = self.session, None
        if session is None:
            self.part(request_id, b'"result":{"goodbye":true}')
            return
        self.deciding = True
        self.hold()
        session.end("bye", self, request_id, float(wait_s))

    def _open_tunnel(self, request_id: Any, params: dict[str, Any]) -> None:
        self._check_token(params, needed=True)
        name = params.get("capability")
        if type(name) is not str:
            raise bad_params(f"capability must be a name, a string, not {frames.kind_of(name)}")
        session_id = _text(params, "session_id")
        self.authorized = True
        self.deciding = True
        self.hold()
        self.stop_clock()
        self.server.open_tunnel(self, request_id, name, session_id)

    def superseded(self) -> None:
        """Close: another connection has taken the session over."""
        self.session = None
        self.drop()

    def leave(self) -> None:
        """Park or end the session; what the server asked will not be answered."""
        session, self.session = self.session, None
        if session is not None and session.connection is self:
            session.detach()
        if self._asking is not None:
            self._asking.lose()

    def refuse_tunnel(self, request_id: Any, exc: BaseException) -> None:
        """Answer that no stream can be had, and close."""
        self.fail(failure_fragment(exc, "tunnel", debug=self.server.settings.debug), request_id)

    @property
    def answers_host_calls(self) -> bool:
        """Whether the client said it answers host calls."""
        return HOST_CALLS in self.features

    async def ask(self, method: str, params: Mapping[str, Any]) -> Any:
        """Send a request of the server's; see `Asking.ask`."""
        return await self._questions().ask(method, params)

    def probe(self) -> None:
        """Ask a client that answers requests for a sign of life; any frame counts as one."""
        if self.features & _PROBED and self.transport is not None:
            self._questions().probe()

    def _questions(self) -> Asking:
        if self._asking is None:
            self._asking = Asking(self._write)
        return self._asking

    def _write(self, data: bytes) -> None:
        if self.transport is None or self.closing:
            raise ConnectionLostError("the client's connection ended")
        if len(data) > self.server.settings.frame_bytes + 1:
            raise LimitReachedError(
                frames.OVER_LIMIT, f"a host call of {len(data)} bytes is over the frame limit"
            )
        self.transport.write(data)


async def _failure_of(work: Coroutine[Any, Any, None]) -> Exception | None:
    """Return what `work` raised, for the reply."""
    try:
        await work
    except Exception as exc:  # noqa: BLE001 - an environment that cannot be made; its hello is refused with it
        return exc
    return None


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
