"""What a first-party name is while its plugin is absent: a class that raises when it is used."""

from __future__ import annotations

from typing import Any, NoReturn

from hud.errors import PluginError


class _Absent(type):
    """The stand-ins' metaclass. `isinstance` and dunder probes work; calling, subclassing or reading raises."""

    def __new__(mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> _Absent:
        for base in bases:
            if isinstance(base, _Absent):
                base.refuse()
        return super().__new__(mcs, name, bases, namespace)

    def refuse(cls) -> NoReturn:
        """Raise the error that names the distribution and what to do."""
        error, arguments = cls.__dict__["__absence__"]
        raise error(*arguments)

    def __call__(cls, *_arguments: Any, **_options: Any) -> NoReturn:
        cls.refuse()

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)  # inspect, copy and doctest probe these of everything they see
        cls.refuse()

    def __repr__(cls) -> str:
        error, arguments = cls.__dict__["__absence__"]
        return f"<{cls.__name__}: {error.__name__}: {arguments[0]}>"


_made: dict[tuple[str, str, str], type] = {}


def stand_in(module: str, name: str, error: PluginError) -> type:
    """Return a class that stands for `module.name` and raises an error like `error` on use.

    One that stands for an error can be named in an `except`, where it catches nothing.
    The same class for the same name and reason; a fresh exception each time, so tracebacks do not pile up.
    """
    key = (module, name, str(error))
    if key not in _made:
        namespace = {"__module__": module, "__doc__": str(error), "__absence__": (type(error), error.args)}
        bases = (Exception,) if name.endswith("Error") else ()
        _made[key] = _Absent(name, bases, namespace)
    return _made[key]
