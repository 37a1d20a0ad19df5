"""Keep the beginning and the end of what a command prints."""

from __future__ import annotations

from collections import deque


class HeadAndTail:
    """Takes bytes without end and holds at most `limit` of them, half from the start, half from the end."""

    def __init__(self, limit: int) -> None:
        self._head = bytearray()
        self._head_limit = limit // 2
        self._tail: deque[bytes] = deque()
        self._tail_size = 0
        self._tail_limit = limit - limit // 2
        self.total = 0

    def append(self, data: bytes) -> None:
        """Take more."""
        self.total += len(data)
        room = self._head_limit - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        if not data:
            return
        self._tail.append(data)
        self._tail_size += len(data)
        while self._tail_size - len(self._tail[0]) >= self._tail_limit:
            self._tail_size -= len(self._tail.popleft())

    @property
    def dropped(self) -> int:
        """How many bytes of the middle were dropped."""
        return max(0, self.total - self._head_limit - self._tail_limit)

    def content(self) -> bytes:
        """Return what is held; where the middle was dropped, a line says how much."""
        tail = b"".join(self._tail)[-self._tail_limit :]
        if not self.dropped:
            return bytes(self._head) + tail
        return bytes(self._head) + f"\n[... {self.dropped} bytes left out ...]\n".encode() + tail

    def text(self) -> str:
        """Return it as UTF-8, undecodable bytes replaced."""
        return self.content().decode("utf-8", "replace")
