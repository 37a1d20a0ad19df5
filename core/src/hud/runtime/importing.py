"""Whether this process is importing an environment for somebody else's rollouts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hud.errors import SourceError

_importing = 0


@contextmanager
def importing() -> Iterator[None]:
    """Mark the block as one that imports author code in a process made for that."""
    global _importing
    _importing += 1
    try:
        yield
    finally:
        _importing -= 1


def forbid_while_importing(source: Any) -> None:
    """Raise `SourceError` where a rollout is started by a module that is being imported for one.

    Without it a script that runs its own tasks at module level would start itself again for ever.
    """
    if _importing:
        raise SourceError(
            f"{source} is run while an environment is being imported; put what runs tasks under "
            'if __name__ == "__main__":'
        )
