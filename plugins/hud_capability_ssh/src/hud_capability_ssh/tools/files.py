"""The `read`, `write` and `edit` tools."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hud.capability.tool import Tool
from hud_capability_ssh.tools.arguments import (
    ToolError,
    answering,
    flag,
    integer,
    number,
    schema,
    string,
    text,
)
from hud_capability_ssh.tools.spill import printable

if TYPE_CHECKING:
    from hud_capability_ssh.client import SSHClient
    from hud_capability_ssh.tools.spill import Spill

LINES = 2000
LONGEST_LINE = 2000
BINARY = "is a binary file"


async def read_lines(client: SSHClient, path: str) -> list[str]:
    """Return a text file's lines, line ends left off; see `read_text`."""
    return (await read_text(client, path)).decode("utf-8", "replace").split("\n")


async def read_text(client: SSHClient, path: str) -> bytes:
    """Return a text file's content.

    Raises:
        ToolError: it is binary.
    """
    raw = await client.read_bytes(path)
    if b"\0" in raw[:8192]:
        raise ToolError(f"{path} {BINARY} of {len(raw)} bytes; look at it with bash (`file`, `xxd`)")
    return raw


def numbered(lines: list[str], first: int) -> str:
    """Return lines with their numbers, overlong ones cut."""
    out = []
    for at, line in enumerate(lines, first):
        shown = (
            line
            if len(line) <= LONGEST_LINE
            else f"{line[:LONGEST_LINE]} [... {len(line) - LONGEST_LINE} more]"
        )
        out.append(f"{at:6}\t{shown}")
    return printable("\n".join(out))


def read_tool(client: SSHClient, spill: Spill) -> Tool:
    """Make the tool that shows a file with line numbers."""

    async def body(arguments: Mapping[str, Any]) -> str:
        path = text(arguments, "path")
        lines = await read_lines(client, path)
        if lines and lines[-1] == "":
            lines.pop()
        first = number(arguments, "offset", 1)
        count = number(arguments, "limit", LINES)
        if first < 1 or count < 1:
            raise ToolError("'offset' and 'limit' are counted from 1")
        if not lines:
            return "(the file is empty)"
        if first > len(lines):
            raise ToolError(f"{path} has {len(lines)} lines; offset {first} is beyond them")
        part = lines[first - 1 : first - 1 + count]
        shown = numbered(part, first)
        rest = len(lines) - (first - 1 + len(part))
        return await spill.shown(f"{shown}\n[{rest} more lines]" if rest else shown)

    return Tool(
        name="read",
        description=f"Show a text file with line numbers, {LINES} lines unless told.",
        parameters=schema(
            ("path",),
            path=string("File, absolute or from the workspace's folder."),
            offset=integer("First line, from 1.", minimum=1),
            limit=integer("How many lines.", minimum=1),
        ),
        handler=answering(body),
    )


def write_tool(client: SSHClient) -> Tool:
    """Make the tool that writes a whole file."""

    async def body(arguments: Mapping[str, Any]) -> str:
        path, content = text(arguments, "path"), text(arguments, "content")
        await client.write_text(path, content)
        return f"Wrote {len(content.encode())} bytes to {path}."

    return Tool(
        name="write",
        description="Write a file, replacing what it held; its folder is made where missing.",
        parameters=schema(
            ("path", "content"), path=string("File."), content=string("All of its new content.")
        ),
        handler=answering(body),
        parallel=False,
    )


def edit_tool(client: SSHClient) -> Tool:
    """Make the tool that replaces text in a file."""

    async def body(arguments: Mapping[str, Any]) -> str:
        path, old, new = text(arguments, "path"), text(arguments, "old"), text(arguments, "new")
        replaced = await replace_in(client, path, old, new, every=bool(arguments.get("all")))
        return f"Replaced {replaced} occurrence{'s' * (replaced != 1)} in {path}."

    return Tool(
        name="edit",
        description="Replace text in a file. `old` must occur exactly once unless `all` is true.",
        parameters=schema(
            ("path", "old", "new"),
            path=string("File."),
            old=string("Text to replace, with its white space."),
            new=string("What to put in its place."),
            all=flag("Replace every occurrence."),
        ),
        handler=answering(body),
        parallel=False,
    )


async def replace_in(client: SSHClient, path: str, old: str, new: str, *, every: bool) -> int:
    """Replace text in a file, its other bytes untouched; return how often.

    Raises:
        ToolError: `old` is empty, absent, equal to `new`, or found more than once without `every`.
    """
    if not old:
        raise ToolError("the text to replace is empty")
    if old == new:
        raise ToolError("old and new text are the same")
    raw = await client.read_bytes(path)
    wanted, given = old.encode(), new.encode()
    if wanted not in raw and b"\r\n" in raw:
        wanted, given = wanted.replace(b"\n", b"\r\n"), given.replace(b"\n", b"\r\n")
    count = raw.count(wanted)
    if not count:
        raise ToolError(
            f"the text to replace does not occur in {path}; it must match exactly, white space included"
        )
    if count > 1 and not every:
        lines = [raw[:at].count(b"\n") + 1 for at in _positions(raw, wanted)][:10]
        raise ToolError(
            f"the text to replace occurs {count} times in {path} (lines {lines}); give more of its surroundings"
        )
    await client.write_bytes(path, raw.replace(wanted, given))
    return count


def _positions(raw: bytes, wanted: bytes) -> list[int]:
    found, at = [], raw.find(wanted)
    while at >= 0:
        found.append(at)
        at = raw.find(wanted, at + len(wanted))
    return found
