"""The `text_editor` tool: view, create, str_replace, insert, undo_edit, as models were trained on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hud.capability.tool import Tool
from hud_capability_ssh.tools.arguments import ToolError, answering, integer, number, schema, string, text
from hud_capability_ssh.tools.files import numbered, read_lines, read_text, replace_in

if TYPE_CHECKING:
    from hud_capability_ssh.client import SSHClient
    from hud_capability_ssh.tools.spill import Spill

UNDO_STEPS = 20
AROUND = 4
MOST_ENTRIES = 1000


class Editor:
    """Keeps what each file held before an edit, so that it can be taken back."""

    def __init__(self, client: SSHClient, spill: Spill) -> None:
        self._client = client
        self._spill = spill
        self._before: dict[str, list[bytes | None]] = {}

    async def run(self, arguments: Mapping[str, Any]) -> str:
        """Do one command."""
        command, path = text(arguments, "command"), text(arguments, "path")
        match command:
            case "view":
                return await self._spill.shown(await self._view(path, arguments.get("view_range")))
            case "create":
                content = text(arguments, "file_text")
                before = await self._content(path)
                await self._client.write_text(path, content)
                self._remember(path, before)
                return f"Wrote {path}."
            case "str_replace":
                new, old = text(arguments, "new_str", ""), text(arguments, "old_str")
                before = await self._content(path)
                await replace_in(self._client, path, old, new, every=False)
                self._remember(path, before)
                return await self._excerpt(path, new)
            case "insert":
                return await self._insert(path, arguments)
            case "undo_edit":
                return await self._undo(path)
        raise ToolError(f"unknown command {command!r}: use view, create, str_replace, insert or undo_edit")

    async def _view(self, path: str, view_range: Any) -> str:
        try:
            lines = await read_lines(self._client, path)
        except IsADirectoryError:
            return await self._folder(path)
        if lines and lines[-1] == "":
            lines.pop()
        if view_range is None:
            return numbered(lines, 1) if lines else "(the file is empty)"
        if not (
            isinstance(view_range, (list, tuple))
            and len(view_range) == 2
            and all(isinstance(n, int) for n in view_range)
        ):
            raise ToolError(f"view_range must be [first, last], not {view_range!r}")
        first, last = view_range
        last = len(lines) if last == -1 else last
        if not 1 <= first <= len(lines) or last < first:
            raise ToolError(f"view_range {view_range} is outside of {path}, which has {len(lines)} lines")
        return numbered(lines[first - 1 : last], first)

    async def _folder(self, path: str) -> str:
        """List a folder two levels deep, hidden entries left out."""
        result = await self._client.run(
            ["find", "-H", self._client.at(path), "-maxdepth", "2", "-not", "-path", "*/.*"], timeout_s=30
        )
        entries = sorted(result.stdout.splitlines())
        more = f"\n[{len(entries) - MOST_ENTRIES} more]" if len(entries) > MOST_ENTRIES else ""
        return "\n".join(entries[:MOST_ENTRIES]) + more

    async def _insert(self, path: str, arguments: Mapping[str, Any]) -> str:
        after = number(arguments, "insert_line", -1)
        added = text(arguments, "insert_text") if "insert_text" in arguments else text(arguments, "new_str")
        before = await read_text(self._client, path)
        lines = before.split(b"\n")
        count = len(lines) - (lines[-1] == b"")
        if not 0 <= after <= count:
            given = arguments.get("insert_line")
            raise ToolError(f"insert_line must be between 0 and {count}, the lines of {path}, not {given!r}")
        end = b"\r" if b"\r\n" in before else b""
        if count == len(lines) and after == count:
            lines[-1] += end
            lines.append(b"")  # the last line had no end: it gets one, so that the new text has its own
        new = added.removesuffix("\n").encode("utf-8", "surrogateescape").split(b"\n")
        lines[after:after] = [line.removesuffix(b"\r") + end for line in new]
        await self._client.write_bytes(path, b"\n".join(lines))
        self._remember(path, before)
        return await self._excerpt(path, added)

    async def _undo(self, path: str) -> str:
        if not self._before.get(path):
            raise ToolError(f"nothing to take back in {path}")
        before = self._before[path].pop()
        if before is None:
            await self._client.run(["rm", "-f", "--", self._client.at(path)])
            return f"Removed {path}, which did not exist before."
        await self._client.write_bytes(path, before)
        return f"Took back the last edit of {path}."

    async def _content(self, path: str) -> bytes | None:
        try:
            return await self._client.read_bytes(path)
        except FileNotFoundError:
            return None

    def _remember(self, path: str, before: bytes | None) -> None:
        steps = self._before.setdefault(path, [])
        steps.append(before)
        del steps[:-UNDO_STEPS]

    async def _excerpt(self, path: str, added: str) -> str:
        lines = await read_lines(self._client, path)
        whole = "\n".join(lines)
        at = whole.find(added) if added else -1
        if at < 0:
            return f"Edited {path}."
        first = max(0, whole[:at].count("\n") - AROUND)
        last = whole[: at + len(added)].count("\n") + AROUND + 1
        return f"Edited {path}; it now reads:\n{numbered(lines[first:last], first + 1)}"


def editor_tool(client: SSHClient, spill: Spill) -> Tool:
    """Make the tool."""
    return Tool(
        name="text_editor",
        description="View, create and edit text files; `view` of a folder lists it two levels deep.",
        parameters=schema(
            ("command", "path"),
            command=string("What to do.", enum=["view", "create", "str_replace", "insert", "undo_edit"]),
            path=string("File or folder."),
            file_text=string("For `create`: the file's content."),
            old_str=string("For `str_replace`: text that occurs exactly once."),
            new_str=string("For `str_replace`: what to put in its place."),
            insert_line=integer(
                "For `insert`: the line after which to insert, 0 for the beginning.", minimum=0
            ),
            insert_text=string("For `insert`: the text."),
            view_range={
                "type": "array",
                "items": {"type": "integer"},
                "minItems": 2,
                "maxItems": 2,
                "description": "For `view`: first and last line, -1 for the end.",
            },
        ),
        handler=answering(Editor(client, spill).run),
        native="text_editor",
        parallel=False,
    )
