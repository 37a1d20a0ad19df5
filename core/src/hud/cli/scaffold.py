"""The templates of `hud init`: folders of this package, and those that plugins declare."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "scaffolds"


@dataclass(frozen=True, slots=True)
class Scaffold:
    """`needs` are distributions beside hud-core; `packages` are system packages of the image."""

    name: str
    summary: str
    needs: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()

    def files(self, name: str) -> dict[str, str]:
        """Return the scaffold's files as `relative path -> text`, for an environment called `name`."""
        wanted = ["hud-core", *self.needs]
        words = {
            "name": name,
            "dist": dist_name(name),
            "summary": self.summary,
            "dependencies": ", ".join(f'"{dist}"' for dist in wanted),
            "install": " ".join(wanted),
            "system": _apt_line(self.packages),
        }
        out: dict[str, str] = {}
        for folder in (FOLDER / "common", FOLDER / self.name):
            for path in sorted(folder.rglob("*")):
                if path.is_file() and "__pycache__" not in path.parts:
                    text = path.read_text(encoding="utf-8")
                    out[_placed(path.relative_to(folder))] = _filled(text, words)
        return out


BUILT_IN = (
    Scaffold("blank", "One environment, one template, two tasks: the smallest thing that runs."),
    Scaffold("text", "Questions with a text answer: words, numbers, things to mention."),
    Scaffold("chat", "Conversations: the prompt is a list of messages."),
    Scaffold("argument-hints", "Arguments that say what they are for: prompt, grading."),
    Scaffold(
        "coding",
        "A shell in a sandbox: the agent mends a program, its tests decide.",
        needs=("hud-capability-ssh",),
        packages=("bubblewrap",),
    ),
)


def built_in(name: str) -> Scaffold | None:
    """Return core's scaffold of that name, or None."""
    return next((scaffold for scaffold in BUILT_IN if scaffold.name == name), None)


def dist_name(name: str) -> str:
    """Return `name` as a distribution, image or folder may be called: lower case, digits, single dashes."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "environment"


def _placed(path: Path) -> str:
    # Names that our own tools would obey (a pyproject.toml, a .gitignore) are kept under another one.
    return path.as_posix().removesuffix(".in").replace("dot-", ".")


def _apt_line(packages: tuple[str, ...]) -> str:
    if not packages:
        return ""
    return (
        f"RUN apt-get update && apt-get install -y --no-install-recommends {' '.join(packages)} "
        "&& rm -rf /var/lib/apt/lists/*\n"
    )


def _filled(text: str, words: Mapping[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda found: words.get(found[1], found[0]), text)
