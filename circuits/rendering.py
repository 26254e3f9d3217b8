"""From a drawing to a file: Graphviz in a process of its own, its own fonts, whole files."""

from __future__ import annotations

import html
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pygraphviz

from circuits.errors import DrawingError
from circuits.whole_file import write_whole

FONTS = Path(__file__).parent / "fonts"


def render(picture: pygraphviz.AGraph, form: str) -> bytes:
    """The picture as `svg` or `png`.

    Graphviz runs in a process of its own, with the fonts that come with the drawing: its libraries
    are told of fonts by the environment alone, write warnings about the machine's straight to the
    terminal, and leave files beside the fonts they read.
    """
    text = picture.to_string()
    with tempfile.TemporaryDirectory(prefix="circuit-grid-") as folder:
        environment = dict(os.environ)
        if _COVERED.fullmatch(text):  # otherwise only the machine can have the letters
            environment["FONTCONFIG_FILE"] = str(_lay_out_fonts(Path(folder)))
        done = subprocess.run(
            [sys.executable, "-c", _GRAPHVIZ, form],
            input=text.encode(),
            env=environment,
            capture_output=True,
        )
    if done.returncode != 0 or not done.stdout:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"]
        raise DrawingError(f"Graphviz could not draw the circuit as {form}: {said[-1]}")
    return done.stdout


_GRAPHVIZ = """
import sys, pygraphviz
picture = pygraphviz.AGraph(string=sys.stdin.buffer.read().decode())
sys.stdout.buffer.write(picture.draw(format=sys.argv[1], prog="dot"))
"""

# the characters of the fonts in `circuits/fonts`
_COVERED = re.compile(
    r"[\s\x20-\x7e\xa0-\u017f\u0386-\u03ce\u0400-\u045f\u2010-\u2026\u2190-\u2193\u2200-\u2265]*"
)


def _lay_out_fonts(folder: Path) -> Path:
    """Copy the fonts into a folder of their own; returns the settings that know only them."""
    fonts = shutil.copytree(FONTS, folder / "fonts")
    settings = folder / "fonts.conf"
    settings.write_text(
        f"<fontconfig><dir>{html.escape(str(fonts))}</dir>"
        f"<cachedir>{html.escape(str(folder))}</cachedir></fontconfig>"
    )
    return settings


def publish(path: Path, content: bytes) -> None:
    """Write the picture whole, or raise `DrawingError` with the reason."""
    try:
        write_whole(path, content)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DrawingError(f"the drawing cannot be written to {path}: {reason}") from None
