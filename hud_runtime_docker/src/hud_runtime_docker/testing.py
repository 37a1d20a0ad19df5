"""An engine and images for tests: started by hand, made without a registry, gone afterwards."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import shutil
import signal
import subprocess
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import ClassVar

from hud.errors import RuntimeStartError
from hud.testing.processes import naming
from hud_runtime_docker import bundle
from hud_runtime_docker.engine import Engine

START_TIMEOUT_S = 60.0
TURN_S = 3600.0
"""How long another run's tests may take."""
MOUNTS = 32


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
    with only_one():
        yield from _own_engine(folder)


@contextmanager
def only_one(wait_s: float = TURN_S) -> Iterator[None]:
    """Hold the one place for an engine of the tests: two would share the bridge, and answer for each other.

    The place is this process's alone: a child that it forked and left behind does not keep it.

    Raises:
        RuntimeStartError: another process has not given it up within `wait_s` seconds; names it.
    """
    path = Path(tempfile.gettempdir(), f"hud-docker-tests-{os.getuid()}.lock")
    until = time.monotonic() + wait_s
    with path.open("a+") as file:
        while True:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() > until:
                    file.seek(0)
                    raise RuntimeStartError(
                        f"process {file.read() or '(unknown)'} has had the tests' engine for over {wait_s:g} s "
                        f"({path}); end it, or set DOCKER_HOST to an engine of your own"
                    ) from None
            time.sleep(0.2)  # a lock that is asked for without a limit could not be given up
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _own_engine(folder: Path) -> Iterator[Engine]:
    daemon = Daemon(folder)
    daemon.start()
    try:
        with closing(daemon.engine) as engine:
            yield engine
    finally:
        daemon.stop()
        _end_what_it_left(folder)


def _end_what_it_left(folder: Path) -> None:
    """End containers whose engine was killed under them, and the mount an engine makes of its data."""
    for shim in naming(f"{folder}/exec/"):
        with contextlib.suppress(OSError):
            for path in Path("/proc", str(shim), "task").glob("*/children"):
                for child in path.read_text().split():
                    os.kill(int(child), signal.SIGKILL)
            os.kill(shim, signal.SIGKILL)
    # Each start of an engine that was killed has mounted once more; a bind mount is told by the mount table alone.
    umount = ["umount", "--lazy", str(folder / "data")]
    for _ in range(MOUNTS):
        if subprocess.run(umount, check=False, capture_output=True, timeout=30).returncode != 0:
            return


class Daemon:
    """A `dockerd` of the tests' own, with its data in `folder`; one at a time, since two would share the bridge."""

    _of: ClassVar[dict[str, Daemon]] = {}

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.socket = folder / "docker.sock"
        self.log = folder / "dockerd.log"
        self.engine = Engine(f"unix://{self.socket}")
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def behind(cls, engine: Engine) -> Daemon | None:
        """Return the daemon of an engine that `docker_engine` started; None for one that was there before."""
        return cls._of.get(engine.base_url)

    def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            RuntimeStartError: it does not; has the end of its log.
        """
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *_ended_with_this_process(),
                    "dockerd",
                    f"--host=unix://{self.socket}",
                    f"--data-root={self.folder / 'data'}",
                    f"--exec-root={self.folder / 'exec'}",
                    f"--pidfile={self.folder / 'pid'}",
                    *self._options,
                ],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._of[self.engine.base_url] = self
        try:
            _wait_for(self._process, self.socket, self.log)
        except BaseException:
            self.stop()
            raise

    def kill(self) -> None:
        """Kill it, without a moment for its last words."""
        process, self._process = self._process, None
        below = self.folder / "exec" / "containerd" / "containerd.pid"
        if process is not None:
            process.kill()
            process.wait()
            _until_dead(below)
        # Numbers of processes that are gone would be taken for those of a daemon that runs.
        for file in (self.folder / "pid", below):
            file.unlink(missing_ok=True)

    def stop(self) -> None:
        """End it, its containers before it."""
        process, self._process = self._process, None
        self._of.pop(self.engine.base_url, None)
        if process is None:
            return
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def _until_dead(pid_file: Path) -> None:
    """Wait for a process that dies with its daemon; one that nobody collects counts as dead."""
    with contextlib.suppress(OSError, ValueError):
        stat = Path(f"/proc/{int(pid_file.read_text())}/stat")
        deadline = time.monotonic() + START_TIMEOUT_S
        while stat.read_text().rpartition(")")[2].split()[0] != "Z" and time.monotonic() < deadline:
            time.sleep(0.05)  # no child of ours: nothing to wait for


def _ended_with_this_process() -> list[str]:
    """Return the words that end a program with this process, however that ends; it counts by thread (prctl(2))."""
    setpriv = shutil.which("setpriv")
    if setpriv is None or threading.current_thread() is not threading.main_thread():
        return []
    return [setpriv, "--pdeathsig", "TERM", "--"]


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
