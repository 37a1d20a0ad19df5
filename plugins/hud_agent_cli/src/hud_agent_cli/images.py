"""Pictures of a prompt, for a program that is given no other way to see them than a file's name."""

from __future__ import annotations

from collections.abc import Sequence


def looked_at(prompt: str, images: Sequence[str], mark: str = "") -> str:
    """Return the prompt with the files of its pictures named, each behind `mark`."""
    if not images:
        return prompt
    names = "\n".join(f"{mark}{path}" for path in images)
    return f"{prompt}\n\nThis message comes with pictures; look at these files:\n{names}"
