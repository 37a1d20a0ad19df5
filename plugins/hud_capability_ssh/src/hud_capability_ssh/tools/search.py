"""The `glob` and `grep` tools, run by the sandbox's own `find` and `grep`."""

from __future__ import annotations

import re
import shlex
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

SECONDS = 60
MOST_FILES = 1000
MOST_MATCHES = 200
SKIPPED = (".git", "node_modules", "__pycache__", ".venv", ".hg", ".svn")


def glob_tool(client: SSHClient, spill: Spill) -> Tool:
    """Make the tool that finds files by name."""

    async def body(arguments: Mapping[str, Any]) -> str:
        pattern, folder = text(arguments, "pattern"), text(arguments, "path", ".")
        if pattern.startswith("/"):
            fixed = pattern[: re.search(r"[*?\[{]|$", pattern).start()].rpartition("/")[0] or "/"  # type: ignore[union-attr]
            folder, pattern = fixed, pattern[len(fixed.rstrip("/")) + 1 :]
        while pattern.startswith("./"):
            pattern = pattern.removeprefix("./")
        expression = glob_expression(pattern)
        prune: list[str] = []
        for name in SKIPPED:
            if name not in pattern:
                prune += ["-name", name, "-o"]
        command = [
            "find",
            client.at(folder),
            "-mindepth",
            "1",
            "(",
            *prune[:-1],
            ")",
            "-prune",
            "-o",
            "-type",
            "f",
        ]
        result = await client.run([*command, "-printf", r"%T@ %P\0"], timeout_s=SECONDS)
        if result.exit_status and not result.stdout:
            raise ToolError(result.stderr.strip() or f"cannot search {folder}")
        found = []
        for entry in result.stdout.split("\0"):
            when, _, path = entry.partition(" ")
            if path and expression.fullmatch(path):
                found.append((float(when), path))
        found.sort(key=lambda pair: (-pair[0], pair[1]))
        prefix = "" if folder == "." else folder.rstrip("/") + "/"
        lines = [prefix + path for _, path in found[:MOST_FILES]]
        if len(found) > MOST_FILES:
            lines.append(f"[{len(found) - MOST_FILES} more]")
        if result.how == "timeout":
            lines.append(f"[the search was ended after {SECONDS} s]")
        return await spill.shown(printable("\n".join(lines))) if lines else "No files match."

    return Tool(
        name="glob",
        description="Find files by pattern (`**/*.py`, `src/**/test_*.{ts,tsx}`), the latest changed first.",
        parameters=schema(
            ("pattern",), pattern=string("`**` stands for any folders."), path=string("Folder to search.")
        ),
        handler=answering(body),
    )


def glob_expression(pattern: str) -> re.Pattern[str]:
    """Return what a relative path must match. `*` and `?` stay within a folder, `{a,b}` chooses."""
    out, at = [], 0
    while at < len(pattern):
        char = pattern[at]
        if pattern.startswith("**/", at):
            out.append("(?:[^/]+/)*")
            at += 3
            continue
        if pattern.startswith("**", at):
            out.append(".*")
            at += 2
            continue
        end = pattern.find("]", at + 2) if char == "[" else pattern.find("}", at) if char == "{" else -1
        if char == "*":
            out.append("[^/]*")
        elif char == "?":
            out.append("[^/]")
        elif char == "[" and end > 0:
            inner = pattern[at + 1 : end].replace("\\", r"\\").replace("[", r"\[")
            out.append("[" + ("^" + inner[1:] if inner[0] in "!^" else inner) + "]")
            at = end
        elif char == "{" and end > 0:
            out.append(
                "(?:"
                + "|".join(glob_expression(part).pattern for part in pattern[at + 1 : end].split(","))
                + ")"
            )
            at = end
        else:
            out.append(re.escape(char))
        at += 1
    try:
        return re.compile("".join(out), re.DOTALL)
    except re.error as error:
        raise ToolError(f"pattern {pattern!r}: {error}") from None


def grep_tool(client: SSHClient, spill: Spill) -> Tool:
    """Make the tool that searches in files."""

    async def body(arguments: Mapping[str, Any]) -> str:
        pattern, folder = text(arguments, "pattern"), text(arguments, "path", ".")
        most = number(arguments, "limit", MOST_MATCHES, least=1)
        around = number(arguments, "context", 0, least=0)
        command = ["grep", "-rnHIE", "--color=never", *([f"-C{around}"] if around else [])]
        command += ["-i"] if arguments.get("ignore_case") else []
        command += [f"--include={arguments['include']}"] if arguments.get("include") else []
        command += [f"--exclude-dir={name}" for name in SKIPPED]
        command += ["-e", pattern, "--", folder]
        # `head` ends the search once enough was found; what it leaves out is not counted.
        lines_wanted = most * (1 + 2 * around) + 1
        result = await client.run(
            f"cd -- {shlex.quote(client.cwd)} && {shlex.join(command)} | cut -b -2000 | head -n {lines_wanted}\n"
            "exit ${PIPESTATUS[0]}",
            timeout_s=SECONDS,
        )
        lines = [line.removeprefix("./") for line in result.stdout.splitlines()]
        if not lines:
            if result.how == "timeout":
                raise ToolError(f"the search was ended after {SECONDS} s; name a narrower path")
            if result.exit_status not in (0, 1, None):
                raise ToolError(result.stderr.strip() or f"grep ended with {result.exit_status}")
            return "No matches."
        if len(lines) >= lines_wanted:
            lines[lines_wanted - 1 :] = [f"[more than {most} matches; name a narrower path or pattern]"]
        return await spill.shown(printable("\n".join(lines)))

    return Tool(
        name="grep",
        description="Search files for an extended regular expression; answers path:line:text.",
        parameters=schema(
            ("pattern",),
            pattern=string("Extended regular expression."),
            path=string("File or folder."),
            include=string("Only files with names like this (`*.py`)."),
            ignore_case=flag("Ignore case."),
            context=integer("Lines to show around each match.", minimum=0, maximum=20),
            limit=integer(f"Most matches to show, {MOST_MATCHES} unless told.", minimum=1, maximum=2000),
        ),
        handler=answering(body),
    )
