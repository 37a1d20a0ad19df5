"""A client of an environment served in this process: the same methods, and no socket."""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hud.cleanup import shielded
from hud.errors import ConnectionLostError, PhaseTimeoutError
from hud.values import plain
from hud.wire.bindings import Bindings
from hud.wire.faults import wrong_state
from hud.wire.hostcalls import HostModel, LocalHost
from hud.wire.manifest import Manifest, ServerInfo
from hud.wire.settings import CLEANUP_REPLY_S, PROTOCOL, ClientSettings
from hud.wire.streams import DirectOpener
from hud.wire.tunnel import target_of

if TYPE_CHECKING:
    from hud.types import Capability
    from hud.wire.service import Service, ServiceSession


class LocalClient:
    """Drives one session of a `Service` directly. It has the methods of `HudClient`, and its promises."""

    def __init__(
        self,
        service: Service,
        *,
        host_model: HostModel | None = None,
        settings: ClientSettings | None = None,
    ) -> None:
        self._service = service
        self._settings = settings or ClientSettings()
        self._host_model = host_model
        self._side: ServiceSession | None = None
        self._outcomes: dict[str, asyncio.Future[dict[str, Any]]] | None = None
        self._busy = ""
        self._closed = False
        self._session_id = ""
        self._bindings: Bindings | None = None

    @property
    def session_id(self) -> str:
        """This client's session."""
        if not self._session_id:
            self._session_id = "sess-" + secrets.token_hex(16)
        return self._session_id

    @property
    def manifest(self) -> Manifest:
        """What the environment is and offers."""
        return Manifest(
            session_id=self.session_id,
            protocol_version=PROTOCOL,
            server_info=ServerInfo(self._service.name, self._service.version),
            bindings=self._service.bindings(),
            features=frozenset({"ping", "keyed_grade", "host_calls"}),
        )

    def _capabilities(self) -> Bindings:
        if self._bindings is None:
            self._bindings = Bindings(
                self._service.bindings,
                lambda capability: DirectOpener(target_of(self._service, capability.name)),
                self._is_behind_a_socket_file,
                self._settings.open_attempts,
            )
        return self._bindings

    def _is_behind_a_socket_file(self, capability: Capability) -> bool:
        given = getattr(self._service, "stream_address", None)
        return given is not None and isinstance(given(capability.name), str)

    def binding(self, ref: str) -> Capability:
        """Return a capability by name, protocol or family; see `HudClient.binding`."""
        return self._capabilities().binding(ref)

    async def open(self, ref: str) -> Any:
        """Return a connected client of a capability; see `HudClient.open`."""
        return await self._capabilities().open(ref)

    async def list_tasks(self) -> list[dict[str, Any]]:
        """Return `{id, description, args, input?, returns?}` of each template."""
        return list(self._service.task_entries())

    async def start_task(
        self,
        id: str,  # noqa: A002 - HUD's name
        args: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Run a template to its first yield and return `{prompt, ...}`; see `HudClient.start_task`."""
        self._enter("tasks.start")
        try:
            if self._side is None:
                host = LocalHost(self._host_model) if self._host_model is not None else None
                self._side = self._service.open_session(self.session_id, host)
            return await self._bounded(self._side.start(id, args or {}), "start", self._settings.start_s)
        finally:
            self._busy = ""

    async def grade(self, payload: Any, key: str | None = None) -> dict[str, Any]:
        """Send the answer in and return `{score, ...}`; see `HudClient.grade`."""
        if key is not None and self._outcomes is not None and key in self._outcomes:
            return await asyncio.shield(self._outcomes[key])
        self._enter("tasks.grade")
        outcome: asyncio.Future[dict[str, Any]] | None = None
        try:
            side = self._side
            if side is None or not side.has_task:
                raise wrong_state("no task in progress; call start_task first")
            if key is not None:
                outcome = asyncio.get_running_loop().create_future()
                if self._outcomes is None:
                    self._outcomes = {}
                self._outcomes[key] = outcome
            answer = plain(answer_in(payload))
            result = await self._bounded(side.grade(answer), "grade", self._settings.grade_s)
            if outcome is not None:
                outcome.set_result(result)
            return result
        except BaseException as exc:
            if outcome is not None:
                kept = exc if isinstance(exc, Exception) else wrong_state("tasks.grade was interrupted")
                outcome.set_exception(kept)
                outcome.exception()  # it is raised here; whoever asks with the same key sees it again
            raise
        finally:
            self._busy = ""

    async def cancel(self) -> None:
        """Interrupt a start or grade that runs and close the task; returns within 2 s or little more."""
        if self._side is not None:
            await self._ending(self._side.cancel())

    async def bye(self, *, cleanup_s: float = 0.0) -> list[str]:
        """End the session; see `HudClient.bye`."""
        failed: list[str] = []
        cleaned = getattr(self._side, "cleaned", None)
        if self._side is not None and cleaned is not None and cleanup_s > 0:
            if self._side.has_task:
                await self.cancel()
            failed = await cleaned(cleanup_s)
        await self.close()
        return failed

    async def close(self) -> None:
        """End the session and close what was opened; a task that is suspended ends with it."""
        if self._closed:
            return
        self._closed = True
        if self._bindings is not None:
            await shielded(self._bindings.close())
        if self._side is not None:
            await self._ending(self._side.close())

    async def gone(self) -> Exception:
        """Never return: an environment in this process cannot be lost."""
        never: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        return await never

    def _enter(self, what: str) -> None:
        if self._closed:
            raise ConnectionLostError("this client was closed")
        if self._busy:
            raise wrong_state(f"{self._busy} is still running here; call cancel first")
        self._busy = what

    async def _bounded(self, work: Any, phase: str, seconds: float) -> dict[str, Any]:
        result: dict[str, Any]
        if seconds == math.inf:
            result = await work
            return result
        try:
            async with asyncio.timeout(seconds) as limit:
                result = await work
                return result
        except TimeoutError as exc:
            if limit.expired():
                raise PhaseTimeoutError(phase, seconds) from exc
            raise

    async def _ending(self, work: Any) -> None:
        """Wait for an end that the service bounds to 2 s, and not much longer should it fail to."""
        try:
            async with asyncio.timeout(CLEANUP_REPLY_S + 1.0) as limit:
                await work
        except TimeoutError:
            if not limit.expired():
                raise


def answer_in(payload: Any) -> Any:
    """Return the answer of a payload: what is under its only key `answer`, else the payload itself."""
    return payload["answer"] if isinstance(payload, Mapping) and payload.keys() == {"answer"} else payload
