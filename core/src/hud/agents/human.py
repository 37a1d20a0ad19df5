"""The agent that is a person at a terminal."""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import TYPE_CHECKING, ClassVar, TextIO

from hud.agents.base import PlainAgent
from hud.errors import UsageError

if TYPE_CHECKING:
    from hud.eval.run import Run

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
        text = "\n".join([*self._introduction(run), "answer: "])
        return await _in_daemon_thread(lambda: self._ask(text, source))

    def _introduction(self, run: Run) -> list[str]:
        lines = ["", f"── {run.slug} " + "─" * max(3, 60 - len(run.slug)), run.prompt_text, ""]
        lines += [f"  {line}" for line in _ways_in(run)]
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


def _ways_in(run: Run) -> list[str]:
    """Return how to reach each capability from another terminal."""
    found = []
    for capability in getattr(run.client.manifest, "bindings", ()):
        try:
            url = run.client.binding(capability.name).url
        except Exception as exc:  # noqa: BLE001 - shown to the person instead of the way in
            found.append(f"{capability.name} ({capability.protocol}): not reachable: {exc}")
            continue
        found.append(f"{capability.name} ({capability.protocol}): {_hint(capability, url)}")
    return found


def _hint(capability: object, url: str) -> str:
    from urllib.parse import urlsplit

    params = getattr(capability, "params", {})
    if getattr(capability, "family", "") == "ssh":
        parts = urlsplit(url)
        key = params.get("client_key_path")
        identity = f"-i {key} " if key else ""
        return f"ssh {identity}-p {parts.port} {params.get('user', 'agent')}@{parts.hostname}"
    return url


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
