"""Rows made in code: every word, counted and reversed."""

from env import count, reverse

from hud.eval import Taskset

WORDS = {"strawberry": "r", "mississippi": "s", "bookkeeper": "e", "onomatopoeia": "o"}

TASKS = Taskset(
    "letters",
    [
        *[count(word=word, letter=letter) for word, letter in WORDS.items()],
        *[reverse(word=word) for word in WORDS],
    ],
)
