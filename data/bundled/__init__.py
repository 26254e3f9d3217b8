"""Assets that ship with the project: where they lie.

A bundled model is known by the name that `load_model` takes: `bundled/behaviours`, which was
trained, and `truth/gate` and the other truths, whose circuits are known by construction.
"""

from pathlib import Path

_HERE = Path(__file__).resolve().parent
_ROOTS = {"bundled/": _HERE, "truth/": _HERE / "truth"}  # by what their models' names begin with


def models() -> dict[str, Path]:
    """Return the directory of every bundled model by its name, in alphabetical order."""
    return {
        f"{prefix}{config.parent.name}": config.parent
        for prefix, root in _ROOTS.items()
        for config in sorted(root.glob("*/config.json"))
    }


def is_bundled_name(name: str) -> bool:
    """Whether a model's name means a bundled one, there or not."""
    return name.startswith(tuple(_ROOTS))


def model_path(name: str) -> Path:
    """Return the directory of a bundled model; FileNotFoundError if there is none of that name."""
    known = models()
    if name not in known:
        raise FileNotFoundError(
            f"no model {name!r} is bundled; there is {', '.join(known) or 'nothing'}"
        )
    return known[name]
