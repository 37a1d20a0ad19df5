"""What a connected capability can do, whoever made it: the protocols agents and graders are written to.

A client implements one of them next to `CapabilityClient`; tools and harnesses ask for the protocol, never
for a plugin's class.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, Self, runtime_checkable

if TYPE_CHECKING:
    from pathlib import Path

    from hud.types import Capability, MCPToolResult

How = Literal["exited", "signalled", "timeout", "not_found", "killed", "out_of_memory"]


@dataclass(slots=True, frozen=True)
class CommandResult:
    """How a command ended and what it printed.

    `exit_status` is None unless `how` is `exited` (or `not_found`, 127). `truncated` says that output beyond
    the limit was dropped from the middle. `duration_s` is wall time.
    """

    command: str
    exit_status: int | None
    stdout: str
    stderr: str
    how: How = "exited"
    signal: str | None = None
    truncated: bool = False
    duration_s: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether it exited with status 0."""
        return self.how == "exited" and self.exit_status == 0


class CapabilityClient(Protocol):
    """A connection to one capability; made by `connect`, ended by `close` (safe to call twice)."""

    @classmethod
    async def connect(cls, capability: Capability, opener: StreamOpener | None = None) -> Self:
        """Connect to `capability`; `opener` gives a byte stream through the control channel, None dials its url."""
        ...

    async def close(self) -> None:
        """End the connection and everything opened over it."""
        ...


class ByteStream(Protocol):
    """A two-way stream of bytes over a capability's tunnel."""

    async def read(self, max_bytes: int = 65536) -> bytes:
        """Return at least one byte, or b"" at the peer's end of stream."""
        ...

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write all of `data`, waiting while the peer does not read."""
        ...

    async def write_eof(self) -> None:
        """End our direction; the peer may still write."""
        ...

    async def close(self) -> None:
        """End both directions."""
        ...


class StreamOpener(Protocol):
    """Opens fresh streams to one capability through the control channel, without a listener."""

    async def __call__(self) -> ByteStream:
        """Open one stream."""
        ...

    async def create_connection(self, protocol_factory: Any) -> tuple[Any, Any]:
        """Open one stream as asyncio's (transport, protocol), as `loop.create_connection` would."""
        ...

    async def open_socket(self) -> Any:
        """Open one stream as a connected, non-blocking `socket.socket` that carries only the stream's bytes."""
        ...


@runtime_checkable
class ShellSession(Protocol):
    """A shell that stays: directory, variables and virtual environments hold between commands."""

    async def run(self, command: str, *, timeout_s: float | None = None) -> CommandResult:
        """Run one command; after a timeout the session is usable again, restarted if it has to be."""
        ...

    async def restart(self) -> None:
        """Begin anew, ending what the session started."""
        ...

    async def close(self) -> None:
        """End the session and what it started."""
        ...


@runtime_checkable
class Shell(Protocol):
    """Commands and files of a workspace. Paths are the workspace's own; relative ones start at `cwd`."""

    cwd: str

    async def run(
        self,
        command: str | Sequence[str],
        *,
        timeout_s: float | None = None,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        input: str | bytes | None = None,  # noqa: A002 - subprocess.run's name
        check: bool = False,
    ) -> CommandResult:
        """Run a command to its end. A timeout kills the whole process group and returns what was printed."""
        ...

    async def session(self) -> ShellSession:
        """Start a shell that stays."""
        ...

    async def read_bytes(self, path: str) -> bytes:
        """Return a file's content; `FileNotFoundError`, `IsADirectoryError`, `PermissionError` as the OS says."""
        ...

    async def read_text(self, path: str) -> str:
        """Return a file's content as UTF-8, undecodable bytes replaced."""
        ...

    async def write_bytes(self, path: str, content: bytes) -> None:
        """Write a file, making its folder where it is missing."""
        ...

    async def write_text(self, path: str, content: str) -> None:
        """Write a file as UTF-8."""
        ...

    async def listdir(self, path: str = ".") -> list[str]:
        """Return the names in a folder, sorted."""
        ...


@runtime_checkable
class CopiesFiles(Protocol):
    """A shell that copies files without holding them in memory; for those too large for `read_bytes`."""

    async def upload(self, local: str | Path, remote: str) -> None:
        """Copy a file, or a folder with all below it, into the workspace; into `remote` where that is a folder."""
        ...

    async def download(self, remote: str, local: str | Path) -> None:
        """Copy a file, or a folder with all below it, out of the workspace."""
        ...


@runtime_checkable
class Screen(Protocol):
    """A desktop: pixels out, pointer and keys in. Coordinates are pixels from the upper left corner."""

    width: int
    height: int

    async def screenshot_png(self) -> tuple[bytes, str]:
        """Return an image and its MIME type."""
        ...

    async def move(self, x: int, y: int) -> None: ...
    async def click(self, x: int, y: int, *, button: str = "left", count: int = 1) -> None: ...
    async def drag(self, path: Sequence[tuple[int, int]], *, button: str = "left") -> None: ...
    async def scroll(self, x: int, y: int, *, dx: int = 0, dy: int = 0) -> None: ...
    async def type_text(self, text: str) -> None: ...
    async def press(self, keys: Sequence[str], *, hold_s: float = 0.0) -> None: ...


@runtime_checkable
class Browser(Protocol):
    """A page over the DevTools protocol."""

    async def send(self, method: str, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Call one protocol method and return its result."""
        ...

    def events(self, method: str) -> AsyncIterator[dict[str, Any]]:
        """Yield the parameters of each event named `method`."""
        ...


@runtime_checkable
class ToolServer(Protocol):
    """Named tools with JSON Schemas."""

    async def list_tools(self) -> list[dict[str, Any]]:
        """Return `{name, description, inputSchema}` for each tool."""
        ...

    async def call_tool(self, name: str, arguments: Mapping[str, Any]) -> MCPToolResult:
        """Call one tool; its own failure is a result with `isError`."""
        ...


class HasFamily(Protocol):
    """What a client class says of itself."""

    families: ClassVar[tuple[str, ...]]
