"""An engine and images for tests: started by hand, made without a registry, gone afterwards."""

from __future__ import annotations

import fcntl
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from hud.errors import RuntimeStartError
from hud_runtime_docker import bundle
from hud_runtime_docker.engine import Engine

START_TIMEOUT_S = 60.0


@contextmanager
def docker_engine(folder: Path) -> Iterator[Engine]:
    """Yield the engine that `DOCKER_HOST` names, or one started for the tests with its data in `folder`.

    Starting one needs root and `dockerd`.

    Raises:
        RuntimeStartError: there is none and none can be started; says what is missing.
    """
    if host := os.environ.get("DOCKER_HOST"):
        with closing(Engine(host)) as engine:
            yield engine
        return
    if os.geteuid() != 0 or shutil.which("dockerd") is None:
        raise RuntimeStartError(
            "tests with containers need DOCKER_HOST, or root and dockerd (docker.io on Debian)"
        )
    with _only_one():
        yield from _own_engine(folder)


@contextmanager
def _only_one() -> Iterator[None]:
    """Hold the one place for an engine of the tests: two would share the bridge, and answer for each other."""
    with Path(tempfile.gettempdir(), f"hud-docker-tests-{os.getuid()}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _own_engine(folder: Path) -> Iterator[Engine]:
    socket = folder / "docker.sock"
    with (folder / "dockerd.log").open("wb") as log:
        daemon = subprocess.Popen(
            [
                "dockerd",
                f"--host=unix://{socket}",
                f"--data-root={folder / 'data'}",
                f"--exec-root={folder / 'exec'}",
                f"--pidfile={folder / 'pid'}",
            ],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        _wait_for(daemon, socket, folder / "dockerd.log")
        with closing(Engine(f"unix://{socket}")) as engine:
            yield engine
    finally:
        daemon.terminate()
        try:
            daemon.wait(30)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait(10)


def _wait_for(daemon: subprocess.Popen[bytes], socket: Path, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if daemon.poll() is not None:
            break
        asked = subprocess.run(
            ["docker", "-H", f"unix://{socket}", "version"],
            capture_output=True,
            check=False,
            timeout=START_TIMEOUT_S,
        )
        if asked.returncode == 0:
            return
        time.sleep(0.1)  # the daemon announces nothing a parent could wait for
    raise RuntimeStartError(f"dockerd did not start; its log ends: {log.read_text()[-1500:]}")


def make_image(engine: Engine, tag: str, files: Mapping[str, bytes | str], dockerfile: str) -> str:
    """Build `tag` from a `dockerfile` and context `files` (path to content); return the tag."""
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as archive:
        for path, content in {**files, "Dockerfile": dockerfile}.items():
            data = content.encode() if isinstance(content, str) else content
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(data), 0o755
            archive.addfile(entry, io.BytesIO(data))
    return _build(engine, tag, context)


def busybox_image(engine: Engine, tag: str = "hud-test-busybox") -> str:
    """Make an image that knows nothing of Python: a static busybox with its applets, nothing else."""
    busybox = shutil.which("busybox")
    if busybox is None:
        raise RuntimeStartError("tests of foreign images need busybox (busybox-static on Debian)")
    return make_image(
        engine,
        tag,
        {
            "busybox": Path(busybox).read_bytes(),
            "passwd": "root:x:0:0::/:/bin/sh\nagent:x:1000:1000::/:/bin/sh\n",
        },
        'FROM scratch\nCOPY busybox /bin/busybox\nRUN ["/bin/busybox", "--install", "-s", "/bin"]\n'
        'COPY passwd /etc/passwd\nCMD ["/bin/sh"]\n',
    )


def python_image(engine: Engine, tag: str, source: Path, *, distributions: tuple[str, ...] = ()) -> str:
    """Make an image that serves the environment in `source` by itself, on this machine's own Python."""
    folder = bundle.bundle_for(distributions)
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as archive:
        archive.add(folder, "hud")
        archive.add(source, "env", filter=lambda entry: None if "__pycache__" in entry.name else entry)
        serve = bundle.command("-m", "hud.environment.server", "/env", "--host", "0.0.0.0", "--port", "8765")  # noqa: S104
        variables = " ".join(f"{key}={value}" for key, value in bundle.environment().items())
        quoted = ", ".join(f'"{part}"' for part in serve)
        lines = ["FROM scratch", f"COPY hud {bundle.GUEST}", "COPY env /env", "WORKDIR /env"]
        dockerfile = "\n".join([*lines, f"ENV {variables}", f"CMD [{quoted}]", ""])
        data = dockerfile.encode()
        entry = tarfile.TarInfo("Dockerfile")
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
    return _build(engine, tag, context)


def _build(engine: Engine, tag: str, context: io.BytesIO) -> str:
    context.seek(0)
    said = list(
        engine.api.build(fileobj=context, custom_context=True, tag=tag, rm=True, forcerm=True, decode=True)
    )
    errors = [line["error"] for line in said if "error" in line]
    if errors:
        raise RuntimeStartError(f"building {tag}: {errors[0]}")
    return tag
