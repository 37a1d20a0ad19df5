"""A shell in a sandbox: the agent mends a program, and its tests decide."""

from pathlib import Path

from hud.environment import Environment
from hud.graders import BashGrader

HERE = Path(__file__).parent

env = Environment(name="{{name}}")
workspace = env.workspace("workspace", seed=HERE / "project")


@env.template(description="Mend a program until its tests pass.")
async def fix(module: str = "stats"):
    yield_prompt = (
        f"The tests of {module}.py fail. Run `python3 -m unittest test_{module}` and mend {module}.py."
    )
    yield yield_prompt
    # The tests come from outside the workspace: what the agent did to its own copy of them does not count.
    result = await BashGrader.grade(
        command=f"python3 -m unittest test_{module}",
        files={f"test_{module}.py": HERE / "project" / f"test_{module}.py"},
    )
    yield result.value


@fix.solution
async def _(run, module: str = "stats"):
    shell = await run.client.open("ssh")
    text = await shell.read_text(f"{module}.py")
    await shell.write_text(f"{module}.py", text.replace("len(values) - 1", "len(values)"))
    return "mended"
