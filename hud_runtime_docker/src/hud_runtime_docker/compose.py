"""A Compose project per rollout: its own containers, networks and volumes, gone with it.

The service `main` serves the control channel; the others are reached by it, over the project's network, by name.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from subprocess import DEVNULL, STDOUT
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import anyio

from hud.cleanup import shielded
from hud.errors import HudError, RuntimeStartError
from hud.runtime.contract import Runtime
from hud.runtime.ledger import Entry, ledger
from hud.types import ComposeProject, RuntimeConfig
from hud_runtime_docker import compose_file
from hud_runtime_docker.compose_file import MAIN, Document
from hud_runtime_docker.engine import Engine, engine_errors
from hud_runtime_docker.options import DEFAULT_PIDS
from hud_runtime_docker.watch import Watcher

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from anyio.abc import Process

PROJECT = "com.docker.compose.project"
"""The label by which the Compose tool, and we, find a project's parts."""
SERVICE = "com.docker.compose.service"
REMOVE_S = 60.0
LOOK_EVERY_S = 0.25
TAIL = 3000
NO_ADDRESSES = (
    "each project has networks of its own, and an engine has addresses for about 30 by default: lower "
    "--max-concurrent, or give the engine more (default-address-pools in its daemon.json)"
)
ENDED_S = 5.0
"""What the tool gets to end by itself when it is no longer wanted."""


class ComposeProjects:
    """Reads and builds each project once, for all rollouts of a runtime."""

    def __init__(self, engine: Engine, *, port: int) -> None:
        self._engine = engine
        self._port = port
        self._known: dict[str, Document] = {}
        self._turn = anyio.Lock()

    def forget(self) -> None:
        """Read projects again, and build their images again where something changed."""
        self._known.clear()

    async def document(self, project: ComposeProject) -> Document:
        """Return the project as the tool reads it, its images built.

        Raises:
            ConfigError: it cannot be what an environment runs in.
            RuntimeStartError: an image cannot be built.
        """
        key = repr(project)
        async with self._turn:  # holds: a project is read and built once
            if key not in self._known:
                document = await anyio.to_thread.run_sync(compose_file.read, project, self._engine.base_url)
                if document.built():
                    await self._build(document)
                self._known[key] = document
            return self._known[key]

    async def _build(self, document: Document) -> None:
        content = json.loads(json.dumps(document.content, default=str))
        content.pop("version", None)
        for name in document.built():
            content["services"][name]["image"] = document.image_of(name)
            print(f"build: image of compose service {name!r}", file=sys.stderr, flush=True)
        status, said = await self._run(content, document, f"hud-build-{document.digest[:12]}", "build")
        if status:
            raise RuntimeStartError(f"compose project in {document.root} cannot be built:\n{said[-TAIL:]}")

    async def _run(
        self, content: Mapping[str, Any], document: Document, name: str, *words: str
    ) -> tuple[int, str]:
        """Run the tool on `content`; returns its status and what it said. Cancelling ends it first."""
        with tempfile.NamedTemporaryFile("w", prefix="hud-compose-", suffix=".json") as file:
            json.dump(content, file)
            file.flush()
            command = [*compose_file.tool(), "--file", file.name, "--project-name", name]
            process = await anyio.open_process(
                [*command, "--project-directory", str(document.root), *words],
                stdin=DEVNULL,
                stderr=STDOUT,
                env=compose_file.environment(self._engine.base_url),
                start_new_session=True,  # the docker command's plugin is a child of its own
            )
            said = b""
            try:
                assert process.stdout is not None
                async for part in process.stdout:
                    said = (said + part)[-64 * 1024 :]
                await process.wait()
            finally:
                await shielded(_ended(process))
        assert process.returncode is not None
        return process.returncode, said.decode(errors="replace").strip()

    @asynccontextmanager
    async def placed(
        self,
        document: Document,
        config: RuntimeConfig,
        *,
        labels: Mapping[str, str],
        main: Mapping[str, Any],
        token: str,
        furnish: Callable[[str, str], Awaitable[None]],
        startup_s: float,
    ) -> AsyncIterator[Runtime]:
        """Start the project for one rollout and yield the address of its `main`; all of it is removed at the end.

        `furnish` puts the token (and a source) into the container of `main` before anything runs.
        """
        name = f"hud-{uuid4().hex[:20]}"
        watcher: Watcher | None = None
        laid = {**_held(config, self._port), **main}
        content = compose_file.private(document, labels, laid)
        detail = {"engine": self._engine.base_url, "project": name}
        entry = await ledger().intended("docker", name, detail=detail)
        try:
            try:
                with anyio.fail_after(startup_s):
                    await self._up(content, document, name, "--no-start")
                    container = (await self._containers(name))[MAIN]
                    await furnish(container, token)
                    watcher = Watcher(self._engine, container)
                    await watcher.begin()
                    await self._up(content, document, name, "--detach", "--no-recreate")
                    await self._ready(name, watcher)
                    url = await self._address(container, watcher)
            except TimeoutError:
                raise RuntimeStartError(
                    f"the compose project did not serve within {startup_s:g} s (limits.startup_timeout_s)"
                    f"{await self._states(name)}; last output of {MAIN}:\n{watcher.tail if watcher else '(none)'}"
                ) from None
            if config.limits is not None and config.limits.run_timeout_s is not None:
                watcher.end_after(config.limits.run_timeout_s)
            params = {"token": token, "process": watcher, "container": container, "compose_project": name}
            yield Runtime(url, params, config)
        finally:
            if watcher is not None:
                watcher.release()
            await shielded(self._end(name, entry, watcher))

    async def _end(self, name: str, entry: Entry, watcher: Watcher | None) -> None:
        await self._remove(name)
        entry.removed()
        if watcher is not None:
            await anyio.to_thread.run_sync(watcher.join, REMOVE_S)

    async def _up(self, content: Mapping[str, Any], document: Document, name: str, *options: str) -> None:
        status, said = await self._run(content, document, name, "up", "--no-build", *options)
        if status:
            told = f"{said[-TAIL:]}\n{NO_ADDRESSES}" if "address pool" in said else said[-TAIL:]
            raise RuntimeStartError(
                f"compose project in {document.root} cannot be started:\n{told}{await self._states(name)}"
            )

    async def _containers(self, name: str) -> dict[str, str]:
        """Return the ids of a project's containers by service."""
        listed = await self._engine.call("containers", all=True, filters={"label": f"{PROJECT}={name}"})
        return {container["Labels"][SERVICE]: str(container["Id"]) for container in listed}

    async def _ready(self, name: str, watcher: Watcher) -> None:
        """Wait until `main` serves and every service with a health check is healthy.

        Raises:
            RuntimeStartError: a service ended with an error, or is unhealthy; has its last output.
        """
        containers = await self._containers(name)
        while True:
            pending = not watcher.ready.done()
            for service, container in containers.items():
                state = (await self._engine.call("inspect_container", container))["State"]
                health = (state.get("Health") or {}).get("Status")
                failed = state["Status"] == "exited" and state["ExitCode"] != 0
                if health == "unhealthy" or failed:
                    how = f"exit status {state['ExitCode']}" if failed else "unhealthy"
                    raise RuntimeStartError(
                        f"compose service {service!r}: {how}; {await self._told(container, state)}"
                    )
                pending = pending or health == "starting"
            if not pending:
                return
            with anyio.move_on_after(LOOK_EVERY_S):
                await (anyio.sleep_forever() if watcher.ready.done() else watcher.wait_ready())

    async def _told(self, container: str, state: Mapping[str, Any]) -> str:
        log = (state.get("Health") or {}).get("Log") or ()
        check = f"its check said: {log[-1].get('Output', '').strip()[-500:]}; " if log else ""
        output = await self._engine.call("logs", container, tail=20)
        return f"{check}its last output:\n{output.decode(errors='replace').strip() or '(none)'}"

    async def _states(self, name: str) -> str:
        with anyio.move_on_after(5, shield=True):
            listed = await self._engine.call("containers", all=True, filters={"label": f"{PROJECT}={name}"})
            states = [
                f"{container['Labels'][SERVICE]}: {container['Status'] or 'created'}" for container in listed
            ]
            return f"\nservices: {', '.join(sorted(states))}" if states else ""
        return ""

    async def _address(self, container: str, watcher: Watcher) -> str:
        """Return where `main` is reached: its published port, or its own address where its networks are internal."""
        state = (await self._engine.call("inspect_container", container))["NetworkSettings"]
        networks = state["Networks"] or {}
        internal = [
            (await self._engine.call("inspect_network", network["NetworkID"]))["Internal"]
            for network in networks.values()
        ]
        published = (state["Ports"] or {}).get(f"{self._port}/tcp")
        if published and not (internal and all(internal)):
            return f"tcp://127.0.0.1:{published[0]['HostPort']}"
        for network in networks.values():
            if network.get("IPAddress"):
                return f"tcp://{network['IPAddress']}:{self._port}"
        watcher.raise_if_ended()
        raise RuntimeStartError(
            f"compose service {MAIN!r} has neither a published port nor an address of its own"
        )

    async def _remove(self, name: str) -> None:
        """Remove all of a project; twice, since what the tool had asked for as it was ended may come late."""
        deadline = time.monotonic() + REMOVE_S
        found = True
        while found:
            try:
                with anyio.fail_after(max(deadline - time.monotonic(), 1.0)):
                    found = await self._engine.run(lambda: remove_project(self._engine, name))
            except (HudError, TimeoutError) as error:
                if time.monotonic() > deadline:
                    raise RuntimeStartError(
                        f"compose project {name} could not be removed within {REMOVE_S:g} s ({error}); "
                        f"remove it with `docker-compose -p {name} down --volumes`"
                    ) from error
                await anyio.sleep(0.5)  # the engine restarts


async def _ended(process: Process) -> None:
    """See a process, and what it started, to its end."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.returncode is not None:
            break
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with anyio.move_on_after(ENDED_S):
            await process.wait()
    await process.aclose()


def remove_project(engine: Engine, name: str) -> bool:
    """Remove containers, networks and volumes of a project through the engine; say whether there were any. Blocks."""
    import docker.errors

    label = {"label": f"{PROJECT}={name}"}
    with engine_errors(engine.base_url):
        api = engine.api
        containers = [str(c["Id"]) for c in api.containers(all=True, quiet=True, filters=label)]
        for container in containers:
            with contextlib.suppress(docker.errors.NotFound):
                api.remove_container(container, v=True, force=True)
        networks = [str(n["Id"]) for n in api.networks(filters=label)]
        for network in networks:
            with contextlib.suppress(docker.errors.NotFound):
                api.remove_network(network)
        volumes = [str(v["Name"]) for v in api.volumes(filters=label)["Volumes"] or ()]
        for volume in volumes:
            with contextlib.suppress(docker.errors.NotFound):
                api.remove_volume(volume, force=True)
    return bool(containers or networks or volumes)


def _held(config: RuntimeConfig, port: int) -> dict[str, Any]:
    """Return what holds the service `main`, whose agent is not trusted; the others are the author's."""
    held: dict[str, Any] = {
        "cap_drop": ["ALL"],
        "pids_limit": DEFAULT_PIDS,
        "init": True,
        "ports": [f"127.0.0.1::{port}"],
    }
    if config.resources is not None:
        if config.resources.cpu is not None:
            held["cpus"] = config.resources.cpu
        if config.resources.memory_mb is not None:
            held["mem_limit"] = f"{config.resources.memory_mb}m"
            held["memswap_limit"] = f"{config.resources.memory_mb}m"
    return held
