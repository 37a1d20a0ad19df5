"""Services that an isolated workspace may reach by a name of its own."""

from __future__ import annotations

import re
from dataclasses import dataclass

_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")


@dataclass(slots=True, frozen=True)
class Peer:
    """`name:port` inside leads to `target` (`host:port`) outside; without a target, to that port of this machine."""

    name: str
    port: int
    target: str | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(
                f"peer name {self.name!r}: lower-case letters, digits and dashes, beginning with a letter"
            )
        if not 0 < self.port < 65536:
            raise ValueError(f"peer {self.name!r}: port {self.port!r} is not between 1 and 65535")

    @property
    def address(self) -> tuple[str, int]:
        """Where it is outside."""
        if self.target is None:
            return "127.0.0.1", self.port
        host, _, port = self.target.rpartition(":")
        if not host or not port.isdecimal():
            raise ValueError(f"peer {self.name!r}: target {self.target!r} must be host:port")
        return host, int(port)
