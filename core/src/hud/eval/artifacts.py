"""Files of an agent's workspace, carried to the verifier that judges them.

They are listed and copied through the shell interface, once the agent's processes are gone. Links, pipes and devices
are not carried, nor what would make more than 1 GiB: each is named with the run, and the rest goes on.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hud.capability.interfaces import CopiesFiles, Shell
from hud.errors import HudError, RuntimeFault

BOUND = 1 << 30
"""Bytes of all artefacts together."""
LIST_S = 120.0
NAMED = 20
"""So many refused files are named; more are counted."""


@dataclass(slots=True)
class Carried:
    """What was taken from the workspace into `folder`, and what was left with the reason."""

    folder: Path
    files: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    size: int = 0

    def described(self) -> dict[str, Any]:
        """Return JSON for the record of the run."""
        named = dict(list(self.refused.items())[:NAMED])
        return {
            "files": len(self.files),
            "bytes": self.size,
            "refused": named,
            "refused_count": len(self.refused),
        }


async def shell_of(client: Any) -> Shell | None:
    """Return the first capability of a connection that is a shell, or None."""
    # The family that is one first: others may be slow to open, or not there at all.
    for binding in sorted(client.manifest.bindings, key=lambda known: not known.protocol.startswith("ssh/")):
        opened = await client.open(binding.name)
        if isinstance(opened, Shell):
            return opened
    return None


async def collect(shell: Shell, patterns: Sequence[str], folder: Path, *, bound: int = BOUND) -> Carried:
    """Copy the files of the workspace that match any of `patterns` into `folder`.

    Raises:
        RuntimeFault: the workspace cannot be listed or read.
    """
    carried = Carried(folder)
    wanted = [matcher(pattern) for pattern in patterns]
    for kind, name in await _listed(shell, bound):
        if not any(match(name) for match in wanted):
            continue
        if kind == "l":
            carried.refused[name] = "a link, a pipe or a device"
        elif kind == "b":
            carried.refused[name] = f"over {bound} bytes"
        elif carried.size >= bound:
            carried.refused[name] = f"over {bound} bytes with those before it"
        else:
            await _fetch(shell, name, carried, bound)
    return carried


async def deliver(shell: Shell, carried: Carried) -> None:
    """Put the files into a verifier's workspace, at the same paths."""
    if isinstance(shell, CopiesFiles):
        for top in await asyncio.to_thread(lambda: sorted(carried.folder.iterdir())):
            await shell.upload(top, ".")
        return
    for name in carried.files:
        await shell.write_bytes(name, await asyncio.to_thread((carried.folder / name).read_bytes))


async def _listed(shell: Shell, bound: int) -> list[tuple[str, str]]:
    """Return (kind, path) of everything but folders, sorted: f a file, b one too large, l what is no plain file."""
    told = await shell.run(_find(bound), timeout_s=LIST_S)
    if not told.ok or told.truncated:
        raise RuntimeFault(
            f"the workspace's files cannot be listed: {told.stderr.strip()[-500:] or 'there are too many of them'}"
        )
    entries = (entry for entry in told.stdout.split("\0") if entry)
    return sorted(((entry[0], entry[1:].removeprefix("./")) for entry in entries), key=lambda entry: entry[1])


def _find(bound: int) -> list[str]:
    """Return a listing that every `find` knows, busybox's too; names end with NUL."""
    tell = ["-exec", "printf"]
    plain = ["-type", "f", "-links", "1"]
    return [
        *("find", ".", "-xdev", "-type", "d", "-o"),
        *(*plain, "!", "-size", f"+{bound}c", *tell, "f%s\\0", "{}", "+", "-o"),
        *(*plain, *tell, "b%s\\0", "{}", "+", "-o"),
        *(*tell, "l%s\\0", "{}", "+"),
    ]


async def _fetch(shell: Shell, name: str, carried: Carried, bound: int) -> None:
    target = carried.folder / name
    if not target.resolve().is_relative_to(carried.folder.resolve()):
        carried.refused[name] = "outside of the workspace"
        return
    await asyncio.to_thread(target.parent.mkdir, parents=True, exist_ok=True)
    try:
        if isinstance(shell, CopiesFiles):
            await shell.download(name, target)
        else:
            await asyncio.to_thread(target.write_bytes, await shell.read_bytes(name))
    except PermissionError as error:
        carried.refused[name] = str(error)
        return
    except OSError as error:
        raise RuntimeFault(f"artefact {name!r} cannot be read: {error}") from error
    found = target.lstat()
    if carried.size + found.st_size > bound:
        target.unlink()
        carried.refused[name] = f"over {bound} bytes with those before it"
        return
    carried.size += found.st_size
    carried.files.append(name)


def matcher(pattern: str) -> Any:
    """Return a test of relative paths: `*` and `?` within a name, `**` over folders, a folder for all below it.

    Raises:
        HudError: the pattern is empty, absolute, or leads out of the workspace.
    """
    bare = pattern.strip().removeprefix("./").rstrip("/")
    if not bare or bare.startswith("/") or ".." in bare.split("/"):
        raise HudError(f"artifacts: {pattern!r} must be a path within the workspace")
    if bare == ".":
        bare = "**"
    return re.compile(f"{_translated(bare)}(?:/.*)?", re.DOTALL).fullmatch


def _translated(pattern: str) -> str:
    out = ""
    at = 0
    while at < len(pattern):
        rest = pattern[at:]
        if rest.startswith("**/"):
            out, at = f"{out}(?:.*/)?", at + 3
        elif rest.startswith("**"):
            out, at = f"{out}.*", at + 2
        elif rest[0] == "*":
            out, at = f"{out}[^/]*", at + 1
        elif rest[0] == "?":
            out, at = f"{out}[^/]", at + 1
        elif rest[0] == "[" and (end := rest.find("]", 2)) > 0:
            within = rest[1:end].replace("\\", "\\\\")
            within = f"^/{within[1:]}" if within.startswith("!") else within
            out, at = f"{out}[{within}]", at + end + 1
        else:
            out, at = out + re.escape(rest[0]), at + 1
    return out
