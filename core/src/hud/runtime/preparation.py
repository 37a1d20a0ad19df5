"""What a zygote does before its first fork: import the environment, and all that its children will need."""

from __future__ import annotations

import contextlib
import importlib
import os
import stat
import sys
import traceback
from pathlib import Path
from typing import Any

from hud.runtime import linux
from hud.runtime.importing import importing

NEEDED = (
    "asyncio",
    "ssl",
    "hud.environment",
    "hud.wire.server",
    "hud.environment.author",
    "hud.environment.service",
    "hud.runtime.child_service",
    "hud.runtime.overlay",
    "hud.runtime.view",
    "hud.runtime.zygote_child",
)
"""What children run, imported before the first fork."""


def prepare(setup: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """Import the environment of `setup`; return the report for the orchestrator, and the environment.

    The report is `{"ready": ...}`, `{"spawn": reason, ...}` where a fork would not carry over what the module
    holds, or `{"failed": ...}`. With `preimport` off the module is left for each child to import.
    """
    sys.path[:] = setup["sys_path"]
    for name in NEEDED:
        importlib.import_module(name)
    if not setup["preimport"]:
        return {"ready": {"modules": [], "roots": []}}, None
    before = set(sys.modules)
    already_open = linux.open_descriptors()
    try:
        environment = load(setup)
    except BaseException as raised:  # noqa: BLE001 - author code at import, SystemExit included; reported whole
        return {"failed": failure(raised)}, None
    modules = author_modules(set(sys.modules) - before)
    if (reason := what_a_fork_loses(already_open)) is not None:
        return {"spawn": reason, "modules": modules}, None
    preload(environment)
    return {"ready": {"modules": modules, "roots": copied_up_roots(environment)}}, environment


def load(setup: dict[str, Any]) -> Any:
    """Load the environment from its source, in the source's folder."""
    from hud.environment.loading import load_environment

    with contextlib.suppress(OSError):
        os.chdir(setup["folder"])
    with importing():
        return load_environment(setup["source"], name=setup.get("env"))


def failure(raised: BaseException) -> dict[str, Any]:
    """Return an exception in a form that `raise_failure` turns back into the same kind of error."""
    from hud.errors import HudError

    known = isinstance(raised, HudError)
    text = str(raised) if known else "".join(traceback.format_exception_only(raised)).strip()
    full = getattr(raised, "author_traceback", "") or "".join(traceback.format_exception(raised))
    # One message of a seqpacket socket holds some 200 kB.
    return {
        "type": type(raised).__name__ if known else "SourceError",
        "message": text[:30_000],
        "traceback": full[-30_000:],
        "errno": getattr(raised if isinstance(raised, OSError) else raised.__cause__, "errno", None),
    }


def author_modules(names: set[str]) -> list[tuple[str, int, int]]:
    """Return `(path, mtime in ns, size)` of the modules in `names` that are no part of an installed library."""
    found = []
    libraries = (os.path.join(sys.prefix, "lib"), os.path.join(sys.base_prefix, "lib"))  # noqa: PTH118
    for name in sorted(names):
        path = getattr(sys.modules.get(name), "__file__", None)
        if not path or path.startswith(libraries) or name == "hud" or name.startswith("hud."):
            continue
        with contextlib.suppress(OSError):
            info = Path(path).stat()
            found.append((str(path), info.st_mtime_ns, info.st_size))
    return found[:500]


def what_a_fork_loses(already_open: set[int]) -> str | None:
    """Return what the module holds that a forked child could not use, or None."""
    import threading

    names = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    if (count := linux.thread_count()) > 1:
        named = ", ".join(names) if names else "threads of a C library"
        return f"its module leaves {count - 1} live thread(s) at import ({named})"
    for descriptor in sorted(linux.open_descriptors() - already_open):
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                return f"its module opens a socket at import (descriptor {descriptor})"
            if os.readlink(f"/proc/self/fd/{descriptor}").startswith("/dev/nvidia"):  # noqa: PTH115
                return "its module opens a CUDA device at import"
    sqlite = sys.modules.get("sqlite3")
    if sqlite is not None:
        import gc

        if any(type(thing) is sqlite.Connection for thing in gc.get_objects()):
            return "its module opens a database connection at import"
    return None


def preload(environment: Any) -> None:
    """Import what the environment's backings name in `preload`, and make the schemas of its templates.

    A name is a module's, or `module:function`, which is then called.
    """
    for backing in getattr(environment, "backings", None) or ():
        for name in getattr(backing, "preload", ()):
            module, _, function = name.partition(":")
            # A backing may name a module that is only sometimes there; its own start says what is missing.
            with contextlib.suppress(ImportError):
                loaded = importlib.import_module(module)
                if function:
                    getattr(loaded, function)()
    for template in environment.tasks.values():
        # Made once and kept by the template; its complaint about an annotation comes when it is served.
        with contextlib.suppress(Exception):
            _ = (template.entry, template.answer_reader, template.arguments.required)


def copied_up_roots(environment: Any) -> list[str]:
    """Return the folders of backings whose parts will be renamed: workspace roots and what seeds them."""
    roots = []
    for backing in getattr(environment, "backings", None) or ():
        roots += [str(Path(root).absolute()) for root in (getattr(backing, "root", None),) if root]
    return roots
