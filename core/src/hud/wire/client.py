"""The agent's side of the wire: connect to a placement, drive its session, open its capabilities."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import ssl
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from hud.errors import (
    ConfigError,
    ConnectionLostError,
    HudError,
    HudProtocolError,
    LimitReachedError,
    PhaseTimeoutError,
    ReadyTimeoutError,
    RuntimeDiedError,
    RuntimeStartError,
    WireError,
    WrongStateError,
)
from hud.values import plain
from hud.wire import frames
from hud.wire.address import is_public
from hud.wire.bindings import Bindings
from hud.wire.channel import ClientChannel
from hud.wire.faults import bad_params
from hud.wire.hostcalls import FEATURE as HOST_CALLS
from hud.wire.hostcalls import HostModel
from hud.wire.local import LocalClient
from hud.wire.manifest import Manifest
from hud.wire.settings import PROTOCOL, ClientSettings
from hud.wire.streams import TunnelOpener
from hud.wire.tls import CertificatePinError
from hud.wire.transports import Opener, opener_for

if TYPE_CHECKING:
    from hud.types import Capability

log = logging.getLogger("hud.wire")
T = TypeVar("T")

_FIRST_RETRY_S = 0.005
_LONGEST_RETRY_S = 0.25
_DEATH_GRACE_S = 1.0


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
        self._params = dict(params or {})
        self.url = url = _without_token(url, self._params)
        self._settings = settings or ClientSettings()
        self._host_model = host_model
        self._loop = asyncio.get_running_loop()
        self._opener: Opener = opener_for(url, self._params)
        self._channel: ClientChannel | None = None
        self._manifest: Manifest | None = None
        self._bindings: Bindings | None = None
        self._early: tuple[str, Mapping[str, Any], asyncio.Future[Any]] | None = None
        self._has_task = False
        self._closed = False
        self._coming_back: asyncio.Lock | None = None  # one connection per session
        self._beat: asyncio.TimerHandle | None = None
        self._beating: asyncio.Task[None] | None = None
        self._knows_ping = True
        self._death: asyncio.Task[str] | None = None
        self._gone: asyncio.Future[Exception] | None = None

    # Connecting

    async def become_ready(
        self,
        ready_timeout: float,
        *,
        session_id: str | None = None,
        prestart: tuple[str, Mapping[str, Any]] | None = None,
        asking: Mapping[str, Any] | None = None,
    ) -> None:
        """Dial and say hello until the environment answers, `ready_timeout` seconds at most.

        Raises:
            RuntimeStartError: the placement's process ended first; says how.
            ReadyTimeoutError: nothing answered in time; has the last refusal.
            NotAuthorizedError: the token is wrong; not tried again.
        """
        process = self._params.get("process")
        if process is not None and self._death is None:
            self._death = self._loop.create_task(process.died())
            self._death.add_done_callback(self._died)
        deadline = self._loop.time() + ready_timeout
        pause = _FIRST_RETRY_S
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    await self._unless_dead(self._hello(session_id, prestart, asking))
                    return
            except (ssl.SSLCertVerificationError, CertificatePinError) as exc:
                raise WireError(f"{self.url}: the server's certificate is not trusted: {exc}") from exc
            except LimitReachedError as exc:
                if not exc.retryable:
                    raise
                refusal: Exception = exc
            except (OSError, ConnectionLostError) as exc:
                if isinstance(exc, HudProtocolError):
                    raise
                refusal = exc
            if self._loop.time() + pause >= deadline:
                why = str(refusal) or type(refusal).__name__
                raise ReadyTimeoutError(
                    f"connect: {self.url} was not ready within {ready_timeout:g} s (last: {why}); "
                    f"a slow environment needs a longer ready_timeout"
                ) from refusal
            await self._unless_dead(asyncio.sleep(pause))
            pause = min(pause * 1.6, _LONGEST_RETRY_S)

    async def _unless_dead(self, work: Any) -> None:
        """Await `work`, or stop as soon as the placement's process ends."""
        if self._death is None:
            await work
            return
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait({task, self._death}, return_when=asyncio.FIRST_COMPLETED)
        except BaseException:
            task.cancel()
            await asyncio.wait({task})
            raise
        if self._death.done() and not (task.done() and task.exception() is None):
            task.cancel()
            await asyncio.wait({task})
            how = self._death.exception() or self._death.result()
            raise RuntimeStartError(f"the environment ended before it was ready: {how}")
        task.result()

    async def _hello(
        self,
        session_id: str | None,
        prestart: tuple[str, Mapping[str, Any]] | None = None,
        asking: Mapping[str, Any] | None = None,
    ) -> None:
        """Open a connection and say hello on it, with the first `tasks.start` behind it in the same write."""
        channel = ClientChannel(self._settings, self._host_model, self._lost)
        await self._opener(lambda: channel)
        try:
            channel.cork()
            reply = channel.post("hello", self._greeting(session_id, asking))
            early = None
            if prestart is not None:
                with contextlib.suppress(TypeError, ValueError, LimitReachedError):  # start_task will say it
                    early = channel.post("tasks.start", {"id": prestart[0], "args": dict(prestart[1])})
                    early.add_done_callback(_seen)
            channel.uncork()
            manifest = Manifest.from_reply(await reply)
            self._check_peer(manifest)
        except BaseException:
            channel.close()
            raise
        self._channel = channel
        self._manifest = manifest
        if prestart is not None and early is not None:
            self._early = (prestart[0], prestart[1], early)
            self._has_task = True
        self._schedule_beat()

    def _greeting(self, session_id: str | None, asking: Mapping[str, Any] | None = None) -> dict[str, Any]:
        params: dict[str, Any] = {"client": _SELF if self._host_model is None else _SELF_WITH_HOST}
        if session_id is not None:
            params["session_id"] = session_id
        if self._params.get("token"):
            params["token"] = self._params["token"]
        if asking:
            params |= {name: value for name, value in asking.items() if value}
        return params

    def _check_peer(self, manifest: Manifest) -> None:
        """Refuse a server that checks no token where strangers could reach it."""
        if not self._params.get("token") or "token" in manifest.features:
            return
        scheme, _, rest = self.url.partition("://")
        if scheme == "unix" or rest.startswith(("127.", "localhost:", "[::1]")):
            return
        if not self._params.get("allow_unauthenticated"):
            raise ConfigError(
                f"{self.url} checks no token, and others may reach it: serve it with a token, or publish its port "
                f"on loopback"
            )

    # What a session is

    @property
    def manifest(self) -> Manifest:
        """What the environment is and offers, as of the last hello."""
        if self._manifest is None:
            raise ConnectionLostError("this client has not said hello yet")
        return self._manifest

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
        params = self._greeting(session_id or self.session_id, asking)
        reply = await self._call("hello", params, self._settings.request_s, "connect")
        self._manifest = Manifest.from_reply(reply)
        return self._manifest

    def _capabilities(self) -> Bindings:
        if self._bindings is None:
            self._bindings = Bindings(
                lambda: self.manifest.bindings,
                lambda capability: (
                    None
                    if is_public(capability.url)
                    else TunnelOpener(self.url, self._params, self._opener, capability.name)
                ),
                lambda capability: not is_public(capability.url),
                self._settings.open_attempts,
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

    # Tasks

    async def list_tasks(self) -> list[dict[str, Any]]:
        """Return `{id, description, args, input?, returns?}` of each template."""
        reply = await self._call("tasks.list", {}, self._settings.request_s, "request")
        tasks: list[dict[str, Any]] = reply["tasks"]
        return tasks

    async def start_task(self, task_id: str, args: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Run a template to its first yield and return `{prompt, ...}`; a task before it is cancelled.

        Raises:
            BadParamsError: no such task, or arguments that do not match its schema.
            AuthoringError, PromptError, TemplateRaisedError: the template failed.
            PhaseTimeoutError, ConnectionLostError, RuntimeDiedError: no reply came.
        """
        args = args or {}
        early, self._early = self._early, None
        if early is not None and early[0] == task_id and early[1] == args:
            waiting: asyncio.Future[Any] | None = early[2]
        else:
            waiting = None
            if early is not None:
                early[2].cancel()
            await self._connected()
        self._has_task = True
        params = {"id": task_id, "args": {} if waiting is not None else _jsonable("args", dict(args))}
        try:
            reply = await self._call("tasks.start", params, self._settings.start_s, "start", waiting)
        except HudProtocolError:
            self._has_task = False
            raise
        return _object(reply, "tasks.start")

    async def grade(self, answer: Any, key: str | None = None) -> dict[str, Any]:
        """Send the answer in and return `{score, done, ...}`.

        With a `key` a lost reply costs nothing: the client comes back and asks again, and the environment answers
        what it has already decided.

        Raises:
            WrongStateError: no task is started, or it was graded under another key.
            GraderError, RewardError, AuthoringError, TemplateRaisedError: grading failed.
            PhaseTimeoutError, ConnectionLostError, RuntimeDiedError: no reply came.
        """
        params: dict[str, Any] = {
            "answer": answer if type(answer) is str else _jsonable("answer", plain(answer))
        }
        if key is not None:
            params["key"] = key
        idempotent = key is not None and "keyed_grade" in self.manifest.features
        work = self._graded(params, idempotent=idempotent)
        try:
            reply = await _within(work, "tasks.grade", "grade", self._settings.grade_s)
        except WrongStateError:
            raise
        except HudProtocolError:
            self._has_task = False
            raise
        self._has_task = False
        return _object(reply, "tasks.grade")

    async def _graded(self, params: Mapping[str, Any], *, idempotent: bool) -> Any:
        while True:
            await self._connected()
            try:
                return await self._ask("tasks.grade", params)
            except ConnectionLostError:
                if not idempotent or self._closed:
                    raise

    async def cancel(self) -> None:
        """Interrupt a start or grade that runs and close the task."""
        await self._call("tasks.cancel", {}, self._settings.cancel_s, "release")
        self._has_task = False

    async def bye(self) -> None:
        """End the session on the server, and this client."""
        if self._closed:
            return
        try:
            if self._channel is not None and self._channel.alive:
                await self._call("bye", {}, self._settings.bye_s, "release")
                self._channel.close()
        finally:
            self._has_task = False
            await self.close()

    async def close(self) -> None:
        """Close the connection and everything opened; a task that is still suspended stays parked."""
        if self._closed:
            return
        self._closed = True
        if self._beat is not None:
            self._beat.cancel()
        for task in (self._beating, self._death):
            if task is not None and not task.done():
                task.cancel()
        if self._early is not None:
            self._early[2].cancel()
        try:
            if self._bindings is not None:
                await asyncio.shield(self._bindings.close())
        finally:
            channel = self._channel
            if channel is not None:
                if channel.alive and not self._has_task:
                    channel.notify("bye")
                channel.close()

    def abort(self) -> None:
        """Drop the connection at once, as a crash would."""
        if self._channel is not None:
            self._channel.abort("this client dropped its connection")

    # The connection beneath

    async def _call(
        self,
        method: str,
        params: Mapping[str, Any],
        deadline_s: float,
        phase: str,
        waiting: asyncio.Future[Any] | None = None,
    ) -> Any:
        return await _within(self._ask(method, params, waiting), method, phase, deadline_s)

    async def _ask(
        self, method: str, params: Mapping[str, Any], waiting: asyncio.Future[Any] | None = None
    ) -> Any:
        channel = self._channel
        if channel is None:
            raise ConnectionLostError("this client is not connected")
        try:
            return await (channel.post(method, params) if waiting is None else waiting)
        except ConnectionLostError as exc:
            raise await self._why(exc) from exc

    async def _why(self, lost: ConnectionLostError) -> HudError:
        """Return the better explanation of a lost connection: the placement's process has died."""
        death = self._death
        if death is None or self._closed:
            return lost
        if not death.done():
            await asyncio.wait({death}, timeout=_DEATH_GRACE_S)
        if death.done() and not death.cancelled():
            return RuntimeDiedError(f"the environment ended: {death.exception() or death.result()}")
        return lost

    def _died(self, death: asyncio.Task[str]) -> None:
        if death.cancelled() or self._closed:
            return
        how = death.exception() or death.result()
        self._say_gone(RuntimeDiedError(f"the environment ended: {how}"))
        if self._channel is not None:
            self._channel.abort("the environment ended")

    def _lost(self, lost: ConnectionLostError) -> None:
        """Come back at once where something is at stake; otherwise the next call does."""
        if self._closed or self._manifest is None or self._beating is not None:
            return
        if self._has_task and self._death is None:
            self._beating = self._loop.create_task(self._come_back(lost))
            self._beating.add_done_callback(self._beaten)

    async def _come_back(self, lost: ConnectionLostError) -> None:
        try:
            await self._connected()
        except (HudError, OSError) as exc:
            log.debug("the session could not be resumed: %s", exc)
            self._say_gone(exc if isinstance(exc, HudError) else lost)

    def _beaten(self, task: asyncio.Task[None]) -> None:
        self._beating = None
        if not task.cancelled():
            task.exception()

    async def gone(self) -> Exception:
        """Return, once the placement is lost for good, why; for waiting beside an agent that makes no call."""
        if self._gone is None:
            self._gone = self._loop.create_future()
        return await asyncio.shield(self._gone)

    def _say_gone(self, why: Exception) -> None:
        if self._gone is None:
            self._gone = self._loop.create_future()
        if not self._gone.done():
            self._gone.set_result(why)

    async def _connected(self) -> None:
        """Make sure there is a connection: come back to the session where a task is suspended, else to a new one."""
        if self._channel is not None and self._channel.alive:
            return
        if self._closed:
            raise ConnectionLostError("this client was closed")
        if self._coming_back is None:
            self._coming_back = asyncio.Lock()
        async with self._coming_back:
            if self._channel is not None and self._channel.alive:
                return
            if self._death is not None and self._death.done():
                raise await self._why(ConnectionLostError("the connection broke"))
            deadline = self._loop.time() + self._settings.resume_s
            session_id = self.session_id if self._has_task else None
            while True:
                try:
                    await self.become_ready(max(0.1, deadline - self._loop.time()), session_id=session_id)
                    return
                except WrongStateError as exc:
                    if "live connection" in exc.message and self._loop.time() < deadline:
                        await asyncio.sleep(_LONGEST_RETRY_S)
                        continue
                    raise ConnectionLostError(f"the session could not be resumed: {exc.message}") from exc
                except ReadyTimeoutError as exc:
                    raise await self._why(ConnectionLostError(str(exc))) from exc

    # Heartbeat

    def _schedule_beat(self) -> None:
        if self._beat is not None:
            self._beat.cancel()
        self._beat = self._loop.call_later(self._settings.ping_every_s, self._beat_now)

    def _beat_now(self) -> None:
        if self._closed:
            return
        if self._beating is None:
            self._beating = self._loop.create_task(self._ping())
            self._beating.add_done_callback(self._beaten)
        self._schedule_beat()

    async def _ping(self) -> None:
        channel = self._channel
        if channel is None or not channel.alive:
            return
        try:
            async with asyncio.timeout(self._settings.ping_s):
                if self._knows_ping:
                    try:
                        await channel.post("ping", {})
                        return
                    except HudProtocolError as exc:
                        if exc.code != frames.UNKNOWN_METHOD:
                            raise
                        self._knows_ping = False
                await channel.post("hello", self._greeting(self.session_id))
        except TimeoutError:
            channel.abort(f"the environment did not answer a heartbeat within {self._settings.ping_s:g} s")
            if self._has_task:
                await self._come_back(ConnectionLostError("the heartbeat failed"))
        except HudError as exc:
            log.warning("a heartbeat was refused: %s", exc)


_SELF = {"name": "hud-core", "protocol": PROTOCOL, "features": ["ping"]}
_SELF_WITH_HOST = {**_SELF, "features": ["ping", HOST_CALLS]}


def _seen(future: asyncio.Future[Any]) -> None:
    """Take note of an exception, so that a request nobody came to ask about fails in silence."""
    if not future.cancelled():
        future.exception()


async def _within(work: Coroutine[Any, Any, T], method: str, phase: str, deadline_s: float) -> T:
    """Await `work` under a deadline that names its phase; an infinite one is the caller's own affair, and free."""
    if deadline_s == math.inf:
        return await work
    try:
        async with asyncio.timeout(deadline_s) as limit:
            return await work
    except TimeoutError as exc:
        if limit.expired():
            what = f"{phase}: {method} was not answered within {deadline_s:g} s"
            raise PhaseTimeoutError(phase, deadline_s, what) from exc
        raise


def _without_token(url: str, params: dict[str, Any]) -> str:
    """Move the token of a url as `hud serve` prints it, `tcp://host:port?token=...`, into the params."""
    base, mark, query = url.partition("?")
    if not mark or not query.startswith("token="):
        return url
    params.setdefault("token", query.removeprefix("token="))
    return base


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
            wait_s = params.get("ready_timeout") or ready_timeout or client._settings.ready_s
            asking = {"workspace_routes": list(workspace_routes), "connections": list(connections)}
            await client.become_ready(float(wait_s), prestart=prestart, asking=asking)
        yield client
    finally:
        await client.close()
