"""An environment from where it was written: a file, a folder, a module, or the object itself."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from hud.environment.arguments import close_names
from hud.environment.env import Environment
from hud.environment.source_modules import SourceFolder, import_file, importing
from hud.errors import SourceError, SourceNotFoundError

NOT_SCANNED = frozenset({"conftest", "setup", "__init__", "__main__"})


def load_environment(
    target: str | os.PathLike[str] | Environment | Any,
    *,
    name: str | None = None,
    args: Mapping[str, Any] | None = None,
) -> Environment:
    """Return the environment that `target` declares.

    `target` is a `.py` file, a folder, a bare name (`env` is `env.py` here, else a module), a dotted module, or any of
    these with `:attribute`. The attribute may be a factory, called with `args`. `name` chooses among several, by the
    environment's name or its variable's. An `Environment` is returned as it is.

    The source's folder is first on `sys.path` while it is imported. An `env` of another folder replaces the modules of
    the first folder. In a folder `env.py` is looked into first, then every other top-level file that mentions `hud`.

    Raises:
        SourceNotFoundError: nothing is there.
        SourceError: it cannot be imported (with the author's own traceback), it declares no
            environment or several, or none of that name; `args` were given and no factory takes them.
    """
    if isinstance(target, Environment):
        return _takes_no(args, target, repr(target))
    text = os.fspath(target)
    place, attribute = _split(text)
    path = Path(place).expanduser()
    if path.is_dir():
        return _from_folder(path.resolve(), name, attribute, args, text)
    file = _file_of(path, place)
    if file is not None:
        return _choose(import_file(file), name, attribute, args, text)
    if path.suffix == ".py" or "/" in place or os.sep in place:
        raise SourceNotFoundError(
            f"{text}: there is no such file or folder (looked in {path.resolve().parent})"
        )
    return _choose(_import_module(place, text), name, attribute or (None if name else "env"), args, text)


def _split(text: str) -> tuple[str, str | None]:
    place, colon, attribute = text.rpartition(":")
    if colon and attribute.isidentifier() and len(place) > 1:
        return place, attribute
    return text, None


def _file_of(path: Path, place: str) -> Path | None:
    if path.is_file():
        return path.resolve()
    bare = path.with_name(f"{path.name}.py")
    return bare.resolve() if "." not in place and bare.is_file() else None


def _import_module(dotted: str, text: str) -> ModuleType:
    folder = SourceFolder(Path.cwd())
    with importing(folder, text):
        try:
            return importlib.import_module(dotted)
        except ModuleNotFoundError as error:
            if error.name is None or not (dotted == error.name or dotted.startswith(f"{error.name}.")):
                raise
            raise SourceNotFoundError(
                f"{text}: there is no file {dotted}.py here and no module {dotted!r} to import"
            ) from None


def _from_folder(
    folder: Path, name: str | None, attribute: str | None, args: Mapping[str, Any] | None, text: str
) -> Environment:
    failures: list[str] = []
    found: list[tuple[str, Environment]] = []
    for file in _candidates(folder):
        try:
            module = import_file(file)
        except SourceError as error:
            if not isinstance(error.__cause__, ImportError) or file.name == "env.py":
                raise
            failures.append(f"{file.name}: {error.__cause__}")
            continue
        if attribute is not None and hasattr(module, attribute):
            return _choose(module, name, attribute, args, text)
        found += [item for item in _declared(module) if all(item[1] is not known for _, known in found)]
        if file.name == "env.py" and (_matching(found, name) if name else found):
            break
    if attribute is not None:
        raise SourceError(f"{text}: no file of the folder has an attribute {attribute!r}{_failed(failures)}")
    if not found:
        raise SourceError(f"{text}: no file of the folder declares an Environment{_failed(failures)}")
    return _takes_no(args, _one(found, name, text), text)


def _failed(failures: list[str]) -> str:
    return "".join(f"\n  could not be imported: {line}" for line in failures)


def _candidates(folder: Path) -> Iterator[Path]:
    files = sorted(folder.glob("*.py"), key=lambda file: (file.name != "env.py", file.name))
    for file in files:
        if file.stem in NOT_SCANNED or file.stem.startswith("test_"):
            continue
        try:
            mentions = b"hud" in file.read_bytes()
        except OSError:
            continue
        if mentions or file.name == "env.py":
            yield file


def _declared(module: ModuleType) -> list[tuple[str, Environment]]:
    found: list[tuple[str, Environment]] = []
    for key, value in vars(module).items():
        if isinstance(value, Environment) and all(value is not known for _, known in found):
            found.append((key, value))
    return found


def _choose(
    module: ModuleType, name: str | None, attribute: str | None, args: Mapping[str, Any] | None, text: str
) -> Environment:
    if attribute is not None and (hasattr(module, attribute) or attribute != "env"):
        return _attribute(module, attribute, args, text)
    found = _declared(module)
    if found:
        return _takes_no(args, _one(found, name, text), text)
    factory = getattr(module, name or "env", None)
    if callable(factory):
        return _made(factory, name or "env", args, text)
    raise SourceError(
        f"{text}: {module.__name__} declares no Environment; write `env = Environment(name=...)`, or name a factory "
        f"as {text}:FUNCTION"
    )


def _attribute(module: ModuleType, attribute: str, args: Mapping[str, Any] | None, text: str) -> Environment:
    value = getattr(module, attribute, None)
    if isinstance(value, Environment):
        return _takes_no(args, value, text)
    if value is None:
        raise SourceError(
            f"{text}: {module.__name__} has no attribute {attribute!r}{close_names(attribute, vars(module))}"
        )
    if callable(value):
        return _made(value, attribute, args, text)
    raise SourceError(
        f"{text}: {attribute!r} is a {type(value).__name__}, neither an Environment nor a factory"
    )


def _takes_no(args: Mapping[str, Any] | None, env: Environment, text: str) -> Environment:
    if args:
        raise SourceError(
            f"{text}: environment {env.name!r} is declared as it is and takes no arguments ({', '.join(args)}); name a "
            f"factory as FILE:FUNCTION"
        )
    return env


def _made(factory: Any, attribute: str, args: Mapping[str, Any] | None, text: str) -> Environment:
    from hud.environment.tracebacks import author_traceback, describe

    try:
        value = factory(**dict(args or {}))
    except (Exception, SystemExit) as error:
        raise SourceError(
            f"{text}: the factory {attribute!r} raised {describe(error)}\n{author_traceback(error)}"
        ) from error
    if not isinstance(value, Environment):
        raise SourceError(
            f"{text}: the factory {attribute!r} returned a {type(value).__name__}, no Environment"
        )
    return value


def _matching(found: list[tuple[str, Environment]], name: str) -> list[tuple[str, Environment]]:
    return [item for item in found if item[1].name == name] or [item for item in found if item[0] == name]


def _one(found: list[tuple[str, Environment]], name: str | None, text: str) -> Environment:
    names = [env.name for _, env in found]
    if name is not None:
        matching = _matching(found, name)
        if len(matching) == 1:
            return matching[0][1]
        if not matching:
            raise SourceError(
                f"{text}: no environment {name!r}{close_names(name, names)}; it declares {names}"
            )
        found = matching
    if len(found) > 1:
        listed = ", ".join(f"{key} (name={env.name!r})" for key, env in found)
        raise SourceError(f"{text} declares {len(found)} environments: {listed}; choose with name=")
    return found[0][1]
