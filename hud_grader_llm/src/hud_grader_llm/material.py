"""What is judged, made safe to show: quoted, so that no line of it can pass for the judge's own instructions."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hud.types.answer import Answer
from hud.types.messages import read
from hud.types.trace import Trace
from hud.values import plain

LONGEST_CHARS = 120_000
"""How much of one text the judge is shown: head and tail."""
MOST_IMAGES = 8
MARK = "| "
"""Begins every line of quoted text; a line without it is ours."""

_SUSPECT = (
    (
        "talks to the judge",
        re.compile(
            r"\b(dear|hey|attention|note to)\b[^.\n]{0,40}\b(judge|grader|evaluator)\b", re.IGNORECASE
        ),
    ),
    (
        "asks to ignore instructions",
        re.compile(
            r"\b(ignore|disregard|forget)\b[^.\n]{0,60}\b(instruction|rule|criteri|prompt|above)",
            re.IGNORECASE,
        ),
    ),
    ("writes a verdict", re.compile(r"criterion_status|\bverdict\b\s*[:=]|\"?(MET|UNMET)\"?\s*[}\n]")),
    (
        "imitates a conversation",
        re.compile(
            r"<\|?/?(system|im_start|im_end|assistant|user)\b|^\s*(system|assistant)\s*:",
            re.IGNORECASE | re.MULTILINE,
        ),
    ),
    (
        "asks for a score",
        re.compile(
            r"\b(give|assign|award|grant|output|return|mark|score)(ed|s|ing)?\b[^.\n]{0,40}\b(full|maximum|max|perfect|10/10|MET|pass)",
            re.IGNORECASE,
        ),
    ),
)


@dataclass(slots=True)
class Material:
    """Named texts and images, in the order they are shown. `cuts` says what was left out, `suspicions` what looks
    like an attempt to talk to the judge; neither changes a verdict by itself.
    """

    texts: list[tuple[str, str]] = field(default_factory=list)
    suspicions: list[str] = field(default_factory=list)
    _images: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    _cuts: list[str] = field(default_factory=list)

    def add(self, name: str, value: Any, *, suspect: bool = False, limit: int = LONGEST_CHARS) -> None:
        """Add a text, an answer, content blocks, a trace, or anything JSON can say."""
        text, images = readable(value, len(self._images))
        if suspect:
            self.suspicions += [what for what, pattern in _SUSPECT if pattern.search(text)]
        if len(text) > limit:
            self._cuts.append(
                f"{name}: {len(text) - limit:,} of {len(text):,} characters left out of the middle"
            )
            text = f"{text[: limit // 2]}\n[... {len(text) - limit:,} characters left out ...]\n{text[-(limit // 2) :]}"
        self.texts.append((name, text))
        self._images += [(name, image) for image in images]

    @property
    def images(self) -> dict[str, dict[str, str]]:
        """The images that are shown, the last ones of all, by the names the texts give them."""
        named = {f"image {n}": image for n, (_, image) in enumerate(self._images, start=1)}
        return dict(list(named.items())[-MOST_IMAGES:])

    @property
    def cuts(self) -> list[str]:
        """What was left out."""
        left_out = [name for name, _ in self._images[:-MOST_IMAGES]]
        return self._cuts + [
            f"{name}: {left_out.count(name)} of {sum(n == name for n, _ in self._images)} images left out, the earliest"
            for name in dict.fromkeys(left_out)
        ]

    def quoted(self) -> str:
        """Return all texts, each under its name, every line marked."""
        return "\n\n".join(f"<{name}>\n{quote(text)}\n</{name}>" for name, text in self.texts)


def quote(text: str) -> str:
    """Mark every line of `text` and make invisible characters visible."""
    lines = re.split(r"\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]", text)
    return "\n".join(MARK + _visible(line) for line in lines)


def _visible(line: str) -> str:
    """Write control, format and private characters as escapes: they can hide text from people."""
    if line.isascii() and line.isprintable():
        return line
    return "".join(
        f"\\u{{{ord(char):x}}}"
        if char != "\t" and (unicodedata.category(char) in _UNSEEN or _IGNORABLE.match(char))
        else char
        for char in line
    )


_UNSEEN = ("Cc", "Cf", "Co", "Cn", "Cs")
_IGNORABLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0d\uffa0\U000e0100-\U000e01ef]"
)
"""Letters and marks that are drawn as nothing (Unicode's Default_Ignorable_Code_Point, and the blank of Braille);
not U+FE0E and U+FE0F, which choose between an emoji's two forms. Source: DerivedCoreProperties.txt, Unicode 16."""


def readable(value: Any, before: int = 0) -> tuple[str, list[dict[str, str]]]:
    """Return a value's text and its images (`data` in base64, `mimeType`), numbered from `before` + 1."""
    if value is None:
        return "", []
    if isinstance(value, str):
        return value, []
    if isinstance(value, Answer):
        return readable(value.raw or value.content, before)
    if isinstance(value, Trace):
        from hud_grader_llm.transcript import transcript

        return transcript(value, before)
    if (
        isinstance(value, Sequence)
        and not isinstance(value, (bytes, bytearray))
        and value
        and _are_blocks(value)
    ):
        return _of_blocks(value, before)
    return json.dumps(plain(value), ensure_ascii=False, indent=2, default=str), []


def _are_blocks(value: Sequence[Any]) -> bool:
    return all(read(item, "type") in ("text", "image", "resource") for item in value)


def _of_blocks(blocks: Sequence[Any], before: int) -> tuple[str, list[dict[str, str]]]:
    texts: list[str] = []
    images: list[dict[str, str]] = []
    for block in blocks:
        kind = read(block, "type")
        if kind == "text":
            texts.append(str(read(block, "text", "")))
        elif kind == "image":
            images.append(image_of(block))
            texts.append(f"[image {before + len(images)}]")
        else:
            resource = read(block, "resource") or {}
            texts.append(str(read(resource, "text", "")))
    return "\n".join(texts), images


def image_of(block: Any) -> dict[str, str]:
    """Return an image block's data and MIME type."""
    return {"data": str(read(block, "data", "")), "mimeType": str(read(block, "mimeType", "image/png"))}


def images_in(blocks: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return the images among content blocks."""
    return [image_of(block) for block in blocks if block.get("type") == "image"]
