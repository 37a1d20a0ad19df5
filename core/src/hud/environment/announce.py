"""Telling a runtime that an environment accepts connections, whatever author code prints."""

from __future__ import annotations

import os
import sys


class Announcer:
    """Keeps the process's standard output from before author code was imported, which may replace or close it.

    With `alone` what author code prints goes to standard error, for a process that is all ours.
    """

    def __init__(self, *, alone: bool = False) -> None:
        self._alone = alone
        try:
            self._output: int | None = os.dup(1)
            if alone:
                os.dup2(2, 1)
        except OSError:
            self._output = None

    @property
    def on_terminal(self) -> bool:
        """Whether somebody reads along."""
        return self._output is not None and os.isatty(self._output)

    def ready(self, port: int) -> None:
        """Write `HUD_SERVE_PORT=<port>` on a line of its own."""
        self.line(f"HUD_SERVE_PORT={port}")

    def line(self, text: str) -> None:
        """Write one line in one piece; it begins a line even where author code printed half a one."""
        if self._output is None:
            return
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError, AttributeError):
                continue  # author code closed or replaced it
        try:
            os.write(self._output, f"{'' if self._alone else chr(10)}{text}\n".encode())
        except OSError:
            self._output = None  # nobody reads any more
