"""A grader that runs a command on what the agent left behind."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, ClassVar

from hud.capability.backing import GradingShell
from hud.environment.current import current, on_service_loop
from hud.errors import GraderError
from hud.graders.base import Grader, Scored

if TYPE_CHECKING:
    from hud.capability.interfaces import CommandResult

DEFAULT_TIMEOUT_S = 600.0
_KEPT_CHARACTERS = 16_384
_CRASHES = frozenset({"SIGSEGV", "SIGABRT", "SIGFPE", "SIGBUS", "SIGILL", "SIGTRAP", "SIGSYS", "SIGPIPE"})


class BashGrader(Grader):
    """Scores 1.0 where a command exits with status 0 and 0.0 with any other.

    It runs in a fresh sandbox of the environment's workspace, on the agent's files, after the agent's processes are
    gone. `info` has `exit_code`, `stdout` and `stderr`. A program that crashes (a segmentation fault, say) scores 0.0,
    and so does a script of the workspace that is missing: both are the agent's doing.
    """

    name: ClassVar[str] = "BashGrader"

    @classmethod
    async def compute_score(
        cls,
        *,
        command: str | Sequence[str],
        cwd: str | os.PathLike[str] | None = None,
        timeout_seconds: float | None = None,
        workspace: str | GradingShell | None = None,
        files: Mapping[str, str | bytes | Path] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Scored:
        """Run `command`; paths under the workspace's folder here are translated to the sandbox's.

        `files` are put beside the command for its run only: hidden tests, expected outputs. `workspace` names one of
        several, or is one.

        Raises:
            GraderError: the command timed out, its program is missing, or it was killed; or there is no workspace,
                or there are several and none was named.
            SandboxError: the sandbox itself failed.
        """
        timeout_s = DEFAULT_TIMEOUT_S if timeout_seconds is None else float(timeout_seconds)
        shell = _shell(workspace)
        result = await on_service_loop(
            shell.grading_run(
                _translated(command, shell),
                cwd=None if cwd is None else _inside(os.fspath(cwd), shell),
                timeout_s=timeout_s,
                env=env,
                files=files,
            )
        )
        return _scored(result, command, timeout_s)


def _shell(workspace: str | GradingShell | None) -> GradingShell:
    if workspace is not None and not isinstance(workspace, str):
        return workspace
    session = current()
    if session is None:
        raise GraderError(
            "BashGrader runs within a template, where it finds the environment's workspace; elsewhere give workspace="
        )
    shells = [backing for backing in session.backings if isinstance(backing, GradingShell)]
    names = ", ".join(repr(shell.name) for shell in shells)
    if workspace is not None:
        for shell in shells:
            if shell.name == workspace:
                return shell
        raise GraderError(
            f"environment {session.env.name!r} has no workspace {workspace!r}; it has: {names or 'none'}"
        )
    if not shells:
        raise GraderError(
            f"environment {session.env.name!r} has no workspace to grade in; declare one with env.workspace(...)"
        )
    if len(shells) > 1:
        raise GraderError(
            f"environment {session.env.name!r} has several workspaces ({names}); choose with workspace="
        )
    return shells[0]


def _translated(command: str | Sequence[str], shell: GradingShell) -> str | list[str]:
    if isinstance(command, str):
        return _inside(command, shell)
    return [_inside(str(word), shell) for word in command]


def _inside(text: str, shell: GradingShell) -> str:
    """Replace the workspace's folder here by the same folder inside, where it is a whole path prefix."""
    root = str(PurePath(shell.root))
    if root in (".", "/") or root == shell.guest_root:
        return text
    guest = shell.guest_root.rstrip("/") or "/"
    return re.sub(rf"(?<![\w./-]){re.escape(root)}(?![\w.-])", lambda _: guest, text)


def _scored(result: CommandResult, command: str | Sequence[str], timeout_s: float) -> Scored:
    text = command if isinstance(command, str) else shlex.join(map(str, command))
    info: dict[str, Any] = {
        "exit_code": result.exit_status,
        "stdout": _cut(result.stdout),
        "stderr": _cut(result.stderr),
        "how": result.how,
        "duration_s": round(result.duration_s, 3),
    }
    if result.how == "exited":
        return (1.0 if result.exit_status == 0 else 0.0), info
    if result.how == "signalled" and result.signal in _CRASHES:
        return 0.0, info | {"signal": result.signal}
    if result.how == "not_found" and "/" in _program(text):
        return 0.0, info
    last = "\n".join((result.stderr or result.stdout).strip().splitlines()[-5:])
    raise GraderError(
        f"command {_cut(text, 200)!r} {_ending(result, timeout_s, text)}" + (f"\n{last}" if last else "")
    )


def _program(command: str) -> str:
    try:
        return (shlex.split(command) or [""])[0]
    except ValueError:
        return ""


def _ending(result: CommandResult, timeout_s: float, text: str) -> str:
    if result.how == "timeout":
        return f"did not end within {timeout_s:g} s and was stopped; give it more with timeout_seconds="
    if result.how == "not_found":
        return f"could not run: there is no program {_program(text)!r} in the sandbox"
    if result.how == "out_of_memory":
        return "was killed because the sandbox ran out of memory; raise its limit"
    by = f" by {result.signal}" if result.signal else ""
    return f"was killed{by} before it could decide"


def _cut(text: str, limit: int = _KEPT_CHARACTERS) -> str:
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n... {len(text) - 2 * half:,} characters left out ...\n{text[-half:]}"
