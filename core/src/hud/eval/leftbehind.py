"""What an agent left in its workspaces: kept with the run, or put back to be graded again."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from hud.environment.kept_state import PART_BYTES, pack, unpack
from hud.errors import BadParamsError

KEPT_BYTES = 64 * 1024 * 1024
"""Content of changed files that is kept of a workspace."""
PACKED_BYTES = 2 * KEPT_BYTES
"""What an environment may send at most; a state within the bound is hardly as long."""


class LeftBehind:
    """Answers the host calls of one rollout that move its workspaces' files; see `hud.environment.kept_state`.

    Without `restoring` what the environment sends is kept, `keep_bytes` of it; with it, that is given back instead.
    """

    def __init__(
        self, keep_bytes: int = KEPT_BYTES, restoring: Mapping[str, Mapping[str, Any]] | None = None
    ) -> None:
        self.keep_bytes = keep_bytes
        self.restored: set[str] = set()
        """Workspaces whose files were asked for whole."""
        self._restoring = restoring
        self._given = {name: pack(state) for name, state in (restoring or {}).items()}
        self._taken: dict[str, bytearray] = {}
        self._whole: set[str] = set()

    def answer(self, what: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Answer one call.

        Raises:
            BadParamsError: it is none of these, or sends more than it may.
        """
        name = str(body.get("workspace", ""))
        if what == "wish":
            if self._restoring is not None:
                return {"restore": {name: _parts(packed) for name, packed in self._given.items()}}
            self._taken.clear()  # another try
            return {"keep_bytes": self.keep_bytes}
        if what == "part" and name in self._given:
            number, packed = int(body["part"]), self._given[name]
            if number == _parts(packed) - 1:
                self.restored.add(name)
            part = packed[number * PART_BYTES : (number + 1) * PART_BYTES]
            return {"data": base64.b64encode(part).decode()}
        if what == "keep" and self._restoring is None:
            self._take(name, int(body["part"]), int(body["of"]), base64.b64decode(body["data"]))
            return {}
        raise BadParamsError(-32602, f"no state to {what} of workspace {name!r}")

    def _take(self, name: str, part: int, of: int, data: bytes) -> None:
        taken = self._taken.setdefault(name, bytearray())
        if len(taken) != part * PART_BYTES:
            return  # sent twice, after a connection that broke
        if len(taken) + len(data) > PACKED_BYTES:
            raise BadParamsError(-32602, f"the state of workspace {name!r} passes {PACKED_BYTES} bytes")
        taken += data
        if part == of - 1:
            self._whole.add(name)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to keep: what is put back is kept with the new grade too."""
        return not self._whole and not self._given

    @property
    def missing(self) -> list[str]:
        """The workspaces whose files nobody asked for."""
        return sorted(self._given.keys() - self.restored)

    def states(self) -> dict[str, Any]:
        """Return what was kept, by workspace; decompresses, so call it off the loop."""
        if self._restoring is not None:
            return dict(self._restoring)
        return {name: unpack(bytes(self._taken[name])) for name in sorted(self._whole)}


def _parts(packed: bytes) -> int:
    return max(1, -(-len(packed) // PART_BYTES))
