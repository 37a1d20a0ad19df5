"""The agent's side of the wire: connect to a placement, drive its session, open its capabilities."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from hud.cleanup import shielded
from hud.errors import ConnectionLostError, HudProtocolError, WrongStateError
from hud.values import plain
from hud.wire import frames
from hud.wire.address import is_public
from hud.wire.bindings import Bindings
from hud.wire.faults import bad_params
from hud.wire.hostcalls import HostModel
from hud.wire.link import Link, within
from hud.wire.local import LocalClient, answer_in
from hud.wire.manifest import Manifest
from hud.wire.settings import SESSION_STREAMS, ClientSettings
from hud.wire.streams import TunnelOpener

if TYPE_CHECKING:
    from hud.types import Capability


class HudClient:
    """A session of a served environment. Made by `connect`.

    Its connection may drop and come back: a suspended task is resumed, a keyed grade is asked for again. Every
    call has a deadline (`ClientSettings`); errors of the peer are `HudProtocolError`s that are also of the type
    the peer names (`GraderError`, `TemplateRaisedError`, ...).
    """

    def __init__(
        self,
        url: str,
        params: Mapping[str, Any] | None = None,
        *,
        host_model: HostModel | None = None,
        settings: ClientSettings | None = None,
    ) -> None:
        self.settings: ClientSettings = settings or ClientSettings()
        self._link = Link(url, params or {}, self.settings, host_model)
        self._bindings: Bindings | None = None

    @property
    def url(self) -> str:
        """The address of the control channel, without its token."""
        return self._link.url

    @property
    def manifest(self) -> Manifest:
        """What the environment is and offers, as of the last hello."""
        return self._link.manifest

    async def become_ready(
        self,
        ready_timeout: float,
        *,
        prestart: tuple[str, Mapping[str, Any]] | None = None,
        asking: Mapping[str, Any] | None = None,
    ) -> None:
        """Dial and say hello until the environment answers; see `Link.become_ready`."""
        await self._link.become_ready(ready_timeout, prestart=prestart, asking=asking)

    @property
    def session_id(self) -> str:
        """The session's id; whoever has it (and the token) can resume the session."""
        return self.manifest.session_id

    async def hello(
        self,
        session_id: str | None = None,
        *,
        workspace_routes: Sequence[Any] = (),
        connections: Sequence[Any] = (),
    ) -> Manifest:
        """Say hello again, on this connection: a heartbeat, or with another id the resumption of that session."""
        asking = {"workspace_routes": list(workspace_routes), "connections": list(connections)}
        params = self._link.greeting(session_id or self.session_id, asking)
        manifest = Manifest.from_reply(
            await self._link.call("hello", params, self.settings.request_s, "connect")
        )
        self._link.renew(manifest)
        return manifest

    def _tunnel(self, name: str) -> TunnelOpener:
        own = SESSION_STREAMS in self.manifest.features
        return TunnelOpener(
            self._link.url, self._link.params, self._link.opener, name, self.session_id if own else None
        )

    def _capabilities(self) -> Bindings:
        if self._bindings is None:
            self._bindings = Bindings(
                lambda: self.manifest.bindings,
                lambda capability: None if is_public(capability.url) else self._tunnel(capability.name),
                lambda capability: not is_public(capability.url),
                self.settings.open_attempts,
            )
        return self._bindings

    def binding(self, ref: str) -> Capability:
        """Return a capability by name, protocol or family, for a foreign client.

        Reading its `url` makes a loopback listener that forwards to the capability, unless it is public. It
        belongs to this client and serves processes of this user only.

        Raises:
            CapabilityNotFoundError: `ref` names none or several; a `KeyError`.
        """
        return self._capabilities().binding(ref)

    async def open(self, ref: str) -> Any:
        """Return a connected client of a capability by name, protocol or family, the same one each time.

        It is closed with this client. See `Bindings.open` for what it raises.
        """
        return await self._capabilities().open(ref)

    async def list_tasks(self) -> list[dict[str, Any]]:
        """Return `{id, description, args, input?, returns?}` of each template."""
        reply = await self._link.call("tasks.list", {}, self.settings.request_s, "request")
        tasks: list[dict[str, Any]] = reply["tasks"]
        return tasks

    async def start_task(
        self,
        id: str,  # noqa: A002 - HUD's name
        args: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Run a template to its first yield and return `{prompt, ...}`; a task before it is cancelled.

        Raises:
            BadParamsError: no such task, or arguments that do not match its schema.
            AuthoringError, PromptError, TemplateRaisedError: the template failed.
            PhaseTimeoutError, ConnectionLostError, RuntimeDiedError: no reply came.
        """
        args = args or {}
        waiting = await self._link.take_early(id, args)
        self._link.has_task = True
        params = {"id": id, "args": {} if waiting is not None else _jsonable("args", dict(args))}
        try:
            reply = await self._link.call("tasks.start", params, self.settings.start_s, "start", waiting)
        except HudProtocolError:
            self._link.has_task = False
            raise
        return _object(reply, "tasks.start")

    async def grade(self, payload: Any, key: str | None = None) -> dict[str, Any]:
        """Send the answer in and return `{score, done, ...}`.

        `payload` is `{"answer": ...}`, or the answer itself where it is anything else than such an object.

        With a `key` a lost reply costs nothing: the client comes back and asks again, and the environment answers
        what it has already decided.

        Raises:
            WrongStateError: no task is started, or it was graded under another key.
            GraderError, RewardError, AuthoringError, TemplateRaisedError: grading failed.
            PhaseTimeoutError, ConnectionLostError, RuntimeDiedError: no reply came.
        """
        answer = answer_in(payload)
        params: dict[str, Any] = {
            "answer": answer if type(answer) is str else _jsonable("answer", plain(answer))
        }
        if key is not None:
            params["key"] = key
        idempotent = key is not None and "keyed_grade" in self.manifest.features
        work = self._graded(params, idempotent=idempotent)
        try:
            reply = await within(work, "tasks.grade", "grade", self.settings.grade_s)
        except WrongStateError:
            raise
        except HudProtocolError:
            self._link.has_task = False
            raise
        self._link.has_task = False
        return _object(reply, "tasks.grade")

    async def _graded(self, params: Mapping[str, Any], *, idempotent: bool) -> Any:
        while True:
            await self._link.connected()
            try:
                return await self._link.ask("tasks.grade", params)
            except ConnectionLostError:
                if not idempotent or self._link.closed:
                    raise

    async def cancel(self) -> None:
        """Interrupt a start or grade that runs and close the task."""
        await self._link.call("tasks.cancel", {}, self.settings.cancel_s, "release")
        self._link.has_task = False

    async def bye(self, *, cleanup_s: float = 0.0) -> list[str]:
        """End the session on the server, and this client.

        With `cleanup_s` it waits so many seconds at most for cleanups that went on behind the reply to `grade` or
        `cancel`. Returns what failed in them, where the server tells.
        """
        if self._link.closed:
            return []
        try:
            if self._link.channel is None or not self._link.channel.alive:
                return []
            params = {"cleanup_s": cleanup_s} if cleanup_s > 0 else {}
            reply = await self._link.call("bye", params, self.settings.bye_s + cleanup_s, "release")
            self._link.channel.close()
            failed = reply.get("cleanup_errors") if isinstance(reply, dict) else None
            return [str(error) for error in failed] if isinstance(failed, list) else []
        finally:
            self._link.has_task = False
            await self.close()

    async def close(self) -> None:
        """Close the connection and everything opened; a task that is still suspended stays parked."""
        if self._link.closed:
            return
        self._link.stop()
        try:
            if self._bindings is not None:
                await shielded(self._bindings.close())
        finally:
            self._link.hang_up()

    def abort(self) -> None:
        """Drop the connection at once, as a crash would."""
        if self._link.channel is not None:
            self._link.channel.abort("this client dropped its connection")

    async def gone(self) -> Exception:
        """Return, once the placement is lost for good, why; for waiting beside an agent that makes no call."""
        return await self._link.gone()


def _jsonable(name: str, value: Any) -> Any:
    """Return `value`, having made sure that it can be sent."""
    try:
        frames.encode(value)
    except (TypeError, ValueError) as exc:
        raise bad_params(f"{name} cannot be sent as JSON: {exc}") from exc
    return value


def _object(reply: Any, method: str) -> dict[str, Any]:
    if not isinstance(reply, dict):
        raise HudProtocolError(-32603, f"the reply to {method} is no object: {reply!r:.200}")
    return reply


@asynccontextmanager
async def connect(
    runtime: Any,
    *,
    ready_timeout: float | None = None,
    workspace_routes: Sequence[Any] = (),
    connections: Sequence[Any] = (),
    host_model: HostModel | None = None,
    settings: ClientSettings | None = None,
    prestart: tuple[str, Mapping[str, Any]] | None = None,
) -> AsyncIterator[HudClient | LocalClient]:
    """Connect to a placement and yield its client, closed at the end.

    `runtime` is a `Runtime` or a url. `runtime.params["ready_timeout"]` (seconds) goes before the argument; 30 s
    where neither says. With `params["service"]` the environment is in this process and no socket is used.
    `host_model` answers the environment's host calls. `prestart` sends a first `tasks.start` together with
    `hello`; `start_task` with the same id and arguments then awaits its reply, one round trip saved.

    Raises:
        ReadyTimeoutError, RuntimeStartError: the environment never answered.
        NotAuthorizedError: the token is missing or wrong.
        UsageError: the url cannot be read.
    """
    url: str = runtime if isinstance(runtime, str) else runtime.url
    params: Mapping[str, Any] = {} if isinstance(runtime, str) else runtime.params
    service = params.get("service")
    if service is not None:
        client: HudClient | LocalClient = LocalClient(service, host_model=host_model, settings=settings)
    else:
        client = HudClient(url, params, host_model=host_model, settings=settings)
    try:
        if isinstance(client, HudClient):
            wait_s = params.get("ready_timeout") or ready_timeout or client.settings.ready_s
            asking = {"workspace_routes": list(workspace_routes), "connections": list(connections)}
            await client.become_ready(float(wait_s), prestart=prestart, asking=asking)
        yield client
    finally:
        await client.close()
