"""A grid: which models, tasks and methods to cross, and how to extract and evaluate circuits.

```yaml
name: demo
models:                         # `bundled/…`, a directory in Hugging Face's format, or a hub name
  - bundled/behaviours          # short for {name: bundled/behaviours}
  - {name: ./checkpoints/mine, dtype: float64, device: cpu, revision: null}
tasks:
  - ioi                         # short for {name: ioi}
  - {name: sva, train: 32, evaluate: 100, seed: 1, metric: prob-diff}
  - {path: pairs.csv, rule: greater-than, evaluate_on: all}    # relative to this file
examples: {train: 64, evaluate: 64}     # for tasks that do not say; a file gives all it has
methods:
  - EAP                         # short for {name: EAP}
  - {name: EAP-IG-inputs, steps: 5, quadrature: midpoint}
extraction:                     # what turns scores into circuits
  - top-n                       # short for {name: top-n, absolute: true}
  - {name: greedy, absolute: false}
  - {name: threshold, values: [0.01, 0.1]}   # a circuit a value; all the others: a circuit a size
sizes: [0.001, 0.1, 1.0, 200]   # with a decimal point: fractions of the edges; whole: edges
shard_size: 32                  # examples a shard
memory_budget: 1GiB             # what attribution may hold at a time
device: auto
```

Only `models`, `tasks` and `methods` are needed. A cell of the grid is a model, a task and a method.
A task's metric is what attribution differentiates and what circuits are judged by; `judged_by`
lists other metrics for the judging. `read_grid` reports everything that is wrong at once, by line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    StrictBool,
    StrictInt,
    StrictStr,
    ValidationInfo,
    field_validator,
    model_validator,
)

DEFAULT_SIZES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}

Positive = Annotated[StrictInt, Field(ge=1)]
Word = Annotated[StrictStr, Field(min_length=1, max_length=300)]


def size(value: object) -> int | float:
    """A circuit's size: a whole number of edges (≥ 1), or a fraction of them in (0, 1]."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("must be a fraction such as 0.05 or a whole number of edges")
    if isinstance(value, int):
        if value < 1:
            raise ValueError("must be at least one edge")
    elif not 0 < value <= 1:
        raise ValueError("a fraction lies above 0 and up to 1.0; write edges without a point")
    return value


def threshold(value: object) -> float:
    """A finite score; circuits keep the edges that reach it."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not abs(value) < float("inf"):  # type: ignore[arg-type]
        raise ValueError("must be a finite number")
    return float(value)  # type: ignore[arg-type]


def byte_count(value: object) -> int:
    """A number of bytes: whole, or text such as `512MiB` or `2 GB`."""
    if isinstance(value, int) and not isinstance(value, bool):
        number, unit = float(value), ""
    elif isinstance(value, str) and (
        match := re.fullmatch(r"([\d.]+)\s*([KMGT]?I?B?)", value.upper())
    ):
        if match[1].count(".") > 1 or match[1] == "." or match[2] not in _UNITS:
            raise ValueError("must be bytes, such as 512MiB or 2GB")
        number, unit = float(match[1]), match[2]
    else:
        raise ValueError("must be bytes, such as 512MiB or 2GB")
    count = number * _UNITS[unit]
    if not 2**20 <= count <= 2**50:
        raise ValueError("must lie between 1MiB and 1024TiB")
    return int(count)


def device_name(value: object) -> str:
    """`auto`, `cpu`, `mps`, `cuda` or one CUDA device, `cuda:1`."""
    if not isinstance(value, str) or not re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,3})?", value):
        raise ValueError("must be auto, cpu, mps, cuda or cuda:<number>")
    return value


Size = Annotated[int | float, PlainValidator(size)]
Threshold = Annotated[float, PlainValidator(threshold)]
Bytes = Annotated[int, PlainValidator(byte_count)]
Device = Annotated[str, PlainValidator(device_name)]


class Section(BaseModel):
    """A part of a grid: frozen, with no keys but its own; a bare word may stand for its name."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class NamedSection(Section):
    """A section that a bare word names: `EAP` is `{name: EAP}`."""

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


class ModelChoice(NamedSection):
    """A model by name, and how its weights are held."""

    name: Word
    dtype: Word = "float32"
    revision: Word | None = None
    device: Device | None = None

    @field_validator("name")
    @classmethod
    def _directory(cls, name: str, info: ValidationInfo) -> str:
        """A name that is a directory beside the grid's file means that directory."""
        if name.startswith("bundled/"):
            return name
        directory = (_base(info) / Path(name).expanduser()).resolve()
        if directory.is_dir():
            return str(directory)
        if name.startswith((".", "/", "~")):
            raise ValueError(f"there is no model directory {directory}")
        return name

    @property
    def label(self) -> str:
        """What people call the model: its name, or its directory's name."""
        return Path(self.name).name if Path(self.name).is_absolute() else self.name


class TaskChoice(NamedSection):
    """A task by name, or a file of examples; how many examples, and what judges an answer.

    `train` and `evaluate` are numbers of examples; where they are absent, the grid's `examples`
    decide for a task, and a file gives all it has. `train_on` and `evaluate_on` name splits: train,
    validation, test; for a file also `all`, or what its own column `split` says. `prepend_bos` puts
    the tokenizer's first token, where it has one, in front of every prompt.
    """

    name: Word | None = None
    path: Word | None = None
    rule: Word | None = None
    train: Positive | None = None
    evaluate: Positive | None = None
    train_on: Word = "train"
    evaluate_on: Word = "test"
    seed: Annotated[StrictInt, Field(ge=0, lt=2**32)] = 0
    metric: Word | None = None
    judged_by: tuple[Word, ...] = ()
    prepend_bos: StrictBool = True

    @field_validator("path")
    @classmethod
    def _file(cls, path: str | None, info: ValidationInfo) -> str | None:
        """Paths are relative to the grid's file."""
        if path is None:
            return None
        file = (_base(info) / Path(path).expanduser()).resolve()
        if not file.is_file():
            raise ValueError(f"there is no file {file}")
        return str(file)

    @model_validator(mode="after")
    def _one_source(self) -> TaskChoice:
        if (self.name is None) == (self.path is None):
            raise ValueError("a task has either a `name` or a `path`")
        if self.rule is not None and self.path is None:
            raise ValueError("`rule` belongs to a file of examples, given by `path`")
        return self

    @property
    def source(self) -> str:
        """What examples come from: the task's name, or the file's path."""
        return self.name or self.path or ""

    @property
    def label(self) -> str:
        """What people call the task: its name, or the file's name without its ending."""
        return self.name or Path(self.path or "").stem


class MethodChoice(NamedSection):
    """An attribution method and its options; what an option means is the method's own affair."""

    name: Word
    steps: Annotated[StrictInt, Field(ge=1, le=10_000)] | None = None
    quadrature: Word | None = None
    intervention: Word = "patching"

    @property
    def label(self) -> str:
        """The method and the options it was given, for people: `EAP-IG-inputs (5, left)`."""
        options = [str(option) for option in (self.steps, self.quadrature) if option is not None]
        options += [] if self.intervention == "patching" else [self.intervention]
        return f"{self.name} ({', '.join(options)})" if options else self.name


class ExtractionChoice(NamedSection):
    """An extraction rule; `values` are the thresholds of `threshold`, `sizes` are the others'."""

    name: Word
    absolute: StrictBool = True
    values: tuple[Threshold, ...] | None = None
    sizes: tuple[Size, ...] | None = None

    @property
    def label(self) -> str:
        """The rule for people: `top-n`, `greedy signed`."""
        return self.name if self.absolute else f"{self.name} signed"


class ExampleCounts(Section):
    """How many examples scores (`train`) and judgements (`evaluate`) rest on."""

    train: Positive = 64
    evaluate: Positive = 64


def _list_of(kind: type[Section]) -> Any:
    return Annotated[tuple[kind, ...], Field(min_length=1, max_length=10_000)]


class GridConfig(Section):
    """A whole grid, as its YAML file says; see the module's docstring."""

    name: Annotated[StrictStr, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")] = "grid"
    models: _list_of(ModelChoice)
    tasks: _list_of(TaskChoice)
    methods: _list_of(MethodChoice)
    examples: ExampleCounts = ExampleCounts()
    extraction: _list_of(ExtractionChoice) = (ExtractionChoice(name="top-n"),)
    sizes: Annotated[tuple[Size, ...], Field(min_length=1, max_length=1000)] = DEFAULT_SIZES
    shard_size: Positive = 32
    memory_budget: Bytes = 2**30
    device: Device = "auto"

    def cells(self) -> Iterator[Cell]:
        """Every model × task × method, the cells of one model together, then those of one task."""
        for model in self.models:
            for task in self.tasks:
                for method in self.methods:
                    yield Cell(model, task, method)

    def sizes_of(self, extraction: ExtractionChoice) -> tuple[int | float, ...]:
        """The sizes (or thresholds) that `extraction` is asked for."""
        if extraction.values is not None:
            return extraction.values
        return extraction.sizes if extraction.sizes is not None else self.sizes

    def device_of(self, model: ModelChoice) -> str:
        """The device a model's stages run on."""
        return model.device or self.device

    def counts_of(self, task: TaskChoice) -> tuple[int | None, int | None]:
        """Numbers of examples for scores and for judgements; None for all that a file has."""
        if task.path is not None:
            return task.train, task.evaluate
        return task.train or self.examples.train, task.evaluate or self.examples.evaluate


@dataclass(frozen=True)
class Cell:
    """One model, one task, one method: what fails or succeeds together."""

    model: ModelChoice
    task: TaskChoice
    method: MethodChoice

    @property
    def label(self) -> str:
        """The cell for people: `bundled/behaviours · ioi · EAP`."""
        return f"{self.model.label} · {self.task.label} · {self.method.label}"


def _base(info: ValidationInfo) -> Path:
    return Path((info.context or {}).get("base", "."))
