"""Whether a container engine answers on its socket."""

from __future__ import annotations

import http.client
import json
import os
import socket
from dataclasses import dataclass

ANSWER_S = 3.0


@dataclass(slots=True, frozen=True)
class EngineAnswer:
    """What an engine said. `listens` is true where something took the connection."""

    version: str | None = None
    name: str = ""
    problem: str = ""
    listens: bool = False
    forbidden: bool = False


def engine_sockets(host: str) -> list[str]:
    """Return where engines listen: at `host` (DOCKER_HOST) alone where it is set, else root's and the user's own."""
    if host:
        return [host.removeprefix("unix://")]
    found = ["/var/run/docker.sock"]
    if own := os.environ.get("XDG_RUNTIME_DIR"):
        found += [f"{own}/docker.sock", f"{own}/podman/podman.sock"]
    return found


def ask_engine(path: str) -> EngineAnswer:
    """Ask the engine at a unix socket for its version, `ANSWER_S` seconds at most a step.

    Source: Docker Engine API, "GET /version"; Podman answers it too.
    """
    connection = _UnixConnection(path)
    try:
        connection.request("GET", "/version")
    except PermissionError as exc:
        return EngineAnswer(problem=str(exc.strerror), forbidden=True)
    except OSError as exc:
        connection.close()
        return EngineAnswer(problem=exc.strerror or str(exc))
    try:
        reply = connection.getresponse()
        told = json.loads(reply.read())
        platform = (told.get("Platform") or {}).get("Name") or "Docker Engine"
        return EngineAnswer(version=str(told["Version"]), name=str(platform), listens=True)
    except TimeoutError:
        return EngineAnswer(problem=f"no answer within {ANSWER_S:g} s", listens=True)
    except (OSError, http.client.HTTPException, ValueError, KeyError, AttributeError) as exc:
        return EngineAnswer(problem=f"its answer cannot be read: {type(exc).__name__}: {exc}", listens=True)
    finally:
        connection.close()


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=ANSWER_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(ANSWER_S)
        self.sock.connect(self._path)
