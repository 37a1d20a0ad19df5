"""What is put into a container before it starts, as tar archives."""

from __future__ import annotations

import io
import tarfile
import time
from pathlib import Path

from hud.errors import UnsupportedConfigError
from hud_runtime_docker.context import BuildContext, add_path

SOURCE_LIMIT = 200 * 1024 * 1024


def secret_file(path: str, content: str, *, uid: int, gid: int) -> bytes:
    """Return an archive for `/` with one file that only `uid` can read, in a folder it can remove it from."""
    data = content.encode()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        parts = Path(path.lstrip("/")).parts
        for depth in range(1, len(parts)):
            folder = tarfile.TarInfo("/".join(parts[:depth]))
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            if depth == len(parts) - 1:
                folder.mode, folder.uid, folder.gid = 0o700, uid, gid
            archive.addfile(folder)
        entry = tarfile.TarInfo("/".join(parts))
        entry.size, entry.mode, entry.uid, entry.gid, entry.mtime = (
            len(data),
            0o400,
            uid,
            gid,
            int(time.time()),
        )
        archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def source_tree(source: Path, guest: str, *, uid: int, gid: int) -> bytes:
    """Return an archive for `/` with the folder of `source` under `guest`: what an image of it would hold, of `uid`.

    Raises:
        UnsupportedConfigError: it is over 200 MB; an image is the right form then.
    """
    folder = source if source.is_dir() else source.parent
    buffer = io.BytesIO()
    total = 0
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        root = tarfile.TarInfo(guest.lstrip("/"))
        root.type, root.mode, root.uid, root.gid = tarfile.DIRTYPE, 0o755, uid, gid
        archive.addfile(root)
        for inside in BuildContext.of(folder).files:
            path = folder / inside
            total += path.lstat().st_size
            if total > SOURCE_LIMIT:
                raise UnsupportedConfigError(
                    f"{folder} is over {SOURCE_LIMIT >> 20} MB; build an image of it, or move data out of it"
                )
            add_path(archive, f"{guest.lstrip('/')}/{inside}", path, owner=(uid, gid))
    return buffer.getvalue()
