"""Keeping a conversation within the model's window.

In this order, each only while the conversation is still too long: old screenshots are dropped, old tool output is
elided to its head and tail, and what lies before the latest turns is replaced by the model's own summary. The
first message, which holds the task, is always kept. Everything that was done is told in the trace.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from hud.agents.conversation import Block, Conversation, Entry, ModelEntry, ToolEntry, UserEntry
from hud.agents.toolset import elided
from hud.errors import ContextOverflowError
from hud.types.messages import MCPToolResult

REMOVED_IMAGE: Block = {"type": "text", "text": "[an earlier image was removed to save space]"}
SUMMARY_REQUEST = (
    "The conversation is about to be cut. Write a summary from which the work can be continued without it: the "
    "goal, what was done and found (with exact names, paths, values and commands), what failed and why, what is "
    "left to do. Write the summary only."
)
SUMMARY_HEAD = "The conversation before this point was replaced by this summary:\n\n"


@dataclass(slots=True, frozen=True)
class ContextPolicy:
    """When and how far a conversation is cut.

    `start_at` and `cut_to` are shares of the window; the last `keep_images` images, the last `keep_results` tool
    results and, in a summary, the last `keep_turns` turns stay whole. `elide_to` is in characters.
    """

    start_at: float = 0.8
    cut_to: float = 0.55
    keep_images: int = 3
    keep_results: int = 4
    keep_turns: int = 3
    elide_to: int = 600
    summarise: bool = True


@dataclass(slots=True)
class Cut:
    """What was cut: images dropped, results elided, entries summarised, and the estimate before and after."""

    before_tokens: int
    after_tokens: int = 0
    images: int = 0
    results: int = 0
    summarised: int = 0

    def __bool__(self) -> bool:
        return bool(self.images or self.results or self.summarised)


Summariser = Callable[[Conversation], Awaitable[str]]


async def fit(
    conversation: Conversation,
    *,
    tokens: int,
    window: int,
    policy: ContextPolicy,
    summarise: Summariser,
    force: bool = False,
) -> Cut | None:
    """Cut `conversation` in place where its `tokens` pass the policy's share of `window`; None if it was left alone.

    `force` cuts whatever the estimate says, after a provider refused the prompt as too long.
    """
    if not force and tokens < policy.start_at * window:
        return None
    cut = Cut(before_tokens=tokens)
    # What the provider counted may differ from our estimate; its proportion to it holds for the parts too.
    estimated = max(1, conversation.estimate())
    scale = tokens / estimated
    goal = policy.cut_to * min(window, tokens) if force else policy.cut_to * window

    def left() -> float:
        return conversation.estimate() * scale

    cut.images = drop_images(conversation.entries, policy.keep_images)
    if left() > goal:
        cut.results = _elide_results(conversation.entries, policy.keep_results, policy.elide_to)
    if left() > goal and policy.summarise:
        cut.summarised = await _summarise(conversation, policy.keep_turns, summarise)
    if left() > goal and force:
        cut.results += _elide_results(conversation.entries, 0, policy.elide_to)
        cut.images += drop_images(conversation.entries, 0)
    cut.after_tokens = int(left())
    return cut or None


def drop_images(entries: list[Entry], keep: int) -> int:
    """Drop all images but the last `keep` and those of the first message; return how many."""
    dropped = 0
    for entry in reversed(entries[1:]):
        for blocks in _block_lists(entry):
            for index in reversed(range(len(blocks))):
                if blocks[index].get("type") == "image":
                    if keep > 0:
                        keep -= 1
                        continue
                    blocks[index] = REMOVED_IMAGE
                    dropped += 1
    return dropped


def _block_lists(entry: Entry) -> list[list[Block]]:
    if isinstance(entry, UserEntry):
        return [entry.blocks]
    if isinstance(entry, ToolEntry):
        return [result.content for _, result in reversed(entry.results)]
    return []


def _elide_results(entries: list[Entry], keep: int, limit: int) -> int:
    count = 0
    for entry in reversed(entries):
        if not isinstance(entry, ToolEntry):
            continue
        for index in reversed(range(len(entry.results))):
            call, result = entry.results[index]
            if keep > 0:
                keep -= 1
                continue
            if len(result.text) <= limit:
                continue
            content = [
                {**b, "text": elided(b["text"], limit)} if b.get("type") == "text" else b
                for b in result.content
            ]
            # A new result: the one in the trace stays as it was.
            entry.results[index] = (call, MCPToolResult(content, result.isError, None, result.call_id))
            count += 1
    return count


async def _summarise(conversation: Conversation, keep_turns: int, summarise: Summariser) -> int:
    entries = conversation.entries
    turns = [i for i, entry in enumerate(entries) if isinstance(entry, ModelEntry)]
    if len(turns) <= keep_turns or len(entries) < 3:
        return 0
    # The cut lies before a turn of the model, so that every call keeps its result.
    start = turns[-keep_turns] if keep_turns else len(entries)
    old = entries[1:start]
    if not old:
        return 0
    try:
        text = await summarise(Conversation(conversation.system, [*entries[:1], *old]))
    except ContextOverflowError:
        return 0  # what is old does not fit either: it can be elided only
    if not text.strip():
        return 0
    first = entries[0]
    summary: Block = {"type": "text", "text": SUMMARY_HEAD + text}
    if isinstance(first, UserEntry):
        kept = [b for b in first.blocks if not str(b.get("text", "")).startswith(SUMMARY_HEAD)]
        entries[:start] = [UserEntry([*kept, summary])]
    else:
        entries[:start] = [first, UserEntry([summary])]
    return len(old)
