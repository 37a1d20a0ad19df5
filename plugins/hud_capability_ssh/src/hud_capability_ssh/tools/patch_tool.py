"""The `apply_patch` tool: both forms of patch, all or nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hud.capability.tool import Tool
from hud_capability_ssh.tools.arguments import ToolError, answering, schema, string, text
from hud_capability_ssh.tools.patch import Change, PatchError, applied, parsed

if TYPE_CHECKING:
    from hud_capability_ssh.client import SSHClient


def patch_tool(client: SSHClient) -> Tool:
    """Make the tool."""

    async def body(arguments: Mapping[str, Any]) -> str:
        try:
            changes = parsed(text(arguments, "patch"))
            planned = [(change, await _new_content(client, change)) for change in changes]
        except PatchError as error:
            raise ToolError(f"{error}; nothing was changed") from None
        said = []
        for change, content in planned:
            if content is not None:
                await client.write_text(change.target, content)
            if content is None or change.target != change.path:
                await client.run(["rm", "-f", "--", client.at(change.path)], check=True)
            moved = f" -> {change.target}" if change.target != change.path else ""
            said.append(f"{change.kind} {change.path}{moved}")
        return "\n".join(said)

    return Tool(
        name="apply_patch",
        description=(
            "Change several files at once, all or none. The patch is either `*** Begin Patch` ... `*** End Patch` with "
            "`*** Add File:`, `*** Update File:` (and `*** Move to:`), `*** Delete File:` sections, or a unified diff."
        ),
        parameters=schema(("patch",), patch=string("The patch's text.")),
        handler=answering(body),
        native="apply_patch",
        parallel=False,
    )


async def _new_content(client: SSHClient, change: Change) -> str | None:
    try:
        before: str | None = (await client.read_bytes(change.path)).decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        before = None
    if change.kind == "add" and before is not None:
        raise PatchError(f"{change.path} exists already; update it instead")
    created = all(not hunk.old for hunk in change.hunks)  # as `diff -N` writes a new file
    if (change.kind == "delete" and before is None) or (
        change.kind == "update" and before is None and not created
    ):
        raise PatchError(f"{change.path} does not exist")
    return applied(change, before or "")
