"""Other libraries' talk, off: warnings and log lines of theirs are no news to people."""

from __future__ import annotations

import logging
import os
import sys
import warnings


def silence_libraries() -> None:
    """Turn off warnings and log lines of libraries; Python's -W shows warnings."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    logging.getLogger().addHandler(logging.NullHandler())
    logging.raiseExceptions = False  # nor that a line could not be sent to a server
    for name in ("TRANSFORMERS_VERBOSITY", "HF_HUB_VERBOSITY"):
        os.environ.setdefault(name, "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
