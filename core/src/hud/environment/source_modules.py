"""Importing an author's files by their own names, so that `from env import ...` finds the same module."""

from __future__ import annotations

import importlib
import importlib.util
import site
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from hud.environment.tracebacks import author_traceback, describe
from hud.errors import SourceError


class SourceFolder:
    """A folder whose files are imported as top-level modules; at most one folder owns a name at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> set[str]:
        """Return the top-level module names the folder can give."""
        try:
            entries = list(self.path.iterdir())
        except OSError:
            return set()
        files = {e.stem for e in entries if e.suffix == ".py"}
        return files | {e.name for e in entries if e.is_dir() and (e / "__init__.py").exists()}

    def take_over(self) -> None:
        """Drop the modules of other project folders whose names this folder also gives, and what came with them.

        The standard library's and installed distributions' modules are never dropped.
        """
        clashing = {
            _root(file)
            for name in self.names()
            if (file := _project_file(sys.modules.get(name))) is not None and not self._owns(file)
        }
        for folder in clashing:
            _forget(folder)
            while str(folder) in sys.path and folder in _appended:
                sys.path.remove(str(folder))
            _appended.discard(folder)

    def _owns(self, file: str) -> bool:
        return _root(file) == self.path


_appended: set[Path] = set()
"""Folders left at the end of `sys.path`, so that imports within templates find their siblings."""

_stamps: dict[str, tuple[int, int]] = {}
"""Modification time and size of each source when it was imported."""


def _see_new_files() -> None:
    """Have the folders on `sys.path` looked at anew.

    `importlib.invalidate_caches` imports `importlib.metadata` as well (CPython 3.13), a tenth of a small command.
    """
    for path, finder in list(sys.path_importer_cache.items()):
        if finder is None:
            del sys.path_importer_cache[path]
        elif (look_anew := getattr(finder, "invalidate_caches", None)) is not None:
            look_anew()


def import_file(file: Path) -> ModuleType:
    """Import `file` under its own name; a module already imported from the same, unchanged file is returned.

    Raises:
        SourceError: it cannot be imported; `__cause__` is what it raised, the text has the author's traceback.
    """
    folder = SourceFolder(file.parent)
    name = _module_name(file)
    folder.take_over()
    known = sys.modules.get(name)
    if known is not None and _project_file(known) == str(file):
        if _stamps.get(str(file), _stamp(file)) == _stamp(file):
            return known
        _forget(folder.path)
    _see_new_files()
    with importing(folder, str(file)):
        spec = importlib.util.spec_from_file_location(name, file)
        if spec is None or spec.loader is None:
            raise SourceError(f"{file}: this is no Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            sys.modules.pop(name, None)
            raise
        _stamps[str(file)] = _stamp(file)
        return sys.modules[name]


@contextmanager
def importing(folder: SourceFolder, what: str) -> Iterator[None]:
    """Have `folder` first on `sys.path`, and make whatever an import raises a `SourceError` that shows its author why.

    Afterwards the folder stays at the end of the path, for imports within templates.
    """
    path = str(folder.path)
    listed = path in sys.path or ("" in sys.path and folder.path == Path.cwd())
    sys.path.insert(0, path)
    try:
        yield
    except SourceError:
        raise
    except SyntaxError as error:
        raise SourceError(f"{what} cannot be imported\n{author_traceback(error)}") from error
    except SystemExit as error:
        raise SourceError(
            f"{what} exits while it is imported ({describe(error)}); put it under `if __name__ == '__main__':`\n"
            f"{author_traceback(error)}"
        ) from error
    except Exception as error:
        raise SourceError(
            f"{what} cannot be imported: {describe(error)}{_advice(error)}\n{author_traceback(error)}"
        ) from error
    finally:
        sys.path.remove(path)
        if not listed:
            sys.path.append(path)
            _appended.add(folder.path)


def _advice(error: Exception) -> str:
    if isinstance(error, RuntimeError) and "running event loop" in str(error):
        return "; it runs asyncio while it is imported: put that under `if __name__ == '__main__':`"
    return ""


def _module_name(file: Path) -> str:
    """Return the file's own name, or a private one where the standard library already has it."""
    name = (
        file.stem
        if file.stem.isidentifier()
        else "hud_source_" + "".join(c if c.isalnum() else "_" for c in file.stem)
    )
    return f"hud_source_{name}" if name in sys.stdlib_module_names or name == "hud" else name


def _forget(folder: Path) -> None:
    """Drop the modules imported from `folder` as top-level ones, with their submodules."""
    tops = {
        name for name, module in list(sys.modules.items()) if "." not in name and folder in _roots(module)
    }
    for name in list(sys.modules):
        if name.partition(".")[0] in tops:
            del sys.modules[name]


def _roots(module: ModuleType) -> list[Path]:
    """Return the folders a top-level module came from; several for a package without `__init__.py`."""
    file = _project_file(module)
    if file is not None:
        return [_root(file)]
    spec = getattr(module, "__spec__", None)
    if getattr(module, "__file__", None) is None and spec is not None:
        return [Path(part).parent for part in spec.submodule_search_locations or ()]
    return []


def _root(file: str) -> Path:
    """Return the folder that has to be on the path for a top-level module's file to be found."""
    path = Path(file)
    return path.parent.parent if path.name == "__init__.py" else path.parent


def _stamp(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_mtime_ns, status.st_size


def _installed() -> tuple[str, ...]:
    """Return the folders of the standard library, of installed distributions and of this product."""
    paths = sysconfig.get_paths()
    folders: list[str | Path] = [paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")]
    folders += site.getsitepackages()
    folders += [site.getusersitepackages(), Path(__file__).resolve().parents[2]]
    return tuple({f"{Path(folder).resolve()}/" for folder in folders})


_INSTALLED = _installed()


def _project_file(module: ModuleType | None) -> str | None:
    """Return a module's file if it belongs to a project: not built in, not installed, not the main script."""
    file = getattr(module, "__file__", None)
    if not isinstance(file, str) or getattr(module, "__name__", "") == "__main__":
        return None
    return None if file.startswith(_INSTALLED) or "/site-packages/" in file else file
