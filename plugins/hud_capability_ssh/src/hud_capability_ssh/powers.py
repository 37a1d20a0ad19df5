"""What this process may do: capabilities that hold, not the number of its user.

Root of a container that dropped them, or of a user namespace, has uid 0 and little else.
Numbers: `include/uapi/linux/capability.h`.
"""

from __future__ import annotations

from pathlib import Path

CHOWN, DAC_OVERRIDE, FOWNER, KILL, SETGID, SETUID, SYS_ADMIN = 0, 1, 3, 5, 6, 7, 21


def has(*wanted: int) -> bool:
    """Whether every capability of `wanted` is effective in this process."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return False
    effective = next((int(line.split()[1], 16) for line in lines if line.startswith("CapEff:")), 0)
    return all(effective >> number & 1 for number in wanted)
