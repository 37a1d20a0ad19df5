"""Where the program `hud` begins."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0 done, 1 failed, 2 usage, 130 interrupted."""
    args = list(sys.argv[1:] if argv is None else argv)
    if args == ["--version"]:
        from hud import __version__

        print(f"hud {__version__}")
        return 0
    try:
        # Imported within, since Ctrl-C may come as early as this.
        from hud.cli.program import run
    except KeyboardInterrupt:
        return 130
    return run(args)


if __name__ == "__main__":
    sys.exit(main())
