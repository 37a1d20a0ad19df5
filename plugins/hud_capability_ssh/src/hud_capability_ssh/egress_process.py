"""Run the filtering proxy, on the unix socket its argument names, until the process that started it is gone."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
from pathlib import Path

import proxy


def _end_with_parent() -> None:
    """Wait for the end of the pipe that the parent holds, then end the whole group and its folder."""
    while os.read(0, 4096):
        pass
    shutil.rmtree(Path(sys.argv[1]).parent, ignore_errors=True)
    os.killpg(0, signal.SIGKILL)


def main() -> None:
    """Serve on the unix socket given."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    arguments = [
        "--unix-socket-path",
        sys.argv[1],
        "--num-acceptors",
        "1",
        "--num-workers",
        "1",
        "--threaded",
    ]
    arguments += ["--log-level", "ERROR", "--plugins", "hud_capability_ssh.egress_filter.AllowList"]
    with proxy.Proxy(arguments):
        signal.pause()


if __name__ == "__main__":
    main()
