"""What both agents of this distribution share: the SDK's client and its errors."""

from __future__ import annotations

from typing import Any, ClassVar, Generic

from hud.agents.loop import ConfigT
from hud.agents.provider import ProviderAgent
from hud.errors import ProviderError

_STATUS_OF = {"rate_limit_exceeded": 429, "server_error": 500, "server_is_overloaded": 503}


class OpenAIBase(ProviderAgent[ConfigT], Generic[ConfigT]):
    """Base of agents on the `openai` SDK."""

    sdk: ClassVar[str] = "openai"

    def make_client(self) -> Any:
        """Return the SDK's client."""
        import openai

        assert self.route is not None
        return openai.AsyncOpenAI(base_url=self.route.base_url, api_key=self.route.api_key, max_retries=0)

    def as_provider_error(self, error: Exception) -> ProviderError | None:
        """Return the typed form of what the SDK or its transport raised."""
        import httpx2
        import openai

        if isinstance(error, openai.APIStatusError):
            return self.failed(
                f"HTTP {error.status_code}: {error.message}",
                status=error.status_code,
                headers=error.response.headers,
                retryable=False if error.code == "insufficient_quota" else None,
            )
        if isinstance(error, openai.APIError):
            status = _STATUS_OF.get(str(error.code))
            return self.failed(f"{type(error).__name__}: {error.message}", status=status)
        if isinstance(error, httpx2.HTTPError):
            return self.failed(f"the connection broke: {error}", status=None)
        if isinstance(error, ValueError):  # an answer that is no JSON
            return self.failed(f"an answer that cannot be read: {error}", status=None)
        return None

    def observe(self, headers: Any) -> None:
        """Tell the limiter what a reply's headers say."""
        self.limiter.observe({name.lower(): value for name, value in headers.items()})
