"""What a workspace starts from: a folder or an archive, copied in."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
from pathlib import Path

from hud.errors import SandboxError


def plant(seed: Path, root: Path) -> None:
    """Copy a folder's content, or unpack a tar or zip file, over `root`. Links stay links; none may lead out.

    Raises:
        SandboxError: `seed` is missing, is no archive, or holds a path that leads out.
    """
    if seed.is_dir():
        shutil.copytree(seed, root, symlinks=True, dirs_exist_ok=True)
        return
    if not seed.exists():
        raise SandboxError(f"seed={str(seed)!r} does not exist: give a folder, or a .tar or .zip file")
    try:
        if zipfile.is_zipfile(seed):
            with zipfile.ZipFile(seed) as archive:
                archive.extractall(root)  # noqa: S202 - zipfile itself drops "..", drives and leading slashes
        else:
            with tarfile.open(seed) as archive:
                archive.extractall(root, filter="data")
    except (tarfile.TarError, zipfile.BadZipFile) as error:
        raise SandboxError(f"seed={str(seed)!r} cannot be unpacked: {error}") from error
