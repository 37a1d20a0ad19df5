"""Lines in, lines out: what is read as a frame and what is not."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hud.wire import frames

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)


@given(json_values)
def test_what_is_encoded_is_decoded(value: Any) -> None:
    assert frames.decode(frames.encode(value)) == json.loads(json.dumps(value))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_or_no_json(line: bytes) -> None:
    try:
        value = frames.decode(line)
    except frames.NotJsonError:
        return
    assert frames.decode(frames.encode(value)) == value


@given(st.text(alphabet=st.characters(), max_size=50))
def test_frames_are_valid_utf8_whatever_text_they_carry(text: str) -> None:
    frames.request(1, "m", {"text": text}).decode()


def test_half_a_surrogate_pair_becomes_a_replacement_character() -> None:
    assert frames.decode(b'{"a": ["\\ud800x", "\\ud83d\\ude00"], "\\udfff": 1}') == {
        "a": ["\ufffdx", "\U0001f600"],
        "\ufffd": 1,
    }
    assert frames.encode("\ud800") == '"\ufffd"'.encode()


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"nonsense",
        b"{",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": -Infinity}',
        b'{"a": 1e999}',
        b'{"a": ' + b"9" * 10_000 + b"}",
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b"\xff\xfe{}",
        b'{"a": "\xc3"}',
        '{"a": 1}'.encode("utf-16"),
        b"\xef\xbb\xbf{}",
        b'{"a": 1} {"b": 2}',
        b"{'a': 1}",
    ],
    ids=lambda line: repr(line[:20]),
)
def test_refuses_what_is_not_json(line: bytes) -> None:
    with pytest.raises(frames.NotJsonError):
        frames.decode(line)


@pytest.mark.parametrize("value", [math.nan, math.inf, [-math.inf], {"a": {"b": math.nan}}])
def test_never_writes_a_number_that_is_not_finite(value: Any) -> None:
    with pytest.raises(ValueError):
        frames.encode(value)


@pytest.mark.slow
def test_nesting_too_deep_to_write_is_a_value_error() -> None:
    value: list[Any] = []
    for _ in range(200_000):
        value = [value]
    with pytest.raises(ValueError):
        frames.encode(value)


@pytest.mark.parametrize(
    ("message", "named"),
    [
        ([], "an array"),
        ("hello", "a string"),
        (None, "null"),
        ({}, "method"),
        ({"method": 3}, "method"),
        ({"method": None}, "method"),
        ({"method": "ping", "id": True}, "id"),
        ({"method": "ping", "id": [1]}, "id"),
        ({"method": "ping", "id": "x" * 300}, "id"),
        ({"method": "ping", "id": 2**70}, "id"),
        ({"method": "ping", "jsonrpc": "1.0"}, "jsonrpc"),
        ({"method": "ping", "params": [1]}, "params"),
        ({"method": "ping", "params": "x"}, "params"),
    ],
)
def test_names_what_makes_a_frame_no_request(message: Any, named: str) -> None:
    with pytest.raises(frames.InvalidRequestError, match=named):
        frames.checked_request(message)


def test_a_request_without_an_id_is_a_notification() -> None:
    assert frames.checked_request({"method": "ping"}) == ("ping", None, {}, True)
    assert frames.checked_request({"method": "ping", "id": None, "params": None}) == ("ping", None, {}, False)
