"""A base image without a registry: this machine's Python and a few of its programs, as a root filesystem.

An ordinary layout: programs below /usr/bin, Python below /usr/local, libraries where this machine's loader looks
first. What a shell needs comes from busybox; bash and bubblewrap are this machine's own.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from hud.errors import RuntimeStartError
from hud_runtime_docker import bundle
from hud_runtime_docker.context import add_bytes, add_path

if TYPE_CHECKING:
    from hud_runtime_docker.engine import Engine

REPOSITORY = "hud-base"
PROGRAMS = ("bash", "bwrap")
USER = "1000:1000"
_LAYOUT = "1"
"""Changes when what is written below changes, so that no older base is taken for it."""

_FOLDERS = {"tmp": 0o1777, "var/tmp": 0o1777, "root": 0o700, "run": 0o755, "home": 0o755, "proc": 0o755}
_FOLDERS |= {"sys": 0o755, "dev": 0o755, "etc": 0o755, "opt": 0o755, "usr": 0o755, "usr/bin": 0o755}
_FOLDERS |= {"usr/local": 0o755, "usr/local/bin": 0o755, "usr/lib": 0o755, "usr/lib64": 0o755, "var": 0o755}
_LINKS = {"bin": "usr/bin", "sbin": "usr/bin", "lib": "usr/lib", "lib64": "usr/lib64", "usr/sbin": "bin"}
_CERTIFICATES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")


def scratch_base(engine: Engine, distributions: Iterable[str]) -> str:
    """Return the tag of a base image that holds `distributions`, made once per content (some seconds, 100 MB).

    Blocks: call it from a worker thread.
    """
    folder = bundle.bundle_for(distributions)
    programs = [path for name in PROGRAMS if (path := shutil.which(name)) is not None]
    busybox = shutil.which("busybox")
    named = [
        _LAYOUT,
        folder.name,
        *(f"{p} {Path(p).stat().st_size}" for p in [*programs, busybox or ""] if p),
    ]
    tag = hashlib.sha256(repr(named).encode()).hexdigest()[:16]
    if engine.api.images(name=f"{REPOSITORY}:{tag}", quiet=True):
        return f"{REPOSITORY}:{tag}"
    with tempfile.NamedTemporaryFile(suffix=".tar") as file:
        with tarfile.open(fileobj=file, mode="w") as tar:
            _write(tar, folder, programs, busybox)
        file.flush()
        engine.api.import_image(src=file.name, repository=REPOSITORY, tag=tag, changes=list(_settings()))
    return f"{REPOSITORY}:{tag}"


def _settings() -> Iterator[str]:
    yield "ENV PATH=/usr/local/bin:/usr/bin PYTHONUNBUFFERED=1 LANG=C.UTF-8"
    yield "LABEL hud.base=scratch"


def _write(tar: tarfile.TarFile, folder: Path, programs: list[str], busybox: str | None) -> None:
    for name, mode in _FOLDERS.items():
        entry = tarfile.TarInfo(name)
        entry.type, entry.mode = tarfile.DIRTYPE, mode
        tar.addfile(entry)
    for name, target in {**_LINKS, "opt/hud": "../usr/local"}.items():
        _link(tar, name, target)
    _python(tar, folder)
    loader, libraries, home = linked([str(folder / "bin" / "python"), *programs])
    for path in (folder / "lib").glob("*.so*"):
        add_path(tar, f"{home}/{path.name}", path)
        libraries.pop(path.name, None)
    for name, path in libraries.items():
        add_path(tar, f"{home}/{name}", path.resolve())
    add_path(tar, _below_usr(loader), Path(loader).resolve())
    if busybox is not None:
        add_path(tar, "usr/bin/busybox", Path(busybox).resolve())
        taken = {Path(program).name for program in programs} | {"busybox"}
        for applet in _applets(busybox) - taken:
            _link(tar, f"usr/bin/{applet}", "busybox")
    elif not any(Path(p).name == "bash" for p in programs):
        raise RuntimeStartError(
            "an image made from this machine needs a shell: install busybox-static or bash"
        )
    else:
        _link(tar, "usr/bin/sh", "bash")
    for program in programs:
        add_path(tar, f"usr/bin/{Path(program).name}", Path(program).resolve())
    _etc(tar)


def _python(tar: tarfile.TarFile, folder: Path) -> None:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    add_path(tar, f"usr/local/bin/{version}", folder / "bin" / "python")
    for name in ("python3", "python"):
        _link(tar, f"usr/local/bin/{name}", version)
    for path in sorted((folder / "lib" / version).rglob("*")):
        add_path(tar, f"usr/local/{path.relative_to(folder)}", path)


def _etc(tar: tarfile.TarFile) -> None:
    add_bytes(
        tar,
        "etc/passwd",
        b"root:x:0:0::/root:/bin/sh\nenv:x:1000:1000::/home/env:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
    )
    add_bytes(tar, "etc/group", b"root:x:0:\nenv:x:1000:\nnogroup:x:65534:\n")
    add_bytes(tar, "etc/nsswitch.conf", b"passwd: files\ngroup: files\nhosts: files dns\n")
    home = tarfile.TarInfo("home/env")
    home.type, home.mode, home.uid, home.gid = tarfile.DIRTYPE, 0o755, 1000, 1000
    tar.addfile(home)
    for name in _CERTIFICATES:
        if Path(name).is_file():
            add_path(tar, "etc/ssl/certs/ca-certificates.crt", Path(name).resolve())
            break


def linked(programs: list[str]) -> tuple[str, dict[str, Path], str]:
    """Return the loader's path, the libraries `programs` link to by name, and the folder (relative) libc lies in."""
    done = subprocess.run(["ldd", *programs], capture_output=True, text=True, check=False)
    loader, home = "", ""
    libraries: dict[str, Path] = {}
    for line in done.stdout.splitlines():
        found = re.match(r"\s+(?:(\S+) => )?(/\S+) \(0x", line)
        if found is None:
            continue
        path = Path(found[2])
        if found[1] is None or "ld-linux" in path.name:
            loader = found[2]
        else:
            libraries[path.name] = path
            if path.name.startswith("libc."):
                home = _below_usr(str(path.parent))
    if not loader or not home:
        raise RuntimeStartError(
            f"cannot tell with ldd what this machine's programs link to: {done.stderr.strip()}"
        )
    return loader, libraries, home


def _below_usr(path: str) -> str:
    """Return a path of /lib, /lib64, /bin as the one below /usr it is a link to here, without the first slash."""
    bare = path.lstrip("/")
    return bare if bare.startswith("usr/") else f"usr/{bare}"


def _applets(busybox: str) -> set[str]:
    done = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def _link(tar: tarfile.TarFile, name: str, target: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, target, 0o777
    tar.addfile(entry)
