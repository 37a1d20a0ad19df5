"""The client's end of a control channel: requests out, replies matched, host calls answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, cast

from hud.errors import ConnectionLostError, HudProtocolError, LimitReachedError
from hud.wire import frames
from hud.wire.faults import failure_fragment, raised_from, refusal
from hud.wire.frames import InvalidRequestError, NotJsonError
from hud.wire.hostcalls import HostModel
from hud.wire.settings import ClientSettings

_NOTHING: dict[str, Any] = {}


class ClientChannel(asyncio.Protocol):
    """Matches replies to requests. Any number of requests may wait at once.

    `on_lost` is called once when the connection has ended, before waiting requests fail.
    """

    def __init__(
        self,
        settings: ClientSettings,
        host_model: HostModel | None = None,
        on_lost: Callable[[ConnectionLostError], None] | None = None,
    ) -> None:
        self._settings = settings
        self._host_model = host_model
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._last_id = 0
        self._buffer = bytearray()
        self._why = ""
        self._corked: list[bytes] | None = None
        self._host_calls: set[asyncio.Task[None]] = set()
        self.lost: ConnectionLostError | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not checked: uvloop's transports are asyncio's in kind, not in class.
        transport = cast("asyncio.Transport", transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        why = self._why or (
            f"the connection broke: {exc}" if exc else "the environment closed the connection"
        )
        self.lost = lost = ConnectionLostError(why)
        for task in self._host_calls:
            task.cancel()
        if self._on_lost is not None:
            self._on_lost(lost)
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(ConnectionLostError(why))

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        if buffer:
            searched = len(buffer)
            buffer += data
            if buffer.find(b"\n", searched) < 0:
                self._check_length(len(buffer))
                return
            data = bytes(buffer)
            buffer.clear()
        start = 0
        while (end := data.find(b"\n", start)) >= 0:
            self._check_length(end - start)
            if self._transport is None:
                return
            self._line(data[start:end])
            start = end + 1
        if start < len(data):
            buffer += data[start:]
            self._check_length(len(buffer))

    def _check_length(self, length: int) -> None:
        if length > self._settings.frame_bytes:
            self.abort(f"the environment sent a frame over the limit of {self._settings.frame_bytes} bytes")

    def abort(self, why: str) -> None:
        """Drop the connection now."""
        self._why = why
        self._buffer.clear()
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    def _line(self, line: bytes) -> None:
        try:
            message = frames.decode(line)
        except NotJsonError as exc:
            self.abort(f"the peer does not speak the protocol: {exc}")
            return
        if not isinstance(message, dict):
            self.abort("the peer does not speak the protocol: a frame is no object")
            return
        if "method" in message:
            self._asked(message)
            return
        request_id = message.get("id")
        error = message.get("error")
        if request_id is None and error is not None:
            # It answers no request in particular: what follows is the end of the connection.
            self._refuse_all(error)
            return
        future = self._waiting.pop(request_id, None) if type(request_id) is int else None
        if future is None or future.done():
            return  # its caller has given up
        if error is not None:
            future.set_exception(raised_from(error))
        elif "result" in message:
            future.set_result(message["result"])
        else:
            future.set_exception(HudProtocolError(-32603, "the reply has neither result nor error"))

    def _refuse_all(self, error: Any) -> None:
        self._why = str(raised_from(error))
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(raised_from(error))

    # Requests out

    def post(self, method: str, params: Mapping[str, Any]) -> asyncio.Future[Any]:
        """Send a request now and return its reply's future.

        Raises:
            ConnectionLostError: the connection has ended.
            LimitReachedError: the request is longer than a frame may be; nothing was sent.
            TypeError, ValueError: the params are not JSON; nothing was sent.
        """
        if self._transport is None or self._transport.is_closing():
            raise self.lost or ConnectionLostError(self._why or "the connection has ended")
        self._last_id += 1
        data = frames.request(self._last_id, method, params)
        if len(data) > self._settings.frame_bytes + 1:
            raise LimitReachedError(
                frames.OVER_LIMIT,
                f"{method} would be a frame of {len(data)} bytes, over the limit of {self._settings.frame_bytes}",
            )
        future: asyncio.Future[Any] = self._loop.create_future()
        self._waiting[self._last_id] = future
        if self._corked is None:
            self._transport.write(data)
        else:
            self._corked.append(data)
        return future

    def notify(self, method: str) -> None:
        """Send a request that wants no reply."""
        if self._transport is not None:
            self._transport.write(frames.request(None, method, _NOTHING))

    def cork(self) -> None:
        """Keep requests back until `uncork`, so that they leave in one write."""
        self._corked = []

    def uncork(self) -> None:
        """Send what was kept back."""
        corked, self._corked = self._corked, None
        if corked and self._transport is not None:
            self._transport.write(b"".join(corked))

    def close(self) -> None:
        """End the connection after what was written."""
        self._why = self._why or "this client was closed"
        if self._transport is not None:
            self._transport.close()

    @property
    def alive(self) -> bool:
        """Whether requests can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    # Requests in

    def _asked(self, message: dict[str, Any]) -> None:
        try:
            method, request_id, params, silent = frames.checked_request(message)
        except InvalidRequestError as exc:
            self._answer(exc.request_id, refusal(frames.WRONG_STATE, str(exc), "host"))
            return
        if silent:
            return
        if method == "ping":
            self._answer(request_id, b'"result":{}')
        elif method != "host.model" or self._host_model is None:
            self._answer(
                request_id,
                refusal(frames.UNKNOWN_METHOD, f"this client does not answer {method[:80]!r}", "host"),
            )
        elif len(self._host_calls) >= self._settings.host_calls_at_once:
            self._answer(request_id, refusal(frames.OVER_LIMIT, "too many host calls at once", "host"))
        else:
            task = self._loop.create_task(self._host_call(self._host_model, request_id, params))
            self._host_calls.add(task)
            task.add_done_callback(self._host_calls.discard)

    async def _host_call(self, answer: HostModel, request_id: Any, params: dict[str, Any]) -> None:
        try:
            deadline_s = params.get("deadline_s")
            if not isinstance(deadline_s, (int, float)) or not deadline_s > 0:
                raise HudProtocolError(frames.BAD_PARAMS, "deadline_s must be a positive number")
            if type(params.get("body")) is not dict:
                raise HudProtocolError(frames.BAD_PARAMS, "body must be an object")
            reply = await answer(
                dialect=str(params.get("dialect")),
                model=str(params.get("model")),
                body=params["body"],
                deadline_s=float(deadline_s),
            )
            fragment = frames.result_fragment(dict(reply))
        except asyncio.CancelledError:
            raise
        except Exception as exc:  # noqa: BLE001 - the callable is the caller's; its failure is the grader's to see
            fragment = failure_fragment(exc, "host")
        self._answer(request_id, fragment)

    def _answer(self, request_id: Any, fragment: bytes) -> None:
        data = frames.framed(request_id, fragment)
        if len(data) > self._settings.frame_bytes + 1:
            data = frames.framed(
                request_id, refusal(frames.TASK_FAILED, "the reply is over the limit", "host")
            )
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)
