"""What an agent is offered for a shell: tools that any provider can render."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hud.capability.tool import Tool
    from hud.types import Capability
    from hud_capability_ssh.client import SSHClient


def tools_of(client: SSHClient, capability: Capability) -> list[Tool]:
    """Return bash, text_editor, read, write, edit, glob, grep, apply_patch.

    Where the workspace tracks files, the results of those that can change some say which they changed, in
    `structuredContent`: for the trace, not for the model.
    """
    from hud_capability_ssh.tools.bash import bash_tool
    from hud_capability_ssh.tools.editor import editor_tool
    from hud_capability_ssh.tools.files import edit_tool, read_tool, write_tool
    from hud_capability_ssh.tools.patch_tool import patch_tool
    from hud_capability_ssh.tools.search import glob_tool, grep_tool
    from hud_capability_ssh.tools.spill import Spill
    from hud_capability_ssh.tools.tracked import tracked

    spill = Spill(client)
    tools = [
        bash_tool(client, spill),
        editor_tool(client, spill),
        read_tool(client, spill),
        write_tool(client),
        edit_tool(client),
        glob_tool(client, spill),
        grep_tool(client, spill),
        patch_tool(client),
    ]
    if not capability.params.get("tracks_files"):
        return tools
    return [tool if tool.name in ("read", "glob", "grep") else tracked(client, tool) for tool in tools]
