"""Sentences in a terminal: wrapped by word, below a label; names shortened; things counted."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.text import Text

_LEAST_WIDTH = 20
_WIDTH_ELSEWHERE = 140  # wide enough for tables


def open_console(to_stderr: bool = False) -> Console:
    """A console as wide as its terminal, or, where there is none, wide enough for tables."""
    console = Console(stderr=to_stderr)
    return console if console.is_terminal else Console(stderr=to_stderr, width=_WIDTH_ELSEWHERE)


def complain(sentence: str) -> None:
    """Print a sentence to standard error, in red."""
    say(open_console(to_stderr=True), sentence, style="red")


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
    """So many things: `1 stage`, `2,000 stages`."""
    return f"1 {what}" if n == 1 else f"{n:,} {what}s"


def shortened(name: str, room: int) -> str:
    """A name with as much of its middle left out as it takes to fit into `room` characters."""
    if len(name) <= room:
        return name
    kept = max(2, room - 1)
    return f"{name[: kept - kept // 2]}…{name[len(name) - kept // 2 :]}"
