"""The base of agents that are programs: found or installed, started, read to their end."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import uuid
from abc import abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic

import anyio
from pydantic import Field
from typing_extensions import TypeVar

from hud.agents.base import Agent
from hud.agents.loop import NO_PROMPT
from hud.agents.routing import Route, resolve
from hud.agents.toolset import Toolset, capability_tools, custom_tools
from hud.agents.types import AgentConfig
from hud.errors import AgentFault, ConfigError, HudError, ProviderError
from hud.types import Step
from hud_agent_cli.proxy import ModelProxy
from hud_agent_cli.relay import relayed

if TYPE_CHECKING:
    from hud.eval.run import Run

INSTALL_S = 600.0
READ_S = 5.0
SAID_LINES = 50
ENDINGS = {"image/png": "png", "image/jpeg": "jpg", "image/gif": "gif", "image/webp": "webp"}
PREFIX = "/tmp/hud-agents"  # noqa: S108 - inside the workspace


class CLIConfig(AgentConfig):
    """What every program can be told; see the README."""

    system_prompt: str | None = None
    max_steps: int = -1
    reasoning_effort: str | None = None
    program: str | None = None
    install: bool = True
    tools: list[Any] = Field(default_factory=list, exclude=True, repr=False)
    base_url: str | None = None
    api_key: str | None = Field(default=None, exclude=True, repr=False)


ConfigT = TypeVar("ConfigT", bound=CLIConfig, default=CLIConfig)


@dataclass(slots=True, frozen=True)
class Inside:
    """What a program is given, as seen inside the workspace.

    `url` is the proxy to its model, which asks for `token` as the key; `home` a folder of its own; `images` are the
    pictures of the prompt, as files; `tools` the address of an MCP server (streamable HTTP) with the environment's
    other capabilities, which asks for `tools_token` as a bearer token; None where it has no other.
    """

    url: str
    token: str = field(repr=False)
    home: str
    images: tuple[str, ...] = ()
    tools: str | None = None
    tools_token: str = field(default="", repr=False)

    @property
    def tools_headers(self) -> dict[str, str]:
        """The headers the server of tools asks for."""
        return {"Authorization": f"Bearer {self.tools_token}"}


@dataclass(slots=True)
class Invocation:
    """How a program is started: its words after the program, variables, files to write first, and what it reads.

    `told` is a file it writes its events into, as one JSON object, where it has no stream of them.
    """

    words: list[str]
    env: dict[str, str]
    stdin: str
    files: dict[str, str] = field(default_factory=dict)
    told: str | None = None


class Reader:
    """Turns a program's events into steps of the run."""

    def __init__(self, run: Run, model: str) -> None:
        self.run = run
        self.model = model
        self.answer: str | None = None
        self.stop: str = "done"
        self.failure: str | None = None

    def read(self, event: Mapping[str, Any]) -> None:
        """Take in one event."""
        raise NotImplementedError

    def end(self) -> None:
        """Record what is still open."""


class CLIAgent(Agent[ConfigT], Generic[ConfigT]):
    """Runs a program inside the workspace; its model is reached through a proxy on this side."""

    dialect: ClassVar[str] = ""
    binary: ClassVar[str] = ""
    package: ClassVar[str] = ""
    """What is installed from npm where the program is missing; `installer` replaces that."""
    installed: ClassVar[str] = ""
    installer: ClassVar[str] = ""

    def __init__(self, config: ConfigT | Mapping[str, Any] | None = None) -> None:
        super().__init__(config)
        self.prepare()

    def prepare(self) -> None:
        """Check the configuration and find where the model is served.

        Raises:
            ConfigError: nothing can serve it; says what to set.
        """
        config = self.config
        self.route: Route = resolve(
            config.model,
            self.speaks(),
            base_url=config.base_url,
            api_key=config.api_key,
            gateway=config.gateway,
        )

    def speaks(self) -> str:
        """Return the dialect in which the program speaks to its model."""
        return self.dialect

    def with_config(self, overrides: Mapping[str, Any]) -> Any:
        """Return a copy with `overrides`, prepared anew."""
        made = super().with_config(overrides)
        made.prepare()
        return made

    @abstractmethod
    def invocation(self, prompt: str, at: Inside) -> Invocation:
        """Return how to start it."""

    @abstractmethod
    def reader(self, run: Run) -> Reader:
        """Return what reads its events."""

    async def __call__(self, run: Run) -> Any:
        """Do the task of `run`."""
        shell = await run.client.open("ssh")
        program = await self._program(shell)
        home = f"/tmp/hud-agent-{uuid.uuid4().hex[:12]}"  # noqa: S108 - inside the workspace
        reader = self.reader(run)
        prompt = "\n\n".join(m.text for m in run.prompt_messages if m.role != "assistant")
        async with (
            ModelProxy(self.route, run) as proxy,
            relayed(await self._toolset(run)) as tools,
            _inside(shell, proxy.port) as port,
            _inside(shell, None if tools is None else tools.port) as tools_port,
        ):
            at = Inside(
                url=f"http://127.0.0.1:{port}",
                token=proxy.token,
                home=home,
                images=await _write_images(shell, home, run),
                tools=None if tools is None else f"http://127.0.0.1:{tools_port}{tools.path}",
                tools_token="" if tools is None else tools.token,
            )
            start = self.invocation(prompt.strip() or NO_PROMPT, at)
            folders = sorted({home, *(path.rpartition("/")[0] for path in start.files)})
            await shell.run(["mkdir", "-p", *folders], check=True)
            for path, text in start.files.items():
                await shell.write_text(path, text)
            await self._run(shell, program, start, reader)
        if proxy.refused is not None:
            run.trace.content = reader.answer
            raise proxy.refused
        if reader.failure is not None:
            if proxy.status is not None and not proxy.answered:
                raise ProviderError(
                    f"{self.config.model}: HTTP {proxy.status} from {self.route.base_url}; {self.binary} says: "
                    f"{reader.failure}",
                    status=proxy.status,
                )
            raise AgentFault(f"{self.binary}: {reader.failure}")
        run.trace.stop_reason = reader.stop
        return reader.answer

    async def _toolset(self, run: Run) -> Toolset:
        """Return the tools of every capability but the shell, which the program has as its own, and custom ones."""
        offer = await capability_tools(run.client, without=("ssh",))
        for note in offer.notes:
            run.record(Step(source="system", extra={"note": note}))
        return Toolset([*offer.tools, *custom_tools(self.config.tools, run)])

    async def _run(self, shell: Any, program: str, start: Invocation, reader: Reader) -> None:
        command = shlex.join([program, *start.words])
        process = await shell.create_process(f"cd {shlex.quote(shell.cwd)} && exec {command}", env=start.env)
        said: deque[str] = deque(maxlen=SAID_LINES)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_keep(process.stderr, said))
                with contextlib.suppress(BrokenPipeError):  # it ended before it read: its last words say why
                    process.stdin.write(start.stdin)
                    process.stdin.write_eof()
                async for line in process.stdout:
                    if not _feed(reader, line):
                        said.append(line)
            ended = await process.wait()
        finally:
            process.close()
            if start.told is not None:
                await _read_told(shell, start.told, reader)
        reader.end()
        if reader.answer is None and reader.failure is None:
            how = (
                f"status {ended.exit_status}"
                if ended.exit_status is not None
                else f"signal {ended.exit_signal}"
            )
            reader.failure = f"ended with {how}: {''.join(said)[-2000:].strip() or 'it said nothing'}"

    async def _program(self, shell: Any) -> str:
        """Return the program's path inside; installs it where that is allowed.

        Raises:
            ConfigError: it is not there and cannot be installed; says what to do.
        """
        if self.config.program is not None:
            return self.config.program
        installed = self.installed or f"{PREFIX}/node_modules/.bin/{self.binary}"
        installer = (
            self.installer or f"npm install --silent --no-audit --no-fund --prefix {PREFIX} {self.package}"
        )
        look = f"command -v {self.binary} || {{ test -x {installed} && echo {installed}; }}"
        found = await shell.run(["bash", "-c", look])
        if found.ok and found.stdout.strip():
            return str(found.stdout.strip().splitlines()[-1])
        why = "install=False"
        if self.config.install:
            made = await shell.run(["bash", "-c", installer], timeout_s=INSTALL_S)
            if made.ok:
                return installed
            why = f"installing {self.package} failed: {(made.stderr or made.stdout)[-500:].strip()}"
        raise ConfigError(
            f"{self.binary} is not in the workspace ({why}). Mount it (mounts=[Mount('ro', FOLDER)]) and give "
            "program=PATH, put it into the image, or allow the workspace a network"
        )


@asynccontextmanager
async def _inside(shell: Any, port: int | None) -> AsyncIterator[int | None]:
    """Give the workspace a port of its loopback that leads to `port` here."""
    if port is None:
        yield None
        return
    listener = await shell.forward_remote(port)
    try:
        yield listener.get_port()
    finally:
        listener.close()


async def _write_images(shell: Any, home: str, run: Run) -> tuple[str, ...]:
    """Write the pictures of the prompt into `home`; return their paths there."""
    import base64

    blocks = [b for m in run.prompt_messages if m.role != "assistant" for b in m.blocks]
    pictures = [block for block in blocks if block.get("type") == "image"]
    paths = []
    if pictures:
        await shell.run(["mkdir", "-p", home], check=True)
    for number, block in enumerate(pictures, 1):
        ending = ENDINGS.get(str(block.get("mimeType")), "png")
        path = f"{home}/image-{number}.{ending}"
        await shell.write_bytes(path, base64.b64decode(block["data"]))
        paths.append(path)
    return tuple(paths)


async def _read_told(shell: Any, path: str, reader: Reader) -> None:
    """Feed what the program wrote down, also where the agent is being cancelled; bounded, since then time is short."""
    import json

    try:
        with anyio.move_on_after(READ_S, shield=True):
            reader.read(json.loads(await shell.read_text(path)))
    except (HudError, OSError, ValueError):
        return  # it ended before it wrote any: how it ended says the rest


async def _keep(stream: Any, said: deque[str]) -> None:
    async for line in stream:
        said.append(line)


def _feed(reader: Reader, line: str) -> bool:
    """Hand `line` to the reader where it is an event; otherwise return False."""
    import json

    try:
        event = json.loads(line) if line.lstrip().startswith("{") else None
    except ValueError:
        return False
    if not isinstance(event, dict):
        return False
    reader.read(event)
    return True
