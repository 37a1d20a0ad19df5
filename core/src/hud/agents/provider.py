"""What agents on a provider's SDK share: the route, one client per loop, limited and retried calls."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from hud.agents.limiter import Limiter, limiter_for
from hud.agents.loop import ConfigT, ToolAgent
from hud.agents.modelcall import CLOSE_S, RETRYABLE
from hud.agents.routing import Route, resolve
from hud.cleanup import shielded
from hud.errors import ContextOverflowError, ProviderError

if TYPE_CHECKING:
    from hud.eval.run import Run

T = TypeVar("T")

_OVERFLOWS = (
    "prompt is too long",
    "context window",
    "context length",
    "context size",
    "context_length_exceeded",
    "maximum number of tokens allowed",
    "input is too long",
    "request_too_large",
)


_imported = {""}
"""SDKs whose import has ended; `sys.modules` has them from its beginning."""


@dataclass(slots=True)
class _Lease:
    client: Any
    users: int = 0


class ProviderAgent(ToolAgent[ConfigT], Generic[ConfigT]):
    """Base of agents on a provider's own SDK. A plugin names its dialect, makes the client and reads its errors.

    Clients are made with their own retries off: the limiter, which all rollouts of the process share, decides.
    """

    dialect: ClassVar[str] = ""
    credentials: ClassVar[tuple[str, ...]] = ()
    sdk: ClassVar[str] = ""
    """The SDK's package. It is imported in a thread, since that takes seconds."""

    def prepare(self) -> None:
        """Check the configuration and find where the model is served; `model_client` needs no route.

        Raises:
            ConfigError: nothing can serve it; says what to set.
        """
        super().prepare()
        self._leases: dict[asyncio.AbstractEventLoop, _Lease] = {}
        self.route: Route | None = None if self.config.model_client is not None else self.find_route()

    def find_route(self) -> Route | None:
        """Return where the model is served; None where the SDK finds it by itself."""
        config = self.config
        return resolve(
            config.model,
            self.dialect,
            base_url=config.base_url,
            api_key=config.api_key,
            gateway=config.gateway,
            credentials=self.credentials,
        )

    @abstractmethod
    def make_client(self) -> Any:
        """Return a client of the SDK, its own retries off."""

    async def close_client(self, client: Any) -> None:
        """End a client that `make_client` made."""
        await client.close()

    @abstractmethod
    def as_provider_error(self, error: Exception) -> ProviderError | None:
        """Return the typed form of an SDK's error; None for one that is none of the provider's."""

    async def __call__(self, run: Run) -> Any:
        """Do the task of `run`, with a client that lives as long as any rollout needs it."""
        async with self.client():
            return await super().__call__(run)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Any]:
        """Lease the running loop's client; the last one to leave closes it."""
        given = self.config.model_client
        if given is not None:
            yield given
            return
        if self.sdk not in _imported:
            await asyncio.to_thread(import_module, self.sdk)
            _imported.add(self.sdk)
        loop = asyncio.get_running_loop()
        lease = self._leases.get(loop)
        if lease is None:
            lease = self._leases[loop] = _Lease(self.make_client())
        lease.users += 1
        try:
            yield lease.client
        finally:
            lease.users -= 1
            if lease.users == 0:
                del self._leases[loop]
                await shielded(self.close_client(lease.client), within_s=CLOSE_S)

    @property
    def limiter(self) -> Limiter:
        """The limiter of this model's address, shared by the process."""
        route = self.route
        if route is None:
            return limiter_for(self.dialect, self.config.model)
        return limiter_for(route.base_url, route.model, route.api_key)

    async def limited(self, attempt: Callable[[], Awaitable[T]], deadline: float | None) -> T:
        """Await `attempt()` when the limiter says, with its errors typed, again while that can help."""

        async def typed() -> T:
            try:
                return await attempt()
            except ProviderError:
                raise
            except Exception as error:
                found = self.as_provider_error(error)
                if found is None:
                    raise
                raise found from error

        return await self.limiter.call(typed, deadline=deadline)

    def failed(
        self,
        message: str,
        *,
        status: int | None,
        headers: Mapping[str, str] | None = None,
        retryable: bool | None = None,
    ) -> ProviderError:
        """Return the error for what a provider answered, told apart by status and text."""
        from hud.agents.allowance import read_retry_after

        text = f"{self.config.model}: {message}"
        if status in (400, 413, 422) and any(part in message.lower() for part in _OVERFLOWS):
            return ContextOverflowError(text, status=status)
        if status in (401, 403) and self.route is not None and self.route.credential:
            text += f" (the key is that of {self.route.credential})"
        wait = read_retry_after({k.lower(): v for k, v in headers.items()}) if headers else None
        again = status is None or status in RETRYABLE if retryable is None else retryable
        return ProviderError(text, status=status, retry_after_s=wait, retryable=again)
