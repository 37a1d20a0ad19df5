"""Text for a person's terminal: what an agent wrote can colour, move or retitle nothing."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterable
from typing import IO, Any, ClassVar, TextIO

_PICTURES = {code: chr(0x2400 + code) for code in range(32) if code not in (9, 10)}
_PICTURES |= {127: "\u2421"} | dict.fromkeys(range(0x80, 0xA0), "\ufffd")
# Marks that turn the direction of what follows: with them a line reads other than it runs.
_PICTURES |= dict.fromkeys((*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x061C), "\ufffd")
_PICTURES |= dict.fromkeys((0x2028, 0x2029), "\n")
_UNSAFE = re.compile(f"[{''.join(map(re.escape, map(chr, _PICTURES)))}\ud800-\udfff]")


def safe(text: object) -> str:
    """Return text with control characters as their pictures (ESC as ␛), so that a terminal only prints it.

    Line breaks and tabs stay; `\\r\\n` becomes a line break.
    """
    text = str(text).replace("\r\n", "\n")
    if not _UNSAFE.search(text):
        return text
    return _UNSAFE.sub(lambda found: _PICTURES.get(ord(found[0]), "\ufffd"), text)


def json_text(value: Any) -> str:
    """Return JSON that is safe to print too: letters of any script as they are, control characters escaped."""
    text = json.dumps(value, ensure_ascii=False)
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text) if _UNSAFE.search(text) else text


class Screened:
    """A text stream that takes secrets out of each text written to it; in all else the stream it was made of."""

    def __init__(self, stream: TextIO, mask: Callable[[str], str]) -> None:
        self._stream = stream
        self._mask = mask

    def write(self, text: str) -> int:
        """Write `text` without secrets."""
        self._stream.write(self._mask(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each of `lines`."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def one_line(text: object, width: int) -> str:
    """Return the first line of a text that has something in it, cut to `width`."""
    line = next((line for line in safe(text).splitlines() if line.strip()), "").replace("\t", " ").strip()
    return line if len(line) <= width else f"{line[: max(width - 1, 0)]}…"


def is_terminal(stream: IO[Any] | None) -> bool:
    """Say whether a person watches `stream`."""
    try:
        return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"
    except ValueError:  # closed
        return False


def wants_colours(stream: IO[Any] | None = None) -> bool:
    """Say whether to colour what goes to `stream` (stdout): a terminal does, unless NO_COLOR is set to anything.

    Source: no-color.org; FORCE_COLOR asks for colours where no terminal is.
    """
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or is_terminal(sys.stdout if stream is None else stream)


class Style:
    """Colours text, or leaves it as it is. Text is made safe first: only our own codes reach the terminal."""

    CODES: ClassVar[dict[str, str]] = {
        "bold": "1",
        "dim": "2",
        "red": "31",
        "green": "32",
        "yellow": "33",
        "blue": "34",
        "magenta": "35",
        "cyan": "36",
    }

    def __init__(self, on: bool) -> None:
        self.on = on

    def __call__(self, text: object, *names: str) -> str:
        """Return `text` in the colours named."""
        clean = safe(text)
        if not self.on or not names or not clean:
            return clean
        codes = ";".join(self.CODES[name] for name in names)
        # A line at a time: a pager that begins in the middle shows the right colour.
        return "\n".join(f"\x1b[{codes}m{line}\x1b[0m" if line else line for line in clean.split("\n"))
