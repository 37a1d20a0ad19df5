"""What `hud plugins new` writes: a complete third-party distribution of one kind."""

from __future__ import annotations

import re
from pathlib import Path

from hud.errors import UsageError

FOLDER = Path(__file__).parent / "plugin_scaffolds"
KINDS = ("runtime", "capability", "grader", "agent", "format")
SUMMARIES = {
    "runtime": "Places environments of hud in processes of their own",
    "capability": "A capability of hud: notes an agent can read and write",
    "grader": "A grader of hud: how many of the expected words an answer has",
    "agent": "An agent of hud that needs no model",
    "format": "A taskset format of hud: one task a line",
}


def write(kind: str, name: str, into: Path | None = None) -> tuple[Path, list[str]]:
    """Write the distribution and return its folder and its files.

    Raises:
        UsageError: no such kind, a name no package can have, or a folder that is not empty; nothing is written.
    """
    if kind not in KINDS:
        from difflib import get_close_matches

        close = get_close_matches(kind, KINDS, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise UsageError(f"there is no plugin kind {kind!r}{hint} Choose one of: {', '.join(KINDS)}")
    words = _words(kind, name)
    if (owner := _taken(kind, words["name"])) is not None:
        raise UsageError(f"{owner} has the {kind} {words['name']!r} already; choose another name")
    folder = into or Path(words["dist"])
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty; choose another folder with --into")
    files: dict[str, str] = {}
    for home in (FOLDER / "common", FOLDER / kind):
        for path in sorted(home.rglob("*")):
            if path.is_file():
                relative = path.relative_to(home).as_posix().removesuffix(".in")
                files[_filled(relative, words)] = _filled(path.read_text(encoding="utf-8"), words)
    for relative, text in files.items():
        target = folder / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    return folder, sorted(files)


def plugin_name(name: str) -> str:
    """Return the name a plugin gets: lower-case letters, digits and dashes.

    Raises:
        UsageError: nothing of the kind is left.
    """
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    if not plain or not plain[0].isalpha():
        raise UsageError(f"{name!r} cannot name a plugin: begin with a letter, then letters, digits, dashes")
    return plain


def _words(kind: str, name: str) -> dict[str, str]:
    plain = plugin_name(name).replace("-", "_")
    from hud import __version__

    major = int(__version__.partition(".")[0])
    return {
        "name": plain.replace("_", "-"),
        "Name": "".join(part.capitalize() for part in plain.split("_")),
        "dist": f"hud-{kind}-{plain.replace('_', '-')}",
        "package": f"hud_{kind}_{plain}",
        "kind": kind,
        "summary": SUMMARIES[kind],
        "core": f"hud-core>={__version__},<{major + 1}",
    }


def _taken(kind: str, name: str) -> str | None:
    """Return which distribution of this project has the name: a plugin of that name could not be reached by it."""
    from hud.plugins import current_host
    from hud.plugins.first_party import DECLARED

    host = current_host()
    if any(d.kind == kind and d.name == name for d, _ in host.registry.declared([host.core()])):
        return "hud-core"
    return DECLARED.get(kind, {}).get(name)


def _filled(text: str, words: dict[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda found: words[found[1]], text)
