"""Which folder a view covers, and which one a child works in."""

from __future__ import annotations

from pathlib import Path

from hud.errors import SourceError


def resolved_source(source: str | Path) -> Path:
    """Return the file or folder `source` names; a bare name may leave out `.py`.

    Raises:
        SourceError: there is none.
    """
    path = Path(source)
    for candidate in (path, path.with_name(path.name + ".py") if path.name else path):
        if candidate.exists():
            return candidate.resolve()
    raise SourceError(f"{source} does not exist; give the path of a declaration file, such as env.py")


def folder_of(source: Path) -> Path:
    """Return the folder an environment runs in: its declaration's."""
    return source if source.is_dir() else source.parent


def project_of(source: Path) -> Path:
    """Return the nearest folder above `source` that has a `hud.toml`, else the declaration's folder."""
    folder = folder_of(source)
    for candidate in (folder, *folder.parents):
        if (candidate / "hud.toml").is_file():
            return candidate
    return folder
