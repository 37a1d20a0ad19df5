"""The backing: a folder served as a sandboxed shell over ssh."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from hud.capability.interfaces import CommandResult
from hud.errors import SandboxError
from hud.types import Capability
from hud_capability_ssh import disk
from hud_capability_ssh.belongings import Folder, settled
from hud_capability_ssh.limits import Limits
from hud_capability_ssh.loops import on_loop
from hud_capability_ssh.mounts import DEFAULT_SYSTEM_MOUNTS, Mount
from hud_capability_ssh.network import Network, hosts_of, variables
from hud_capability_ssh.owners import OwnerLease, can_lease, hand_over
from hud_capability_ssh.peers import Peer
from hud_capability_ssh.sandboxes import Sandboxes
from hud_capability_ssh.spec import SandboxSpec
from hud_capability_ssh.state import StateKeeper
from hud_capability_ssh.tracking import FileTracker

if TYPE_CHECKING:
    import asyncssh

    from hud_capability_ssh.inside_shell import InsideShell
    from hud_capability_ssh.launched import Launched
    from hud_capability_ssh.sandbox import Sandbox
    from hud_capability_ssh.server import Server


class Workspace:
    """A folder the agent works in. Made by `env.workspace(root)`, or by hand and attached with `env.use`.

    `root` is the folder here, `guest_root` the same inside. Options are described in docs/workspace.md.
    """

    preload: ClassVar[tuple[str, ...]] = (
        "hud_capability_ssh.server",
        "hud_capability_ssh.sandbox",
        "hud_capability_ssh.inside",
        "hud_capability_ssh.grading",
        "hud_capability_ssh.seeds",
        "hud_capability_ssh.preparation:prepare",
        "hud.runtime.ledger",
        "concurrent.futures.thread",
    )
    """What serving needs: imported and made once, by a zygote, before it forks."""

    def __init__(
        self,
        root: str | Path,
        *,
        name: str = "shell",
        mounts: Sequence[Mount] = (),
        network: Network = False,
        allowed_hosts: Sequence[str] | None = None,
        peers: Sequence[Peer] = (),
        env: Mapping[str, str] | None = None,
        system_mounts: Sequence[Mount] | None = None,
        guest_path: str = "/workspace",
        track_files: bool | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        user: str = "agent",
        host_key_path: str | Path | None = None,
        authorized_client_keys: str | Path | None = None,
        shell_uid: int | None = None,
        shell_gid: int | None = None,
        local_aliases: Sequence[str] = (),
        ports: Sequence[int] | None = None,
        require_isolation: bool = True,  # noqa: ARG002 - HUD's name; here isolation is required unless isolation="none"
        limits: Limits | Mapping[str, Any] | None = None,
        isolation: Literal["required", "none"] = "required",
        engine: Literal["bubblewrap", "landlock"] | None = None,
        seed: str | Path | None = None,
        hand_over_root: bool = True,
    ) -> None:
        if isolation not in ("required", "none"):
            raise ValueError(f"isolation={isolation!r}: use 'required' or 'none'")
        if not guest_path.startswith("/") or guest_path == "/":
            raise ValueError(f"guest_path={guest_path!r} must be an absolute path below /")
        self.name = name
        self.root = Path(root).absolute()
        self.user = user
        self.limits = Limits.of(limits)
        self.isolation = isolation
        self.forward_ports = None if ports is None else frozenset(ports)
        hosts = hosts_of(network, allowed_hosts)
        spec = SandboxSpec(
            name="workspace",
            root=self.root,
            guest_path=guest_path,
            mounts=tuple(mounts),
            system_mounts=DEFAULT_SYSTEM_MOUNTS if system_mounts is None else tuple(system_mounts),
            env={**variables(hosts), **(env or {})},
            limits=self.limits,
            host_names=(*local_aliases, *(peer.name for peer in peers)),
        )
        self._boxes = Sandboxes(spec, "none" if isolation == "none" else engine, hosts, peers)
        if track_files is None:
            from hud.settings import settings

            track_files = settings.file_tracking_enabled
        self.tracker = FileTracker(self.root) if track_files else None
        self._state = StateKeeper(self.root)
        self._tracking = asyncio.Lock()
        self._came_in = False
        self._host, self._port = host, port
        self._host_key_path = host_key_path
        self._authorized = authorized_client_keys
        self._shell_uid = shell_uid
        self._shell_gid = shell_uid if shell_gid is None else shell_gid
        self._seed = None if seed is None else Path(seed)
        self._hand_over_root = hand_over_root
        self._lease: OwnerLease | None = None
        self._disk: disk.SizedFolder | None = None
        self._server: Server | None = None
        self._keys: set[bytes] = set()
        self._sealed = self._kept = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._key_folder: Folder | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._capability: Capability | None = None

    @property
    def engine(self) -> str | None:
        """What holds the sandbox; None until `start` found out what can be had."""
        return self._boxes.engine

    @property
    def guest_root(self) -> str:
        """The folder's path inside; the same as here where the engine mounts nothing."""
        return self._boxes.spec.guest_path if self.engine in (None, "bubblewrap") else str(self.root)

    # The backing

    async def start(self) -> Sequence[Capability]:
        """Make the folder, start the sandbox and the ssh server; return the capability to publish.

        Raises:
            SandboxError: no isolation can be had here, or the seed is missing.
        """
        import asyncssh

        from hud_capability_ssh.server import Server

        self._loop = asyncio.get_running_loop()
        self._sealed = self._kept = self._came_in = False
        await asyncio.to_thread(self._prepare)
        if self._host_key_path is None:
            host_key = asyncssh.generate_private_key("ssh-ed25519")
        else:
            host_key = asyncssh.read_private_key(str(self._host_key_path))
        client_key = asyncssh.generate_private_key("ssh-ed25519")
        self._keys = {client_key.public_data}
        if self._authorized is not None:
            self._keys |= {key.public_data for key in asyncssh.read_public_key_list(str(self._authorized))}
        await self.running()
        self._server = Server(self, host_key)
        await self._server.start(self._host, self._port)
        self._capability = Capability.ssh(
            name=self.name,
            url=f"ssh://{self._host}:{self._server.port}",
            user=self.user,
            host_pubkey=host_key.export_public_key().decode().strip(),
            client_key=client_key.export_private_key().decode(),
            cwd=self.guest_root,
            isolation="bwrap" if self.engine == "bubblewrap" else self.engine,
        )
        self._capability.params["output_bytes"] = self.limits.output_bytes
        self._capability.params["whole_files"] = True
        if self.tracker is not None:
            self._capability.params["tracks_files"] = True
        return [self._capability]

    def _prepare(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        if self.isolation != "none" and disk.wanted(self.root, self.limits):
            self._disk = disk.SizedFolder(self.root, self.limits.disk)
        if self._seed is not None:
            from hud_capability_ssh.seeds import plant

            plant(self._seed, self.root)
        owner: tuple[int, int] | None = None
        if self._shell_uid is not None:
            owner = (self._shell_uid, self._shell_gid or self._shell_uid)
        elif self.isolation != "none" and can_lease():
            self._lease = OwnerLease()
            owner = (self._lease.uid, self._lease.uid)
        if owner is not None and self._hand_over_root:
            hand_over(self.root, *owner)
        # Whatever is planted in it, no other user of this machine can walk to it.
        self.root.chmod(0o700)
        self._boxes.spec = replace(self._boxes.spec, owner=owner, root_in_memory=self._disk is not None)

    async def stop(self) -> None:
        """End server and sandbox, with everything inside. Safe to call twice."""
        server, self._server = self._server, None
        self._sealed = True
        try:
            if server is not None:
                await server.close()
        finally:
            # Its processes' ends settle what serves them; only then is there nothing left to wait for.
            await self._boxes.close()
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self._key_folder is not None:
                self._key_folder.remove()
                self._key_folder = None
            if self._disk is not None:
                self._disk.close()
                self._disk = None
            if self._lease is not None:
                self._lease.close()
                self._lease = None
            await asyncio.to_thread(settled)

    def how_to_enter(self) -> str:
        """Return the command line by which OpenSSH enters; its key lies in a folder of its own until `stop`."""
        if self._capability is None or self._server is None:
            raise SandboxError(f"workspace {self.name!r} is not started")
        if self._key_folder is None:
            self._key_folder = Folder("hud-key-")
            key = self._key_folder.path / "key"
            key.touch(mode=0o600)
            key.write_text(self._capability.params["client_key"])
            host_key = self._capability.params["host_pubkey"]
            (self._key_folder.path / "hosts").write_text(f"[{self._host}]:{self._server.port} {host_key}\n")
        at = self._key_folder.path
        options = f"-o UserKnownHostsFile={at}/hosts -o IdentitiesOnly=yes"
        return f"ssh -i {at}/key {options} -p {self._server.port} {self.user}@{self._host}"

    def capability(self, name: str | None = None) -> Capability:
        """Return what is published, under another name where one is given; for workspaces started by hand."""
        if self._capability is None:
            raise SandboxError(f"workspace {self.name!r} is not started")
        return replace(self._capability, name=name or self.name)

    @property
    def ssh_url(self) -> str:
        """Where the server listens."""
        return self.capability().url

    @property
    def ssh_host_pubkey(self) -> str:
        """The server's key."""
        return str(self.capability().params["host_pubkey"])

    @property
    def ssh_user(self) -> str:
        """Who may enter."""
        return self.user

    @property
    def tracks_files(self) -> bool:
        """Whether changed files are noted."""
        return self.tracker is not None

    def own(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` until it is done or the workspace stops."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def running(self) -> Sandbox:
        """Return the live sandbox; one that had ended is started anew on the same files."""
        if self._sealed:
            raise SandboxError(f"workspace {self.name!r} is closed to the agent while its work is graded")
        return await self._boxes.agent()

    async def client_came_in(self) -> None:
        """With the first client: give it the files that the template wrote, and begin to track them."""
        async with self._tracking:
            if not self._came_in:
                await self._hand_over()
                self._came_in = True
                await asyncio.to_thread(self._begin_tracking)

    def _begin_tracking(self) -> None:
        if self.tracker is not None:
            self.tracker.begin()
        self._state.begin()

    async def _hand_over(self) -> None:
        """Give what this process wrote since the start to the sandbox's user."""
        owner = self._boxes.spec.owner
        if owner is not None and self._hand_over_root:
            await asyncio.to_thread(hand_over, self.root, *owner)

    async def changes(self) -> list[dict[str, Any]]:
        """Return the files that changed since this was asked last, as JSON's types."""
        if self.tracker is None or not self.tracker.began:
            return []
        async with self._tracking:
            return [change.plain() for change in await asyncio.to_thread(self.tracker.since_last)]

    async def facts(self) -> dict[str, Any]:
        """Return what is to be known of this workspace with the grade: its engine, and the files that changed."""
        known: dict[str, Any] = {"sandbox": self.engine, "disk": "watched" if self._disk is None else "sized"}
        if self.tracker is not None and self.tracker.began:
            async with self._tracking:
                known["files"] = [
                    change.plain() for change in await asyncio.to_thread(self.tracker.since_start)
                ]
        return {f"workspace:{self.name}": known}

    async def take_state(self, limit_bytes: int) -> dict[str, Any] | None:
        """Return the files that changed since the agent came in; see `KeepsState`."""
        async with self._tracking:
            return await asyncio.to_thread(self._state.take, limit_bytes)

    async def restore_state(self, state: Mapping[str, Any]) -> None:
        """Put kept files over what the template made; see `KeepsState`."""
        from hud_capability_ssh.state import restore

        await self._hand_over()
        async with self._tracking:
            await asyncio.to_thread(restore, self.root, state, self._boxes.spec.owner)

    def key_is_known(self, key: asyncssh.SSHKey) -> bool:
        """Whether this client's key may come in, now."""
        return not self._sealed and key.public_data in self._keys

    # What the environment asks before and after grading

    async def seal(self, *, keep_agent_processes: bool) -> None:
        """Close the agent's channel and end its processes, or leave them running where they are."""
        self._sealed = True
        self._kept = keep_agent_processes
        if self._server is not None:
            await self._server.drop_connections()
        if not keep_agent_processes:
            await self._boxes.end_agent()

    async def unseal(self) -> None:
        """End what is left of the task before, services too, and let clients in again."""
        if self._sealed:
            self._came_in = False
            self.tracker = None if self.tracker is None else FileTracker(self.root)
            self._state = StateKeeper(self.root)
            await self._boxes.end_agent()
            await self._boxes.end_services()
        self._sealed = False

    # For templates and graders

    async def run(
        self,
        command: str | Sequence[str],
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
        input: str | bytes | None = None,  # noqa: A002 - subprocess.run's name
    ) -> CommandResult:
        """Run a command in the agent's sandbox, as the author; while grading, in one of its own (without `input`)."""
        return await on_loop(self._loop, self._run(command, cwd, env, timeout_s, input))

    async def _run(
        self,
        command: str | Sequence[str],
        cwd: str | None,
        env: Mapping[str, str] | None,
        timeout_s: float | None,
        data: str | bytes | None,
    ) -> CommandResult:
        from hud_capability_ssh.inside import run_inside

        if self._sealed:  # the agent's sandbox is gone or not to be trusted: as a grader's command
            return await self._grading_run(command, cwd, timeout_s or 120.0, env, {})
        sandbox = await self._for_author()
        return await run_inside(
            sandbox, command, cwd=self.guest(cwd), env=env, timeout_s=timeout_s or 120.0, input=data
        )

    async def _for_author(self) -> Sandbox:
        if not self._came_in:
            await self._hand_over()
        return await self.running()

    @asynccontextmanager
    async def shell(self) -> AsyncIterator[InsideShell]:
        """Open the workspace's shell for a template, or in a sandbox of its own for a grader, without ssh."""
        from hud_capability_ssh.inside_shell import InsideShell

        fresh = self._sealed
        sandbox = await on_loop(self._loop, self._for_grader() if fresh else self._for_author())
        try:
            yield InsideShell(sandbox)
        finally:
            if fresh:
                await on_loop(self._loop, sandbox.close())

    async def _for_grader(self) -> Sandbox:
        kept = self._kept and self._boxes.live_agent is not None
        return await self._boxes.start(self._boxes.grader_spec(kept=kept))

    async def launch(
        self,
        command: str | Sequence[str],
        *,
        service: bool = False,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Launched:
        """Start a process and let it run: beside the agent's, or with `service=True` where the agent cannot end it.

        A service has a pid namespace of its own on the same files. It lives on while the grader runs, and the ports it
        listens on answer on the agent's loopback and on the grader's.
        """
        return await on_loop(self._loop, self._launch(command, service, cwd, env))

    async def _launch(
        self, command: str | Sequence[str], service: bool, cwd: str | None, env: Mapping[str, str] | None
    ) -> Launched:
        await self._for_author()
        return await self._boxes.launch(command, service=service, cwd=self.guest(cwd), env=env)

    async def grading_run(
        self,
        command: str | Sequence[str],
        *,
        cwd: str | None = None,
        timeout_s: float = 600.0,
        env: Mapping[str, str] | None = None,
        files: Mapping[str, str | bytes | Path] | None = None,
    ) -> CommandResult:
        """Run a grading command in a sandbox of its own on the agent's files; see `GradingShell`."""
        return await on_loop(self._loop, self._grading_run(command, cwd, timeout_s, env, files or {}))

    async def _grading_run(
        self,
        command: str | Sequence[str],
        cwd: str | None,
        timeout_s: float,
        env: Mapping[str, str] | None,
        files: Mapping[str, str | bytes | Path],
    ) -> CommandResult:
        given = {
            self._at(path): data.encode() if isinstance(data, str) else data for path, data in files.items()
        }
        if self._came_in and not self._sealed:
            # Started by hand, or graded in the middle: nobody else sees to it that the agent's processes are gone.
            if self._server is not None:
                await self._server.drop_connections()
            await self._boxes.end_agent()
        return await self._boxes.grade(
            command, kept=self._kept, cwd=self.guest(cwd), timeout_s=timeout_s, env=env, files=given
        )

    def guest(self, path: str | None) -> str | None:
        """Return a path as it is inside: one below the folder here is translated, a relative one starts there."""
        return None if path is None else self._at(path)

    def _at(self, path: str) -> str:
        if not path.startswith("/"):
            return os.path.normpath(f"{self.guest_root}/{path}")
        try:
            return os.path.normpath(f"{self.guest_root}/{Path(path).relative_to(self.root)}")
        except ValueError:
            return path


__all__ = ["SandboxError", "Workspace"]
