"""A YAML document whose values remember the lines they stand on.

`read_document` turns text into plain Python values (mappings, lists, strings, numbers, booleans,
null) and a map from each value's place, as a path of keys and positions, to its line. Only those
kinds of values exist: a document that asks for anything else, by a tag, is refused, so reading one
never builds an object or runs code. What is wrong with a document is gathered and raised together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from flows.errors import GridError

Place = tuple[str | int, ...]
Value = None | bool | int | float | str | list["Value"] | dict[str, "Value"]

LARGEST_FILE = 1_000_000  # bytes
DEEPEST = 20  # levels of nesting
MOST_VALUES = 100_000  # values after aliases are written out
LARGEST_NUMBER = 2**63 - 1  # of the whole numbers
_CORE = "tag:yaml.org,2002:"


@dataclass(frozen=True, order=True)
class Problem:
    """One thing that is wrong, and the line (from 1) it is on."""

    line: int
    message: str


@dataclass(frozen=True)
class Document:
    """The value of a YAML file, the line of every value and key in it, and what was wrong."""

    name: str
    value: Value
    lines: Mapping[Place, int]
    problems: tuple[Problem, ...]

    def line(self, place: Place) -> int:
        """Line of the value at `place`, or of the nearest thing around it that is written down."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 1)


def read_document(text: str | bytes, name: str) -> Document:
    """Read YAML `text`; `name` is what messages call it. GridError if it is no YAML."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    decoded = _decode(text, name)
    try:
        root = YAML(typ="safe", pure=True).compose(decoded)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark is not None else 1
        raise GridError(f"{name}, line {line}: {_explain(error, decoded, line)}.") from error
    except YAMLError as error:
        raise GridError(f"{name} is not valid YAML: {_first_line(str(error))}.") from error
    except RecursionError as error:
        raise GridError(f"{name} is nested too deeply to be a grid.") from error
    except (ValueError, AssertionError, AttributeError, IndexError, TypeError) as error:
        # The composer of the YAML library meets some malformed directives with these.
        raise GridError(f"{name} is not valid YAML ({type(error).__name__}).") from error
    if root is None:
        raise GridError(f"{name} is empty: a grid needs at least `models` and `tasks`.")
    reading = _Reading()
    value = reading.value(root, ())
    return Document(name, value, reading.lines, tuple(reading.problems))


def read_text(path: Path) -> bytes:
    """Bytes of the file at `path`; GridError if there is none, or none to read."""
    try:
        size = path.stat().st_size
        if path.is_dir():
            raise GridError(f"{path} is a directory: name the grid file in it.")
        if size > LARGEST_FILE:
            raise GridError(f"{path} has {size:,} bytes: too large to be a grid file.")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise GridError(f"There is no grid file {path}: check the path.") from error
    except OSError as error:
        raise GridError(f"{path} can't be read: {error.strerror}.") from error


def _decode(text: str | bytes, name: str) -> str:
    if isinstance(text, str):
        return text
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = text[: error.start].count(b"\n") + 1
        raise GridError(f"{name}, line {line}: not UTF-8 text; save the file as UTF-8.") from error


def _explain(error: Exception, text: str, line: int) -> str:
    rows = text.splitlines()
    row = rows[line - 1] if 0 < line <= len(rows) else ""
    if "\t" in row[: len(row) - len(row.lstrip())] or "'\\t'" in str(error):
        return "YAML is indented with spaces, and this line has a tab"
    problem = getattr(error, "problem", None) or getattr(error, "context", None) or str(error)
    return f"not valid YAML: {_first_line(str(problem))}"


def _first_line(text: str) -> str:
    return text.strip().split("\n")[0].rstrip(".") if text.strip() else "unreadable"


@dataclass
class _Reading:
    lines: dict[Place, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    count: int = 0

    def value(self, node: object, place: Place) -> Value:
        from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode

        line = node.start_mark.line + 1  # type: ignore[attr-defined]
        self.lines.setdefault(place, line)
        self.count += 1
        if len(place) > DEEPEST or self.count > MOST_VALUES:
            if not any("too deep" in problem.message for problem in self.problems):
                self.problems.append(Problem(line, "nested too deep, or repeated too often"))
            return None
        if isinstance(node, MappingNode):
            return self.mapping(node, place)
        if isinstance(node, SequenceNode):
            return [self.value(item, (*place, i)) for i, item in enumerate(node.value)]
        assert isinstance(node, ScalarNode)
        return self.scalar(node, line)

    def mapping(self, node: object, place: Place) -> dict[str, Value]:
        from ruamel.yaml.nodes import ScalarNode

        result: dict[str, Value] = {}
        for key_node, value_node in node.value:  # type: ignore[attr-defined]
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, ScalarNode):
                self.problems.append(Problem(line, "a key must be a word"))
                continue
            key = key_node.value
            if key in result:
                first = self.lines[(*place, key)]
                self.problems.append(
                    Problem(line, f"`{key}` is given twice (first on line {first})")
                )
                continue
            self.lines[(*place, key)] = line
            result[key] = self.value(value_node, (*place, key))
        return result

    def scalar(self, node: object, line: int) -> Value:
        tag, text = str(node.tag), node.value  # type: ignore[attr-defined]
        kind = tag.removeprefix(_CORE)
        try:
            match kind:
                case "str" | "timestamp":
                    return text
                case "null":
                    return None
                case "bool":
                    return text.lower() in ("true", "yes", "on")
                case "int":
                    return self.integer(text, line)
                case "float":
                    return _real(text)
        except ValueError:
            self.problems.append(Problem(line, f"`{text[:40]}` is not a number"))
            return None
        self.problems.append(
            Problem(line, f"the tag `{tag[:40]}` is not allowed: write plain values")
        )
        return None

    def integer(self, text: str, line: int) -> int | None:
        found = _integer(text)
        if abs(found) <= LARGEST_NUMBER:
            return found
        self.problems.append(Problem(line, f"`{text[:20]}…` is too large a number"))
        return None


def _integer(text: str) -> int:
    plain = text.replace("_", "")
    return int(plain, 0) if plain.lstrip("+-")[:2].lower() in ("0x", "0o", "0b") else int(plain)


def _real(text: str) -> float:
    plain = text.replace("_", "").lower()
    named = {".inf": math.inf, "+.inf": math.inf, "-.inf": -math.inf, ".nan": math.nan}
    return named[plain] if plain in named else float(plain)
