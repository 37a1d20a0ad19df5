"""The client of `ssh/2`: commands, files, ports and a shell that stays."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import secrets
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, ClassVar, Self
from urllib.parse import urlsplit

import asyncssh

from hud.capability.interfaces import CommandResult
from hud_capability_ssh.client_command import ClientCommand
from hud_capability_ssh.errors import CommandFailedError, SSHConnectionError
from hud_capability_ssh.shell_session import SSHShellSession
from hud_capability_ssh.whole_files import WholeFiles

if TYPE_CHECKING:
    from hud.capability.interfaces import StreamOpener
    from hud.types import Capability

ATTEMPTS = 3
FIRST_WAIT_S = 0.25
CONNECT_S = 30.0
ENCRYPTION = (
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "chacha20-poly1305@openssh.com",
    "aes256-ctr",
    "aes128-ctr",
)
"""The fastest here first: one call of the library encrypts and signs a packet."""
DEFAULT_TIMEOUT_S = 120.0
LONGEST_REQUEST = 30_000
LARGEST_READ = 256 << 20
OUTPUT_BYTES = 16 << 20


class SSHClient:
    """One workspace. The connection is made anew when it broke; the sandbox behind it stays.

    Paths are the workspace's; relative ones start at `cwd`.
    """

    families: ClassVar[tuple[str, ...]] = ("ssh",)

    def __init__(self, capability: Capability, opener: StreamOpener | None = None) -> None:
        self.capability = capability
        self.cwd: str = capability.params.get("cwd") or "."
        self.output_bytes = int(capability.params.get("output_bytes") or OUTPUT_BYTES)
        self._opener = opener
        self._conn: asyncssh.SSHClientConnection | None = None
        self._sftp: asyncssh.SFTPClient | None = None
        self._temporary: str | None = None
        ours = capability.params.get("whole_files")
        self._whole: WholeFiles | None = WholeFiles(self) if ours else None
        self._bulk: WholeFiles | None = (
            WholeFiles(self) if ours else None
        )  # so that no small file waits for it
        self._connecting = asyncio.Lock()
        self._sessions: set[SSHShellSession] = set()
        self._closed = False

    @classmethod
    async def connect(cls, capability: Capability, opener: StreamOpener | None = None) -> Self:
        """Connect, verifying the published host key.

        Raises:
            SSHConnectionError: nobody answers, the host key differs, or the client key is refused.
        """
        client = cls(capability, opener)
        await client.connection()
        return client

    @property
    def conn(self) -> asyncssh.SSHClientConnection:
        """The library's connection, live when last used."""
        if self._conn is None:
            raise SSHConnectionError("not connected")
        return self._conn

    @property
    def isolated(self) -> bool:
        """Whether the server is ours, which keeps variables apart from the command line and knows our signal."""
        return bool(self.capability.params.get("isolation"))

    async def connection(self) -> asyncssh.SSHClientConnection:
        """Return a live connection, made anew where it broke: three attempts, 0.25 s apart and doubling."""
        if self._conn is not None and not self._conn.is_closed():
            return self._conn
        async with self._connecting:
            if self._closed:
                raise SSHConnectionError("the client is closed")
            if self._conn is not None and not self._conn.is_closed():
                return self._conn
            self._sftp = None
            for attempt in range(ATTEMPTS):
                try:
                    self._conn = await self._dial()
                    return self._conn
                except (asyncssh.HostKeyNotVerifiable, asyncssh.PermissionDenied) as error:
                    raise SSHConnectionError(f"{self.capability.name!r}: {error.reason}") from error
                except (OSError, asyncssh.Error, TimeoutError) as error:
                    if attempt == ATTEMPTS - 1:
                        where = f"{self.capability.name!r} at {self.capability.url}"
                        raise SSHConnectionError(
                            f"cannot reach {where}: {str(error) or 'no answer'}"
                        ) from error
                await asyncio.sleep(FIRST_WAIT_S * 2**attempt)
        raise AssertionError

    async def _dial(self) -> asyncssh.SSHClientConnection:
        params = self.capability.params
        try:
            host_key = asyncssh.import_public_key(params.get("host_pubkey") or "")
        except asyncssh.KeyImportError as error:
            raise SSHConnectionError(
                f"host_pubkey of {self.capability.name!r} is no ssh public key: {error}"
            ) from error
        keys: list[Any] = []
        if params.get("client_key"):
            keys = [asyncssh.import_private_key(params["client_key"])]
        elif params.get("client_key_path"):
            keys = [params["client_key_path"]]
        target: dict[str, Any]
        if self._opener is not None:
            target = {"sock": await self._opener.open_socket()}
        else:
            url = urlsplit(self.capability.url)
            target = {"host": url.hostname or "", "port": url.port or 22}
        async with asyncio.timeout(CONNECT_S):
            conn: asyncssh.SSHClientConnection = await asyncssh.connect(
                **target,
                username=params.get("user") or "agent",
                client_keys=keys,
                known_hosts=([host_key], [], []),
                server_host_key_algs="default",
                config=None,
                agent_path=None,
                gss_host=None,
                compression_algs=None,
                encryption_algs=list(ENCRYPTION),
                window=4 << 20,
                max_pktsize=256 << 10,
                keepalive_interval=15,
                keepalive_count_max=4,
                tcp_keepalive=False,
            )
        return conn

    async def close(self) -> None:
        """End the connection and every shell over it. Safe to call twice."""
        self._closed = True
        for session in list(self._sessions):
            await session.close()
        conn, self._conn = self._conn, None
        if conn is not None:
            conn.close()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2):
                    await conn.wait_closed()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # Commands

    async def run(
        self,
        command: str | Sequence[str],
        *,
        timeout_s: float | None = None,
        timeout: float | None = None,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        input: str | bytes | None = None,  # noqa: A002 - subprocess.run's name
        check: bool = False,
        on_output: Callable[[bytes, bool], None] | None = None,
    ) -> CommandResult:
        """Run a command to its end; 120 s unless told (`timeout` is `timeout_s`), then all it started is killed.

        `on_output(data, is_stderr)` is told of each piece as it comes.

        Raises:
            CommandFailedError: `check` and it did not exit with 0.
            SSHConnectionError: the connection broke; whether the command ran to its end is not known.
        """
        seconds = (
            timeout_s if timeout_s is not None else timeout if timeout is not None else DEFAULT_TIMEOUT_S
        )
        shown = command if isinstance(command, str) else shlex.join(command)
        words = self.composed(shown, cwd, env)
        script = await self._kept(words) if len(words) > LONGEST_REQUEST else None
        running = ClientCommand(shown, self.output_bytes, on_output)
        result = await running.run(self, script or words, self.carried(env), seconds, input)
        if check and not result.ok:
            raise CommandFailedError(result)
        return result

    async def _kept(self, words: str) -> str:
        """Put what is too long for one packet of the protocol into a file; return the command that runs it."""
        path = f"{await self.temporary_folder()}/{secrets.token_hex(8)}.sh"
        await self.write_text(path, f"rm -f {path}\n{words}")
        return f". {path}"

    async def temporary_folder(self) -> str:
        """Return the folder for temporary files there; asked once."""
        if self._temporary is None:
            told = await self.run('printf %s "${TMPDIR:-/tmp}"', check=True)
            self._temporary = told.stdout
        return self._temporary

    def composed(self, command: str, cwd: str | None, env: Mapping[str, str] | None) -> str:
        """Return the words to send: with `cd` before, and variables where the server does not take them apart."""
        if env and not self.isolated:
            command = "export " + shlex.join(f"{k}={v}" for k, v in env.items()) + "\n" + command
        return command if cwd is None else f"cd -- {shlex.quote(cwd)} || exit 1\n{command}"

    def carried(self, env: Mapping[str, str] | None) -> dict[str, str]:
        """Return the variables to send apart from the command."""
        return dict(env or {}) if self.isolated else {}

    async def create_process(
        self, command: str | None = None, *, env: Mapping[str, str] | None = None, **options: Any
    ) -> asyncssh.SSHClientProcess[Any]:
        """Start a command, or a shell, and stream: the library's process, with its `stdin`, `stdout`, `stderr`."""
        conn = await self.connection()
        composed = None if command is None else self.composed(command, None, env)
        process: asyncssh.SSHClientProcess[Any] = await conn.create_process(
            composed, env=self.carried(env) or None, **options
        )
        return process

    async def session(self) -> SSHShellSession:
        """Start a shell that keeps directory, variables and virtual environments between commands."""
        made = SSHShellSession(self)
        await made.start()
        self._sessions.add(made)
        return made

    async def changes(self) -> list[dict[str, Any]]:
        """Return the files that changed since this was asked last: `path`, `kind`, `size`, `diff` or a `note`.

        Empty where the workspace does not track files.
        """
        if not self.capability.params.get("tracks_files"):
            return []
        conn = await self.connection()
        async with asyncio.timeout(DEFAULT_TIMEOUT_S):
            async with conn.create_process(subsystem="changes@hud", encoding=None) as process:
                said = await process.stdout.read()
                if process.exit_status:
                    raise SSHConnectionError(f"no changes were told: {said.decode(errors='replace').strip()}")
        found: list[dict[str, Any]] = json.loads(said)
        return found

    # Files

    async def sftp(self) -> asyncssh.SFTPClient:
        """Return the connection's one file channel."""
        conn = await self.connection()
        if self._sftp is None:
            self._sftp = await conn.start_sftp_client()
        return self._sftp

    async def read_bytes(self, path: str, *, timeout_s: float | None = None) -> bytes:
        """Return a file's content; `FileNotFoundError`, `IsADirectoryError`, `PermissionError` as the OS says."""
        if self._whole is not None:
            async with asyncio.timeout(timeout_s):
                return await self._read_whole(self._whole, path)
        with _os_errors(path):
            async with asyncio.timeout(timeout_s), (await self.sftp()).open(self.at(path), "rb") as file:
                size = (await file.stat()).size or 0
                if size > LARGEST_READ:
                    raise _too_large(path)
                content: bytes = await (file.read(size) if size else file.read())
                return content

    async def _read_whole(self, files: WholeFiles, path: str) -> bytes:
        try:
            return await files.read(self.at(path), LARGEST_READ)
        except OSError as error:
            if error.errno == errno.EFBIG:
                raise _too_large(path) from None
            raise

    async def read_text(self, path: str, *, timeout_s: float | None = None) -> str:
        """Return a file's content as UTF-8, undecodable bytes replaced."""
        return (await self.read_bytes(path, timeout_s=timeout_s)).decode("utf-8", "replace")

    async def write_bytes(self, path: str, content: bytes, *, timeout_s: float | None = None) -> None:
        """Write a file, making its folder where it is missing."""
        at = self.at(path)
        if self._whole is not None:
            async with asyncio.timeout(timeout_s):
                await self._whole.write(at, content)
            return
        with _os_errors(path):
            async with asyncio.timeout(timeout_s):
                sftp = await self.sftp()
                try:
                    file = await sftp.open(at, "wb")
                except asyncssh.SFTPNoSuchFile:
                    await sftp.makedirs(str(PurePosixPath(at).parent), exist_ok=True)
                    file = await sftp.open(at, "wb")
                async with file:
                    await file.write(content)

    async def write_text(self, path: str, content: str, *, timeout_s: float | None = None) -> None:
        """Write a file as UTF-8."""
        await self.write_bytes(path, content.encode("utf-8", "surrogateescape"), timeout_s=timeout_s)

    async def listdir(self, path: str = ".") -> list[str]:
        """Return the names in a folder, sorted."""
        with _os_errors(path):
            names = await (await self.sftp()).listdir(self.at(path))
        return sorted(name for name in names if name not in (".", ".."))

    async def upload(self, local: str | Path, remote: str, *, recurse: bool = True) -> None:
        """Copy a file, or a folder with all below it, into the workspace."""
        source, at = Path(local), self.at(remote)
        if self._bulk is not None and _is_file(source):
            try:
                await self._bulk.upload(source, at)
            except IsADirectoryError:
                await self._bulk.upload(source, f"{at}/{source.name}")
            return
        with _os_errors(remote):
            await (await self.sftp()).put(str(local), self.at(remote), recurse=recurse, preserve=False)

    async def download(self, remote: str, local: str | Path, *, recurse: bool = True) -> None:
        """Copy a file, or a folder with all below it, out of the workspace.

        Links in a folder are copied as links, never followed; those with an absolute target are left out.
        """
        if self._bulk is not None:
            try:
                await self._bulk.download(self.at(remote), _target(Path(local), remote))
            except OSError as error:
                if error.errno != errno.EISDIR or error.filename != self.at(remote):
                    raise
            else:
                return
        with _os_errors(remote):
            await (await self.sftp()).get(
                self.at(remote),
                str(local),
                recurse=recurse,
                follow_symlinks=False,
                error_handler=_leave_out_links if recurse else None,
            )

    def at(self, path: str) -> str:
        """Return a path as the server takes it."""
        if path.startswith("/"):
            return path
        path = path.removeprefix("./")
        return self.cwd if path in ("", ".") else f"{self.cwd}/{path}"

    # Ports

    async def forward_local(
        self, inside_port: int, *, host: str = "127.0.0.1", port: int = 0
    ) -> asyncssh.SSHListener:
        """Listen here and lead to a port of the sandbox's loopback; `get_port()` tells where, `close()` ends it."""
        return await (await self.connection()).forward_local_port(host, port, "127.0.0.1", inside_port)

    async def forward_remote(
        self, port: int, *, inside_port: int = 0, host: str = "127.0.0.1"
    ) -> asyncssh.SSHListener:
        """Listen on the sandbox's loopback and lead to `host:port` here."""
        conn = await self.connection()
        try:
            return await conn.forward_remote_port("127.0.0.1", inside_port, host, port)
        except asyncssh.ChannelListenError as error:
            raise PermissionError(13, f"the workspace allows no listener on port {inside_port}") from error


def _is_file(path: Path) -> bool:
    return path.is_file()


def _target(local: Path, remote: str) -> Path:
    """Return where a file is copied to: into `local` where that is a folder."""
    return local / PurePosixPath(remote).name if local.is_dir() else local


def _too_large(path: str) -> OSError:
    return OSError(
        errno.EFBIG, f"more than {LARGEST_READ} bytes are too many to read at once; use download", path
    )


def _leave_out_links(error: BaseException) -> None:
    if not (isinstance(error, asyncssh.SFTPBadMessage) and "Symlink" in error.reason):
        raise error


@contextlib.contextmanager
def _os_errors(path: str) -> Any:
    """Turn the library's errors into the system's."""
    try:
        yield
    except asyncssh.SFTPNoSuchFile as error:
        raise FileNotFoundError(2, "no such file or folder", path) from error
    except asyncssh.SFTPPermissionDenied as error:
        raise PermissionError(13, "permission denied", path) from error
    except (asyncssh.SFTPNotADirectory, asyncssh.SFTPNoSuchPath) as error:
        raise NotADirectoryError(20, "not a folder", path) from error
    except asyncssh.SFTPFileIsADirectory as error:
        raise IsADirectoryError(21, "is a folder", path) from error
    except asyncssh.SFTPConnectionLost as error:
        raise SSHConnectionError(f"connection lost while at {path!r}") from error
    except asyncssh.SFTPFailure as error:
        if "folder" in error.reason or "directory" in error.reason.lower():
            raise IsADirectoryError(21, "is a folder", path) from error
        raise OSError(5, error.reason, path) from error
    except asyncssh.SFTPError as error:
        raise OSError(5, error.reason, path) from error
    except (asyncssh.ConnectionLost, asyncssh.ChannelOpenError, BrokenPipeError) as error:
        raise SSHConnectionError(f"connection lost while at {path!r}") from error
