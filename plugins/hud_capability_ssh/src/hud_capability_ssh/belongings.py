"""What would outlive this process if it were killed: in the ledger from before it is made until it is gone."""

from __future__ import annotations

import contextlib
import secrets
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from hud.errors import RuntimeStartError

if TYPE_CHECKING:
    from hud.runtime.ledger import Entry


def intended(kind: str, path: Path) -> Entry | None:
    """Write into the ledger that `path` will be made; None where there is no ledger to write to.

    `kind` is one of `hud.runtime.ledger.LOCAL_KINDS`, and `hud` is in the path's last name.
    """
    from hud.runtime.ledger import ledger

    with contextlib.suppress(RuntimeStartError):
        return ledger().intend(kind, str(path))
    return None


def settled() -> None:
    """Do without the ledger's file while nothing is in it."""
    from hud.runtime.ledger import ledger

    ledger().finish()


class Folder:
    """A new folder of this process's user alone, in the system's folder for temporary files; `remove` ends it."""

    def __init__(self, prefix: str) -> None:
        self.path = Path(tempfile.gettempdir()) / f"{prefix}{secrets.token_hex(8)}"
        self._entry = intended("folder", self.path)
        self.path.mkdir(mode=0o700)

    def remove(self) -> None:
        """Remove it with all that is in it. Safe to call twice."""
        from hud.runtime.folders import remove

        remove(self.path)
        if self._entry is not None and not self.path.exists():
            self._entry.removed()
