"""One Docker engine, reached through the official SDK on a bounded number of worker threads."""

from __future__ import annotations

import os
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

import anyio
from anyio import to_thread

from hud.errors import RuntimeStartError

P = ParamSpec("P")
T = TypeVar("T")
CALLS_IN_FLIGHT = 8
"""Calls at once to one engine; more only queue up inside it."""


ASK_EVERY_S = 0.25
"""How often an engine that went away is asked whether it is back; it announces nothing."""


class EngineUnreachableError(RuntimeStartError):
    """Raised when no Docker engine answers; says where it was looked for and how to start one."""


class EngineSlowError(RuntimeStartError, TimeoutError):
    """Raised when an engine took a call and did not answer it in time."""


class ImageMissingError(RuntimeStartError):
    """Raised when an image is neither on the engine nor to be pulled."""

    retryable = False


class Engine:
    """Calls one engine. `base_url` as `DOCKER_HOST` writes it; None takes `DOCKER_HOST`, then the default socket."""

    def __init__(self, base_url: str | None = None, *, timeout_s: int = 60) -> None:
        self.base_url = base_url or os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
        self.timeout_s = timeout_s
        self._api: Any = None
        self._connecting = threading.Lock()  # one client, though many threads ask first
        self._limiter: anyio.CapacityLimiter | None = None
        self._answered = False
        self._podman: bool | None = None

    def __repr__(self) -> str:
        return f"Engine({self.base_url!r})"

    @property
    def api(self) -> Any:
        """The SDK's low-level client; connects on first use, from a worker thread."""
        with self._connecting:
            if self._api is None:
                import docker

                with engine_errors(self.base_url):
                    knock(self.base_url)
                    self._api = docker.APIClient(
                        base_url=self.base_url, version="auto", timeout=self.timeout_s, max_pool_size=256
                    )
                weakref.finalize(self, self._api.close)
        return self._api

    def close(self) -> None:
        """Close the connections to the engine; it connects again when it is used again."""
        with self._connecting:
            api, self._api = self._api, None
        if api is not None:
            api.close()

    async def is_podman(self) -> bool:
        """Say whether Podman answers here; asked once."""
        if self._podman is None:
            told = await self.call("version")
            self._podman = any("podman" in part["Name"].lower() for part in told.get("Components") or ())
        return self._podman

    async def back(self, within_s: float) -> None:
        """Wait for an engine that has answered before and is away now, as one that restarts is.

        One that never answered is not waited for.

        Raises:
            EngineUnreachableError: it is not back `within_s` seconds from now.
        """
        until = time.monotonic() + within_s
        while self._answered:
            try:
                await self.call("ping")
            except EngineUnreachableError as error:
                if time.monotonic() >= until:
                    raise EngineUnreachableError(
                        f"{error}; it went away and was not back within {within_s:g} s"
                    ) from error
                await anyio.sleep(ASK_EVERY_S)
            else:
                return

    async def call(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Call `method` of the SDK's low-level client.

        Cancelling abandons the wait at once for calls that change nothing; a call that creates or removes is to be
        shielded by its caller, since its outcome would be lost.

        Raises:
            RuntimeStartError: the engine refused, with its own words; `EngineUnreachableError` where it is away.
        """
        return await self._in_thread(lambda: getattr(self.api, method)(*arguments, **options))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        def guarded() -> T:
            try:
                with engine_errors(self.base_url):
                    knock(self.base_url)
                    result = work()
            except EngineUnreachableError:
                # Connections of an engine that is gone would fail once more each when it is back.
                self.close()
                raise
            self._answered = True
            return result

        return await self.run(guarded)

    async def run(self, work: Callable[[], T]) -> T:
        """Do `work`, several calls or a long one, on one of this engine's threads; its errors come as they are."""
        if self._limiter is None:
            self._limiter = anyio.CapacityLimiter(CALLS_IN_FLIGHT)
        return await to_thread.run_sync(work, abandon_on_cancel=True, limiter=self._limiter)


def knock(base_url: str) -> None:
    """Raise `OSError` where nothing listens on a unix socket; the SDK would leave its own socket open."""
    if base_url.startswith("unix://"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.connect(base_url.removeprefix("unix://"))


@contextmanager
def engine_errors(base_url: str) -> Iterator[None]:
    """Turn the SDK's errors into ours; the only place that does."""
    import docker.errors
    import requests

    try:
        yield
    except docker.errors.ImageNotFound as error:
        raise ImageMissingError(
            f"{_said(error)}; build it with `docker build`, pull it, or name another image"
        ) from error
    except docker.errors.NotFound:
        raise
    except docker.errors.APIError as error:
        raise RuntimeStartError(
            f"the Docker engine at {base_url} refused: {_remedy(_said(error))}"
        ) from error
    except (docker.errors.DockerException, requests.RequestException, OSError) as error:
        if _is_slow(error):
            raise EngineSlowError(
                f"the Docker engine at {base_url} has not answered for too long ({error}); it may be overloaded or out "
                "of disk: see its log, lower max_concurrent, or restart it"
            ) from error
        raise EngineUnreachableError(
            f"no Docker engine answers at {base_url}: {error}; start one, or set DOCKER_HOST to where it listens"
        ) from error


def _is_slow(error: BaseException | None) -> bool:
    """Whether a call was taken and not answered; the SDK wraps that when it asks for the version first."""
    from requests.exceptions import ReadTimeout

    while error is not None:
        if isinstance(error, ReadTimeout):
            return True
        error = error.__cause__ or error.__context__
    return False


def _said(error: Any) -> str:
    return str(getattr(error, "explanation", None) or error).strip()


_REMEDIES = {
    "no space left on device": "free space with `docker system prune`, or move the engine's data-root",
    "non-overlapping ipv4 address pool": "remove unused networks with `docker network prune`",
    "all predefined address pools": "remove unused networks with `docker network prune`",
    "port is already allocated": "another program holds that port; leave the port to the engine",
    "could not select device driver": "install the NVIDIA container toolkit, or drop gpu from the task",
    "no available ipv4 addresses": "remove unused containers, lower max_concurrent, or take a larger network",
    "cannot allocate memory": "lower max_concurrent, or the resources of its tasks",
    "error setting rlimit": "it may not raise limits; give lower ones: run_args=['--ulimit', 'nofile=1024:1024']",
    "permission denied": "add this user to the docker group, or use a rootless engine",
}


def _remedy(said: str) -> str:
    lowered = said.lower()
    for fragment, remedy in _REMEDIES.items():
        if fragment in lowered:
            return f"{said}; {remedy}"
    return said
