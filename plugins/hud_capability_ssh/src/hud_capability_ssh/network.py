"""What an author says of the network."""

from __future__ import annotations

from collections.abc import Sequence

PORT = 3128
"""Where the filtering proxy listens, on the loopback inside."""
Network = bool | Sequence[str]


def hosts_of(network: Network, allowed_hosts: Sequence[str] | None) -> tuple[str, ...]:
    """Return the hosts a workspace may reach, `("*",)` for all public ones; empty for none."""
    if isinstance(network, str):
        raise TypeError(f"network={network!r}: give True, False or a list of hosts")
    if network is True:
        return ("*",)
    return tuple(dict.fromkeys([*(network or ()), *(allowed_hosts or ())]))


def variables(hosts: Sequence[str]) -> dict[str, str]:
    """Return what tells programs of the proxy."""
    if not hosts:
        return {}
    names = ("http_proxy", "https_proxy", "all_proxy")
    proxy = {spelled: f"http://127.0.0.1:{PORT}" for name in names for spelled in (name, name.upper())}
    return {**proxy, "no_proxy": "localhost,127.0.0.1,::1", "NO_PROXY": "localhost,127.0.0.1,::1"}
