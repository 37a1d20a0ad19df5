"""The pages of docs/ show code that runs.

A fence right after `<!-- run -->` is executed, one namespace a page, top-level `await` allowed; a fence after
`<!-- file: NAME -->` is written to NAME in the folder the page runs in. Each page has a process of its own.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
_BLOCK = re.compile(r"^<!-- (run|file: (\S+)) -->\n```[a-z]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = sorted(page for page in DOCS.rglob("*.md") if _BLOCK.search(page.read_text()))


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_the_code_of_a_page_runs(page: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, __file__, str(page)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def test_every_marker_has_its_fence() -> None:
    for page in DOCS.rglob("*.md"):
        text = page.read_text()
        markers = len(re.findall(r"^<!-- (run|file: \S+) -->$", text, re.MULTILINE))
        assert markers == len(_BLOCK.findall(text)), f"{page}: a marker is not followed by a fence"


def run_page(page: Path) -> None:
    """Execute the marked blocks of `page` in order; errors show the page's own lines."""
    text = page.read_text()
    namespace: dict[str, object] = {"__name__": "__docs__"}
    sys.path.insert(0, str(Path.cwd()))
    with asyncio.Runner() as runner:
        for match in _BLOCK.finditer(text):
            _, name, body = match.groups()
            if name is not None:
                file = Path(name)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(body)
                continue
            before = text.count("\n", 0, match.start(3))
            code = compile("\n" * before + body, str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            if code.co_flags & inspect.CO_COROUTINE:
                runner.run(eval(code, namespace))
            else:
                exec(code, namespace)


if __name__ == "__main__":
    run_page(Path(sys.argv[1]))
