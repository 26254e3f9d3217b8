"""Why a stage failed, told to people: a sentence, and where the whole story is written down."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from flows.errors import StageError, WorkerDiedError
from flows.stages import Stage


def explained(stage: Stage, error: Exception, folder: Path) -> str:
    """One sentence; for what nobody foresaw, with the file in a folder that has the traceback."""
    if isinstance(error, WorkerDiedError) or (
        isinstance(error, StageError) and error.story is None
    ):
        return str(error)
    if isinstance(error, StageError):
        sentence, story = error.sentence, error.story or ""
    else:
        import traceback

        sentence = f"{type(error).__name__}: {(str(error).splitlines() or ['no message'])[0]}"
        story = "".join(traceback.format_exception(error))
    assert stage.key is not None
    moment = f"{datetime.now(UTC):%Y%m%dT%H%M%S}"
    log = folder / f"{moment}-{stage.name}-{stage.key[:8]}.log"
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(f"{stage.label} of {stage.scope}\n{story}", encoding="utf-8")
    except OSError as refused:
        return f"{sentence} (the whole story cannot be written to {log}: {refused.strerror})"
    return f"{sentence} (the whole story is in {log})"
