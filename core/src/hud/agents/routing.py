"""From a model's name to a place that serves it, offline: an address given, a provider's own key, a gateway."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from hud.agents.dialects import DIALECTS, Dialect
from hud.errors import ConfigError
from hud.settings.variables import Settings, variable

How = Literal["base_url", "own key", "gateway"]
NO_KEY = "none"
"""What is sent where a server of one's own asks for no key."""


@dataclass(frozen=True, slots=True)
class Route:
    """Where the calls of one model go. `credential` names the variable the key came from, empty if it was given."""

    model: str
    dialect: Dialect
    base_url: str
    api_key: str = field(repr=False)
    how: How
    credential: str = ""

    @property
    def url(self) -> str:
        """The address of a call that is not streamed."""
        return self.dialect.url(self.base_url, self.model)

    @property
    def headers(self) -> dict[str, str]:
        """The headers of a call."""
        return self.dialect.request_headers(self.api_key)


def resolve(
    model: str,
    dialect: str | Dialect,
    *,
    base_url: str | None = None,
    api_key: str | None = None,
    gateway: bool = False,
    credentials: Sequence[str] = (),
) -> Route:
    """Return the route of `model` in `dialect`.

    In order: `base_url` as given (or the dialect's variable), the provider's own key (given, or in one of
    `credentials`, by default the dialect's), the gateway (`HUD_GATEWAY_URL` with `HUD_API_KEY`). `gateway` insists on
    the last.

    Raises:
        ConfigError: nothing can serve it; says what was looked for.
    """
    spoken = DIALECTS[dialect] if isinstance(dialect, str) else dialect
    names = tuple(credentials) or spoken.credentials
    found = next((name for name in names if variable(name)), "")
    own = api_key or (variable(found) if found else None)
    elsewhere = base_url or next((value for name in spoken.variables if (value := variable(name))), None)
    if not gateway:
        if elsewhere is not None:
            credential = "" if api_key else found
            return Route(model, spoken, elsewhere, own or NO_KEY, "base_url", credential)
        if own:
            return Route(model, spoken, spoken.endpoint, own, "own key", "" if api_key else found)
    settings = Settings.read()
    if settings.api_key:
        return Route(model, spoken, settings.gateway_url, settings.api_key, "gateway", "HUD_API_KEY")
    raise ConfigError(_nothing(model, spoken, names, settings.gateway_url, gateway=gateway))


def _nothing(model: str, dialect: Dialect, names: Sequence[str], gateway_url: str, *, gateway: bool) -> str:
    if gateway:
        return f"no key for the gateway at {gateway_url}, which was asked for {model!r}: set HUD_API_KEY"
    return (
        f"nothing can serve {model!r}: looked for {' and '.join(names)} (the provider's own key), "
        f"HUD_API_KEY (the gateway at {gateway_url}), {' and '.join(dialect.variables)} or base_url= (a server of "
        f"your own); none is set. Set one, e.g. export {names[0]}=..."
    )


def dialect_for(model: str) -> str:
    """Return the dialect a plain model call is written in: the inventor's own, else Chat Completions."""
    bare = model.rpartition("/")[2]
    return "anthropic" if DIALECTS["anthropic"].serves(bare) else "openai-chat"


def resolve_plain(
    model: str, *, base_url: str | None = None, api_key: str | None = None, gateway: bool = False
) -> Route:
    """Return the route of a plain call (no agent, no tools), whose dialect follows from the model's name.

    A server of one's own (`base_url`) is spoken to in Chat Completions, unless the address is Anthropic's or the
    model is one of Claude's and the address is no `/v1`. Gemini is reached at its address for Chat Completions.
    """
    name = dialect_for(model)
    if (
        name == "openai-chat"
        and DIALECTS["gemini"].serves(model.rpartition("/")[2])
        and not (base_url or gateway)
    ):
        key = api_key or next((v for n in DIALECTS["gemini"].credentials if (v := variable(n))), None)
        if key:
            address = f"{DIALECTS['gemini'].endpoint}/v1beta/openai"
            found = next((n for n in DIALECTS["gemini"].credentials if variable(n)), "")
            return Route(model, DIALECTS["openai-chat"], address, key, "own key", "" if api_key else found)
    if base_url is not None and name == "anthropic" and base_url.rstrip("/").endswith("/v1"):
        name = "openai-chat"
    return resolve(model, name, base_url=base_url, api_key=api_key, gateway=gateway)
