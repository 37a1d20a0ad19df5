"""Removes the containers, networks and volumes that dead owners left on an engine."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio

from hud.errors import HudError
from hud.runtime.ledger import LedgerEntry
from hud.runtime.reaper import ReapResult
from hud_runtime_docker.engine import Engine, EngineUnreachableError
from hud_runtime_docker.labels import OWNER

CALL_S = 15
LATE_S = 15.0
"""An engine may end a create this long after who asked for it has died."""
LOOK_EVERY_S = 0.5
FORGOTTEN_S = 7 * 86400.0
"""An engine whose socket has been gone so long is taken for gone with all it had."""
PROJECT = "com.docker.compose.project"


async def reap(entries: Sequence[LedgerEntry]) -> list[ReapResult]:
    """Remove what `entries` name, each on the engine it was meant for, and only what their owner made."""
    results: list[ReapResult] = []
    by_engine: dict[str, list[LedgerEntry]] = {}
    for entry in entries:
        by_engine.setdefault(str(entry.detail.get("engine") or ""), []).append(entry)
    async with anyio.create_task_group() as group:
        for url, named in by_engine.items():
            group.start_soon(_reap_on, url, named, results)
    return results


async def _reap_on(url: str, entries: Sequence[LedgerEntry], results: list[ReapResult]) -> None:
    engine = Engine(url or None, timeout_s=CALL_S)
    try:
        await engine.call("ping")
    except HudError as error:
        gone = isinstance(error, EngineUnreachableError)
        for entry in entries:
            outcome = "gone" if gone and _gone_for_good(url, entry) else "failed"
            results.append(ReapResult(entry, outcome, str(error)))  # type: ignore[arg-type]
        engine.close()
        return

    async def one(entry: LedgerEntry) -> None:
        try:
            results.append(await _remove(engine, entry))
        except HudError as error:
            results.append(ReapResult(entry, "failed", str(error)))

    try:
        async with anyio.create_task_group() as group:
            for entry in entries:
                group.start_soon(one, entry)
        for owner in {entry.owner for entry in entries}:
            with contextlib.suppress(HudError):  # a network still in use stays for the next time
                await engine.run(lambda owner=owner: remove_labelled(engine, f"{OWNER}={owner}"))  # type: ignore[misc]
    finally:
        engine.close()


async def _remove(engine: Engine, entry: LedgerEntry) -> ReapResult:
    import docker.errors

    if project := entry.detail.get("project"):
        found = await engine.run(lambda: remove_labelled(engine, f"{PROJECT}={project}"))
        return ReapResult(entry, "removed" if found else "gone")
    while True:
        try:
            told = await engine.call("inspect_container", entry.name)
        except docker.errors.NotFound:
            if entry.id is not None or time.time() - entry.at > LATE_S:
                return ReapResult(entry, "gone")
            await anyio.sleep(LOOK_EVERY_S)  # asked for, perhaps, and not made yet
            continue
        made_by = (told["Config"].get("Labels") or {}).get(OWNER)
        if made_by != entry.owner:
            return ReapResult(entry, "gone", f"a container of that name is another's ({made_by})")
        with contextlib.suppress(docker.errors.NotFound):
            await engine.call("remove_container", told["Id"], v=True, force=True)
        return ReapResult(entry, "removed")


def remove_labelled(engine: Engine, label: str) -> bool:
    """Remove containers, then networks and volumes, with `label`; say whether there were any. Blocks."""
    import docker.errors

    from hud_runtime_docker.engine import engine_errors

    chosen = {"label": label}
    with engine_errors(engine.base_url):
        api: Any = engine.api
        containers = [str(c["Id"]) for c in api.containers(all=True, quiet=True, filters=chosen)]
        for container in containers:
            with contextlib.suppress(docker.errors.NotFound):
                api.remove_container(container, v=True, force=True)
        networks = [str(n["Id"]) for n in api.networks(filters=chosen)]
        for network in networks:
            with contextlib.suppress(docker.errors.NotFound):
                api.remove_network(network)
        volumes = [str(v["Name"]) for v in api.volumes(filters=chosen)["Volumes"] or ()]
        for volume in volumes:
            with contextlib.suppress(docker.errors.NotFound):
                api.remove_volume(volume, force=True)
    return bool(containers or networks or volumes)


def _gone_for_good(url: str, entry: LedgerEntry) -> bool:
    """Whether the engine's socket has no folder any more, or has not been there for a week."""
    if not url.startswith("unix://"):
        return False
    socket = Path(url.removeprefix("unix://"))
    return not socket.parent.is_dir() or (not socket.exists() and time.time() - entry.at > FORGOTTEN_S)
