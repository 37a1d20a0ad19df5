"""Declaring a capability is pure data: defaults filled in, secrets kept out of sight."""

from __future__ import annotations

import pytest

from hud.types import Capability


def test_urls_get_their_family_s_scheme_and_port() -> None:
    assert Capability.ssh(url="box", host_pubkey="k").url == "ssh://box:22"
    assert Capability.ssh(url="ssh://box:2200", host_pubkey="k").url == "ssh://box:2200"
    assert Capability.cdp(url="ws://b").url == "ws://b:9222"
    assert Capability.rfb(url="rfb://s", display=3).url == "rfb://s:5903"
    assert Capability.mcp(url="https://m/path").url == "https://m:443/path"
    assert Capability.robot(url="r", contract={}).url == "ws://r:9091"


def test_a_url_that_cannot_be_parsed_is_kept() -> None:
    assert Capability.ssh(url="<url>", host_pubkey="<key>").url == "<url>"
    assert Capability.ssh(url="ssh://[::1", host_pubkey="k").url == "ssh://[::1"


def test_mcp_infers_its_transport_and_refuses_stdio() -> None:
    assert Capability.mcp(url="ws://m").params["transport"] == "websocket"
    assert Capability.mcp(url="http://m").params["transport"] == "streamable-http"
    with pytest.raises(ValueError, match="stdio"):
        Capability.mcp(url="stdio://server")
    with pytest.raises(ValueError, match="carrier-pigeon"):
        Capability.mcp(url="http://m", transport="carrier-pigeon")


def test_secrets_stay_out_of_repr() -> None:
    shown = repr(Capability.ssh(url="box", host_pubkey="public", client_key="PRIVATE KEY"))
    assert "PRIVATE KEY" not in shown
    assert "public" in shown


def test_a_manifest_entry_travels_whole() -> None:
    capability = Capability.ssh(url="box", host_pubkey="k", cwd="/workspace")
    assert Capability.from_manifest(capability.to_manifest()) == capability
    assert capability.family == "ssh"


@pytest.mark.parametrize("entry", [{}, {"name": "a"}, {"name": "a", "protocol": 1, "url": "u"}])
def test_a_broken_manifest_entry_names_the_field(entry: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="has no text field"):
        Capability.from_manifest(entry)
