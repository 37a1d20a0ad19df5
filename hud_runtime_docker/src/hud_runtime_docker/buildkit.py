"""Builds that only BuildKit can do, through the Docker command with its buildx plugin: secrets, `RUN --mount`."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hud.errors import ConfigError, UnsupportedConfigError

if TYPE_CHECKING:
    from hud_runtime_docker.build import BuildRequest, Say
    from hud_runtime_docker.engine import Engine

TAIL_LINES = 30


def build_with_secrets(
    engine: Engine,
    request: BuildRequest,
    archive: Any,
    name: str,
    reason: str,
    say: Say,
    stop: threading.Event,
) -> str:
    """Build with BuildKit from the tar `archive`; return the image's id. Blocks.

    A secret reaches `RUN --mount=type=secret,id=NAME` alone: it is in no layer, no history and no argument.

    Raises:
        UnsupportedConfigError: there is no BuildKit here; says what to do.
        BuildError: a step failed.
    """
    from hud_runtime_docker.build import BuildError

    environment = {**os.environ, "DOCKER_HOST": engine.base_url, "DOCKER_BUILDKIT": "1"}
    docker = _command(reason, environment)
    for secret in request.secrets:
        check_secret(secret)
    with tempfile.TemporaryDirectory(prefix="hud-buildkit-") as folder:
        id_file = Path(folder) / "id"
        arguments = [docker, "buildx", "build", "--progress", "plain", "--load", "--iidfile", str(id_file)]
        arguments += ["--file", name]
        arguments += [
            part for key, value in request.build_args.items() for part in ("--build-arg", f"{key}={value}")
        ]
        arguments += [part for secret in request.secrets for part in ("--secret", secret)]
        arguments += ["--no-cache"] if request.no_cache else []
        arguments += ["--pull"] if request.pull else []
        tail: list[str] = []
        with subprocess.Popen(
            [*arguments, "-"],
            stdin=archive,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if stop.is_set():
                    process.terminate()
                tail = [*tail[-TAIL_LINES + 1 :], line.rstrip()]
                say(line.rstrip())
        if process.returncode:
            raise BuildError(f"building failed with status {process.returncode}:\n" + "\n".join(tail))
        return id_file.read_text(encoding="utf-8").strip()


def _command(reason: str, environment: dict[str, str]) -> str:
    docker = shutil.which("docker")
    if docker is not None:
        asked = subprocess.run(
            [docker, "buildx", "version"], capture_output=True, check=False, env=environment, timeout=30
        )
        if asked.returncode == 0:
            return docker
    raise UnsupportedConfigError(
        f"{reason!r} needs BuildKit, and the docker command here has no buildx plugin: install docker-buildx-plugin "
        "(docker-buildx on some systems). Without it, a value only the running environment needs is given at its "
        "start (DockerRuntime(env_vars=...)), and private packages are put as wheels into the project; a build "
        "argument is no place for a secret, since the image's history shows it"
    )


def check_secret(words: str) -> None:
    """Hold `--secret` to `id=NAME,env=VAR` or `id=NAME,src=FILE` whose source exists.

    Raises:
        ConfigError: it is neither, or names what is not there.
    """
    parts = dict(part.partition("=")[::2] for part in words.split(","))
    unknown = set(parts) - {"id", "env", "src", "source", "type"}
    if unknown or not re.fullmatch(r"[\w.-]+", parts.get("id", "")):
        raise ConfigError(f"--secret {words!r}: write id=NAME,env=VAR or id=NAME,src=FILE")
    file = parts.get("src") or parts.get("source")
    if file is not None and not Path(file).is_file():
        raise ConfigError(f"--secret {words!r}: there is no file {file}")
    variable = parts.get("env") or (parts["id"] if file is None else None)
    if variable is not None and variable not in os.environ:
        raise ConfigError(f"--secret {words!r}: the variable {variable} is not set")
