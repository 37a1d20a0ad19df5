"""From an environment's folder to an image that serves it, says what it serves, and is known by its content."""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio

from hud.errors import RuntimeStartError, SourceError, SourceNotFoundError
from hud_runtime_docker import bundle, dockerfile, manifest, requirements, rootfs
from hud_runtime_docker.buildkit import build_with_secrets
from hud_runtime_docker.context import BuildContext
from hud_runtime_docker.engine import Engine, engine_errors

if TYPE_CHECKING:
    from collections.abc import Iterator

DEFAULT_BASE = "python:3.12-slim"
SCRATCH = "scratch"
PORT = 8765
SILENT_S = 3600
"""How long a step of a build may print nothing."""

Say: TypeAlias = Callable[[str], None]


class BuildError(RuntimeStartError):
    """Raised when an image cannot be built; has the step and the last lines of its output."""

    retryable = False


@dataclass(slots=True)
class BuildRequest:
    """What to build an image from.

    `source` is an environment's folder or file. Without `base` the folder's Dockerfile.hud counts, else one is
    generated on `DEFAULT_BASE`; with it one is generated on that image, or on `scratch`, this machine's own Python.
    `secrets` are the command's own words (`id=NAME,env=VAR` or `id=NAME,src=FILE`).
    """

    source: Path
    base: str | None = None
    dockerfile: str | None = None
    build_args: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    port: int = PORT
    no_cache: bool = False
    pull: bool = False
    check: bool = True
    """Start the image once, to see that it serves and to label it with its manifest."""

    @property
    def folder(self) -> Path:
        """Where the context begins."""
        return self.source if self.source.is_dir() else self.source.parent

    @property
    def own_dockerfile(self) -> str | None:
        """The Dockerfile that counts, relative to the folder; None where one is generated.

        Raises:
            SourceNotFoundError: the one that was named is not there.
        """
        if self.dockerfile is not None:
            if not (self.folder / self.dockerfile).is_file():
                raise SourceNotFoundError(f"{self.folder} has no {self.dockerfile}")
            return self.dockerfile
        return dockerfile.OWN if self.base is None and (self.folder / dockerfile.OWN).is_file() else None


@dataclass(slots=True, frozen=True)
class BuiltImage:
    """An image on the engine: `id` by content, `tags` by name, `manifest` None where it was not asked for."""

    id: str
    tags: tuple[str, ...]
    digest: str
    manifest: dict[str, Any] | None
    reused: bool

    @property
    def name(self) -> str:
        """What to call it: its first tag, else its id."""
        return self.tags[0] if self.tags else self.id


@dataclass(slots=True)
class Plan:
    """What a request comes to: the Dockerfile's text, the context, and digests of all that goes in.

    `project` is the digest of the source alone, the same on every base.
    """

    request: BuildRequest
    text: str
    context: BuildContext
    lines: list[str]
    digest: str
    project: str

    @property
    def generated(self) -> bool:
        """Whether the Dockerfile is ours."""
        return self.request.own_dockerfile is None


def plan(request: BuildRequest) -> Plan:
    """Read the folder; nothing is built, no engine is asked.

    Raises:
        SourceError: the folder holds no environment that could be served.
    """
    own = request.own_dockerfile
    context = BuildContext.of(request.folder, own, ignore=own or dockerfile.OWN)
    lines = requirements.requirements_of(request.folder)
    text = _generated(request, lines) if own is None else (request.folder / own).read_text(encoding="utf-8")
    content, installed = context.digest(), _installed_identities(lines)
    arguments = sorted(f"{key}={value}" for key, value in request.build_args.items())
    # Its own Dockerfile takes nothing from this machine but the context.
    digest = _hash([text, *arguments, content, *(installed if own is None else ())])
    return Plan(request, text, context, lines, digest, _hash([content, *installed]))


def _hash(parts: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _generated(request: BuildRequest, lines: list[str]) -> str:
    serve = _served_file(request)
    if request.base == SCRATCH:
        return dockerfile.generated(SCRATCH, serve, port=request.port, install=False)
    packages = _system_packages(request.folder, lines)
    base = request.base or DEFAULT_BASE
    return dockerfile.generated(base, serve, port=request.port, packages=packages)


def _served_file(request: BuildRequest) -> str:
    if request.source.suffix == ".py" and b"Environment" in request.source.read_bytes():
        return request.source.name
    for name in ("env.py", "environment.py"):
        if (request.folder / name).is_file():
            return name
    if any(b"Environment" in path.read_bytes() for path in request.folder.glob("*.py")):
        return "."
    raise SourceError(
        f"{request.source} declares no Environment; give its folder, or a {dockerfile.OWN} that serves one"
    )


def _system_packages(folder: Path, lines: Iterable[str]) -> list[str]:
    path = folder / "packages.txt"
    found = path.read_text(encoding="utf-8").split() if path.is_file() else []
    shell = any(line.startswith("hud-capability-ssh") or "[ssh]" in line for line in lines)
    return [*found, *(name for name in ("bash", "bubblewrap") if shell and name not in found)]


def _installed_identities(lines: Iterable[str]) -> list[str]:
    """Name what would be taken from this machine: distributions under development change without a version."""
    from importlib import metadata

    try:
        names = sorted(bundle.closure(requirements.installed(lines)))
    except RuntimeStartError:
        return list(lines)
    except metadata.PackageNotFoundError:
        return list(lines)
    return [bundle.identity(name) for name in names if bundle.editable_source(name) is not None]


def find_built(engine: Engine, digest: str, label: str = manifest.DIGEST) -> BuiltImage | None:
    """Return the newest image that was built from exactly this, or None. Blocks."""
    with engine_errors(engine.base_url):
        found = engine.api.images(filters={"label": f"{label}={digest}"})
    found.sort(key=lambda image: image["Created"], reverse=True)
    if not found:
        return None
    labels = found[0].get("Labels") or {}
    text = labels.get(manifest.MANIFEST)
    tags = tuple(tag for tag in found[0].get("RepoTags") or () if tag != "<none>:<none>")
    return BuiltImage(found[0]["Id"], tags, digest, json.loads(text) if text else None, reused=True)


async def build(engine: Engine, request: BuildRequest, say: Say) -> BuiltImage:
    """Build the image of `request`, unless the engine has one of the same content; `say` gets each line of progress.

    Raises:
        BuildError: a step failed, or the image does not serve.
        UsageError: the source, or what was asked for, cannot work.
    """
    planned = await anyio.to_thread.run_sync(plan, request)
    if not request.no_cache:
        known = await engine.run(lambda: find_built(engine, planned.digest))
        if known is not None and (known.manifest is not None or not request.check):
            say(f"unchanged: {known.name}")
            return await _tagged(engine, known, request.tags)
    stop = threading.Event()
    try:
        image = await engine.run(lambda: _make(engine, planned, say, stop))
    finally:
        stop.set()
    told = await _served_by(engine, image, request, say) if request.check else None
    labels = {manifest.DIGEST: planned.digest, manifest.PROJECT: planned.project}
    if told is not None:
        labels[manifest.MANIFEST] = json.dumps(told, separators=(",", ":"), sort_keys=True)
    tags = request.tags or (
        f"{image_name(told['env']['name'] if told else request.folder.resolve().name)}:latest",
    )
    final = await engine.run(lambda: _labelled(engine, image, labels))
    return await _tagged(engine, BuiltImage(final, (), planned.digest, told, reused=False), tags)


def image_name(name: str) -> str:
    """Return `name` as an image may be called."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "environment"


async def _tagged(engine: Engine, image: BuiltImage, tags: tuple[str, ...]) -> BuiltImage:
    for tag in tags:
        repository, _, version = tag.rpartition(":") if ":" in tag.rpartition("/")[2] else (tag, "", "latest")
        await engine.call("tag", image.id, repository, version, force=True)
    return BuiltImage(image.id, tags or image.tags, image.digest, image.manifest, image.reused)


def _make(engine: Engine, planned: Plan, say: Say, stop: threading.Event) -> str:
    """Run the build; return the image's id."""
    request = planned.request
    text = planned.text
    if planned.generated and request.base == SCRATCH:
        say("base: this machine's Python and programs")
        with engine_errors(engine.base_url):
            base = rootfs.scratch_base(engine, requirements.installed(planned.lines))
        text = text.replace(f"FROM {SCRATCH}", f"FROM {base}", 1)
    with tempfile.TemporaryDirectory(prefix="hud-build-") as scratch, tempfile.TemporaryFile() as archive:
        extra: dict[str, bytes | Path] = {}
        name = request.own_dockerfile
        if name is None:
            name = "Dockerfile"
            extra[name] = text.encode()
            if request.base != SCRATCH:
                extra |= _requirements_layer(planned.lines, Path(scratch), say)
        under = dockerfile.SOURCE if planned.generated else ""
        planned.context.archive(archive, under=under, extra=extra)
        archive.seek(0)
        reason = "--secret" if request.secrets else dockerfile.wants_buildkit(text)
        if reason is not None:
            return build_with_secrets(engine, request, archive, name, reason, say, stop)
        return _classic(engine, request, archive, name, say, stop)


def _requirements_layer(lines: list[str], scratch: Path, say: Say) -> dict[str, bytes | Path]:
    """Return the files of the requirements' layer: their list, and wheels of what is under development here."""
    listed = "\n".join(lines) + "\n"
    files: dict[str, bytes | Path] = {f"{dockerfile.REQUIREMENTS}requirements.txt": listed.encode()}
    try:
        names = sorted(bundle.closure(requirements.installed(lines)))
    except RuntimeStartError:
        return files  # not all of it is installed here; what the index has will do
    for name in names:
        source = bundle.editable_source(name)
        if source is not None:
            say(f"wheel of {name}, which is installed from {source.name}/")
            wheel = bundle.built_wheel(source, scratch)
            files[f"{dockerfile.REQUIREMENTS}{wheel.name}"] = wheel
    return files


def _classic(
    engine: Engine, request: BuildRequest, archive: Any, name: str, say: Say, stop: threading.Event
) -> str:
    """Build through the engine's API, which every engine has, Podman's too."""
    with engine_errors(engine.base_url):
        said = engine.api.build(
            fileobj=archive,
            custom_context=True,
            dockerfile=name,
            buildargs=dict(request.build_args),
            nocache=request.no_cache,
            pull=request.pull,
            rm=True,
            forcerm=True,
            decode=True,
            timeout=SILENT_S,
        )
        return _followed(said, say, stop)


def _followed(said: Iterator[dict[str, Any]], say: Say, stop: threading.Event) -> str:
    image = error = ""
    tail: list[str] = []
    for event in said:  # to its end, also after an error: that closes its connection
        if stop.is_set():
            raise BuildError("the build was cancelled")
        error = error or str(event.get("error", "")).strip()
        image = (event.get("aux") or {}).get("ID", image)
        for line in _lines(event):
            tail = [*tail[-19:], line]
            say(line)
    if error:
        raise BuildError(f"building failed: {_remedy(error)}{_shown(tail)}")
    if not image:
        raise BuildError(f"the engine named no image at the end of the build{_shown(tail)}")
    return image


def _lines(event: dict[str, Any]) -> list[str]:
    if "stream" in event:
        lines = [line.rstrip() for line in str(event["stream"]).splitlines() if line.strip()]
        return [line for line in lines if not line.startswith((" --->", "Removing intermediate"))]
    if "status" in event and not event.get("progressDetail"):
        return [" ".join(str(event[key]) for key in ("id", "status") if event.get(key))]
    return []


def _shown(tail: list[str]) -> str:
    return "".join(f"\n  {line}" for line in tail)


def _remedy(said: str) -> str:
    lowered = said.lower()
    if any(
        word in lowered
        for word in ("manifest unknown", "pull access", "lookup ", "connection refused", "timeout")
    ):
        return (
            f"{said}; the base image cannot be pulled: choose one the engine has (--base IMAGE), or --base {SCRATCH}, "
            "which is made of this machine's own Python"
        )
    return said


def _labelled(engine: Engine, image: str, labels: Mapping[str, str]) -> str:
    """Add labels to an image; its layers stay as they are."""
    import io

    with engine_errors(engine.base_url):
        said = engine.api.build(
            fileobj=io.BytesIO(f"FROM {image}\n".encode()),
            labels=dict(labels),
            rm=True,
            forcerm=True,
            decode=True,
        )
        return _followed(said, lambda _: None, threading.Event())


async def _served_by(engine: Engine, image: str, request: BuildRequest, say: Say) -> dict[str, Any]:
    """Start the image once and ask what it serves; an image that does not serve is none."""
    from hud.types import Task
    from hud.wire.client import connect
    from hud_runtime_docker.runtime import DockerRuntime

    say("starting it once, to see what it serves")
    try:
        async with (
            DockerRuntime(image, port=request.port, engine=engine)(Task(env="", id="")) as runtime,
            connect(runtime) as client,
        ):
            return manifest.manifest_of(client, list(await client.list_tasks()))
    except RuntimeStartError as error:
        raise BuildError(f"the image was built, but does not serve: {error}") from error
