"""Files over sftp and scp: every path is walked inside the sandbox, by its spawner, never on the host."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import asyncssh

from hud.errors import SandboxError

if TYPE_CHECKING:
    from hud_capability_ssh.sandbox import Sandbox
    from hud_capability_ssh.server import Served


LONGEST_READ = 4 << 20
"""A client asks again for what is missing (draft-ietf-secsh-filexfer-02, section 6.4)."""


class OpenFile:
    """A regular file inside, open here."""

    def __init__(self, fd: int, append: bool) -> None:
        self.fd = fd
        self.append = append

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Tell where data and holes begin, as the library asks before it copies a file; reading has its own offsets."""
        return os.lseek(self.fd, offset, whence)


class SandboxFiles(asyncssh.SFTPServer):
    """The library's server, with each call on paths handed to the sandbox. Relative paths start at its folder."""

    def __init__(self, chan: Any, workspace: Served) -> None:
        super().__init__(chan)
        self._workspace = workspace

    async def _inside(self) -> Sandbox:
        try:
            await self._workspace.client_came_in()
            return await self._workspace.running()
        except SandboxError as error:
            raise asyncssh.SFTPFailure(str(error)) from error

    async def _path(self, path: bytes) -> tuple[Sandbox, bytes]:
        sandbox = await self._inside()
        return sandbox, path if path.startswith(b"/") else os.fsencode(sandbox.spec.guest_path) + b"/" + path

    async def _change(self, verb: str, path: bytes, *rest: Any) -> list[Any]:
        sandbox, at = await self._path(path)
        return await sandbox.change(verb, at, *rest)

    async def open(self, path: bytes, pflags: int, attrs: asyncssh.SFTPAttrs) -> OpenFile:
        both = asyncssh.FXF_READ | asyncssh.FXF_WRITE
        flags = (
            os.O_RDWR
            if pflags & both == both
            else os.O_WRONLY
            if pflags & asyncssh.FXF_WRITE
            else os.O_RDONLY
        )
        for theirs, ours in (
            (asyncssh.FXF_CREAT, os.O_CREAT),
            (asyncssh.FXF_TRUNC, os.O_TRUNC),
            (asyncssh.FXF_EXCL, os.O_EXCL),
            (asyncssh.FXF_APPEND, os.O_APPEND),
        ):
            if pflags & theirs:
                flags |= ours
        mode = 0o666 if attrs.permissions is None else attrs.permissions & 0o777
        sandbox, at = await self._path(path)
        fd = await sandbox.open(os.fsdecode(at), flags, mode)
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            os.close(fd)
            raise asyncssh.SFTPFailure("is a folder")
        return OpenFile(fd, bool(pflags & asyncssh.FXF_APPEND))

    def close(self, file_obj: object) -> None:
        assert isinstance(file_obj, OpenFile)
        os.close(file_obj.fd)

    def read(self, file_obj: object, offset: int, size: int) -> bytes:
        assert isinstance(file_obj, OpenFile)
        # Clients ask for 4 MB at a time, and may ask for 4 GB: room for no more than there is and than is sent at once.
        left = os.fstat(file_obj.fd).st_size - offset
        return os.pread(file_obj.fd, min(size, left, LONGEST_READ), offset) if left > 0 else b""

    def write(self, file_obj: object, offset: int, data: bytes) -> int:
        assert isinstance(file_obj, OpenFile)
        if file_obj.append:
            return os.write(file_obj.fd, data)
        view = memoryview(data)
        while view:
            done = os.pwrite(file_obj.fd, view, offset)
            view, offset = view[done:], offset + done
        return len(data)

    def fstat(self, file_obj: object) -> Any:
        assert isinstance(file_obj, OpenFile)
        return asyncssh.SFTPAttrs.from_local(os.fstat(file_obj.fd))

    def fsync(self, file_obj: object) -> None:
        assert isinstance(file_obj, OpenFile)
        os.fsync(file_obj.fd)

    async def fsetstat(self, file_obj: object, attrs: asyncssh.SFTPAttrs) -> None:
        assert isinstance(file_obj, OpenFile)
        if attrs.size is not None:
            os.ftruncate(file_obj.fd, attrs.size)
        if attrs.permissions is not None:
            os.fchmod(file_obj.fd, stat.S_IMODE(attrs.permissions) & ~0o6000)
        if attrs.mtime is not None:
            os.utime(file_obj.fd, (attrs.atime or attrs.mtime, attrs.mtime))

    async def lstat(self, path: bytes) -> asyncssh.SFTPAttrs:
        return await self._stat(path, follow=False)

    async def stat(self, path: bytes) -> asyncssh.SFTPAttrs:
        return await self._stat(path, follow=True)

    async def _stat(self, path: bytes, *, follow: bool) -> asyncssh.SFTPAttrs:
        sandbox, at = await self._path(path)
        return attributes(await sandbox.stat(os.fsdecode(at), follow=follow))

    async def scandir(self, path: bytes) -> AsyncIterator[asyncssh.SFTPName]:
        sandbox, at = await self._path(path)
        for name in (b".", b".."):
            yield asyncssh.SFTPName(name, attrs=await self._stat(at + b"/" + name, follow=False))
        for entry, found in await sandbox.names(os.fsdecode(at)):
            yield asyncssh.SFTPName(os.fsencode(entry), attrs=attributes(found))

    async def setstat(self, path: bytes, attrs: asyncssh.SFTPAttrs) -> None:
        if attrs.size is not None:
            await self._change("truncate", path, attrs.size)
        if attrs.permissions is not None:
            await self._change("chmod", path, stat.S_IMODE(attrs.permissions) & ~0o6000)
        if attrs.mtime is not None:
            await self._change("utime", path, (attrs.atime or attrs.mtime, attrs.mtime))

    async def lsetstat(self, path: bytes, attrs: asyncssh.SFTPAttrs) -> None:
        await self.setstat(path, attrs)

    async def remove(self, path: bytes) -> None:
        await self._change("unlink", path)

    async def mkdir(self, path: bytes, attrs: asyncssh.SFTPAttrs) -> None:
        await self._change("mkdir", path, 0o777 if attrs.permissions is None else attrs.permissions & 0o777)

    async def rmdir(self, path: bytes) -> None:
        await self._change("rmdir", path)

    async def realpath(self, path: bytes) -> bytes:
        return os.fsencode((await self._change("realpath", path))[0])

    async def rename(self, oldpath: bytes, newpath: bytes) -> None:
        _, to = await self._path(newpath)
        await self._change("rename", oldpath, to)

    async def posix_rename(self, oldpath: bytes, newpath: bytes) -> None:
        await self.rename(oldpath, newpath)

    async def readlink(self, path: bytes) -> bytes:
        return os.fsencode((await self._change("readlink", path))[0])

    async def symlink(self, oldpath: bytes, newpath: bytes) -> None:
        sandbox, to = await self._path(newpath)
        await sandbox.change("symlink", oldpath, to)

    async def link(self, oldpath: bytes, newpath: bytes) -> None:
        _, to = await self._path(newpath)
        await self._change("link", oldpath, to)

    async def statvfs(self, path: bytes) -> asyncssh.SFTPVFSAttrs:
        found = (await self._change("statvfs", path))[0]
        return asyncssh.SFTPVFSAttrs(*[int(value) for value in (*found[:9], found[9], 255)][:11])

    def fstatvfs(self, file_obj: object) -> Any:
        assert isinstance(file_obj, OpenFile)
        return asyncssh.SFTPVFSAttrs.from_local(os.fstatvfs(file_obj.fd))

    def exit(self) -> None:
        """Say that all went well: `scp` takes a channel that ends without a status for a failure."""
        with contextlib.suppress(OSError):
            self.channel.exit(0)

    def format_user(self, uid: int | None) -> str:
        return "agent" if uid in (None, 1000) else str(uid)

    def format_group(self, gid: int | None) -> str:
        return "agent" if gid in (None, 1000) else str(gid)


def attributes(found: list[int]) -> asyncssh.SFTPAttrs:
    """Return what the protocol tells of a file."""
    mode, size, uid, gid, atime, mtime, links, _ = found
    return asyncssh.SFTPAttrs(
        type=_kind(mode),
        permissions=mode,
        size=size,
        uid=uid,
        gid=gid,
        atime=atime // 10**9,
        mtime=mtime // 10**9,
        nlink=links,
    )


def _kind(mode: int) -> int:
    if stat.S_ISREG(mode):
        return int(asyncssh.FILEXFER_TYPE_REGULAR)
    if stat.S_ISDIR(mode):
        return int(asyncssh.FILEXFER_TYPE_DIRECTORY)
    if stat.S_ISLNK(mode):
        return int(asyncssh.FILEXFER_TYPE_SYMLINK)
    return int(asyncssh.FILEXFER_TYPE_SPECIAL)
