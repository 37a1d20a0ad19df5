"""What counts as the same result, and what is declared to change."""

from __future__ import annotations

import pytest

from hud.agents.sameness import Sameness
from hud.errors import ConfigError
from hud.types import MCPToolResult

text = MCPToolResult.of_text


@pytest.mark.parametrize(
    ("ignore", "then", "now"),
    [
        ("times", "built at 2026-11-22T22:38:33Z in 1.25 s", "built at 2027-01-02 03:04:05.123 in 13 ms"),
        ("times", "drwxr-xr-x 2 root root 4096 Nov 22 22:15 .", "drwxr-xr-x 2 root root 4096 Jan  3  2025 ."),
        ("times", "Sun Nov 22 22:38:33 2026", "Mon Jan 3 01:02:03 2027"),
        ("times", "real\t0m1.656s", "real\t10m0.001s"),
        ("times", "stamp 1795389326", "stamp 1795389367.702"),
        ("paths", "in /tmp/pytest-of-root/3/x.txt: ok", "in /var/tmp/abc: ok"),
        ("ids", "commit 4fa9c1e by me", "commit 90bd77a2 by me"),
        ("ids", "at 0x7f1d2c3b4a50, pid 123", "at 0x55d0c0ffee00, pid 9"),
        (r"seed=\d+", "seed=1 ok", "seed=22 ok"),
    ],
)
def test_what_is_declared_to_change_is_not_compared(ignore: str, then: str, now: str) -> None:
    assert not Sameness()(text(then), text(now))
    assert Sameness([ignore])(text(then), text(now))


@pytest.mark.parametrize(
    ("then", "now"),
    [("3 passed", "4 passed"), ("deadbeef", "ok"), ("a\nb", "a b"), ("", "x"), ("facade", "decade")],
)
def test_what_is_not_declared_differs(then: str, now: str) -> None:
    found = Sameness(["times", "paths", "ids"])
    assert not found(text(then), text(now))
    assert found.difference(text(then), text(now))


def test_spaces_at_the_ends_do_not_differ_but_failure_and_images_do() -> None:
    found = Sameness()
    assert found(text("a  \nb\n"), text("a\nb"))
    assert not found(text("a"), text("a", error=True))
    assert "failed now, not then" in found.difference(text("a"), text("a", error=True))
    one, other = (
        MCPToolResult([{"type": "image", "data": data, "mimeType": "image/png"}]) for data in ("QQ==", "Qg==")
    )
    assert found(one, one)
    assert not found(one, other)
    assert "the images differ" in found.difference(one, other)


def test_a_word_that_is_no_expression_is_refused() -> None:
    with pytest.raises(ConfigError, match="none of times, paths, ids, and no regular expression"):
        Sameness(["(oops"])
