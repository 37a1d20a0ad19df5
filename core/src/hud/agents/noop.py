"""The agent that does nothing, and should score nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from hud.agents.base import PlainAgent

if TYPE_CHECKING:
    from hud.eval.run import Run


class NoopAgent(PlainAgent):
    """Answer nothing. A task that rewards it has a grader that looks the wrong way."""

    name: ClassVar[str] = "noop"

    async def __call__(self, run: Run) -> None:
        """Do nothing."""
