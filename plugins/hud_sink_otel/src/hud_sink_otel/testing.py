"""An OTLP collector on loopback, which keeps what it is sent: for tests of what is traced."""

from __future__ import annotations

import gzip
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


@dataclass
class Span:
    """A span as it came over the wire."""

    name: str
    trace: str
    id: str
    parent: str
    kind: int
    start: int
    end: int
    attributes: dict[str, Any]
    events: list[tuple[str, dict[str, Any]]]
    links: list[str]
    failed: bool
    message: str
    resource: dict[str, Any]


@dataclass
class Receiver:
    """An OTLP/HTTP collector on loopback. `status` is what it answers; `hold` keeps its answers back."""

    status: int = 200
    hold: threading.Event | None = None
    spans: list[Span] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    requests: int = 0
    asked: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def named(self, name: str) -> Span:
        """Return the one span of that name."""
        [found] = [span for span in self.spans if span.name == name]
        return found

    def take(self, body: bytes, headers: dict[str, str]) -> None:
        """Keep the spans of one request."""
        self.headers.append(headers)
        message = ExportTraceServiceRequest.FromString(body)
        for batch in message.resource_spans:
            resource = {pair.key: value_of(pair.value) for pair in batch.resource.attributes}
            for scope in batch.scope_spans:
                self.spans += [span_of(span, resource) for span in scope.spans]


def span_of(span: Any, resource: dict[str, Any]) -> Span:
    """Return a span of the protocol's message."""
    return Span(
        name=span.name,
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        kind=span.kind,
        start=span.start_time_unix_nano,
        end=span.end_time_unix_nano,
        attributes={pair.key: value_of(pair.value) for pair in span.attributes},
        events=[(e.name, {pair.key: value_of(pair.value) for pair in e.attributes}) for e in span.events],
        links=[link.span_id.hex() for link in span.links],
        failed=span.status.code == 2,
        message=span.status.message,
        resource=resource,
    )


def value_of(value: Any) -> Any:
    """Return an attribute's value."""
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [value_of(item) for item in value.array_value.values]
    return getattr(value, kind)


@contextmanager
def receiving(**options: Any) -> Iterator[Receiver]:
    """Run a collector; `options` are the fields of `Receiver`."""
    receiver = Receiver(**options)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            receiver.requests += 1
            receiver.asked.set()
            if receiver.hold is not None:
                receiver.hold.wait(60)
            status = receiver.status if self.path == "/v1/traces" else 404
            if status == 200:
                receiver.take(body, {key.lower(): value for key, value in self.headers.items()})
            reply = ExportTraceServiceResponse().SerializeToString()
            try:
                self.send_response(status)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(reply)))
                self.end_headers()
                self.wfile.write(reply)
            except OSError:
                return  # the sender has given up on this answer

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the server's own name
            """Print nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    serving = threading.Thread(target=server.serve_forever, daemon=True)
    serving.start()
    receiver.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield receiver
    finally:
        if receiver.hold is not None:
            receiver.hold.set()
        server.shutdown()
        serving.join()
        server.server_close()
