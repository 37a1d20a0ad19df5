"""Agents of models that have forms of tools of their own, such as a shell or a computer."""

from __future__ import annotations

import re
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Generic

from hud.agents.loop import ConfigT
from hud.agents.provider import ProviderAgent
from hud.errors import ProviderError

if TYPE_CHECKING:
    from hud.agents.conversation import Reply, Request


class NativeAgent(ProviderAgent[ConfigT], Generic[ConfigT]):
    """Base of provider agents that offer tools in a model's native forms, and as functions where it refuses these."""

    refused_native: ClassVar[re.Pattern[str]]
    """What the provider's refusal (400) of a native form says."""

    def prepare(self) -> None:
        """Check the configuration and find where the model is served."""
        super().prepare()
        self._plain = False  # learned: the model refused a native form

    @abstractmethod
    def natives(self) -> frozenset[str]:
        """Return the native forms of the configured model."""

    @abstractmethod
    async def turn(self, client: Any, request: Request, natives: frozenset[str]) -> Reply:
        """Take one turn with the SDK's client, offering these native forms.

        Raises:
            ProviderError: the provider refused, or did not answer properly in time.
        """

    async def respond(self, request: Request) -> Reply:
        """Take one turn."""
        async with self.client() as client:
            natives = frozenset() if self._plain else self.natives()
            try:
                return await self.turn(client, request, natives)
            except ProviderError as error:
                if error.status != 400 or not natives or not self.refused_native.search(str(error)):
                    raise
                self._plain = True  # a model we know too little of: functions work with any
                return await self.turn(client, request, frozenset())
