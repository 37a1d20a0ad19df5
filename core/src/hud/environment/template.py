"""A task template: an async generator function that yields a prompt, receives an answer and yields a reward."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from hud.errors import TemplateTypeError

if TYPE_CHECKING:
    from hud.environment.answers import AnswerReader
    from hud.environment.arguments import Arguments
    from hud.environment.env import Environment
    from hud.environment.solution import Solution
    from hud.types.task import Task

_ASYNC_GENERATOR = inspect.CO_ASYNC_GENERATOR


class Template:
    """What `@env.template()` makes of a function. Calling it with arguments makes a row, a `Task`.

    `input` and `returns` are types (or JSON Schemas) for the manifest; with `returns` the answer arrives as
    `Answer[returns]`. With `keep_agent_processes` what the agent started is confined while the grader runs, not
    ended. `artifacts` are patterns (`report.json`, `out/**/*.csv`, a folder) of the workspace's files that a verifier
    of another environment gets.
    """

    def __init__(
        self,
        env: Environment,
        function: Callable[..., AsyncGenerator[Any, Any]],
        *,
        id: str | None = None,  # noqa: A002 - the public keyword
        description: str = "",
        input: Any = None,  # noqa: A002 - the public keyword
        returns: Any = None,
        keep_agent_processes: bool = False,
        artifacts: Sequence[str] = (),
    ) -> None:
        code = getattr(inspect.unwrap(function), "__code__", None)
        self.id: str = id or str(getattr(function, "__name__", type(function).__name__))
        self.file: str = getattr(code, "co_filename", "")
        self.line: int = getattr(code, "co_firstlineno", 0)
        self.where: str = f"template {self.id!r} ({self.file}:{self.line})"
        if code is None or not code.co_flags & _ASYNC_GENERATOR:
            raise TemplateTypeError(
                f"{self.where} is no async generator function: write `async def` with "
                "`answer = yield prompt` and then `yield reward`"
            )
        self.env = env
        self.function = function
        self.description = description
        self.input = input
        self.returns = returns
        self.keep_agent_processes = keep_agent_processes
        self.artifacts: tuple[str, ...] = tuple(artifacts)
        self.__name__: str = self.id
        self.__doc__ = function.__doc__
        self.__module__ = function.__module__
        self.__wrapped__ = function
        self.reference: Solution | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Task:
        """Make a row. What is not given keeps the template's default and stays out of the row.

        Raises:
            TypeError: an argument is unknown, missing or given twice, as for any function.
        """
        try:
            bound = self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.where}: {self._unknown_among(kwargs) or error}") from None
        from hud.types.task import Task
        from hud.values import plain

        given: dict[str, Any] = {}
        for name, value in bound.arguments.items():
            kind = self._signature.parameters[name].kind
            if kind is inspect.Parameter.VAR_KEYWORD:
                given |= {key: plain(item) for key, item in value.items()}
            else:
                given[name] = plain(value)
        return Task(env=self.env.name, id=self.id, args=given, source=self.env)

    def solution(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Declare the reference solution: `async def _(run)` or `(run, **args)`; it returns the answer.

        It stays on the agent's side: it never travels over the wire. A later declaration replaces it.
        """
        from hud.environment.solution import Solution

        self.reference = Solution(self, function)
        return function

    def _unknown_among(self, given: Mapping[str, Any]) -> str:
        """Say which of the named arguments is unknown, before another that is missing because of it; or nothing."""
        from hud.environment.arguments import unknown_argument

        known = self._signature.parameters
        if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in known.values()):
            return ""
        return next((unknown_argument(name, known) for name in given if name not in known), "")

    @cached_property
    def _signature(self) -> inspect.Signature:
        return inspect.signature(self.function)

    @cached_property
    def arguments(self) -> Arguments:
        """The arguments' schema and check, made on first use."""
        from hud.environment.arguments import Arguments

        return Arguments(self.function, self.where)

    @cached_property
    def answer_reader(self) -> AnswerReader | None:
        """What turns a raw answer into `Answer[returns]`; None without `returns`."""
        from hud.environment.answers import AnswerReader

        return None if self.returns is None else AnswerReader(self.returns, f"{self.where}: returns")

    @cached_property
    def entry(self) -> Mapping[str, Any]:
        """The manifest's entry: `{id, description, args, input?, returns?}`."""
        from hud.environment.models import schema_of

        entry: dict[str, Any] = {
            "id": self.id,
            "description": self.description,
            "args": self.arguments.schema,
        }
        if self.input is not None:
            entry["input"] = schema_of(self.input, f"{self.where}: input")
        if self.returns is not None:
            entry["returns"] = schema_of(self.returns, f"{self.where}: returns")
        return entry

    def __repr__(self) -> str:
        return f"<{self.where} of environment {self.env.name!r}>"
