"""Ids of jobs, runs and groups: 128 random bits."""

from __future__ import annotations

import os
import random

# A generator of our own, seeded by the system: an id then costs a tenth of a system call, and `random.seed` in
# someone's code does not repeat ids. They name things and keep no secret.
_source = random.Random(os.urandom(32))  # noqa: S311
os.register_at_fork(after_in_child=lambda: _source.seed(os.urandom(32)))


def new_id() -> str:
    """Return 32 hex digits that no other id has."""
    return f"{_source.getrandbits(128):032x}"
