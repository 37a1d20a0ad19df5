"""Environments from files, folders and modules, and what is said when there is none."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hud.environment import Environment, load_environment
from hud.environment import source_modules as modules
from hud.errors import SourceError

ENV = """
from hud.environment import Environment
env = Environment({name!r})
@env.template()
async def task():
    yield "x"
    yield 1.0
"""


@pytest.fixture(autouse=True)
def clean_modules(tmp_path: Path) -> Iterator[None]:
    path = list(sys.path)
    yield
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]
    sys.path[:] = path
    modules._appended.clear()


def write(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def test_a_file_a_folder_and_the_object_give_the_same(tmp_path: Path) -> None:
    file = write(tmp_path, "env.py", ENV.format(name="one"))
    env = load_environment(file)
    assert env.name == "one"
    assert env.source_file == file
    assert load_environment(str(file)) is env
    assert load_environment(tmp_path) is env
    assert load_environment(f"{file}:env") is env
    assert load_environment(env) is env


def test_a_bare_name_is_a_file_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "env.py", ENV.format(name="here"))
    monkeypatch.chdir(tmp_path)
    assert load_environment("env").name == "here"
    assert load_environment("env:env").name == "here"


def test_a_dotted_module_and_a_factory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "acme/__init__.py", "")
    write(
        tmp_path,
        "acme/envs.py",
        ENV.format(name="dotted") + "\ndef make(size='s'):\n    return Environment(f'made-{size}')\n"
        "def wrong():\n    return 5\ndef breaks():\n    raise ValueError('no size')\n",
    )
    monkeypatch.chdir(tmp_path)
    assert load_environment("acme.envs").name == "dotted"
    assert load_environment("acme.envs:make", args={"size": "xl"}).name == "made-xl"
    with pytest.raises(SourceError, match="'wrong' returned a int"):
        load_environment("acme.envs:wrong")
    with pytest.raises(SourceError, match=r"'breaks' raised ValueError: no size\n(.|\n)*in breaks"):
        load_environment("acme.envs:breaks")
    with pytest.raises(SourceError, match=r"no module 'acme\.nothing'"):
        load_environment("acme.nothing")
    with pytest.raises(SourceError, match=r"no attribute 'mak' \(did you mean 'make'\?\)"):
        load_environment("acme.envs:mak")


def test_arguments_without_a_factory_are_refused(tmp_path: Path) -> None:
    file = write(tmp_path, "env.py", ENV.format(name="plain"))
    for source in (file, tmp_path, f"{file}:env", load_environment(file)):
        with pytest.raises(
            SourceError, match=r"'plain' is declared as it is and takes no arguments \(size\)"
        ):
            load_environment(source, args={"size": 3})
    assert load_environment(file, args={}).name == "plain"


def test_siblings_are_imported_first_and_also_within_templates(tmp_path: Path) -> None:
    write(tmp_path, "helper_of_env.py", "VALUE = 7")
    write(tmp_path, "later_helper.py", "VALUE = 8")
    file = write(
        tmp_path,
        "env.py",
        "from hud.environment import Environment\nimport helper_of_env\n"
        "env = Environment(f'env-{helper_of_env.VALUE}')\ndef later():\n    import later_helper\n"
        "    return later_helper.VALUE\n",
    )
    assert load_environment(file).name == "env-7"
    assert sys.modules["env"].later() == 8
    assert sys.path[0] != str(tmp_path)


def test_an_env_of_another_folder_replaces_the_first_folders_modules(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path, f"{name}/shared_name.py", f"NAME = {name!r}")
        write(
            tmp_path,
            f"{name}/env.py",
            "from hud.environment import Environment\nfrom shared_name import NAME\nenv = Environment(NAME)\n",
        )
    first = load_environment(tmp_path / "a" / "env.py")
    second = load_environment(tmp_path / "b" / "env.py")
    assert (first.name, second.name) == ("a", "b")
    assert str(tmp_path / "a") not in sys.path
    assert load_environment(tmp_path / "a").name == "a"


def test_only_what_was_imported_from_the_other_folder_itself_is_replaced(tmp_path: Path) -> None:
    write(tmp_path, "a/library/tool_of_a.py", "OBJECT = object()")
    write(tmp_path, "a/env.py", ENV.format(name="a") + "import package_of_a.inner\nimport bare_of_a.inner\n")
    write(tmp_path, "a/bare_of_a/inner.py", "")
    write(tmp_path, "a/package_of_a/__init__.py", "")
    write(tmp_path, "a/package_of_a/inner.py", "")
    write(tmp_path, "b/env.py", ENV.format(name="b"))
    sys.path.append(str(tmp_path / "a" / "library"))  # as an installed, editable distribution below it
    tool = __import__("tool_of_a")
    load_environment(tmp_path / "a" / "env.py")
    assert "package_of_a.inner" in sys.modules
    load_environment(tmp_path / "b" / "env.py")
    assert not {"package_of_a", "package_of_a.inner", "bare_of_a", "bare_of_a.inner"} & set(sys.modules)
    assert sys.modules["tool_of_a"] is tool


def test_tasks_py_finds_the_very_module_that_was_loaded(tmp_path: Path) -> None:
    write(tmp_path, "env.py", ENV.format(name="same"))
    write(tmp_path, "tasks.py", "from env import env, task\nROW = task()\n")
    env = load_environment(tmp_path / "env.py")
    tasks = modules.import_file(tmp_path / "tasks.py")
    assert tasks.ROW.source is env


def test_an_edited_source_is_imported_anew(tmp_path: Path) -> None:
    file = write(tmp_path, "env.py", ENV.format(name="before"))
    assert load_environment(file).name == "before"
    file.write_text(ENV.format(name="after the edit"))
    assert load_environment(file).name == "after the edit"


def test_a_file_named_as_the_standard_library_does_no_harm(tmp_path: Path) -> None:
    import random

    file = write(tmp_path, "random.py", ENV.format(name="shadow"))
    assert load_environment(file).name == "shadow"
    assert sys.modules["random"] is random


def test_several_environments_need_a_name(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        "env.py",
        "from hud.environment import Environment\none = Environment('first')\ntwo = Environment('second')\n",
    )
    with pytest.raises(SourceError, match=r"declares 2 environments: one .*two .*choose with name="):
        load_environment(file)
    assert load_environment(file, name="second").name == "second"
    assert load_environment(file, name="one").name == "first"
    with pytest.raises(SourceError, match=r"no environment 'seconds' \(did you mean 'second'\?\)"):
        load_environment(file, name="seconds")


def test_a_folder_is_scanned_where_env_py_is_missing(tmp_path: Path) -> None:
    write(tmp_path, "shop.py", ENV.format(name="shop"))
    write(tmp_path, "conftest.py", "raise RuntimeError('not for scanning')")
    write(tmp_path, "train.py", "raise RuntimeError('mentions nothing of ours')")
    write(tmp_path, "optional.py", "import not_installed_anywhere  # hud")
    assert load_environment(tmp_path).name == "shop"
    write(tmp_path, "bank.py", ENV.format(name="bank"))
    with pytest.raises(SourceError, match="declares 2 environments"):
        load_environment(tmp_path)
    assert load_environment(tmp_path, name="bank").name == "bank"


def test_a_folder_without_an_environment_says_what_could_not_be_imported(tmp_path: Path) -> None:
    write(tmp_path, "optional.py", "import not_installed_anywhere  # hud")
    with pytest.raises(
        SourceError, match=r"(?s)declares an Environment.*optional\.py: .*not_installed_anywhere"
    ):
        load_environment(tmp_path)


@pytest.mark.parametrize("target", ["nothing.py", "no/such/folder", "/nowhere/env.py", "missing_module"])
def test_what_is_missing_is_named(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError, match=target.rsplit("/", maxsplit=1)[-1].split(".", maxsplit=1)[0]):
        load_environment(target)


BROKEN = {
    "syntax": ("x = (1,\n", r"env\.py.*\n.*x = \(1,"),
    "raises": ("def helper():\n    raise ValueError('bad table')\nhelper()\n", r"ValueError: bad table"),
    "empty": ("raise ValueError\n", r"ValueError without a message at .*env\.py:1"),
    "exits": ("import sys\nsys.exit(3)\n", r"exits while it is imported \(SystemExit: code 3\)"),
    "import": ("import not_installed_anywhere\n", r"No module named 'not_installed_anywhere'"),
    "none": ("x = 1\n", r"declares no Environment"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_source_that_cannot_be_imported_shows_its_author_why(kind: str, tmp_path: Path) -> None:
    text, message = BROKEN[kind]
    file = write(tmp_path, "env.py", text)
    with pytest.raises(SourceError, match=f"(?s){message}") as caught:
        load_environment(file)
    shown = str(caught.value)
    assert "source_modules.py" not in shown
    assert "importlib" not in shown
    assert ("env" in sys.modules) == (kind == "none")
    if kind == "raises":
        assert "line 3, in <module>" in shown
        assert "line 2, in helper" in shown


def test_asyncio_at_import_is_explained(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        "env.py",
        "import asyncio\nasync def main(): pass\nc = main()\ntry:\n"
        "    asyncio.run(c)\nfinally:\n    c.close()\n",
    )

    async def load() -> Environment:
        return load_environment(file)

    with pytest.raises(SourceError, match="runs asyncio while it is imported: put that under"):
        asyncio.run(load())


def test_prints_threads_and_a_main_block_are_harmless(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = write(
        tmp_path,
        "env.py",
        ENV.format(name="noisy")
        + "import threading\nprint('hello')\nthreading.Thread(target=int).start()\n"
        + "if __name__ == '__main__':\n    raise SystemExit('not imported')\n",
    )
    assert load_environment(file).name == "noisy"
    assert "hello" in capfd.readouterr().out
