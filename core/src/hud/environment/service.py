"""An environment being served: its hooks have run, its backings are up, sessions can be opened."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from hud.capability.backing import ContainsAgent, ListensElsewhere
from hud.cleanup import shielded
from hud.environment import artifacts
from hud.environment.arguments import BAD_PARAMS, close_names
from hud.environment.author import STOP_GRACE_S, AuthorLoop
from hud.environment.blocking import BlockWatch
from hud.environment.current import service_loop
from hud.environment.drive import Drive, Outcome
from hud.environment.mailbox import Mailbox
from hud.environment.payload import FRAME_BYTES
from hud.environment.release import Release
from hud.environment.session import EnvironmentSession
from hud.environment.startup import BLOCKED_S, Startup
from hud.errors import AuthoringError, BadParamsError, HudError, SandboxError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hud.capability.backing import Backing
    from hud.environment.current import TaskContext
    from hud.environment.env import Environment
    from hud.environment.template import Template
    from hud.types import Capability
    from hud.wire.service import HostCalls

log = logging.getLogger("hud.environment")

RELEASE_S = 60.0
"""How long a template's cleanup may take before it is cancelled."""

SEAL_S = 60.0
"""How long a workspace may take to close itself to the agent before grading, or to open again."""


class EnvironmentService:
    """Implements `hud.wire.service.Service`. Made by `serving`; belongs to the loop it was made on."""

    def __init__(
        self,
        env: Environment,
        author: AuthorLoop,
        *,
        frame_bytes: int = FRAME_BYTES,
        release_s: float = RELEASE_S,
    ) -> None:
        self.env = env
        self.name: str = env.name
        self.version: str = env.version
        self.author = author
        self.owns_author = False
        self.late_errors: list[HudError] = []
        """What failed in no session's name: hooks and backings at the end, drives abandoned."""
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.context: contextvars.Context = contextvars.copy_context()
        self.context.run(service_loop.set, self.loop)
        self.backings: Sequence[Backing] = ()
        self.contains_agent: bool = False
        self._frame_bytes = frame_bytes
        self._release_s = release_s
        self._outbox = Mailbox(self.loop)
        self._watch = BlockWatch(author, self.loop)
        self._sessions: set[EnvironmentSession] = set()
        self._releases: dict[asyncio.Future[None], Release] = {}
        self._startup = Startup(env, author, self.context, self._outbox, release_s)
        self._entries: tuple[int, list[dict[str, Any]]] | None = None
        self._keepers: list[ContainsAgent] = []
        self._sealed = 0
        self._closed_to_agents = False
        self._open_again: asyncio.Event | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._stopping = False

    # What the wire asks.

    def bindings(self) -> list[Capability]:
        """Return the manifest's capabilities."""
        return list(self.env.capabilities)

    def task_entries(self) -> list[dict[str, Any]]:
        """Return the manifest's templates; the same list until one is added."""
        count = len(self.env.tasks)
        if self._entries is None or self._entries[0] != count:
            self._entries = count, [_entry(template) for template in self.env.tasks.values()]
        return self._entries[1]

    def stream_address(self, name: str) -> tuple[str, int] | str | None:
        """Return where a capability really listens: (host, port), a unix socket's path, or None for its url."""
        for backing in self.backings:
            if isinstance(backing, ListensElsewhere):
                address = backing.stream_address(name)
                if address is not None:
                    return address
        return None

    def allow_egress(self, session_id: str, field: str, wanted: Sequence[Any]) -> None:
        """Give a session the ways out its controller asked for; `BadParamsError` where nothing here allows them."""
        from hud.environment.egress import bind

        try:
            bind(self.env, field, wanted, session_id)
        except RuntimeError as exc:
            raise BadParamsError(BAD_PARAMS, f"{field}: {exc}") from exc

    def release_egress(self, session_id: str) -> None:
        """Take back what a session was given."""
        from hud.environment.egress import release

        release(self.env, session_id)

    def open_session(self, session_id: str, host: HostCalls | None = None) -> EnvironmentSession:
        """Make the task side of a new session."""
        session = EnvironmentSession(self, session_id, host)
        self._sessions.add(session)
        return session

    @property
    def block_reports(self) -> list[str]:
        """The stacks of author code that blocked its loop, newest last."""
        return self._watch.reports

    # What sessions ask.

    def template(self, task_id: str) -> Template:
        """Return a template; `BadParamsError` names close ones."""
        template = self.env.tasks.get(task_id)
        if template is None and task_id == artifacts.TASK:
            return artifacts.fetching(self.env)
        if template is None:
            known = ", ".join(self.env.tasks) or "none"
            raise BadParamsError(
                BAD_PARAMS,
                f"environment {self.name!r} has no task {task_id!r}{close_names(str(task_id), self.env.tasks)}; "
                f"known: {known}",
                {"type": "BadParamsError", "phase": "start", "retryable": False, "field": "id"},
            )
        return template

    def new_drive(self, context: TaskContext, arguments: Mapping[str, Any]) -> Drive:
        """Make a drive on this service's author loop."""
        return Drive(
            context,
            arguments,
            self.author,
            self._outbox,
            frame_bytes=self._frame_bytes,
            teardown=() if context.template.id == artifacts.TASK else self.env.teardown_hooks,
        )

    async def watched(self, phase: Awaitable[Outcome]) -> Outcome:
        """Await a phase of a drive, watching meanwhile that author code does not block its loop."""
        self._watch.begin()
        try:
            return await phase
        finally:
            self._watch.end()

    def release_later(self, drive: Drive, session: EnvironmentSession, *, running: bool = False) -> None:
        """Follow a drive that was let go until it has ended or is abandoned."""
        if drive.ended.done() or drive.ended in self._releases:
            if drive.problems and drive.ended not in self._releases:
                session.late_errors.extend(drive.problems)
            return
        self._releases[drive.ended] = Release(
            drive, session.late_errors, cleanup_s=self._release_s, running=running
        )
        self._watch.begin()
        drive.ended.add_done_callback(self._released)

    def cleanups_of(self, session: EnvironmentSession) -> list[asyncio.Future[None]]:
        """Return the ends of the drives that `session` has let go and that still run."""
        return [
            ended for ended, release in self._releases.items() if release.late_errors is session.late_errors
        ]

    def _released(self, ended: asyncio.Future[None]) -> None:
        self._watch.end()
        self._releases.pop(ended, None)

    def forget(self, session: EnvironmentSession) -> None:
        """Drop a session that was closed."""
        self.late_errors.extend(session.late_errors)
        self._sessions.discard(session)

    @asynccontextmanager
    async def sealed(self, keep_agent_processes: bool) -> AsyncIterator[None]:
        """Keep agents out of every backing that contains them; they stay out until the next start."""
        self._sealed += 1
        self._closed_to_agents = True
        try:
            for keeper in self._keepers:
                await _bounded(keeper, keeper.seal(keep_agent_processes=keep_agent_processes), "seal")
            yield
        finally:
            self._unsealed()

    def end_agent_of(self, session: EnvironmentSession) -> None:
        """End what the agent of a task runs that is over, and keep it out until the next start.

        Not while another session has a task: its agent is in the same place. Returns at once; a start that follows
        waits until it is done.
        """
        others = any(other.has_task for other in self._sessions if other is not session)
        if self._keepers and not others and not self._stopping:
            self._sealed += 1
            self._closed_to_agents = True
            ending = self.loop.create_task(self._end_agents())
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)

    async def _end_agents(self) -> None:
        try:
            for keeper in self._keepers:
                await _bounded(keeper, keeper.seal(keep_agent_processes=False), "seal")
        except HudError as error:
            self.late_errors.append(error)
        finally:
            self._unsealed()

    def _unsealed(self) -> None:
        self._sealed -= 1
        if self._sealed == 0 and self._open_again is not None:
            self._open_again.set()

    async def unseal(self) -> None:
        """Let agents in again, once no grade runs any more."""
        while self._sealed:
            self._open_again = asyncio.Event()
            await self._open_again.wait()
        if self._closed_to_agents:
            self._closed_to_agents = False
            for keeper in self._keepers:
                await _bounded(keeper, keeper.unseal(), "unseal")

    # Its own life.

    async def start(self) -> None:
        """Start backings and run initialize hooks, in the order they were declared.

        Raises:
            TemplateRaisedError: a hook raised. What was already started is stopped.
        """
        self.backings = tuple(self.env.backings)
        self._watch.begin()
        try:
            await self._startup.up()
        except BaseException:
            await self.stop()
            raise
        finally:
            self._watch.end()
        self._keepers = [backing for backing in self.backings if isinstance(backing, ContainsAgent)]
        self.contains_agent = bool(self._keepers)

    async def stop(self) -> None:
        """Close every session, then run shutdown hooks and stop backings, reversed. Errors are reported."""
        self._stopping = True  # what agents run ends with the backings
        if self._ending:
            await asyncio.wait(self._ending)
        async with asyncio.TaskGroup() as closing:
            for session in list(self._sessions):
                closing.create_task(session.close())
        await self._cleanups_end()
        self.late_errors.extend(await self._startup.down())
        self._watch.close()

    async def _cleanups_end(self) -> None:
        """Wait for what was let go, as long as the author's loop turns: nothing on a blocked one can end."""
        latest = self.loop.time() + self._release_s + 5.0
        while self._releases and self.loop.time() < latest:
            await asyncio.wait(list(self._releases), timeout=BLOCKED_S)
            if self._releases and not await self._startup.author_answers():
                for release in list(self._releases.values()):
                    release.abandon("cannot end, since author code blocks its event loop,")

    async def end_author(self) -> None:
        """Stop the author's loop where it is ours; a thread that blocks is left behind, as a daemon may be."""
        if not self.owns_author:
            return
        self.author.stop()
        ended, _ = await asyncio.wait(
            [asyncio.wrap_future(self.author.ended)], timeout=2 * STOP_GRACE_S + 1.0
        )
        if not ended:
            log.error("author code blocks its thread, which is left behind:\n%s", self.author.stack())


@asynccontextmanager
async def serving(
    env: Environment,
    *,
    author: AuthorLoop | None = None,
    frame_bytes: int = FRAME_BYTES,
    release_s: float = RELEASE_S,
) -> AsyncIterator[EnvironmentService]:
    """Start `env` and yield its service; the end of the context shuts it down.

    Without `author`, author code gets a loop in a thread of its own. Entered again while it is being served (on the
    same loop), the same service is yielded, and the last one out shuts it down.

    Raises:
        UsageError: it is already served on another loop.
    """
    lease = env.lease
    loop = asyncio.get_running_loop()
    if lease.loop is not None and lease.loop.is_closed():
        lease.service, lease.users = None, 0  # its loop ended without leaving; nothing of it can run any more
    if lease.service is not None and lease.loop is not loop:
        raise UsageError(f"environment {env.name!r} is already served on another event loop")
    if lease.loop is not loop:
        lease.loop, lease.turn = loop, asyncio.Lock()
    assert lease.turn is not None
    async with lease.turn:  # holds: `service` is started exactly while `users` > 0
        if lease.service is None:
            lease.service = await _started(env, author, frame_bytes, release_s)
        lease.users += 1
        service = lease.service
    try:
        yield service
    finally:
        await shielded(_leave(env))


async def _started(
    env: Environment, author: AuthorLoop | None, frame_bytes: int, release_s: float
) -> EnvironmentService:
    made = author or AuthorLoop.in_thread()
    service = EnvironmentService(env, made, frame_bytes=frame_bytes, release_s=release_s)
    service.owns_author = author is None
    try:
        await service.start()
    except BaseException:
        await service.end_author()
        raise
    return service


async def _leave(env: Environment) -> None:
    lease = env.lease
    assert lease.turn is not None
    async with lease.turn:
        lease.users -= 1
        if lease.users == 0 and lease.service is not None:
            service, lease.service = lease.service, None
            try:
                await service.stop()
            finally:
                await service.end_author()


def _entry(template: Template) -> dict[str, Any]:
    """Return a template's manifest entry; one that cannot be made is logged here and raised when it is started."""
    try:
        return dict(template.entry)
    except AuthoringError as error:
        log.error("%s", error)  # noqa: TRY400 - the message says it all; the traceback is ours
        return {"id": template.id, "description": template.description, "args": {"type": "object"}}


async def _bounded(keeper: ContainsAgent, work: Awaitable[None], what: str) -> None:
    try:
        async with asyncio.timeout(SEAL_S):
            await work
    except TimeoutError as error:
        name = getattr(keeper, "name", type(keeper).__name__)
        raise SandboxError(f"{what} of workspace {name!r} is not done after {SEAL_S:g} s") from error
