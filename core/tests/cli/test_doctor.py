"""`hud doctor`: findings with a fix, and an exit code."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hud.cli import doctor, machine
from hud.plugins.events import Finding

Hud = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.slow
def test_it_tells_what_works(hud: Hud) -> None:
    done = hud("doctor", "--json")
    told = json.loads(done.stdout)
    titles = [finding["title"] for finding in told["findings"]]
    assert any(title.startswith("Python 3.") for title in titles)
    assert any("hud-core" in title for title in titles)
    assert any(title.startswith("room for ") for title in titles)
    assert any(title.startswith("private views of projects") for title in titles)
    assert {finding["level"] for finding in told["findings"]} <= {"ok", "note", "warning", "error"}
    assert done.returncode == (0 if told["ok"] else 1)


@pytest.mark.slow
def test_another_distribution_of_the_package_is_found(hud: Hud, tmp_path: Path) -> None:
    other = tmp_path / "site" / "hud_python-9.9.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: hud-python\nVersion: 9.9\n", encoding="utf-8"
    )
    (other / "RECORD").write_text("hud/__init__.py,,\n", encoding="utf-8")
    done = hud("doctor", "--quiet", env={"PYTHONPATH": str(tmp_path / "site")})
    assert done.returncode == 1
    assert "hud-python 9.9 also provides the package" in done.stdout
    assert "pip uninstall hud-python" in done.stdout


def test_a_wrong_hud_toml_is_a_finding(hud: Hud, tmp_path: Path) -> None:
    (tmp_path / "hud.toml").write_text("[runtmie]\n", encoding="utf-8")
    done = hud("doctor", "--quiet")
    assert done.returncode == 1
    assert "runtmie" in done.stdout


def test_a_check_that_fails_hides_no_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def failing() -> Iterator[Finding]:
        raise OSError("no such device")

    def working() -> Iterator[Finding]:
        yield Finding(level="ok", title="works")

    monkeypatch.setattr(machine, "CHECKS", (failing, working))
    found = list(doctor.findings(tmp_path))
    assert found[0].level == "warning"
    assert "no such device" in found[0].detail
    assert found[1].title == "works"


@pytest.mark.slow
def test_folders_of_dead_owners_are_found(hud: Hud, tmp_path: Path) -> None:
    runtime = tmp_path / "run"
    (runtime / "hud" / "1-1").mkdir(parents=True)
    (runtime / "hud").chmod(0o700)
    (runtime / "hud" / "1-1" / "owner").write_text("", encoding="utf-8")
    text = hud("doctor", "--json", env={"XDG_RUNTIME_DIR": str(runtime)}).stdout
    titles = [finding["title"] for finding in json.loads(text)["findings"]]
    if len(str(runtime)) < 40:  # a longer path is no place for sockets, and is not used
        assert any("folders of ended jobs" in title for title in titles)


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes | None], Path]]:
    """Listen where a container engine would, and answer as told: bytes, or None for nothing at all."""
    made: list[tuple[socket.socket, threading.Thread, threading.Event]] = []

    def listen(reply: bytes | None) -> Path:
        path = tmp_path / "engine.sock"
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(path))
        server.listen()
        over = threading.Event()

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                if reply is None:
                    over.wait(60)
                else:
                    connection.sendall(reply)

        thread = threading.Thread(target=serve)
        thread.start()
        made.append((server, thread, over))
        monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
        return path

    yield listen
    for server, thread, over in made:
        over.set()
        thread.join()
        server.close()


def test_a_container_engine_is_asked_who_it_is(engine: Callable[[bytes | None], Path]) -> None:
    body = b'{"Platform": {"Name": "Some Engine"}, "Version": "27.1"}'
    path = engine(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    [found] = machine.docker()
    assert (found.level, found.title) == ("ok", f"Some Engine 27.1 answers at {path}")


@pytest.mark.slow
@pytest.mark.parametrize(
    "reply", [None, b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"]
)
def test_a_socket_that_no_engine_answers_on_is_a_warning(
    engine: Callable[[bytes | None], Path], reply: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hud.cli import engine as asking

    monkeypatch.setattr(asking, "ANSWER_S", 0.3)
    engine(reply)
    [found] = machine.docker()
    assert found.level == "warning"
    assert "does not answer" in found.title
    assert found.fix


def test_no_engine_is_a_note_that_says_where_it_was_looked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    [found] = machine.docker()
    assert found.level == "note"
    assert "none.sock" in found.detail
