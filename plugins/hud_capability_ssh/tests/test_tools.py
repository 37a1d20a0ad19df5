"""The tools, as an agent calls them."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest

from hud.capability.tool import Tool
from hud.types import Capability, MCPToolResult
from hud_capability_ssh.client import SSHClient
from hud_capability_ssh.tools import tools_of
from hud_capability_ssh.tools.patch import PatchError, applied, parsed
from hud_capability_ssh.tools.search import glob_expression
from hud_capability_ssh.workspace import Workspace

pytestmark = pytest.mark.anyio
Tools = dict[str, Tool]


@pytest.fixture
async def tools(client: SSHClient, capability: Capability) -> AsyncIterator[Tools]:
    made = {tool.name: tool for tool in tools_of(client, capability)}
    yield made
    for tool in made.values():
        if tool.close is not None:
            await tool.close()


async def call(tools: Tools, name: str, **arguments: Any) -> MCPToolResult:
    return await tools[name](arguments)


async def said(tools: Tools, name: str, **arguments: Any) -> str:
    result = await call(tools, name, **arguments)
    assert not result.isError, result.text
    return result.text


async def refused(tools: Tools, name: str, **arguments: Any) -> str:
    result = await call(tools, name, **arguments)
    assert result.isError, result.text
    return result.text


async def test_offers_what_providers_know_by_name(tools: Tools) -> None:
    assert list(tools) == ["bash", "text_editor", "read", "write", "edit", "glob", "grep", "apply_patch"]
    assert {t.native for t in tools.values()} == {None, "bash", "text_editor", "apply_patch"}
    for tool in tools.values():
        assert tool.parameters["type"] == "object"
        assert set(tool.parameters["required"]) <= set(tool.parameters["properties"])


async def test_bash_keeps_directory_and_variables(tools: Tools) -> None:
    assert await said(tools, "bash", command="cd /tmp; export A=1; greet() { echo hi $A; }") == "(no output)"
    assert await said(tools, "bash", command="pwd; greet") == "/tmp\nhi 1\n"
    assert "restarted" in await said(tools, "bash", restart=True)
    assert await said(tools, "bash", command="pwd; echo [$A]") == "/workspace\n[]\n"


@pytest.mark.slow
async def test_bash_says_how_a_command_ended(tools: Tools) -> None:
    assert await said(tools, "bash", command="echo a; echo b >&2; (exit 3)") == "a\nb\n[exit status 3]"
    assert "[exit status 127]" in await said(tools, "bash", command="no-such-thing")
    assert "[ended after 1 s;" in await said(tools, "bash", command="echo x; sleep 30", timeout=1)
    assert await said(tools, "bash", command="echo on") == "on\n"
    assert "[exit status 9]\n[the shell had ended" not in await said(tools, "bash", command="exit 9")
    assert (
        await said(tools, "bash", command="echo back")
        == "back\n[the shell had ended and was started anew; its variables are gone]"
    )


async def test_bash_runs_jobs_in_the_background(tools: Tools) -> None:
    await said(tools, "bash", command="(sleep 0.2; echo late > done) > /dev/null 2>&1 &")
    assert await said(tools, "bash", command="until [ -s done ]; do sleep 0.05; done; cat done") == "late\n"


async def test_long_output_is_cut_and_kept_whole_in_a_file(tools: Tools) -> None:
    shown = await said(tools, "bash", command="seq 100000")
    assert shown.startswith("1\n2\n")
    assert shown.endswith("\n100000\n")
    assert len(shown) < 70_000
    path = shown.partition("all of it is in ")[2].partition(" ")[0]
    assert await said(tools, "bash", command=f"sed -n 50000p {path}; wc -l < {path}") == "50000\n100000\n"


async def test_binary_output_does_no_harm(tools: Tools) -> None:
    shown = await said(tools, "bash", command=r"printf 'a\0b\033[31mred\007\377'")
    assert "\033" not in shown
    assert "\\x1b[31mred\\x07" in shown
    assert await said(tools, "bash", command="echo fine") == "fine\n"


async def test_wrong_arguments_are_named(tools: Tools) -> None:
    assert "'command' is missing" in await refused(tools, "bash")
    assert "'command' must be text" in await refused(tools, "bash", command=["ls"])
    assert "'timeout'" in await refused(tools, "bash", command="ls", timeout="soon")
    assert "'path' is missing" in await refused(tools, "read")


async def test_write_read_edit(tools: Tools) -> None:
    await said(tools, "write", path="src/a.py", content="one\ntwo\nthree\ntwo\n")
    assert (
        await said(tools, "read", path="src/a.py", offset=2, limit=2)
        == "     2\ttwo\n     3\tthree\n[1 more lines]"
    )
    assert "occurs 2 times" in await refused(tools, "edit", path="src/a.py", old="two", new="2")
    await said(tools, "edit", path="src/a.py", old="two", new="2", all=True)
    await said(tools, "edit", path="src/a.py", old="one\n2", new="1\n2")
    assert (await said(tools, "read", path="/workspace/src/a.py")).split() == [
        "1",
        "1",
        "2",
        "2",
        "3",
        "three",
        "4",
        "2",
    ]
    assert "does not occur" in await refused(tools, "edit", path="src/a.py", old="absent", new="x")
    assert "no such file" in await refused(tools, "read", path="absent")
    assert "folder" in await refused(tools, "read", path="src")


async def test_editing_leaves_other_bytes_alone(tools: Tools, client: SSHClient) -> None:
    await client.write_bytes("latin", b"caf\xe9 one\r\ntwo\r\n")
    await said(tools, "edit", path="latin", old="one\ntwo", new="1\n2")
    assert await client.read_bytes("latin") == b"caf\xe9 1\r\n2\r\n"
    await client.write_bytes("image", b"\x89PNG\0\0")
    assert "binary" in await refused(tools, "read", path="image")


async def test_editor_views_creates_replaces_inserts_and_takes_back(tools: Tools) -> None:
    async def do(command: str, **more: Any) -> str:
        return await said(tools, "text_editor", command=command, path="/workspace/n/x.txt", **more)

    await do("create", file_text="a\nb\nc")
    assert await do("view", view_range=[2, -1]) == "     2\tb\n     3\tc"
    assert "b!" in await do("str_replace", old_str="b", new_str="b!")
    await do("insert", insert_line=0, insert_text="zero\n")
    await do("insert", insert_line=4, insert_text="end")
    assert await said(tools, "bash", command="cat n/x.txt") == "zero\na\nb!\nc\nend\n"
    for _ in range(3):
        await do("undo_edit")
    assert await said(tools, "bash", command="cat n/x.txt") == "a\nb\nc"
    await do("undo_edit")
    assert "no such file" in await refused(tools, "text_editor", command="view", path="n/x.txt")
    assert "nothing to take back" in await refused(tools, "text_editor", command="undo_edit", path="n/x.txt")


async def test_editor_inserts_without_touching_other_bytes(tools: Tools, client: SSHClient) -> None:
    await client.write_bytes("crlf", b"a\r\nb\r\n")
    await said(tools, "text_editor", command="insert", path="crlf", insert_line=1, insert_text="x\ny\n")
    assert await client.read_bytes("crlf") == b"a\r\nx\r\ny\r\nb\r\n"
    await client.write_bytes("latin", b"\xe9\nb")
    await said(tools, "text_editor", command="insert", path="latin", insert_line="2", insert_text="x")
    assert await client.read_bytes("latin") == b"\xe9\nb\nx\n"
    await said(tools, "text_editor", command="undo_edit", path="latin")
    assert await client.read_bytes("latin") == b"\xe9\nb"


async def test_half_a_character_is_named(tools: Tools) -> None:
    for name, arguments in (
        ("bash", {"command": "echo \ud83d"}),
        ("write", {"path": "a", "content": "\ud83d"}),
        ("write", {"path": "\ud83d", "content": "a"}),
        ("edit", {"path": "a", "old": "\ud83d", "new": "x"}),
        ("glob", {"pattern": "\ud83d"}),
    ):
        assert "half a character" in await refused(tools, name, **arguments)
    assert await said(tools, "bash", command="echo on") == "on\n"


async def test_editor_lists_folders_and_names_what_is_wrong(tools: Tools, client: SSHClient) -> None:
    await client.run("mkdir -p a/b/c .git; touch a/f a/b/g a/b/c/h .git/x")
    listed = await said(tools, "text_editor", command="view", path=".")
    assert (
        listed.splitlines() == [f"/workspace/{p}" for p in (".", "a", "a/b", "a/f")]
        or "/workspace/a/b" in listed
    )
    assert ".git" not in listed
    assert "a/b/c/h" not in listed
    await client.write_text("two", "1\n2\n")
    assert "has 2 lines" in await refused(tools, "text_editor", command="view", path="two", view_range=[5, 9])
    assert "between 0 and 2" in await refused(
        tools, "text_editor", command="insert", path="two", insert_line=7, insert_text="x"
    )
    assert "unknown command" in await refused(tools, "text_editor", command="delete", path="two")


async def test_glob_and_grep(tools: Tools, client: SSHClient) -> None:
    await client.run(
        "mkdir -p src/deep/er node_modules/m; echo 'def f(): pass' > src/a.py; echo 'def g(): f()' > src/deep/er/b.py; "
        "echo 'def no' > node_modules/m/c.py; echo x > src/d.txt"
    )
    assert sorted((await said(tools, "glob", pattern="**/*.py")).splitlines()) == [
        "src/a.py",
        "src/deep/er/b.py",
    ]
    assert await said(tools, "glob", pattern="*.{txt,md}", path="src") == "src/d.txt"
    assert await said(tools, "glob", pattern="*.py") == "No files match."
    assert (
        await said(tools, "grep", pattern=r"def \w\(", include="*.py", path="src/deep")
        == "src/deep/er/b.py:1:def g(): f()"
    )
    assert (await said(tools, "grep", pattern="DEF", ignore_case=True)).count("\n") == 1
    assert await said(tools, "grep", pattern="absent") == "No matches."
    assert await refused(tools, "grep", pattern="(")
    assert "more than 3 matches" in await said(tools, "grep", pattern=".", path="/etc/services", limit=3)


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("**/*.py", "a.py", True),
        ("**/*.py", "a/b/c.py", True),
        ("*.py", "a/b.py", False),
        ("src/**", "src/a/b", True),
        ("a/**/b", "a/b", True),
        ("a/**/b", "a/x/y/b", True),
        ("[!a]?.txt", "bc.txt", True),
        ("[!a]?.txt", "ac.txt", False),
        ("x.{a,b?}", "x.bc", True),
        ("a.b", "axb", False),
    ],
)
async def test_patterns(pattern: str, path: str, matches: bool) -> None:
    assert bool(glob_expression(pattern).fullmatch(path)) is matches


V4A = """*** Begin Patch
*** Update File: a.txt
@@ two
 three
-four
+FOUR
*** Add File: new/b.txt
+hello
+there
*** Delete File: gone.txt
*** Update File: old.txt
*** Move to: moved.txt
-x
+y
*** End Patch
"""


async def test_apply_patch_does_all_or_nothing(tools: Tools, client: SSHClient) -> None:
    await client.run("printf 'one\\ntwo\\nthree\\nfour\\n' > a.txt; echo g > gone.txt; echo x > old.txt")
    broken = V4A.replace("-x", "-not there")
    assert "nothing was changed" in await refused(tools, "apply_patch", patch=broken)
    assert await client.listdir() == ["a.txt", "gone.txt", "old.txt"]
    assert "update old.txt -> moved.txt" in await said(tools, "apply_patch", patch=V4A)
    assert (await client.run("cat a.txt new/b.txt moved.txt; ls")).stdout == (
        "one\ntwo\nthree\nFOUR\nhello\nthere\ny\na.txt\nmoved.txt\nnew\n"
    )


async def test_apply_patch_undoes_what_it_did_where_a_file_cannot_be_written(
    tools: Tools, client: SSHClient
) -> None:
    await client.write_text("a", "one\n")
    patch = (
        "*** Begin Patch\n*** Update File: a\n@@\n-one\n+1\n*** Add File: new\n+x\n"
        "*** Add File: /usr/no\n+x\n*** End Patch"
    )
    assert "Read-only" in await refused(tools, "apply_patch", patch=patch)
    assert await client.read_text("a") == "one\n"
    assert await client.listdir() == ["a"]


async def test_apply_patch_changes_a_file_more_than_once_and_keeps_its_mode(
    tools: Tools, client: SSHClient
) -> None:
    await client.write_text("a", "one\ntwo\n")
    await client.write_text("b", "old\n")
    await client.run("chmod +x a", check=True)
    patch = (
        "*** Begin Patch\n*** Update File: a\n@@\n-one\n+1\n*** Update File: ./a\n*** Move to: d/c\n@@\n-two\n+2\n"
        "*** Delete File: b\n*** Add File: b\n+new\n*** End Patch"
    )
    await said(tools, "apply_patch", patch=patch)
    assert await client.read_text("d/c") == "1\n2\n"
    assert await client.read_text("b") == "new\n"
    assert (await client.run("test -x d/c && test ! -e a")).ok


async def test_apply_patch_takes_lines_that_look_like_a_files(tools: Tools, client: SSHClient) -> None:
    await client.write_text("a", "x\n-- dash\ny\n")
    await said(tools, "apply_patch", patch="--- a/a\n+++ b/a\n@@ -1,3 +1,3 @@\n x\n--- dash\n+++ plus\n y\n")
    assert await client.read_text("a") == "x\n++ plus\ny\n"


async def test_apply_patch_takes_what_diff_writes(tools: Tools, client: SSHClient) -> None:
    await client.run(
        "mkdir a b; seq 40 > a/n; sed 's/^7$/seven/; s/^30$/&\\nmore/; 39d' a/n > b/n; echo only > b/new; cp -r a was"
    )
    diff = (await client.run("diff -ruN a b")).stdout
    await said(tools, "bash", command="cd was")
    patch = diff.replace("--- a/", "--- a/was/").replace("+++ b/", "+++ b/was/")
    await said(tools, "apply_patch", patch=patch)
    assert (await client.run("diff -r was b && echo same")).stdout == "same\n"


def _texts() -> list[str]:
    words = ["a", "b", "c", ""]
    return ["".join(w + "\n" for w in ws) for n in range(4) for ws in itertools.product(words, repeat=n)]


async def test_a_unified_diff_of_any_two_texts_leads_from_one_to_the_other() -> None:
    import difflib

    for old, new in itertools.product(_texts(), repeat=2):
        if old == new:
            continue
        lines = difflib.unified_diff(old.splitlines(True), new.splitlines(True), "a/f", "b/f", n=1)
        (change,) = parsed("".join(lines))
        assert applied(change, old) == new


@pytest.mark.parametrize(
    ("patch", "complaint"),
    [
        ("hello", "neither"),
        ("*** Begin Patch\n*** Update File: f\n@@\n-a\n+b\n", "End Patch"),
        ("*** Begin Patch\n+x\n*** End Patch", "before any file"),
        ("*** Begin Patch\n*** Add File: f\nx\n*** End Patch", "begin with"),
    ],
)
async def test_patches_that_cannot_be_read(patch: str, complaint: str) -> None:
    with pytest.raises(PatchError, match=complaint):
        parsed(patch)


async def test_results_say_which_files_changed(tools: Tools, client: SSHClient, workspace: Workspace) -> None:
    (workspace.root / "kept").write_text("1\n2\n")
    first = await call(tools, "bash", command="true")
    changed = await call(
        tools, "bash", command="echo 3 >> kept; printf '\\0' > blob; ln -s / link; mkdir .git; touch .git/x"
    )
    assert first.structuredContent is None
    assert changed.structuredContent is not None
    files: dict[str, dict[str, Any]] = {f["path"]: f for f in changed.structuredContent["files"]}
    assert set(files) == {"kept", "blob", "link"} or set(files) == {"kept", "blob"}
    assert files["kept"]["diff"].splitlines()[-1] == "+3"
    assert files["blob"]["note"] == "binary or large"
    assert (await call(tools, "read", path="kept")).structuredContent is None
    removed = await call(tools, "bash", command="rm kept")
    assert removed.structuredContent is not None
    assert [f["kind"] for f in removed.structuredContent["files"]] == ["deleted"]
    await workspace.seal(keep_agent_processes=False)
    facts = (await workspace.facts())["workspace:shell"]
    assert facts["sandbox"] == "bubblewrap"
    assert {f["path"]: f["kind"] for f in facts["files"]} == {
        "blob": "added",
        "kept": "deleted",
        "link": "added",
    }


async def test_grep_names_the_file_also_where_it_was_given_one(tools: Tools, client: SSHClient) -> None:
    await client.write_text("a.txt", "x\ny\n")
    assert await said(tools, "grep", pattern="y", path="a.txt") == "a.txt:2:y"
    assert "1 or more" in await refused(tools, "grep", pattern="y", limit=-1)
    assert await said(tools, "glob", pattern="./*.txt") == "a.txt"
