"""Writes the reference pages into docs/reference: each `generate_*.py` beside this file makes one."""

from __future__ import annotations

import runpy
from pathlib import Path

HERE = Path(__file__).parent


def main() -> None:
    """Write every page and print its path."""
    for script in sorted(HERE.glob("generate_*.py")):
        print(runpy.run_path(str(script))["write"](HERE / "reference"))


if __name__ == "__main__":
    main()
