"""What a controller may ask for: checked when made, and the same after the wire."""

from __future__ import annotations

from typing import Any

import pytest

from hud import Connection
from hud.environment import WorkspaceRoute

GOOD: dict[str, Any] = {
    "name": "api",
    "capability": "shell",
    "url": "https://api.example.com/v1",
    "headers": {"Authorization": "Bearer s3cret"},
}


def test_a_connection_survives_the_wire_and_shows_no_secret() -> None:
    made = Connection(**GOOD)
    assert Connection.from_wire(made.to_wire()) == made
    assert "s3cret" not in repr(made)
    assert made.host.startswith("api-")
    assert made.host.endswith(".hud.invalid")
    assert made.client_url == f"http://{made.host}/v1"
    assert made.port == 80


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "Api"}, "name"),
        ({"name": "x" * 64}, "name"),
        ({"url": "ftp://example.com"}, "http or https"),
        ({"url": "https://user:pw@example.com"}, "credentials"),
        ({"url": "https://example.com?q=1"}, "query"),
        ({"headers": {}}, "needs headers"),
        ({"headers": {"X": "a\r\nY: b"}}, "line break"),
    ],
)
def test_a_wrong_connection_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Connection(**(GOOD | change))


def test_what_a_peer_sends_wrongly_is_named() -> None:
    with pytest.raises(ValueError, match="'url'"):
        Connection.from_wire({"name": "x", "capability": "y", "url": 5})
    with pytest.raises(ValueError, match="headers must be"):
        Connection.from_wire(GOOD | {"headers": ["x"]})
    with pytest.raises(ValueError, match="port must be"):
        WorkspaceRoute.from_wire({"capability": "shell", "host": "example.com", "port": "80"})


def test_a_route_names_a_host() -> None:
    route = WorkspaceRoute.from_url("shell", "https://db.example.com")
    assert (route.host, route.port) == ("db.example.com", 443)
    assert WorkspaceRoute.from_wire(route.to_wire()) == route
    assert WorkspaceRoute.from_url("shell", "http://db.example.com:8080").port == 8080


@pytest.mark.parametrize(
    ("host", "port"), [("10.0.0.1", 80), ("::1", 80), ("", 80), ("a b", 80), ("a", 0), ("a", 70000)]
)
def test_a_wrong_route_is_refused(host: str, port: int) -> None:
    with pytest.raises(ValueError, match="route to"):
        WorkspaceRoute("shell", host, port)
