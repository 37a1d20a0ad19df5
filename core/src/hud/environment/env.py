"""The environment: a closed container an agent acts in, declared in a file."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from hud.environment.template import Template
from hud.types.capability import Capability

if TYPE_CHECKING:
    import asyncio
    from contextlib import AsyncExitStack
    from types import FrameType

    from hud.capability.backing import Backing
    from hud.capability.declared import BrowserBacking, DesktopBacking, ToolsBacking, WorkspaceBacking
    from hud.environment.service import EnvironmentService

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(slots=True)
class Lease:
    """Who holds the one service of a live environment; `hud.environment.service.serving` keeps it."""

    service: EnvironmentService | None = None
    loop: asyncio.AbstractEventLoop | None = None
    turn: asyncio.Lock | None = None
    users: int = 0


class Environment:
    """Declares capabilities, hooks and templates. Declaring starts nothing and imports no plugin."""

    def __init__(
        self,
        name: str = "environment",
        *,
        version: str = "0.0.1",
        capabilities: Sequence[Capability] | None = None,
    ) -> None:
        given: object = name
        if not isinstance(given, str) or not given:
            raise ValueError(f"an environment needs a name, a text, not {name!r}")
        self.name = name
        self.version = version
        self.capabilities: list[Capability] = []
        self.tasks: dict[str, Template] = {}
        self.lifecycle: list[tuple[str, Any]] = []
        """("initialize", hook), ("shutdown", hook) and ("backing", backing), as declared."""
        self.teardown_hooks: list[Callable[[], Any]] = []
        self.published = False
        self.lease: Lease = Lease()
        self._declared_in = _declaring_modules()
        self._running: AsyncExitStack | None = None
        for capability in capabilities or ():
            self.add_capability(capability)

    @property
    def source_file(self) -> Path | None:
        """The file whose module holds it by a name, where another process finds it too.

        None in a notebook or a shell, and where only a function has it.
        """
        for file, names in self._declared_in:
            if any(value is self for value in list(names.values())):
                return file
        return None

    @source_file.setter
    def source_file(self, file: Path | None) -> None:
        self._declared_in = [] if file is None else [(file, {"": self})]

    # Declaring.

    def template(
        self,
        misplaced: None = None,
        /,
        *,
        id: str | None = None,  # noqa: A002 - the public keyword
        description: str = "",
        input: Any = None,  # noqa: A002 - the public keyword
        returns: Any = None,
        keep_agent_processes: bool = False,
        artifacts: Sequence[str] = (),
    ) -> Callable[[Callable[..., Any]], Template]:
        """Declare a task: decorates an async generator function, `@env.template()`; see `Template` for the keywords.

        Raises:
            TypeError: it is no async generator function.
            ValueError: the id is taken.
        """

        if misplaced is not None:
            raise TypeError("write `@env.template()` with parentheses")

        def declare(function: Callable[..., Any]) -> Template:
            made = Template(
                self,
                function,
                id=id,
                description=description,
                input=input,
                returns=returns,
                keep_agent_processes=keep_agent_processes,
                artifacts=artifacts,
            )
            if made.id in self.tasks:
                other = self.tasks[made.id]
                raise ValueError(
                    f"{made.where}: environment {self.name!r} already has one at {other.file}:{other.line}; give it id="
                )
            self.tasks[made.id] = made
            return made

        return declare

    @property
    def templates(self) -> dict[str, Template]:
        """The templates by id; the same mapping as `tasks`."""
        return self.tasks

    def initialize(self, hook: Function) -> Function:
        """Have `hook` run once before serving, in order of declaration with backings."""
        self.lifecycle.append(("initialize", _async_hook(hook, "initialize")))
        return hook

    def shutdown(self, hook: Function) -> Function:
        """Have `hook` run once at the end, the last declared first; its errors are reported."""
        self.lifecycle.append(("shutdown", _async_hook(hook, "shutdown")))
        return hook

    def teardown(self, hook: Function) -> Function:
        """Have `hook` run at the end of every task, graded or not, in the task's own context."""
        self.teardown_hooks.append(_async_hook(hook, "teardown"))
        return hook

    @property
    def _on_task_teardown(self) -> list[Callable[[], Any]]:
        """The teardown hooks, under the name that code written for HUD uses."""
        return self.teardown_hooks

    # Capabilities.

    def add_capability(self, capability: Capability) -> None:
        """Publish a capability; one of the same name is replaced.

        Raises:
            TypeError: it is no `Capability`.
            ValueError: its url is empty.
        """
        if not isinstance(capability, Capability):
            raise TypeError(f"expected a Capability, not {type(capability).__name__} {capability!r}")
        if not capability.url:
            raise ValueError(f"capability {capability.name!r} has no url")
        if self.published:
            warnings.warn(
                f"capability {capability.name!r} is added while environment {self.name!r} is served; clients that "
                "are connected will not see it",
                stacklevel=2,
            )
        for i, known in enumerate(self.capabilities):
            if known.name == capability.name:
                self.capabilities[i] = capability
                return
        self.capabilities.append(capability)

    def capability(self, name: str) -> Capability:
        """Return the capability called `name`; `KeyError` lists those there are."""
        for capability in self.capabilities:
            if capability.name == name:
                return capability
        known = ", ".join(c.name for c in self.capabilities) or "none"
        raise KeyError(f"environment {self.name!r} has no capability {name!r}; it has: {known}")

    @property
    def backings(self) -> list[Backing]:
        """What was attached with `use`, in order."""
        return [item for kind, item in self.lifecycle if kind == "backing"]

    def use(self, backing: BackingT) -> BackingT:
        """Attach what serves a capability: it is started before serving, in order, and stopped at the end.

        Raises:
            TypeError: it has no `name`, `start` and `stop`.
            ValueError: the name is taken.
        """
        name = getattr(backing, "name", None)
        if not isinstance(name, str) or not all(
            callable(getattr(backing, m, None)) for m in ("start", "stop")
        ):
            raise TypeError(f"{backing!r} is no backing: it needs a name and async start() and stop()")
        if any(known.name == name for known in self.backings) or any(
            c.name == name for c in self.capabilities
        ):
            raise ValueError(
                f"environment {self.name!r} already has a capability {name!r}; give it another name="
            )
        self.lifecycle.append(("backing", backing))
        return backing

    def workspace(self, root: str | Path, *, name: str = "shell", **options: Any) -> WorkspaceBacking:
        """Give the agent a shell in the folder `root`; a plugin serves it (`hud-capability-ssh`)."""
        made: WorkspaceBacking = self._made_by_plugin("workspace", root, name=name, **options)
        return made

    def desktop(self, *, name: str = "screen", **options: Any) -> DesktopBacking:
        """Give the agent a desktop; a plugin serves it."""
        made: DesktopBacking = self._made_by_plugin("desktop", name=name, **options)
        return made

    def browser(self, *, name: str = "browser", **options: Any) -> BrowserBacking:
        """Give the agent a browser; a plugin serves it."""
        made: BrowserBacking = self._made_by_plugin("browser", name=name, **options)
        return made

    def tools(self, *args: Any, name: str = "tools", **options: Any) -> ToolsBacking:
        """Give the agent tools; a plugin serves them."""
        made: ToolsBacking = self._made_by_plugin("tools", *args, name=name, **options)
        return made

    def _made_by_plugin(self, method: str, *args: Any, **options: Any) -> Any:
        from hud.capability.kind import backing_for_method

        return self.use(backing_for_method(method)(*args, **options))

    # Controller-supplied egress, as HUD's clients may ask for.

    def bind_connections(self, connections: Sequence[Any], *, session: str) -> None:
        """Give a session's processes authenticated upstreams; refused unless a backing allows it."""
        from hud.environment.egress import bind

        bind(self, "connections", connections, session)

    def bind_workspace_routes(self, routes: Sequence[Any], *, session: str) -> None:
        """Give a session's workspace named routes out; refused unless a backing allows it."""
        from hud.environment.egress import bind

        bind(self, "workspace_routes", routes, session)

    def release_session(self, session: str) -> None:
        """Take back what was bound for a session."""
        from hud.environment.egress import release

        release(self, session)

    # Running it by hand.

    async def start(self) -> None:
        """Start backings and hooks on the running loop; does nothing while started."""
        if self._running is None:
            from contextlib import AsyncExitStack

            from hud.environment.service import serving

            stack = AsyncExitStack()
            await stack.enter_async_context(serving(self))
            self._running = stack

    async def stop(self) -> None:
        """Run shutdown hooks and stop backings; does nothing unless started."""
        if self._running is not None:
            stack, self._running = self._running, None
            await stack.aclose()

    def __deepcopy__(self, memo: dict[int, Any]) -> Environment:
        """Return itself: rows are copied, the environment they were declared in stays one."""
        return self

    def __repr__(self) -> str:
        return f"<Environment {self.name!r} {self.version}: {len(self.tasks)} templates>"


BackingT = TypeVar("BackingT")


def _async_hook(hook: Any, kind: str) -> Any:
    import inspect

    if not inspect.iscoroutinefunction(hook):
        raise TypeError(
            f"{kind} hook {hook!r} must be an `async def` function (and @env.{kind} has no parentheses)"
        )
    return hook


def _declaring_modules() -> list[tuple[Path, dict[str, Any]]]:
    """Return the module that makes it and, for a factory, the one that is being imported; with their names."""
    ours = str(Path(__file__).parent)
    found: list[tuple[Path, dict[str, Any]]] = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_globals.get("__file__")
        if name is None:
            break
        path, is_body = Path(name), frame.f_code.co_name == "<module>"
        if path.suffix == ".py" and not str(name).startswith(ours) and (is_body or not found):
            found.append((path, frame.f_globals))
        if is_body:
            break
        frame = frame.f_back
    return found
