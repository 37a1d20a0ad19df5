"""A server that runs in any image: this machine's Python with its own loader and libraries, in one folder.

Mounted read-only and started through its own dynamic loader, it needs nothing of the image: no Python, no libc
of ours. It holds the interpreter, the standard library without its tests, hud-core with what it depends on, and
the distributions an environment asks for, all with compiled bytecode.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

from hud.errors import RuntimeStartError

GUEST = "/opt/hud"
"""Where the bundle is mounted in a container."""
_PARSING = threading.Lock()
UNUSED_S = 3 * 86400.0
"""How long a bundle is kept after it was last asked for."""

_LAYOUT = "2"
"""Changes when what a bundle is made of changes, so that no older one is taken for it."""
_UNUSED = (
    "test",
    "tests",
    "idlelib",
    "tkinter",
    "turtledemo",
    "ensurepip",
    "lib2to3",
    "pydoc_data",
    "__pycache__",
)


def bundle_for(distributions: Iterable[str]) -> Path:
    """Return the folder of a bundle with `distributions` and all they depend on, made once per content.

    It lies in the user's cache folder and is shared by all containers. Takes some seconds the first time.
    """
    wanted = sorted(closure(["hud-core", *distributions]))
    key = hashlib.sha256(
        repr([_LAYOUT, sys.version, *(identity(name) for name in wanted)]).encode()
    ).hexdigest()[:16]
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hud" / "bundles"
    made = home / f"{sys.implementation.cache_tag}-{key}"
    if kept(made):
        return made
    home.mkdir(parents=True, exist_ok=True)
    _forget_unused(home)
    scratch = Path(tempfile.mkdtemp(prefix=".making-", dir=home))
    try:
        _fill(scratch, wanted)
        scratch.chmod(0o755)
        try:
            scratch.rename(made)
        except OSError:
            if not made.is_dir():  # another process was first
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return made


def kept(made: Path) -> bool:
    """Say whether a bundle is there, and that it was asked for now."""
    try:
        os.utime(made)
    except FileNotFoundError:
        return False
    return True


def _forget_unused(home: Path) -> None:
    """Remove bundles nobody has asked for lately; one that a container still uses was asked for when it started."""
    for old in home.iterdir():
        with contextlib.suppress(OSError):
            if time.time() - old.stat().st_mtime > UNUSED_S:
                shutil.rmtree(old)


def command(*arguments: str) -> list[str]:
    """Return the argv that starts the bundle's Python inside a container with `arguments`."""
    return [
        f"{GUEST}/lib/loader",
        "--library-path",
        f"{GUEST}/lib",
        f"{GUEST}/bin/python",
        *arguments,
    ]


def environment() -> dict[str, str]:
    """Return the variables the bundle's Python needs; a program it starts inherits none of the loader's."""
    return {
        "PYTHONHOME": GUEST,
        "PYTHONNOUSERSITE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
    }


def _fill(root: Path, distributions: list[str]) -> None:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    stdlib = Path(sysconfig.get_paths()["stdlib"])
    guest_stdlib = root / "lib" / version
    (root / "bin").mkdir()
    shutil.copytree(
        stdlib, guest_stdlib, ignore=shutil.ignore_patterns(*_UNUSED, "site-packages", "config-*")
    )
    interpreter = Path(os.path.realpath(sys.executable))
    shutil.copy2(interpreter, root / "bin" / "python")
    if bash := shutil.which("bash"):
        # For workspaces in images that have none, as those on musl.
        shutil.copy2(os.path.realpath(bash), root / "bin" / "bash")
    site = guest_stdlib / "site-packages"
    site.mkdir()
    for name in distributions:
        _copy_distribution(name, site)
    _copy_libraries(root)
    _compile(root)


def _copy_distribution(name: str, site: Path) -> None:
    """Copy an installed distribution's files; an editable one is built into a wheel first."""
    source = editable_source(name)
    if source is not None:
        _install_source(source, site)
        return
    found = metadata.distribution(name)
    for file in found.files or ():
        if file.parts[0] == ".." or "__pycache__" in file.parts:
            continue
        origin = Path(str(found.locate_file(file)))
        if origin.is_file():
            target = site / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(origin, target)


def editable_source(name: str) -> Path | None:
    """Return the source tree of a distribution that is installed editable, else None."""
    direct = metadata.distribution(name).read_text("direct_url.json") or ""
    if "editable" not in direct:
        return None
    source = re.search(r'"url":\s*"file://([^"]+)"', direct)
    return Path(source.group(1)) if source is not None else None


def _install_source(source: Path, site: Path) -> None:
    """Build a source tree's wheel without a network and unpack it."""
    from zipfile import ZipFile

    with tempfile.TemporaryDirectory() as folder, ZipFile(built_wheel(source, Path(folder))) as wheel:
        wheel.extractall(site)


def built_wheel(source: Path, folder: Path) -> Path:
    """Build the wheel of a source tree into `folder`, without a network.

    Raises:
        RuntimeStartError: it cannot be built; has the end of what its build said.
    """
    done = subprocess.run(
        [sys.executable, "-c", _BUILD_WHEEL, str(folder)],
        cwd=source,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeStartError(f"cannot build the distribution in {source}: {done.stderr[-2000:].strip()}")
    return folder / done.stdout.strip().splitlines()[-1]


_BUILD_WHEEL = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"


def _copy_libraries(root: Path) -> None:
    """Copy the loader and every shared library the interpreter and its extension modules link to."""
    lib = root / "lib"
    binaries = [*(root / "bin").iterdir(), *lib.rglob("*.so"), *lib.rglob("*.so.*")]
    loader: Path | None = None
    for batch in _batches([str(b) for b in binaries], 100):
        done = subprocess.run(["ldd", *batch], capture_output=True, text=True, check=False)
        for line in done.stdout.splitlines():
            if found := re.match(r"\s+(?:(\S+) => )?(/\S+) \(0x", line):
                path = Path(found.group(2))
                if "ld-linux" in path.name or path.name.startswith("ld-musl"):
                    loader = path
                elif not str(path).startswith(str(root)):
                    _copy_once(path, lib / path.name)
    if loader is None:
        raise RuntimeStartError(
            "cannot find this machine's dynamic loader with ldd; install it (libc-bin on Debian)"
        )
    _copy_once(loader, lib / "loader")
    for name in ("libnss_dns.so.2", "libnss_files.so.2", "libgcc_s.so.1"):  # opened by name, not linked
        for folder in ("/lib/x86_64-linux-gnu", "/lib/aarch64-linux-gnu", "/usr/lib64", "/lib64"):
            if (path := Path(folder) / name).exists():
                _copy_once(path, lib / name)
                break


def _copy_once(source: Path, target: Path) -> None:
    if not target.exists():
        shutil.copy2(os.path.realpath(source), target)


def _compile(root: Path) -> None:
    """Compile all bytecode with the paths it will have in a container, checked by hash, never by time."""
    subprocess.run(
        [
            sys.executable,
            "-m",
            "compileall",
            "-q",
            "-j0",
            "-s",
            str(root),
            "-p",
            GUEST,
            "--invalidation-mode",
            "unchecked-hash",
            str(root / "lib"),
        ],
        check=False,
        capture_output=True,
    )


def _batches(items: list[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def closure(names: Iterable[str]) -> set[str]:
    """Return the installed distributions `names` need, themselves included, extras and markers honoured."""
    # Python before 3.11.8 fails at times where two threads parse (github.com/python/cpython/issues/106905).
    with _PARSING:
        return _closure(names)


def _closure(names: Iterable[str]) -> set[str]:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    seen: set[str] = set()
    todo = [Requirement(name) for name in names]
    while todo:
        requirement = todo.pop()
        name = str(canonicalize_name(requirement.name))
        if name in seen and not requirement.extras:
            continue
        try:
            needs = metadata.distribution(name).requires or []
        except metadata.PackageNotFoundError:
            raise RuntimeStartError(
                f"the bundle needs {requirement}, which is not installed: pip install '{requirement}'"
            ) from None
        seen.add(name)
        for line in needs:
            need = Requirement(line)
            extras: Iterable[str] = requirement.extras or {""}
            if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in extras):
                todo.append(need)
    return seen - _LEFT_OUT


_LEFT_OUT = {"rich", "markdown-it-py", "mdurl", "pygments"}
"""What only the command line on the orchestrator's side imports."""


def identity(name: str) -> str:
    """Name a distribution's content: its version, and for an editable one a hash of its source."""
    found = metadata.distribution(name)
    source = editable_source(name)
    if source is not None:
        code = source / "src" if (source / "src").is_dir() else source
        content = hashlib.sha256()
        for path in sorted(code.rglob("*.py")):
            content.update(f"{path.relative_to(code)}\0".encode() + path.read_bytes())
        return f"{name} {found.version} {content.hexdigest()}"
    return f"{name} {found.version}"
