"""Frames: one JSON object a line, read without trust and written without surprises."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

FRAME_BYTES = 16 * 1024 * 1024
"""The default limit of one frame, its newline not counted, on both sides."""

UNAUTHENTICATED_BYTES = 64 * 1024
"""What a server that needs a token reads before it has seen one."""

PARSE_ERROR = -32700
WRONG_STATE = -32600
UNKNOWN_METHOD = -32601
BAD_PARAMS = -32602
TASK_FAILED = -32000
NOT_AUTHORIZED = -32001
OVER_LIMIT = -32002

_ID_CHARACTERS = 256
_ESCAPED_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_SURROGATE = re.compile("[\ud800-\udfff]")


class NotJsonError(ValueError):
    """Raised when a line is not JSON as the wire means it; answered with -32700."""


class InvalidRequestError(ValueError):
    """Raised when JSON is no request object; `request_id` is the peer's id where it gave a usable one."""

    def __init__(self, message: str, request_id: Any = None) -> None:
        super().__init__(message)
        self.request_id = request_id


def _refuse_constant(name: str) -> Any:
    raise NotJsonError(f"numbers on the wire are finite, not {name}")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise NotJsonError("numbers on the wire are finite; one is beyond the range of a double")
    return number


def _made_once(encoder: json.JSONEncoder) -> Callable[[Any], str]:
    """Return `encoder.encode` without the C encoder it makes anew for each call, where the interpreter has one."""
    make = getattr(json.encoder, "c_make_encoder", None)
    quote = getattr(json.encoder, "encode_basestring", None)
    if make is None or quote is None:
        return encoder.encode
    parts = make(None, encoder.default, quote, None, ":", ",", False, False, False)
    join = "".join
    return lambda value: join(parts(value, 0))


_decoder = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite)
_scan = _decoder.raw_decode
_BLANK = " \t\n\r"
_encode = _made_once(json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")))


def decode(line: bytes | bytearray) -> Any:
    """Return the JSON value of one line.

    Half of a surrogate pair, which no text may contain, becomes U+FFFD.

    Raises:
        NotJsonError: invalid UTF-8 or JSON, a NaN or infinity, nesting or digits beyond what the reader holds.
    """
    try:
        text = line.decode()
        if text[:1] != "{":
            text = text.lstrip(_BLANK)
        value, end = _scan(text)
        if end != len(text) and text[end:].strip(_BLANK):
            raise NotJsonError(f"not JSON: more text after the value, at column {end + 1}")
    except NotJsonError:
        raise
    except UnicodeDecodeError as exc:
        raise NotJsonError(f"not UTF-8: byte {exc.start + 1} of the line") from None
    except RecursionError:
        raise NotJsonError("not JSON this side reads: nested too deeply") from None
    except json.JSONDecodeError as exc:
        raise NotJsonError(f"not JSON: {exc.msg} at column {exc.colno}") from None
    except ValueError:  # int() of more digits than the interpreter converts
        raise NotJsonError("not JSON this side reads: a number of too many digits") from None
    if _ESCAPED_SURROGATE.search(line):
        value = _without_surrogates(value)
    return value


def _without_surrogates(value: Any) -> Any:
    """Replace what escapes left of broken pairs; whole pairs were joined by the decoder."""
    try:
        return _mended(value)
    except RecursionError:
        raise NotJsonError("not JSON this side reads: nested too deeply") from None


def _mended(value: Any) -> Any:
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, dict):
        return {_SURROGATE.sub("\ufffd", key): _mended(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_mended(item) for item in value]
    return value


def encode(value: Any) -> bytes:
    """Return `value` as compact JSON without a newline.

    Raises:
        TypeError, ValueError: it is not JSON: a foreign type, a NaN or infinity, a cycle, nesting too deep.
    """
    try:
        text = _encode(value)
    except RecursionError:
        raise ValueError("nested too deeply for JSON") from None
    try:
        return text.encode()
    except UnicodeEncodeError:
        return _SURROGATE.sub("\ufffd", text).encode()


def checked_request(message: Any) -> tuple[str, Any, dict[str, Any], bool]:
    """Return `(method, id, params, is_notification)` of a decoded line.

    Raises:
        InvalidRequestError: it is no request object, or `jsonrpc`, `id` or `method` is not what it must be.
        BadParamsType: `params` is no object.
    """
    if not isinstance(message, dict):
        raise InvalidRequestError(f"a frame is one request object, not {_kind(message)}")
    request_id = message.get("id")
    if type(request_id) is int:
        if not -(2**63) <= request_id < 2**64:
            raise InvalidRequestError("id is beyond 64 bits")
    elif type(request_id) is str:
        if len(request_id) > _ID_CHARACTERS:
            raise InvalidRequestError(f"id is longer than {_ID_CHARACTERS} characters")
    elif request_id is not None and type(request_id) is not float:
        raise InvalidRequestError(f"id must be a string or a number, not {_kind(request_id)}")
    if message.get("jsonrpc", "2.0") != "2.0":
        raise InvalidRequestError('jsonrpc must be "2.0"', request_id)
    method = message.get("method")
    if type(method) is not str:
        what = "is missing" if "method" not in message else f"must be a string, not {_kind(method)}"
        raise InvalidRequestError(f"method {what}", request_id)
    params = message.get("params")
    if params is None:
        params = {}
    elif type(params) is not dict:
        raise BadParamsTypeError(f"params must be an object, not {_kind(params)}", request_id)
    return method, request_id, params, "id" not in message


class BadParamsTypeError(InvalidRequestError):
    """Raised when the params of a request are no object; answered with -32602."""


_KINDS = {
    dict: "an object",
    list: "an array",
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "a boolean",
    type(None): "null",
}


def _kind(value: Any) -> str:
    return _KINDS.get(type(value), type(value).__name__)


def kind_of(value: Any) -> str:
    """Return what JSON calls `value`, for messages: `an object`, `a string`, `null`."""
    return _kind(value)


def result_fragment(result: Any) -> bytes:
    """Return the part of a reply that follows its id; see `framed`."""
    return b'"result":' + encode(result)


def error_fragment(code: int, message: str, data: Mapping[str, Any] | None = None) -> bytes:
    """Return the part of an error frame that follows its id; data that is not JSON is left out."""
    error: dict[str, Any] = {"code": code, "message": message}
    if data:
        error["data"] = dict(data)
    try:
        return b'"error":' + encode(error)
    except (TypeError, ValueError):
        return b'"error":' + encode({"code": code, "message": message})


def framed(request_id: Any, fragment: bytes) -> bytes:
    """Return a whole reply, newline included."""
    if type(request_id) is int:
        return b'{"jsonrpc":"2.0","id":%d,%b}\n' % (request_id, fragment)
    return b'{"jsonrpc":"2.0","id":%b,%b}\n' % (encode(request_id), fragment)


def request(request_id: int | str | None, method: str, params: Mapping[str, Any]) -> bytes:
    """Return a whole request, newline included; without an id a notification."""
    frame: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params}
    if request_id is not None:
        frame["id"] = request_id
    return encode(frame) + b"\n"
