"""Whatever stands in files that others write is read, or refused by name; it never crashes the host."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hud.errors import ConfigError
from hud.plugins.compatibility import core_refusal
from hud.plugins.discovery import discover
from hud.settings.hudtoml import Project, read_project
from hud.settings.places import line_of

pytestmark = pytest.mark.slow

WORDS = st.sampled_from(
    [
        *(
            "runtime",
            "env",
            "plugins",
            "limits",
            "default",
            "use",
            "disable",
            "act_s",
            "true",
            "1",
            "nan",
            '"docker"',
        ),
        *("[", "]", "[[", "]]", "=", ".", '"', "'", '"""', "{", "}", ",", "\n", "#", " ", "\u2028", "\x00"),
    ]
)
LINES = st.lists(st.sampled_from([b"=", b"x", b"[hud]", b"[", b"]", b":", b"\n", b" ", b"#", b"Name: "])).map(
    b"".join
)
TOML = st.lists(WORDS, max_size=40).map("".join)


@settings(max_examples=300, deadline=None)
@given(TOML)
def test_any_hud_toml_is_read_or_refused_with_its_name(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "hud.toml").write_text(text, encoding="utf-8", newline="")
        try:
            read = read_project(folder)
        except ConfigError as error:
            told = str(error)
        else:
            assert isinstance(read, Project)
            return
        assert "hud.toml" in told


@settings(max_examples=200, deadline=None)
@given(TOML, st.lists(st.sampled_from(["runtime", "env", "use", "limits"]), max_size=3))
def test_a_line_is_always_within_the_file(text: str, path: list[str]) -> None:
    assert 1 <= line_of(text, path) <= max(1, len(text.splitlines()))


@settings(max_examples=200, deadline=None)
@given(LINES | st.binary(max_size=200), LINES | st.binary(max_size=200), st.booleans())
def test_any_metadata_is_read_or_named(points: bytes, metadata: bytes, begun: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        info = Path(folder) / "acme-1.0.dist-info"
        info.mkdir()
        (info / "entry_points.txt").write_bytes((b"[hud]\n" if begun else b"") + points)
        (info / "METADATA").write_bytes((b"Name: acme\n" if begun else b"") + metadata)
        found = discover([folder])
        assert len(found.unreadable) <= 1
        assert all(point.name and point.value for point in found.entry_points)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="hud-core>=<!~.,*0123456789;[]() ", max_size=30), st.text(max_size=10))
def test_any_requirement_is_decided(requirement: str, more: str) -> None:
    whole = f"hud-core{requirement}{more}"
    assert core_refusal((whole,), "1.2.3") in (None, whole)
