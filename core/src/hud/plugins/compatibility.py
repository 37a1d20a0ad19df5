"""Whether a plugin's own requirement on hud-core holds, read from its metadata before it is imported."""

from __future__ import annotations

import re

from hud.plugins.policy import normalized

_SIMPLE = re.compile(r"^\s*([A-Za-z0-9._-]+)\s*\(?([^;\[)]*)\)?\s*$")
_CLAUSE = re.compile(r"^\s*(>=|<=|>|<)\s*(\d+(?:\.\d+)*)\s*$")


def core_refusal(requires: tuple[str, ...], core_version: str) -> str | None:
    """Return the requirement on hud-core that `core_version` does not meet, or None.

    Plain bounds on plain versions are compared here; anything else asks `packaging`, whose import takes as long as
    asyncio's.
    """
    for requirement in requires:
        if normalized(re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]) != "hud-core":
            continue
        if not _holds(requirement, core_version):
            return requirement
    return None


def _holds(requirement: str, version: str) -> bool:
    simple = _SIMPLE.match(requirement)
    clauses = [c for c in simple.group(2).split(",") if c.strip()] if simple else []
    parsed = [_CLAUSE.match(clause) for clause in clauses]
    if simple and all(parsed) and re.fullmatch(r"\d+(\.\d+)*", version):
        return all(_compare(version, match.group(1), match.group(2)) for match in parsed if match)
    from packaging.requirements import Requirement

    try:
        full = Requirement(requirement)
        if full.marker is not None and not full.marker.evaluate({"extra": ""}):
            return True
        return full.specifier.contains(version, prereleases=True)
    except ValueError:  # of packaging's several, all of them ValueErrors: what cannot be read is not met
        return False


def _compare(version: str, operator: str, bound: str) -> bool:
    left, right = _release(version), _release(bound)
    width = max(len(left), len(right))
    left += (0,) * (width - len(left))
    right += (0,) * (width - len(right))
    return {">=": left >= right, "<=": left <= right, ">": left > right, "<": left < right}[operator]


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
