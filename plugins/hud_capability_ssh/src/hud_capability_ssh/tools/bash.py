"""The `bash` tool: a shell that stays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hud.capability.tool import Tool
from hud_capability_ssh.tools.arguments import ToolError, answering, flag, number, schema, string, text
from hud_capability_ssh.tools.spill import printable

if TYPE_CHECKING:
    from hud.capability.interfaces import CommandResult
    from hud_capability_ssh.client import SSHClient
    from hud_capability_ssh.shell_session import SSHShellSession
    from hud_capability_ssh.tools.spill import Spill

TIMEOUT_S = 120
LONGEST_S = 3600

DESCRIPTION = (
    "Run a command in a bash shell that stays: directory, variables and virtual environments hold between calls. "
    f"A command is ended after {TIMEOUT_S} s unless `timeout` says otherwise; start what should go on with `&` "
    "(`server > log 2>&1 &`) and look at it later. Commands have no terminal and no input. `restart` begins anew."
)


def bash_tool(client: SSHClient, spill: Spill) -> Tool:
    """Make the tool; its shell starts with the first call."""
    holder: list[SSHShellSession] = []

    async def body(arguments: Mapping[str, Any]) -> str:
        if arguments.get("restart"):
            if holder:
                await holder[0].restart()
            return "The shell was restarted."
        command = text(arguments, "command")
        if not command.strip():
            raise ToolError("argument 'command' is empty")
        seconds = number(arguments, "timeout", TIMEOUT_S)
        if not 0 < seconds <= LONGEST_S:
            raise ToolError(f"argument 'timeout' must be between 1 and {LONGEST_S} seconds, not {seconds}")
        if not holder:
            holder.append(await client.session())
        before = holder[0].restarts
        result = await holder[0].run(command, timeout_s=seconds)
        return await spill.shown(printable(described(result, seconds, holder[0].restarts > before)))

    async def close() -> None:
        while holder:
            await holder.pop().close()

    return Tool(
        name="bash",
        description=DESCRIPTION,
        parameters=schema(
            (),
            command=string("What to run."),
            timeout={"type": "integer", "description": "Seconds.", "minimum": 1, "maximum": LONGEST_S},
            restart=flag("Begin with a fresh shell instead of running a command."),
        ),
        handler=answering(body),
        native="bash",
        parallel=False,
        close=close,
    )


def described(result: CommandResult, seconds: float, restarted: bool = False) -> str:
    """Return a command's output and how it ended, in words."""
    parts = [result.stdout]
    if result.stderr:
        parts.append(
            result.stderr if not result.stdout or result.stdout.endswith("\n") else "\n" + result.stderr
        )
    output = "".join(parts)
    notes = []
    if result.how == "timeout":
        notes.append(f"[ended after {seconds:g} s; what it had started was killed]")
    elif result.how == "out_of_memory":
        notes.append("[killed: the workspace's memory limit was reached]")
    elif result.how in ("killed", "signalled"):
        notes.append(f"[ended by {result.signal}]")
    elif result.exit_status:
        notes.append(f"[exit status {result.exit_status}]")
    if restarted:
        notes.append("[the shell had ended and was started anew; its variables are gone]")
    if not output and not notes:
        return "(no output)"
    gap = "\n" if output and notes and not output.endswith("\n") else ""
    return output + gap + "\n".join(notes)
