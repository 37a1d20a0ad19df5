"""Bugs in a small repository: the agent mends one in its shell, hidden tests judge what it left."""

from pathlib import Path

from hud.environment import Environment
from hud.graders import BashGrader

HERE = Path(__file__).parent
BUGS = {
    "batches": "`batches([1, 2, 3, 4, 5], 2)` loses the 5. The docstring says what is meant.",
    "slugs": "Long titles sometimes give slugs that end with a dash.",
    "loans": "Merged loan periods are wrong where one lies within another, and adjoining ones are not merged.",
    "recent": "The list of recently used entries throws out entries that were just read.",
    "rows": "Catalogue lines with quotes inside of quoted fields come out wrong, and an open quote is not reported.",
    "shares": "Shares of a bill do not add up to the bill, and refunds below one unit come out positive.",
    "order": "The reading order is not the alphabetically first one, circles go unnoticed, and long series crash.",
}

env = Environment(name="coding", version="1.0.0")
workspace = env.workspace(HERE / "ws", seed=HERE / "repo")


@env.template(description="Mend one bug of the repository in the workspace.")
async def fix_bug(bug: str):
    yield (
        f"The repository in {workspace.guest_root} has a bug: {BUGS[bug]} Mend it in shelf/. "
        "What the docstrings promise must hold, and the existing tests must go on passing "
        "(python3 -m unittest discover -s tests -t .)."
    )
    result = await BashGrader.grade(
        weight=1.0,
        command=f"python3 -I /grader/run.py {bug} {workspace.guest_root}",
        files={"/grader": HERE / "hidden"},
        timeout_seconds=120,
    )
    yield result.value
