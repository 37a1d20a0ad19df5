"""The agent that is a person at a terminal."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, ClassVar, TextIO

from hud.agents.base import PlainAgent
from hud.errors import UsageError

if TYPE_CHECKING:
    from hud.eval.run import Run
    from hud.types.capability import Capability

END = "."


class HumanAgent(PlainAgent):
    """Show the prompt and what can be opened, and read an answer.

    An answer is one line; with `multiline` it ends with a line that has only a full stop. End of file answers
    nothing. Rollouts ask one at a time. `input` and `output` default to the terminal's.
    """

    name: ClassVar[str] = "human"

    def __init__(
        self,
        *,
        multiline: bool = False,
        input: TextIO | None = None,  # noqa: A002 - what it is called on the other side
        output: TextIO | None = None,
    ) -> None:
        super().__init__()
        self.multiline = multiline
        self._input = input
        self._output = output
        # One terminal: two rollouts must not ask at the same time.
        self._turn = threading.Lock()

    async def __call__(self, run: Run) -> str:
        """Ask, and return what was typed."""
        source = self._input or sys.stdin
        if self._input is None and (source is None or not source.isatty()):
            raise UsageError(
                "the human agent needs a terminal on standard input; use oracle, noop or a model here"
            )
        with ExitStack() as held:
            text = "\n".join([*self._introduction(run, held), "answer: "])
            return await _in_daemon_thread(lambda: self._ask(text, source))

    def _introduction(self, run: Run, held: ExitStack) -> list[str]:
        lines = ["", f"── {run.slug} " + "─" * max(3, 60 - len(run.slug)), run.prompt_text, ""]
        lines += [f"  {line}" for line in _ways_in(run, held)]
        if self.multiline:
            lines.append(f"(several lines; end with a line that is {END!r})")
        return lines

    def _ask(self, text: str, source: TextIO) -> str:
        output = self._output or sys.stderr
        with self._turn:
            print(text, end="", file=output, flush=True)
            if not self.multiline:
                return source.readline().rstrip("\n")
            lines: list[str] = []
            for line in iter(source.readline, ""):
                if line.rstrip("\n") == END:
                    break
                lines.append(line.rstrip("\n"))
            return "\n".join(lines)


def _ways_in(run: Run, held: ExitStack) -> list[str]:
    """Return how to reach each capability from another terminal, for as long as `held` is open."""
    found = []
    for capability in getattr(run.client.manifest, "bindings", ()):
        try:
            hint = _hint(run.client.binding(capability.name), held)
        except Exception as exc:  # noqa: BLE001 - shown to the person instead of the way in
            hint = f"not reachable: {exc}"
        found.append(f"{capability.name} ({capability.protocol}): {hint}")
    return found


def _hint(capability: Capability, held: ExitStack) -> str:
    from urllib.parse import urlsplit

    if capability.family != "ssh":
        return capability.url
    parts, params = urlsplit(capability.url), capability.params
    words = ["ssh"]
    if key := params.get("client_key"):
        words += ["-i", _path_of(key, held), "-o", "IdentitiesOnly=yes"]
    elif path := params.get("client_key_path"):
        words += ["-i", path]
    if (host_key := params.get("host_pubkey")) and key:
        hosts = _path_of(f"[{parts.hostname}]:{parts.port} {host_key}\n", held)
        words += ["-o", f"UserKnownHostsFile={hosts}"]
    return " ".join([*words, "-p", str(parts.port), f"{params.get('user', 'agent')}@{parts.hostname}"])


def _path_of(text: str, held: ExitStack) -> str:
    """Return the path of a file of this user alone that holds `text`, until `held` is closed.

    Where the system has files without a name, it is one that this process cannot leave behind.
    """
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("hud-ssh")
        held.callback(os.close, descriptor)
        os.fchmod(descriptor, 0o600)  # OpenSSH takes no key that others could read
        os.write(descriptor, text.encode())
        return f"/proc/{os.getpid()}/fd/{descriptor}"
    import tempfile

    file = held.enter_context(tempfile.NamedTemporaryFile("w", prefix="hud-ssh-"))  # noqa: SIM115
    file.write(text)
    file.flush()
    return file.name


async def _in_daemon_thread(call: object) -> str:
    """Run a blocking read so that neither a cancelled rollout nor the interpreter's end waits for the keyboard."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[str] = loop.create_future()

    def settle(result: object) -> None:
        if answer.done():
            return
        if isinstance(result, BaseException):
            answer.set_exception(result)
        else:
            answer.set_result(str(result))

    def work() -> None:
        try:
            result: object = call()  # type: ignore[operator]
        except BaseException as exc:  # noqa: BLE001 - handed to the awaiting rollout
            result = exc
        try:
            loop.call_soon_threadsafe(settle, result)
        except RuntimeError:
            return  # the loop is closed: the rollout was given up long ago

    threading.Thread(target=work, name="hud-human", daemon=True).start()
    return await answer
