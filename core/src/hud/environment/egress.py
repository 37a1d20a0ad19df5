"""Egress that a controller asks for in `hello`: refused unless the environment attached a backing that allows it."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from hud.environment.arguments import BAD_PARAMS
from hud.errors import BadParamsError

if TYPE_CHECKING:
    from hud.environment.env import Environment


@runtime_checkable
class ControllerEgress(Protocol):
    """A backing that lets a controller open ways out of its sandbox. Attaching one is the author's consent."""

    def bind_connections(self, connections: Sequence[Any], *, session: str) -> None:
        """Give a session authenticated upstreams; `RuntimeError` when it holds conflicting ones."""
        ...

    def bind_workspace_routes(self, routes: Sequence[Any], *, session: str) -> None:
        """Give a session named routes; `RuntimeError` when it holds conflicting ones."""
        ...

    def release_session(self, session: str) -> None:
        """Take back what the session was given."""
        ...


def bind(env: Environment, field: str, wanted: Sequence[Any], session: str) -> None:
    """Hand `wanted` to the backing that allows it. An empty request is always granted.

    Raises:
        RuntimeError: the environment is not started.
        BadParamsError: nothing here allows it, or an address is loopback, link-local or private.
    """
    if not wanted:
        return
    if env.lease.service is None:
        raise RuntimeError(f"environment {env.name!r} is not started; {field} belong to a served environment")
    backing = next((b for b in env.backings if isinstance(b, ControllerEgress)), None)
    if backing is None:
        raise BadParamsError(
            BAD_PARAMS,
            f"{field}: environment {env.name!r} allows none",
            {"type": "BadParamsError", "field": field},
        )
    for item in wanted:
        _require_public(field, item)
    if field == "connections":
        backing.bind_connections(wanted, session=session)
    else:
        backing.bind_workspace_routes(wanted, session=session)


def release(env: Environment, session: str) -> None:
    """Take back what a session was given, from every backing."""
    for backing in env.backings:
        if isinstance(backing, ControllerEgress):
            backing.release_session(session)


def _require_public(field: str, item: Any) -> None:
    from urllib.parse import urlsplit

    from hud.types.messages import read

    host = read(item, "host") or urlsplit(str(read(item, "url") or "")).hostname or ""
    try:
        public = ipaddress.ip_address(host).is_global
    except ValueError:
        public = "." in host and not host.endswith((".local", ".internal", ".localhost"))
    if not public:
        raise BadParamsError(
            BAD_PARAMS,
            f"{field}: {host!r} is no public host; loopback, link-local and metadata addresses are never allowed",
            {"type": "BadParamsError", "field": field},
        )
