"""`DockerRuntime`: a fresh container per rollout, gone with it."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

import anyio

from hud.cleanup import shielded
from hud.errors import ConfigError, RuntimeStartError, UnsupportedConfigError
from hud.runtime.contract import Features, Runtime
from hud.store.redact import hide_values_of
from hud.types import RuntimeConfig, Task
from hud_runtime_docker import archive, bundle, container, manifest
from hud_runtime_docker.compose import ComposeProjects
from hud_runtime_docker.compose_file import MAIN
from hud_runtime_docker.engine import Engine
from hud_runtime_docker.labels import labels_for
from hud_runtime_docker.options import DockerBindMount, host_options, refuse_engine_socket, run_options
from hud_runtime_docker.profile import Workspaces, opened_for, require_other_than_root
from hud_runtime_docker.source_images import SourceImages
from hud_runtime_docker.watch import Watcher

READY_TIMEOUT_S = 240.0
TOKEN_FILE = "/run/hud/token"  # noqa: S105 - a path
SOURCE_FOLDER = "/hud-env"


class DockerRuntime:
    """Places each rollout in a container of its own.

    `image` serves an environment by itself (its command is `hud serve`), or, with `source="env.py"`, is any
    image at all: a self-contained server is mounted into it. Without an image, one is built of the row's (or the
    given) source, as `hud build` does, on `base`. A row's `runtime_config` overrides `runtime_config`.
    `workspaces` says what holds a shell's sandbox in there: Landlock, or namespaces, which also give it a network
    (`network=` with hosts, `peers=`) and mounts of its own, and need a user other than root.
    `run_args` are options of `docker run`; `env_vars` variables of the container; `port` the control port inside.

    Raises (when a rollout is placed):
        UnsupportedConfigError: the row asks for what Docker cannot give; before anything is created.
        RuntimeStartError: the engine is away or refuses, the image is missing, or the container never served; has
            the last 50 lines of its output.
    """

    features: ClassVar[Features] = Features(
        image=True, compose=True, cpu=True, memory=True, storage=True, gpu=True, run_timeout=True
    )
    name: ClassVar[str] = "docker"

    def __init__(
        self,
        image: str | None = None,
        *,
        source: str | Path | None = None,
        port: int = 8765,
        run_args: Sequence[str] = (),
        bind_mounts: Sequence[DockerBindMount] = (),
        runtime_config: RuntimeConfig | None = None,
        env_vars: Mapping[str, str] | None = None,
        distributions: Iterable[str] | None = None,
        engine: Engine | str | None = None,
        base: str | None = None,
        workspaces: Workspaces = "landlock",
    ) -> None:
        if workspaces not in ("landlock", "namespaces"):
            raise ConfigError(f"workspaces={workspaces!r}: use 'landlock' or 'namespaces'")
        if source is not None and not Path(source).exists():
            raise ConfigError(
                f"source {str(source)!r} does not exist; give the path of an env.py or its folder"
            )
        self.image = image
        self.source = Path(source).resolve() if source is not None else None
        self.port = port
        self.run_args = run_options(run_args)
        self.bind_mounts = tuple(bind_mounts)
        self.runtime_config = runtime_config or RuntimeConfig()
        self.env_vars = dict(env_vars or {})
        hide_values_of(self.env_vars)
        self.distributions = None if distributions is None else tuple(distributions)
        self.workspaces: Workspaces = workspaces
        self.engine = engine if isinstance(engine, Engine) else Engine(engine)
        for source_of in (
            *(m.source for m in bind_mounts),
            *(v.partition(":")[0] for v in self.run_args.volume or ()),
        ):
            refuse_engine_socket(source_of, f"mount of {source_of!r}", self.engine.base_url)
        self._images = SourceImages(self.engine, source=self.source, base=base, port=port)
        self._projects = ComposeProjects(self.engine, port=port)
        self._bundle: Path | None = None
        self._bundling = anyio.Lock()

    async def __aenter__(self) -> Self:
        self._images.forget()
        self._projects.forget()
        self._bundle = None
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def prepare(self, task: Task) -> None:
        """Build the images of a row's Compose project, or that of a row that names none where it is not there."""
        config = self.runtime_config.with_overrides(task.runtime_config)
        if config.compose is not None:
            await self._projects.document(config.compose)
        else:
            await self._image(task, config)

    async def _image(self, task: Task, config: RuntimeConfig) -> str:
        return config.image or self.image or await self._images.image_for(task)

    def _mounted(self, config: RuntimeConfig) -> Path | None:
        """Return the source that is put into a foreign image; a built image has it in it."""
        return self.source if config.image or self.image else None

    def __repr__(self) -> str:
        return f"DockerRuntime({self.image!r})"

    @asynccontextmanager
    async def __call__(self, task: Task) -> AsyncIterator[Runtime]:
        """Create a container for `task`, wait until it serves, and remove it at the end.

        Cancelling is safe at any point: a container already created is removed before the cancellation goes on.
        """
        config = self.runtime_config.with_overrides(task.runtime_config)
        self.features.require(config, runtime="docker")
        await self.engine.back((config.limits and config.limits.startup_timeout_s) or READY_TIMEOUT_S)
        if config.compose is not None:
            async with self._composed(task, config) as runtime:
                yield runtime
            return
        image = await self._image(task, config)
        token = secrets.token_hex(32)
        options = await self._creation(image, config, task, token)
        watcher: Watcher | None = None
        try:
            async with container.created(self.engine, options) as name:
                watcher = Watcher(self.engine, name)
                try:
                    port = await self._served(name, watcher, image, token, config)
                    params = {"token": token, "process": watcher, "container": name}
                    if config.limits is not None and config.limits.run_timeout_s is not None:
                        watcher.end_after(config.limits.run_timeout_s)
                    yield Runtime(f"tcp://127.0.0.1:{port}", params, config)
                finally:
                    watcher.release()
        finally:
            if watcher is not None:
                await shielded(watcher.joined())

    async def _served(
        self, name: str, watcher: Watcher, image: str, token: str, config: RuntimeConfig
    ) -> int:
        """Put into the container what it needs, start it, and return its port once it serves."""
        startup_s = (config.limits and config.limits.startup_timeout_s) or READY_TIMEOUT_S
        try:
            with anyio.fail_after(startup_s):
                if not self.run_args.read_only:
                    await self._furnish(name, image, token, self._mounted(config))
                # Whether it was meant to serve, only its author knows.
                hint = f"\nan image that serves no environment by itself, as {image!r} may be, needs source='env.py'"
                return await self._start(name, watcher, "" if self._mounted(config) else hint)
        except TimeoutError:
            raise RuntimeStartError(
                f"the container of image {image!r} did not serve within {startup_s:g} s (limits.startup_timeout_s)"
                f"; its last output:\n{watcher.tail or '(none)'}"
            ) from None

    @asynccontextmanager
    async def _composed(self, task: Task, config: RuntimeConfig) -> AsyncIterator[Runtime]:
        """Place `task` in a Compose project of its own; `source`, where given, is served in its `main`."""
        assert config.compose is not None
        if self.workspaces != "landlock":
            raise UnsupportedConfigError(
                f"workspaces={self.workspaces!r} is not for Compose projects; leave it at 'landlock'"
            )
        document = await self._projects.document(config.compose)
        main: dict[str, Any] = {"environment": {"HUD_TOKEN_FILE": TOKEN_FILE, **self.env_vars}}
        if self.source is not None:
            variables, folder, command = await self._serving(self.source, task)
            main["environment"] |= variables
            main |= {
                "volumes": [f"{folder}:{bundle.GUEST}:ro"],
                "entrypoint": command,
                "working_dir": SOURCE_FOLDER,
            }

        async def furnish(container: str, token: str) -> None:
            await self._furnish(container, document.image_of(MAIN), token, self.source)

        async with self._projects.placed(
            document,
            config,
            labels=labels_for(task, config),
            main=main,
            token=secrets.token_hex(32),
            furnish=furnish,
            startup_s=(config.limits and config.limits.startup_timeout_s) or READY_TIMEOUT_S,
        ) as runtime:
            yield runtime

    async def _serving(self, source: Path, task: Task) -> tuple[dict[str, str], Path, list[str]]:
        """Return what serves `source` in any image: variables, the folder to mount, and the command."""
        folder = await self._bundled_server()
        guest = await anyio.to_thread.run_sync(
            lambda: SOURCE_FOLDER if source.is_dir() else f"{SOURCE_FOLDER}/{source.name}"
        )
        serve = ("-m", "hud.environment.server", guest, "--env", task.env, "--host", "0.0.0.0")  # noqa: S104
        return bundle.environment(), folder, bundle.command(*serve, "--port", str(self.port))

    async def _creation(self, image: str, config: RuntimeConfig, task: Task, token: str) -> dict[str, Any]:
        """Return the SDK's arguments for `create_container`."""
        given = self.run_args
        environment = {
            # An engine puts no file into a container that is read-only, also before its start.
            **({"HUD_TOKEN": token} if given.read_only else {"HUD_TOKEN_FILE": TOKEN_FILE}),
            **self.env_vars,
            **dict(item.partition("=")[::2] for item in given.env or ()),
        }
        mounts = list(self.bind_mounts)
        command: list[str] | None = None
        source = self._mounted(config)
        if source is not None:
            if given.read_only:
                raise ConfigError(
                    "run_args: --read-only: source= is copied into the container, which the engine refuses then; "
                    "build an image of it (hud build), or leave --read-only out"
                )
            variables, folder, command = await self._serving(source, task)
            mounts.append(DockerBindMount(str(folder), bundle.GUEST))
            environment = variables | environment
        known = await self.engine.call("inspect_image", image)
        if source is None:
            manifest.check(known["Config"].get("Labels"), task, image)
        if self.workspaces == "namespaces":
            require_other_than_root(str(given.user or known["Config"].get("User") or ""), image)
        host_config = await self.engine.call(
            "create_host_config",
            **host_options(config, given, mounts, port=self.port),
        )
        host_config |= opened_for(self.workspaces)
        options: dict[str, Any] = {
            "image": image,
            "environment": environment,
            "labels": {
                **labels_for(task, config),
                **dict(item.partition("=")[::2] for item in given.label or ()),
            },
            "ports": [self.port],
            "host_config": host_config,
            "hostname": given.hostname or "env",
            "platform": given.platform,
            "user": given.user,
            "working_dir": given.workdir or (SOURCE_FOLDER if source else None),
            "entrypoint": command or ([given.entrypoint] if given.entrypoint else None),
        }
        return {key: value for key, value in options.items() if value is not None}

    async def _bundled_server(self) -> Path:
        """Return the folder that is mounted into foreign images, looked for once a job."""
        async with self._bundling:  # holds: one look at what is installed at a time
            known = self._bundle
            if known is None or not await anyio.to_thread.run_sync(bundle.kept, known):
                self._bundle = known = await anyio.to_thread.run_sync(bundle.bundle_for, self._bundled())
            return known

    def _bundled(self) -> tuple[str, ...]:
        """Return what the bundle holds besides core: what was asked for, else every installed capability and grader."""
        if self.distributions is not None:
            return self.distributions
        from importlib.metadata import entry_points

        named = {point.dist.name for point in entry_points(group="hud") if point.dist is not None}
        return tuple(sorted(n for n in named if n.startswith(("hud-capability-", "hud-grader-"))))

    async def _furnish(self, container: str, image: str, token: str, source: Path | None) -> None:
        """Put token and source into the container before anything runs in it."""
        uid, gid = await self._user_ids(container, image)
        secret = archive.secret_file(TOKEN_FILE, token, uid=uid, gid=gid)
        await self.engine.call("put_archive", container, "/", secret)
        if source is not None:
            tree = await anyio.to_thread.run_sync(
                lambda: archive.source_tree(source, SOURCE_FOLDER, uid=uid, gid=gid)
            )
            await self.engine.call("put_archive", container, "/", tree)

    async def _user_ids(self, container: str, image: str) -> tuple[int, int]:
        """Return the ids the container's program will run with, names looked up in the image's own /etc/passwd."""
        user = (await self.engine.call("inspect_container", container))["Config"].get("User") or "0"
        name, _, group = str(user).partition(":")
        if name.isdigit():
            return int(name), int(group) if group.isdigit() else int(name)
        for line in (await self._read_file(container, "/etc/passwd")).splitlines():
            fields = line.split(":")
            if fields[0] == name and len(fields) > 3:
                return int(fields[2]), int(group) if group.isdigit() else int(fields[3])
        raise RuntimeStartError(f"image {image!r} runs as user {name!r}, which its /etc/passwd does not have")

    async def _read_file(self, container: str, path: str) -> str:
        import io
        import tarfile

        chunks, _ = await self.engine.call("get_archive", container, path)
        data = await anyio.to_thread.run_sync(lambda: b"".join(chunks))
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            file = tar.extractfile(tar.getmembers()[0])
            return file.read().decode(errors="replace") if file else ""

    async def _start(self, container: str, watcher: Watcher, hint: str) -> int:
        """Start the container and return the port it is published on, once it serves."""
        if await self.engine.is_podman():
            # There, attaching makes the container ready to start, ports and all, and the start fails on those. What is
            # printed meanwhile comes from its log.
            await self.engine.call("start", container)
            await watcher.begin()
        else:
            await watcher.begin()
            await self.engine.call("start", container)
        await watcher.wait_ready(hint)
        state = await self.engine.call("inspect_container", container)
        published = (state["NetworkSettings"]["Ports"] or {}).get(f"{self.port}/tcp")
        if not published:
            watcher.raise_if_ended()
            raise RuntimeStartError(
                f"the engine published no port for {self.port}/tcp; `--network none` and internal networks cannot"
            )
        return int(published[0]["HostPort"])
