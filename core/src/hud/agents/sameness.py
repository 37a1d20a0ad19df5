"""Whether a tool's result is what it was, apart from what was declared to change from run to run."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterable
from typing import Any

from hud.errors import ConfigError
from hud.types.messages import MCPToolResult

_DAYS = "Mon|Tue|Wed|Thu|Fri|Sat|Sun"
_MONTHS = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
NAMED: dict[str, tuple[str, ...]] = {
    "times": (
        r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?: ?(?:Z|[+-]\d\d:?\d\d))?)?",
        rf"\b(?:(?:{_DAYS})[a-z]*,? +)?(?:{_MONTHS})[a-z]* +\d{{1,2}}(?:,? +(?:\d\d:\d\d(?::\d\d)?|\d{{4}}))*",
        r"\b\d{1,3}:\d\d(?::\d\d(?:[.,]\d+)?)?\b",
        r"\b\d+m\d+(?:\.\d+)?s\b",
        r"\b\d+(?:\.\d+)? ?(?:ns|us|µs|ms|s|secs?|seconds?|mins?|minutes?)\b",
        r"\b1\d{9}(?:\d{3}|\d{6}|\d{9}|\.\d+)?\b",
    ),
    "paths": (r"(?:/private)?/(?:tmp|var/tmp|var/folders|run|dev/shm)/[^\s'\":;,()<>]+",),
    "ids": (
        r"\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b",
        r"\b(?=[0-9a-f]*[a-f])(?=[0-9a-f]*\d)[0-9a-f]{7,64}\b",
        r"\b0x[0-9a-fA-F]{6,16}\b",
        r"\bpid[ =:]*\d+\b",
    ),
}
LONGEST_DIFF = 4000


class Sameness:
    """Compares results. `ignore` has names of `NAMED` and regular expressions: what they match is not compared.

    Raises:
        ConfigError: a word is neither.
    """

    def __init__(self, ignore: Iterable[str] = ()) -> None:
        self._patterns: list[re.Pattern[str]] = []
        for word in ignore:
            for pattern in NAMED.get(word, (word,)):
                try:
                    self._patterns.append(re.compile(pattern))
                except re.error as error:
                    raise ConfigError(
                        f"ignore {word!r} is none of {', '.join(NAMED)}, and no regular expression: {error}"
                    ) from error

    def __call__(self, recorded: MCPToolResult, now: MCPToolResult) -> bool:
        """Tell whether two results are the same."""
        if recorded.isError != now.isError or _images(recorded) != _images(now):
            return False
        return self.plain(recorded.text) == self.plain(now.text)

    def plain(self, text: str) -> str:
        """Return a text with what is not compared put out of sight, and without spaces at the ends of lines."""
        for pattern in self._patterns:
            text = pattern.sub("~", text)
        return "\n".join(line.rstrip() for line in text.rstrip().splitlines())

    def difference(self, recorded: MCPToolResult, now: MCPToolResult) -> str:
        """Return what differs, as a unified diff and in words."""
        lines = list(
            difflib.unified_diff(
                self.plain(recorded.text).splitlines(),
                self.plain(now.text).splitlines(),
                "recorded",
                "now",
                lineterm="",
                n=2,
            )
        )
        if recorded.isError != now.isError:
            lines.insert(0, "failed now, not then" if now.isError else "failed then, not now")
        if _images(recorded) != _images(now):
            lines.append("the images differ")
        text = "\n".join(lines)
        return text if len(text) <= LONGEST_DIFF else text[:LONGEST_DIFF] + "\n[... cut]"


def _images(result: MCPToolResult) -> list[Any]:
    """Return digests of what is no text."""
    return [
        hashlib.sha256(str(block.get("data")).encode()).digest()
        for block in result.content
        if block.get("type") not in ("text", None)
    ]
