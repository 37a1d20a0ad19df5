"""Other ways to the same model: Anthropic's Messages on Bedrock and on Vertex.

Sources: Bedrock's API reference, InvokeModel and InvokeModelWithResponseStream, and "Event stream encoding" of AWS's;
Vertex AI's reference, `rawPredict` and `streamRawPredict`.
"""

from __future__ import annotations

import base64
import json
import re
import struct
import zlib
from collections.abc import AsyncIterator
from dataclasses import replace
from urllib.parse import unquote

from hud.testing.llm.http import HttpRequest

_BEDROCK = re.compile(r"/model/(?P<model>[^/]+)/invoke(?P<stream>-with-response-stream)?$")
_VERTEX = re.compile(r"/publishers/anthropic/models/(?P<model>[^/:]+):(?P<stream>streamRaw|raw)Predict$")
EVENT_STREAM = "application/vnd.amazon.eventstream"


def as_messages(request: HttpRequest) -> HttpRequest | None:
    """Return a request of Bedrock or Vertex as the one of Anthropic's own API it stands for; None for any other.

    The model and whether it streams are part of the path there, and come into the body.
    """
    if request.method != "POST":
        return None
    found = _BEDROCK.search(request.path) or _VERTEX.search(request.path)
    if found is None:
        return None
    body = json.loads(request.body)
    version = body.pop("anthropic_version", None)
    if not isinstance(version, str):
        raise ValueError("anthropic_version: Field required")
    streams = found["stream"] not in (None, "raw")
    body |= {"model": unquote(found["model"]), "stream": streams}
    return replace(request, path="/v1/messages", body=json.dumps(body).encode())


def is_bedrock(request: HttpRequest) -> bool:
    """Tell whether the reply is to be in AWS's event stream where it streams."""
    return _BEDROCK.search(request.path) is not None


async def event_stream(events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield server-sent events as messages of AWS's event stream."""
    waiting = b""
    async for piece in events:
        waiting += piece
        *whole, waiting = waiting.split(b"\n\n")
        for event in whole:
            data = next(line[5:].strip() for line in event.split(b"\n") if line.startswith(b"data:"))
            yield _message(json.dumps({"bytes": base64.b64encode(data).decode()}).encode())


def _message(payload: bytes) -> bytes:
    headers = b"".join(
        struct.pack("!B", len(name)) + name + b"\x07" + struct.pack("!H", len(value)) + value
        for name, value in (
            (b":event-type", b"chunk"),
            (b":content-type", b"application/json"),
            (b":message-type", b"event"),
        )
    )
    prelude = struct.pack("!II", 12 + len(headers) + len(payload) + 4, len(headers))
    head = prelude + struct.pack("!I", zlib.crc32(prelude)) + headers + payload
    return head + struct.pack("!I", zlib.crc32(head))


def service_account(url: str) -> str:
    """Return the key file of a Google service account whose tokens come from the simulator at `url`.

    Write it somewhere and name it in `GOOGLE_APPLICATION_CREDENTIALS`. Needs `cryptography`.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    account = {
        "type": "service_account",
        "project_id": "a-project",
        "private_key_id": "1",
        "private_key": text.decode(),
        "client_email": "tests@a-project.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": f"{url}/token",
    }
    return json.dumps(account)
