"""What the filtering proxy lets through; loaded by `proxy.py` in a process of its own.

Names are resolved here, once, and the connection goes to the address that was looked at: an answer that changes
meanwhile leads nowhere.
"""

from __future__ import annotations

import ipaddress
import json
import os
import socket
from typing import Any

from proxy.http.exception import HttpRequestRejected
from proxy.http.parser import HttpParser
from proxy.http.proxy import HttpProxyBasePlugin

VARIABLE = "HUD_EGRESS_HOSTS"


class AllowList(HttpProxyBasePlugin):
    """Lets a request through where its host is on the list; `*.example.org` means all below it, `*` all public ones."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._hosts = [str(host).lower() for host in json.loads(os.environ.get(VARIABLE, "[]"))]
        self._address: str | None = None

    def before_upstream_connection(self, request: HttpParser) -> HttpParser | None:
        """Refuse what is not on the list, and addresses that are nobody's to reach."""
        host = (request.host or b"").decode("ascii", "replace").strip("[]").lower().rstrip(".")
        named = named_by(host, self._hosts)
        if named is None:
            raise _refused(f"{host} is not among the hosts this workspace may reach")
        try:
            found = socket.getaddrinfo(host, request.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise _refused(f"{host} cannot be resolved") from None
        usable = [str(entry[4][0]) for entry in found if reachable(str(entry[4][0]), exact=named == host)]
        if not usable:
            raise _refused(f"{host} is no public address")
        self._address = usable[0]
        return request

    def resolve_dns(self, host: str, port: int) -> tuple[str | None, Any]:  # noqa: ARG002 - the library's signature
        """Return the address that was looked at."""
        return self._address, None


def named_by(host: str, hosts: list[str]) -> str | None:
    """Return the entry that allows `host`."""
    for entry in hosts:
        if entry in ("*", host) or (entry.startswith("*.") and host.endswith(entry[1:])):
            return entry
    return None


def reachable(address: str, *, exact: bool) -> bool:
    """Whether a connection may go there: public addresses, and private ones that were named one by one.

    Loopback, link-local (with it the clouds' metadata services) and multicast never.
    """
    found = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(found, "ipv4_mapped", None) or getattr(found, "sixtofour", None)
    if mapped is not None:
        found = mapped
    if (
        found.is_loopback
        or found.is_link_local
        or found.is_multicast
        or found.is_unspecified
        or found.is_reserved
    ):
        return False
    return found.is_global or (exact and found.is_private)


def _refused(why: str) -> HttpRequestRejected:
    return HttpRequestRejected(
        status_code=403, reason=b"Forbidden", headers={b"Connection": b"close"}, body=f"hud: {why}\n".encode()
    )
