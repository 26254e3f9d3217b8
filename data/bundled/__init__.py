"""Assets that ship with the project: where they lie."""

from pathlib import Path

_HERE = Path(__file__).resolve().parent


def names() -> tuple[str, ...]:
    """Return the names of all bundled assets, in alphabetical order."""
    return tuple(
        sorted(
            entry.name
            for entry in _HERE.iterdir()
            if entry.is_dir() and not entry.name.startswith(("_", "."))
        )
    )


def path(name: str) -> Path:
    """Return the directory of a bundled asset; FileNotFoundError if there is none of that name."""
    if name not in names():
        raise FileNotFoundError(
            f"nothing named {name!r} is bundled; there is {', '.join(names()) or 'nothing'}"
        )
    return _HERE / name
