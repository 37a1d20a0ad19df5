"""A Compose project as one rollout gets it: read by the Compose tool itself, then made private and held."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hud.errors import ConfigError, UnsupportedConfigError
from hud.types import ComposeProject
from hud_runtime_docker.options import refuse_engine_socket

MAIN = "main"
READ_S = 60


@dataclass(slots=True)
class Document:
    """What the tool made of a project: every variable, include and extension resolved.

    `services` are as the author wrote them, but for what no two rollouts can share.
    """

    content: dict[str, Any]
    root: Path
    digest: str

    @property
    def services(self) -> dict[str, dict[str, Any]]:
        """The services by name."""
        found: dict[str, dict[str, Any]] = self.content["services"]
        return found

    def built(self) -> list[str]:
        """Return the services that are built here."""
        return [name for name, service in self.services.items() if service.get("build")]

    def image_of(self, name: str) -> str:
        """Return what a service's image is called; one that is built here gets a name of the project's."""
        return str(self.services[name].get("image") or f"hud-compose/{self.digest[:12]}:{name}")


@cache
def tool() -> tuple[str, ...]:
    """Return the Compose tool: the docker command's plugin, else `docker-compose`.

    Raises:
        UnsupportedConfigError: there is neither; says what to install.
    """
    docker = shutil.which("docker")
    if docker is not None:
        asked = subprocess.run(
            [docker, "compose", "version"], capture_output=True, check=False, timeout=READ_S
        )
        if asked.returncode == 0:
            return docker, "compose"
    alone = shutil.which("docker-compose")
    if alone is not None:
        return (alone,)
    raise UnsupportedConfigError(
        "a Compose project needs the Compose tool, which is not here: install docker-compose-plugin "
        "(docker-compose on Debian)"
    )


def read(project: ComposeProject, engine_url: str = "") -> Document:
    """Have the tool read a project for the engine at `engine_url`. Blocks.

    Raises:
        ConfigError: the tool refuses it, with the tool's own words; there is no service `main`; or it asks for what an
            environment never gets.
    """
    import yaml

    if project.service_access:
        raise UnsupportedConfigError(
            "compose service_access: the engine's socket is never given to an environment; let the services talk over "
            "their network"
        )
    root, text, arguments = _source(project)
    done = subprocess.run(
        [*tool(), *arguments, "--project-directory", str(root), "config"],
        input=text,
        capture_output=True,
        text=True,
        check=False,
        timeout=READ_S,
        cwd=root,
        env=environment(None),
    )
    if done.returncode:
        raise ConfigError(f"compose project in {root}: {done.stderr.strip()[-2000:]}")
    content = yaml.safe_load(done.stdout)
    document = Document(content, root, hashlib.sha256(f"{root}\0{done.stdout}".encode()).hexdigest())
    _check(document, engine_url)
    return document


def _source(project: ComposeProject) -> tuple[Path, str | None, list[str]]:
    if isinstance(project.document, Mapping):
        root = Path(project.root or ".").resolve()
        return root, json.dumps(project.document), ["--file", "-"]
    path = Path(project.document).resolve()
    if not path.is_file():
        raise ConfigError(f"compose project {str(project.document)!r}: there is no such file ({path})")
    return Path(project.root).resolve() if project.root else path.parent, None, ["--file", str(path)]


def environment(engine_url: str | None) -> dict[str, str]:
    """Return the variables the tool runs with; `engine_url` is the engine it is to use."""
    known = dict(os.environ)
    known.setdefault("COMPOSE_INTERACTIVE_NO_CLI", "1")
    if engine_url is not None:
        known["DOCKER_HOST"] = engine_url
    return known


def _check(document: Document, engine_url: str) -> None:
    services = document.content.get("services") or {}
    if MAIN not in services:
        raise ConfigError(
            f"compose project in {document.root} has no service {MAIN!r}, which serves the environment; "
            f"it has {', '.join(services) or 'none'}"
        )
    for name, service in services.items():
        for volume in service.get("volumes") or ():
            source = volume.get("source") if isinstance(volume, Mapping) else str(volume).partition(":")[0]
            refuse_engine_socket(
                str(source or ""), f"compose service {name!r}, volume {source!r}", engine_url
            )
    if services[MAIN].get("privileged"):
        raise ConfigError(
            f"compose service {MAIN!r} is privileged: what serves an agent is not; give it the devices or capabilities "
            "it needs (devices, cap_add)"
        )


def private(document: Document, labels: Mapping[str, str], main: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document of one rollout.

    No service keeps a name or a port of the host, all carry `labels`, none gains privileges. `main` is laid over the
    service `main`; mappings are merged, lists are joined, other values replaced.
    """
    content: dict[str, Any] = json.loads(json.dumps(document.content, default=str))
    content.pop("version", None)  # of the file format; without one the tool reads its newest
    content.pop("name", None)
    for name, service in content["services"].items():
        service.pop("container_name", None)
        service["expose"] = sorted({*map(str, service.get("expose") or ()), *_ports_of(service)})
        service.pop("ports", None)
        service["image"] = document.image_of(name)
        service.pop("build", None)
        service["labels"] = {**_as_mapping(service.get("labels")), **labels}
        service["security_opt"] = [*(service.get("security_opt") or ()), "no-new-privileges:true"]
        service["restart"] = "no"  # a service that ended is told of, never covered up
        if not service["expose"]:
            del service["expose"]
    own = content["services"][MAIN]
    own["environment"] = _as_mapping(own.get("environment"))
    for key, value in main.items():
        if isinstance(value, Mapping):
            own[key] = {**(own.get(key) or {}), **value}
        elif isinstance(value, list):
            own[key] = [*(own.get(key) or ()), *(item for item in value if item not in (own.get(key) or ()))]
        else:
            own[key] = value
    networks = content.setdefault("networks", {})
    networks.setdefault("default", {})
    for kind in ("networks", "volumes"):
        for name, described in (content.get(kind) or {}).items():
            if described is None or not described.get("external"):
                part = dict(described or {})
                part.pop("name", None)
                part["labels"] = {**_as_mapping(part.get("labels")), **labels}
                content[kind][name] = part
    return content


def _ports_of(service: Mapping[str, Any]) -> set[str]:
    found = set()
    for port in service.get("ports") or ():
        target = port.get("target") if isinstance(port, Mapping) else str(port).rpartition(":")[2]
        found.add(str(target).partition("/")[0])
    return found


def _as_mapping(given: Any) -> dict[str, Any]:
    if isinstance(given, Mapping):
        return dict(given)
    return {str(item).partition("=")[0]: str(item).partition("=")[2] for item in given or ()}
