"""One template driven by hand, without a server: `TaskRunner`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hud.environment.author import AuthorLoop
from hud.environment.service import EnvironmentService

if TYPE_CHECKING:
    from hud.environment.session import EnvironmentSession
    from hud.environment.template import Template


class TaskRunner:
    """Drives `task` with `args`: `start`, then `grade` or `cancel`, on the running loop.

    The environment's hooks and backings are not started; that is `serving`'s part.
    """

    def __init__(self, task: Template, args: Mapping[str, Any] | None = None) -> None:
        self._template = task
        self._args = dict(args or {})
        self._service: EnvironmentService | None = None
        self._session: EnvironmentSession | None = None

    async def start(self) -> dict[str, Any]:
        """Run to the first yield and return the prompt's reply."""
        author = AuthorLoop.in_thread()
        self._service = EnvironmentService(self._template.env, author)
        self._service.owns_author = True
        self._session = self._service.open_session("runner")
        try:
            return await self._session.start(self._template.id, self._args)
        except BaseException:
            await self._end()
            raise

    async def grade(self, payload: Mapping[str, Any] | Any) -> dict[str, Any]:
        """Send the answer (`{"answer": ...}`, or the answer itself) and return the score's reply."""
        from hud.errors import WrongStateError

        if self._session is None:
            raise WrongStateError(-32600, "no task in progress: call start() first")
        wrapped = isinstance(payload, Mapping) and "answer" in payload
        try:
            return await self._session.grade(payload["answer"] if wrapped else payload)
        finally:
            await self._end()

    async def cancel(self) -> None:
        """Close the generator; does nothing where it has ended."""
        await self._end()

    async def _end(self) -> None:
        session, service = self._session, self._service
        self._session = self._service = None
        if session is not None and service is not None:
            await session.close()
            await service.end_author()
