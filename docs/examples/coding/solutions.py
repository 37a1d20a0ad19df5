"""Reference solutions. They are read on the agent's side only: an image of this environment leaves them out."""

from pathlib import Path

from env import fix_bug

SOLVED = Path(__file__).parent / "solved"
ALSO = {"shares": ["money"]}


@fix_bug.solution
async def _(run, bug: str):
    shell = await run.client.open("ssh")
    for module in [bug, *ALSO.get(bug, [])]:
        await shell.write_text(f"shelf/{module}.py", (SOLVED / f"{module}.py").read_text())
    result = await shell.run("python3 -m unittest discover -s tests -t .", check=True)
    return f"Mended {bug}; the repository's tests pass.\n{result.stderr}"
