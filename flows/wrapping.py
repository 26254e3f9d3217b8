"""Sentences in a terminal: wrapped by word, below a label; names shortened; things counted."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.text import Text

_LEAST_WIDTH = 20


def say(console: Console, sentence: Text | str, indent: int = 0, style: str = "") -> None:
    """Print a sentence; in a terminal wrapped by word, anywhere else on one line.

    Its first `indent` characters are a label, below which nothing is written.
    """
    text = Text(sentence, style) if isinstance(sentence, str) else sentence
    if console.is_terminal:
        text = Text("\n").join(wrapped(text, console.width, indent))
    console.print(text, highlight=False, soft_wrap=True)


def wrapped(text: Text, width: int, indent: int = 0) -> Iterator[Text]:
    """The lines of a text, broken between words; a word is broken only if it fills a line."""
    label, rest = text[:indent], text[indent:]
    plain = Console(width=width)
    for line in rest.wrap(plain, max(_LEAST_WIDTH, width - indent), overflow="fold"):
        line.rstrip()
        yield label + line
        label = Text(" " * len(label))


def counted(n: int, what: str) -> str:
    """So many things: `1 stage`, `2 stages`."""
    return f"1 {what}" if n == 1 else f"{n} {what}s"


def shortened(name: str, room: int) -> str:
    """A name with as much of its middle left out as it takes to fit into `room` characters."""
    if len(name) <= room:
        return name
    kept = max(2, room - 1)
    return f"{name[: kept - kept // 2]}…{name[len(name) - kept // 2 :]}"
