"""What a simulated model says, and what it was asked, without any provider's dialect."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Dialect = Literal["anthropic", "openai-responses", "openai-chat", "gemini"]


@dataclass(slots=True, frozen=True)
class Call:
    """A tool call. `arguments` given as text are sent as they are, so that broken JSON can be simulated.

    Where the request declares a native form of that name (`shell`, `apply_patch`, `computer`), the call takes it.
    """

    name: str
    arguments: Mapping[str, Any] | str = field(default_factory=dict)
    id: str = ""


@dataclass(slots=True, frozen=True)
class Turn:
    """One reply of the model. Nothing given is an empty turn.

    `stop` is `length` for a turn cut by the token limit; otherwise it follows from the rest. `tokens` are the
    output's token ids, for dialects that return them; None makes one per word.
    """

    text: str = ""
    calls: Sequence[Call] = ()
    reasoning: str = ""
    refusal: str | None = None
    stop: Literal["", "length"] = ""
    citations: Sequence[Mapping[str, Any]] = ()
    tokens: Sequence[int] | None = None

    @property
    def words(self) -> list[str]:
        """The output in pieces that stand for tokens."""
        text = self.text or self.refusal or " ".join(call.name for call in self.calls)
        return text.split(" ") if text else []


@dataclass(slots=True, frozen=True)
class Result:
    """A tool's result as the model was told."""

    call_id: str
    text: str
    images: int = 0
    is_error: bool = False


@dataclass(slots=True, frozen=True)
class Said:
    """One message of the conversation."""

    role: Literal["system", "user", "assistant", "tool"]
    text: str = ""
    images: int = 0
    calls: Sequence[Call] = ()
    results: Sequence[Result] = ()


@dataclass(slots=True)
class Ask:
    """One request to the simulated model.

    `tools` maps a tool's name to its declaration as it was sent; `schema` is the JSON Schema of a structured
    reply, where one was asked for; `prompt_tokens` and `cached_tokens` are what the simulator will report.
    """

    dialect: Dialect
    model: str
    messages: list[Said]
    tools: dict[str, dict[str, Any]]
    stream: bool
    body: dict[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)
    schema: dict[str, Any] | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    number: int = 0

    @property
    def turns_so_far(self) -> int:
        """How many times the model has spoken since the first user message."""
        count, speaking = 0, False
        for message in self.messages:
            is_model = message.role == "assistant"
            count += is_model and not speaking
            speaking = is_model
        return count

    @property
    def system(self) -> str:
        """The system messages, joined."""
        return "\n".join(m.text for m in self.messages if m.role == "system")

    @property
    def prompt(self) -> str:
        """The text of the first user message."""
        return next((m.text for m in self.messages if m.role == "user"), "")

    @property
    def last(self) -> Said:
        """The latest message."""
        return self.messages[-1] if self.messages else Said("user")

    @property
    def results(self) -> list[Result]:
        """Every tool result of the conversation, in order."""
        return [result for message in self.messages for result in message.results]

    @property
    def images(self) -> int:
        """How many images the conversation holds."""
        return sum(m.images + sum(r.images for r in m.results) for m in self.messages)


Responder: TypeAlias = "Callable[[Ask], Turn | Awaitable[Turn]]"


def script(*turns: Turn) -> Responder:
    """Answer the n-th turn of every conversation with the n-th of `turns`; beyond the last, with the last.

    The place in the script follows from the conversation itself, so any number of them can run at once.
    """
    if not turns:
        raise ValueError("a script needs at least one turn")

    def respond(ask: Ask) -> Turn:
        return turns[min(ask.turns_so_far, len(turns) - 1)]

    return respond
