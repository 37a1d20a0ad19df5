"""A client's link to its environment: dialled, greeted, watched, and come back to when it breaks."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import ssl
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

from hud.errors import (
    ConfigError,
    ConnectionLostError,
    HudError,
    HudProtocolError,
    LimitReachedError,
    NotAuthorizedError,
    PhaseTimeoutError,
    ReadyTimeoutError,
    RuntimeDiedError,
    RuntimeStartError,
    WireError,
    WrongStateError,
)
from hud.wire import frames
from hud.wire.channel import ClientChannel
from hud.wire.hostcalls import FEATURE as HOST_CALLS
from hud.wire.hostcalls import HostModel
from hud.wire.manifest import Manifest
from hud.wire.settings import PROTOCOL, ClientSettings
from hud.wire.tls import CertificatePinError
from hud.wire.transports import Opener, opener_for

log = logging.getLogger("hud.wire")
T = TypeVar("T")

_FIRST_RETRY_S = 0.005
_LONGEST_RETRY_S = 0.25
_DEATH_GRACE_S = 1.0
_SAY_AFTER_S = 3.0
"""How long an address may be silent before that is worth a word."""
_MOST_TOLD = 20
_told_waiting: set[str] = set()
_SELF = {"name": "hud-core", "protocol": PROTOCOL, "features": ["ping"]}
_SELF_WITH_HOST = {**_SELF, "features": ["ping", HOST_CALLS]}


class Link:
    """One session's connection, and the next one when it drops.

    It comes back by itself while a task is suspended (`has_task`), else when the next request is made. Where the
    placement's process can be watched (`params["process"]`), its death ends what waits, with its last words.
    """

    def __init__(
        self, url: str, params: Mapping[str, Any], settings: ClientSettings, host_model: HostModel | None
    ) -> None:
        self.params = dict(params)
        url = _without_token(url, self.params)
        self.url: str = url
        self.settings = settings
        self.opener: Opener = opener_for(url, self.params)
        self.channel: ClientChannel | None = None
        self.has_task: bool = False
        self.closed: bool = False
        self._host_model = host_model
        self._loop = asyncio.get_running_loop()
        self._manifest: Manifest | None = None
        self._early: tuple[str, Mapping[str, Any], asyncio.Future[Any]] | None = None
        self._coming_back: asyncio.Lock | None = None  # one connection per session
        self._beat: asyncio.TimerHandle | None = None
        self._beating: asyncio.Task[None] | None = None
        self._knows_ping = True
        self._death: asyncio.Task[str] | None = None
        self._gone: asyncio.Future[Exception] | None = None

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
            NotAuthorizedError: the token is wrong; not tried again. Where it was made for this placement, whose
                process can be watched, another server answers at its address: a RuntimeStartError says so.
        """
        process = self.params.get("process")
        if process is not None and self._death is None:
            self._death = self._loop.create_task(process.died())
            self._death.add_done_callback(self._died)
        deadline = self._loop.time() + ready_timeout
        patience = self._loop.time() + _SAY_AFTER_S
        pause = _FIRST_RETRY_S
        refusal: Exception | None = None
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
                refusal = exc
            except (OSError, ConnectionLostError) as exc:
                if isinstance(exc, NotAuthorizedError) and process is not None:
                    raise RuntimeStartError(
                        f"connect: {self.url} refuses the token that was made for this placement: another server "
                        f"answers at its address"
                    ) from exc
                if isinstance(exc, HudProtocolError):
                    raise
                if refusal is None or not isinstance(exc, TimeoutError):
                    refusal = exc  # an answer says more than the silence after it
            if self._loop.time() + pause >= deadline:
                why = str(refusal) or type(refusal).__name__
                raise ReadyTimeoutError(
                    f"connect: {self.url} was not ready within {ready_timeout:g} s (last: {why}); "
                    f"a slow environment needs a longer ready_timeout"
                ) from refusal
            if self._loop.time() >= patience:
                patience = math.inf
                self._say_waiting(deadline, refusal)
            await self._unless_dead(asyncio.sleep(pause))
            pause = min(pause * 1.6, _LONGEST_RETRY_S)

    def _say_waiting(self, deadline: float, refusal: Exception | None) -> None:
        """Tell, once an address, that nothing answers yet; a placement with a process of ours is watched otherwise."""
        if self.params.get("process") is not None or self.url in _told_waiting:
            return
        if len(_told_waiting) < _MOST_TOLD:
            _told_waiting.add(self.url)
            left = deadline - self._loop.time()
            log.warning(
                "%s does not answer (%s); trying for %.0f s more", self.url, refusal or "silence", left
            )

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
        channel = ClientChannel(self.settings, self._host_model, self._lost)
        await self.opener(lambda: channel)
        try:
            channel.cork()
            reply = channel.post("hello", self.greeting(session_id, asking))
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
        self.channel = channel
        self._manifest = manifest
        if prestart is not None and early is not None:
            self._early = (prestart[0], prestart[1], early)
            self.has_task = True
        self._schedule_beat()

    def greeting(self, session_id: str | None, asking: Mapping[str, Any] | None = None) -> dict[str, Any]:
        params: dict[str, Any] = {"client": _SELF if self._host_model is None else _SELF_WITH_HOST}
        if session_id is not None:
            params["session_id"] = session_id
        if self.params.get("token"):
            params["token"] = self.params["token"]
        if asking:
            params |= {name: value for name, value in asking.items() if value}
        return params

    def _check_peer(self, manifest: Manifest) -> None:
        """Refuse a server that checks no token where strangers could reach it."""
        if not self.params.get("token") or "token" in manifest.features:
            return
        scheme, _, rest = self.url.partition("://")
        if scheme == "unix" or rest.startswith(("127.", "localhost:", "[::1]")):
            return
        if not self.params.get("allow_unauthenticated"):
            raise ConfigError(
                f"{self.url} checks no token, and others may reach it: serve it with a token, or publish its port "
                f"on loopback"
            )

    @property
    def manifest(self) -> Manifest:
        """What the environment is and offers, as of the last hello."""
        if self._manifest is None:
            raise ConnectionLostError("this client has not said hello yet")
        return self._manifest

    async def call(
        self,
        method: str,
        params: Mapping[str, Any],
        deadline_s: float,
        phase: str,
        waiting: asyncio.Future[Any] | None = None,
    ) -> Any:
        return await within(self.ask(method, params, waiting), method, phase, deadline_s)

    async def ask(
        self, method: str, params: Mapping[str, Any], waiting: asyncio.Future[Any] | None = None
    ) -> Any:
        channel = self.channel
        if channel is None:
            raise ConnectionLostError("this client is not connected")
        try:
            return await (channel.post(method, params) if waiting is None else waiting)
        except ConnectionLostError as exc:
            raise await self._why(exc) from exc

    async def _why(self, lost: ConnectionLostError) -> HudError:
        """Return the better explanation of a lost connection: the placement's process has died."""
        death = self._death
        if death is None or self.closed:
            return lost
        if not death.done():
            await asyncio.wait({death}, timeout=_DEATH_GRACE_S)
        if death.done() and not death.cancelled():
            return RuntimeDiedError(f"the environment ended: {death.exception() or death.result()}")
        return lost

    def _died(self, death: asyncio.Task[str]) -> None:
        if death.cancelled() or self.closed:
            return
        how = death.exception() or death.result()
        self._say_gone(RuntimeDiedError(f"the environment ended: {how}"))
        if self.channel is not None:
            self.channel.abort("the environment ended")

    def _lost(self, lost: ConnectionLostError) -> None:
        """Come back at once where something is at stake; otherwise the next call does."""
        if self.closed or self._manifest is None or self._beating is not None:
            return
        if self.has_task and self._death is None:
            self._beating = self._loop.create_task(self._come_back(lost))
            self._beating.add_done_callback(self._beaten)

    async def _come_back(self, lost: ConnectionLostError) -> None:
        try:
            await self.connected()
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

    async def connected(self) -> None:
        """Make sure there is a connection: come back to the session where a task is suspended, else to a new one."""
        if self.channel is not None and self.channel.alive:
            return
        if self.closed:
            raise ConnectionLostError("this client was closed")
        if self._coming_back is None:
            self._coming_back = asyncio.Lock()
        async with self._coming_back:
            if self.channel is not None and self.channel.alive:
                return
            if self._death is not None and self._death.done():
                raise await self._why(ConnectionLostError("the connection broke"))
            deadline = self._loop.time() + self.settings.resume_s
            session_id = self.manifest.session_id if self.has_task else None
            while True:
                try:
                    await self.become_ready(max(0.1, deadline - self._loop.time()), session_id=session_id)
                    return
                except WrongStateError as exc:
                    if "live connection" in exc.message and self._loop.time() < deadline:
                        await asyncio.sleep(_LONGEST_RETRY_S)
                        continue
                    raise ConnectionLostError(f"the session could not be resumed: {exc.message}") from exc
                except (ReadyTimeoutError, RuntimeStartError) as exc:  # it was ready before
                    raise await self._why(ConnectionLostError(str(exc))) from exc

    def _schedule_beat(self) -> None:
        if self._beat is not None:
            self._beat.cancel()
        self._beat = self._loop.call_later(self.settings.ping_every_s, self._beat_now)

    def _beat_now(self) -> None:
        if self.closed:
            return
        if self._beating is None:
            self._beating = self._loop.create_task(self._ping())
            self._beating.add_done_callback(self._beaten)
        self._schedule_beat()

    async def _ping(self) -> None:
        channel = self.channel
        if channel is None or not channel.alive:
            return
        try:
            async with asyncio.timeout(self.settings.ping_s):
                if self._knows_ping:
                    try:
                        await channel.post("ping", {})
                        return
                    except HudProtocolError as exc:
                        if exc.code != frames.UNKNOWN_METHOD:
                            raise
                        self._knows_ping = False
                await channel.post("hello", self.greeting(self.manifest.session_id))
        except TimeoutError:
            channel.abort(f"the environment did not answer a heartbeat within {self.settings.ping_s:g} s")
            if self.has_task:
                await self._come_back(ConnectionLostError("the heartbeat failed"))
        except HudError as exc:
            log.warning("a heartbeat was refused: %s", exc)

    async def take_early(self, task_id: str, args: Mapping[str, Any]) -> asyncio.Future[Any] | None:
        """Return the reply of the start that left with hello, where it is this one; another is cancelled."""
        early, self._early = self._early, None
        if early is None:
            await self.connected()
            return None
        if early[0] == task_id and early[1] == args:
            return early[2]
        if not early[2].done():
            early[2].cancel()
            await self.call("tasks.cancel", {}, self.settings.cancel_s, "start")
        return None

    def renew(self, manifest: Manifest) -> None:
        """Take note of a later hello's reply."""
        self._manifest = manifest

    def stop(self) -> None:
        """End the heartbeat and what waits in the background; the connection stays for a last word."""
        self.closed = True
        if self._beat is not None:
            self._beat.cancel()
        for task in (self._beating, self._death):
            if task is not None and not task.done():
                task.cancel()
        if self._early is not None:
            self._early[2].cancel()

    def hang_up(self) -> None:
        """Close the connection; a session without a task ends with it, one with a task is parked."""
        channel = self.channel
        if channel is not None:
            if channel.alive and not self.has_task:
                channel.notify("bye")
            channel.close()


def _seen(future: asyncio.Future[Any]) -> None:
    """Take note of an exception, so that a request nobody came to ask about fails in silence."""
    if not future.cancelled():
        future.exception()


async def within(work: Coroutine[Any, Any, T], method: str, phase: str, deadline_s: float) -> T:
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
