"""The Dockerfile of an environment that has none of its own: layers from what changes least to what changes most."""

from __future__ import annotations

import json
from collections.abc import Sequence

OWN = "Dockerfile.hud"
"""What an environment's own Dockerfile is called; it is used as it is."""
SOURCE = "source/"
REQUIREMENTS = "requirements/"
APP = "/app"
UID = 1000

_COMPILE = "compileall -q --invalidation-mode checked-hash"
_SYSTEM = """\
RUN if command -v apt-get; then apt-get update && apt-get install -y --no-install-recommends {names} \\
    && rm -rf /var/lib/apt/lists/*; elif command -v apk; then apk add --no-cache {names}; \\
    else echo "the base image has neither apt-get nor apk to install {names} with" >&2; exit 1; fi
"""


def generated(base: str, serve: str, *, port: int, packages: Sequence[str] = (), install: bool = True) -> str:
    """Return a Dockerfile for a context with the project in `source/` and its requirements in `requirements/`.

    `serve` is what is served, relative to the project. Without `install` the base holds the requirements already.
    """
    lines = [f"FROM {base}"]
    if install:
        lines.append("ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1")
        if packages:
            lines.append(_SYSTEM.format(names=" ".join(packages)).rstrip())
        lines += [
            f"COPY {REQUIREMENTS} /tmp/{REQUIREMENTS}",
            f"RUN python3 -m pip install --find-links /tmp/{REQUIREMENTS} -r /tmp/{REQUIREMENTS}requirements.txt",
        ]
    lines += [
        f"COPY --chown={UID}:{UID} {SOURCE} {APP}/",
        f"WORKDIR {APP}",
        f"RUN python3 -m {_COMPILE} {APP} || true",
        f"USER {UID}:{UID}",
        "ENV HOME=/tmp",
        f"EXPOSE {port}",
        f"CMD {json.dumps(served(serve, port))}",
        "",
    ]
    return "\n".join(lines)


def served(serve: str, port: int) -> list[str]:
    """Return the command that serves in the image."""
    return ["python3", "-m", "hud.environment.server", serve, "--host", "0.0.0.0", "--port", str(port)]  # noqa: S104


def wants_buildkit(text: str) -> str | None:
    """Return the line of a Dockerfile that only BuildKit understands, or None."""
    for line in text.splitlines():
        words = line.strip()
        if words.startswith(("# syntax=", "RUN <<")) or "--mount=" in words:
            return words
    return None
