"""Before any test folder is read: let each distribution's name mean the installed package.

A folder such as hud_runtime_docker/ at the root would otherwise be taken for an empty namespace package of that
name, since pytest names a test module after its path.
"""

from contextlib import suppress
from importlib import import_module
from pathlib import Path

for folder in sorted(Path(__file__).parent.glob("hud_*/pyproject.toml")):
    with suppress(ModuleNotFoundError):  # not installed: its own tests say so
        import_module(folder.parent.name)
