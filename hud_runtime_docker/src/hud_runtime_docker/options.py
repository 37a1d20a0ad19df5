"""What a container is created with: hardened by default, resources, and the options of `docker run`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from hud.errors import ConfigError, UnsupportedConfigError
from hud.types import RuntimeConfig
from hud.values import Value

DEFAULT_PIDS = 4096


@dataclass(slots=True, frozen=True)
class DockerBindMount(Value):
    """A folder or file of the engine's machine, seen in the container; read-only unless said otherwise."""

    source: str
    target: str
    read_only: bool = True

    def __post_init__(self) -> None:
        refuse_engine_socket(self.source, f"bind mount {self.source!r}")


def refuse_engine_socket(source: str, what: str, engine_url: str = "") -> None:
    """Refuse to mount an engine's socket, or a folder that holds one: it would give away the machine.

    Raises:
        ConfigError: `source` is one, or holds one; begins with `what`.
    """
    if not source.startswith("/"):
        return  # a volume's name, or a path that the engine refuses by itself
    sockets = [*_SOCKETS, engine_url.removeprefix("unix://")]
    real = os.path.realpath(source)
    if Path(source).name in _SOCKET_NAMES or any(
        Path(os.path.realpath(path)).is_relative_to(real) for path in sockets if path.startswith("/")
    ):
        raise ConfigError(f"{what}: the engine's socket is never given to an environment")


_SOCKETS = ("/var/run/docker.sock", "/run/podman/podman.sock", "/run/containerd/containerd.sock")
_SOCKET_NAMES = {Path(path).name for path in _SOCKETS}


class _Refusing(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"run_args: {message}; supported: {', '.join(sorted(_RUN_OPTIONS))}")


_RUN_OPTIONS: dict[str, dict[str, Any]] = {
    "--env": {"short": "-e", "action": "append"},
    "--volume": {"short": "-v", "action": "append"},
    "--label": {"short": "-l", "action": "append"},
    "--user": {"short": "-u"},
    "--workdir": {"short": "-w"},
    "--network": {},
    "--hostname": {"short": "-h"},
    "--entrypoint": {},
    "--memory": {"short": "-m"},
    "--cpus": {"type": float},
    "--pids-limit": {"type": int},
    "--shm-size": {},
    "--tmpfs": {"action": "append"},
    "--ulimit": {"action": "append"},
    "--add-host": {"action": "append"},
    "--dns": {"action": "append"},
    "--cap-add": {"action": "append"},
    "--security-opt": {"action": "append"},
    "--device": {"action": "append"},
    "--gpus": {},
    "--init": {"action": "store_true"},
    "--read-only": {"action": "store_true"},
    "--platform": {},
    "--runtime": {},
    "--userns": {},
    "--ipc": {},
}


def run_options(arguments: Sequence[str]) -> argparse.Namespace:
    """Read `run_args`, written as for `docker run`.

    Raises:
        ConfigError: an option is unknown or has no value; lists the supported ones.
    """
    parser = _Refusing(add_help=False, allow_abbrev=False)
    for name, described in _RUN_OPTIONS.items():
        option = dict(described)
        names = [name, option.pop("short")] if "short" in option else [name]
        parser.add_argument(*names, **option)
    given = parser.parse_args(list(arguments))
    for host in given.add_host or ():
        if ":" not in host:
            raise ConfigError(f"run_args: --add-host {host!r}; write it as NAME:ADDRESS")
    if given.gpus is not None:
        given.gpus = _gpus(given.gpus)
    return given


def _gpus(written: str) -> dict[str, Any]:
    """Read `all`, a count, or `device=0,1` as a device request.

    Raises:
        ConfigError: it is none of these.
    """
    asked = written.strip("'\"")
    capable = {"Driver": "", "Capabilities": [["gpu"]]}
    if asked == "all" or asked.isdigit():
        return {"Count": -1 if asked == "all" else int(asked), **capable}
    if asked.startswith("device="):
        return {"DeviceIDs": asked.removeprefix("device=").split(","), **capable}
    raise ConfigError(f"run_args: --gpus {written!r}; write all, a count, or device=0,1")


def host_options(
    config: RuntimeConfig,
    given: argparse.Namespace,
    mounts: Sequence[DockerBindMount],
    *,
    port: int,
) -> dict[str, Any]:
    """Return the engine's `HostConfig` as keyword arguments of the SDK's `create_host_config`.

    No new privileges, every capability dropped, the engine's default seccomp profile, and the control port published
    on loopback alone.
    """
    options: dict[str, Any] = {
        "cap_drop": ["ALL"],
        "cap_add": given.cap_add or [],
        "security_opt": ["no-new-privileges", *(given.security_opt or ())],
        "pids_limit": given.pids_limit or DEFAULT_PIDS,
        "port_bindings": {port: ("127.0.0.1", None)},
        "init": True,
        "binds": [
            *(f"{m.source}:{m.target}{':ro' if m.read_only else ''}" for m in mounts),
            *(given.volume or ()),
        ],
        "read_only": given.read_only,
        "tmpfs": {part.partition(":")[0]: part.partition(":")[2] for part in given.tmpfs or ()} or None,
        "network_mode": given.network,
        "extra_hosts": dict(part.split(":", 1) for part in given.add_host or ()) or None,
        "dns": given.dns,
        "devices": given.device,
        "shm_size": given.shm_size,
        "runtime": given.runtime,
        "userns_mode": given.userns,
        "ipc_mode": given.ipc,
        "gpus": given.gpus,
        "ulimits": [_ulimit(part) for part in given.ulimit or ()] or None,
        "mem_limit": given.memory,
        "nano_cpus": int(given.cpus * 1e9) if given.cpus else None,
    }
    _add_resources(options, config)
    return {key: value for key, value in options.items() if value not in (None, [], False)}


def _ulimit(written: str) -> dict[str, Any]:
    """Read `name=soft[:hard]`.

    Raises:
        ConfigError: it is not of that form.
    """
    name, _, values = written.partition("=")
    soft, _, hard = values.partition(":")
    try:
        return {"Name": name, "Soft": int(soft), "Hard": int(hard or soft)}
    except ValueError:
        raise ConfigError(f"run_args: --ulimit {written!r}; write it as nofile=1024:4096") from None


def _add_resources(options: dict[str, Any], config: RuntimeConfig) -> None:
    resources = config.resources
    if given_gpus := options.pop("gpus", None):
        options["device_requests"] = [given_gpus]
    if resources is None:
        return
    if resources.cpu is not None:
        options["nano_cpus"] = int(resources.cpu * 1e9)
    if resources.memory_mb is not None:
        options["mem_limit"] = f"{resources.memory_mb}m"
        options["memswap_limit"] = f"{resources.memory_mb}m"
    if resources.storage_mb is not None:
        options["storage_opt"] = {"size": f"{resources.storage_mb}m"}
    if resources.gpu is not None:
        if resources.gpu.acceptable_types:
            raise UnsupportedConfigError(
                f"docker cannot choose a GPU by type ({resources.gpu.acceptable_types}); use modal, or drop gpu.type"
            )
        options["device_requests"] = [{"Count": resources.gpu.count, "Capabilities": [["gpu"]]}]
