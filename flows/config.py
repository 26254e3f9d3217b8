"""A grid: which models, tasks and methods to cross, and how to extract and evaluate circuits.

```yaml
name: demo
models:                         # `bundled/…`, a directory in Hugging Face's format, or a hub name
  - bundled/behaviours          # short for {name: bundled/behaviours}
  - {name: ./checkpoints/mine, dtype: float64, device: cpu, revision: null}
  - {name: meta-llama/Llama-3.2-1B, kv: grouped}    # one k and v reader a key-value head
tasks:
  - ioi                         # short for {name: ioi}
  - {name: sva, train: 32, evaluate: 100, seed: 1, metric: prob-diff}
  - {path: pairs.csv, rule: greater-than, evaluate_on: all}    # relative to this file
  - {name: ioi, means: 256, means_on: validation}   # what mean interventions average over
examples: {train: 64, evaluate: 64}     # for tasks that do not say; a file gives all it has
methods:
  - EAP                         # short for {name: EAP}
  - {name: EAP-IG-inputs, steps: 5, quadrature: midpoint}
  - {name: EAP, level: node, intervention: mean}    # level: edge, node or neuron
  - {name: EAP-IG-activations, steps: 5, scope: all}
  - information-flow-routes     # follows no metric
  - {name: random, seed: 1, judged_under: [patching, zero]}
  - {name: exact, top: 500, of: EAP}      # only the 500 edges of greatest |score| by EAP
  - {name: exact, edges: [a0.h1->m2, m2->logits]}
  - {name: exact, level: neuron, nodes: [m0]}       # the neurons of these nodes
extraction:                     # what turns scores into circuits
  - top-n                       # short for {name: top-n, absolute: true}
  - {name: greedy, absolute: false, level: edge}    # of scores of this level alone
  - {name: threshold, values: [0.01, 0.1]}   # a circuit a value; all the others: a circuit a size
sizes: [0.001, 0.1, 1.0, 200]   # with a decimal point: fractions of the units; whole: units
shard_size: 32                  # examples a shard
shard_units: 256                # edges (nodes, neurons) a shard, where each costs runs of its own
memory_budget: 1GiB             # what attribution may hold at a time
device: auto
```

Only `models`, `tasks` and `methods` are needed. A cell of the grid is a model, a task and a method.
The *units* of a method are the edges, nodes or neurons of its level. A task's metric is what
attribution follows and what circuits are judged by; `judged_by` lists other metrics for the
judging. Circuits are run under their method's intervention, or patched where it takes none;
`judged_under` lists others. `read_grid` reports everything that is wrong at once, by line.
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

PATCHING = "patching"  # what interventions are where nothing else is said
DEFAULT_SIZES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}

Positive = Annotated[StrictInt, Field(ge=1)]
Word = Annotated[StrictStr, Field(min_length=1, max_length=300)]
Names = Annotated[tuple[Word, ...], Field(min_length=1, max_length=1_000_000)]


def size(value: object) -> int | float:
    """So many units: a whole number of them (≥ 1), or a fraction of all in (0, 1]."""
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
    """A model by name, how its weights are held, and how its graph takes grouped heads.

    `kv: ungrouped` gives every query head a k and a v reader of its own, as published circuits do;
    `kv: grouped` one to each key-value head. Where heads are not grouped the two are the same.
    """

    name: Word
    dtype: Word = "float32"
    kv: Word = "ungrouped"
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
    def short_name(self) -> str:
        """What people call the weights: the model's name, or its directory's name."""
        return Path(self.name).name if Path(self.name).is_absolute() else self.name

    @property
    def label(self) -> str:
        """The model and how it is held, for people: `gpt2`, `gpt2 (bfloat16)`."""
        dtype = None if self.dtype == "float32" else self.dtype
        kv = None if self.kv == "ungrouped" else self.kv
        return _with_options(self.short_name, self.revision, dtype, kv)


class TaskChoice(NamedSection):
    """A task by name, or a file of examples; how many examples, and what judges an answer.

    `train` and `evaluate` are numbers of examples; where they are absent, the grid's `examples`
    decide for a task, and a file gives all it has. `train_on` and `evaluate_on` name splits: train,
    validation, test; for a file also `all`, or what its own column `split` says. Mean interventions
    average over the clean inputs of the train examples, unless `means` (how many) or `means_on`
    (a split) say otherwise. `prepend_bos` puts the tokenizer's first token, where it has one, in
    front of every prompt.
    """

    name: Word | None = None
    path: Word | None = None
    rule: Word | None = None
    train: Positive | None = None
    evaluate: Positive | None = None
    means: Positive | None = None
    train_on: Word = "train"
    evaluate_on: Word = "test"
    means_on: Word | None = None
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
    """An attribution method and its options; what an option means is the method's own affair.

    None stands for the method's own default. `edges`, `nodes`, or `top` and `of` restrict a method
    that can score some units alone: to these, or to those of greatest |score| by another method on
    the same model and task. `judged_under` lists the interventions that the circuits are run under.
    """

    name: Word
    level: Word = "edge"
    intervention: Word | None = None
    steps: Annotated[StrictInt, Field(ge=1, le=10_000)] | None = None
    quadrature: Word | None = None
    scope: Word | None = None
    seed: Annotated[StrictInt, Field(ge=0, lt=2**32)] | None = None
    edges: Names | None = None
    nodes: Names | None = None
    top: Size | None = None
    of: MethodChoice | None = None
    judged_under: tuple[Word, ...] = ()

    @property
    def named_units(self) -> tuple[str, ...] | None:
        """The edges or nodes that are named; None where none are."""
        return self.edges if self.edges is not None else self.nodes

    @property
    def evaluated_under(self) -> tuple[str, ...]:
        """The interventions that the circuits are run under."""
        return self.judged_under or (self.intervention or PATCHING,)

    @property
    def interventions(self) -> frozenset[str]:
        """All that it, and the method that ranks its units, replace contributions by."""
        own = {PATCHING if self.intervention is None else self.intervention, *self.evaluated_under}
        return frozenset(own | (self.of.interventions if self.of is not None else set()))

    @property
    def label(self) -> str:
        """The method with options for people: `EAP-IG-inputs (5, left)`, `EAP (node, zero)`."""
        return _with_options(
            self.name,
            None if self.level == "edge" else self.level,
            self.steps,
            self.quadrature,
            None if self.scope == "component" else self.scope,
            None if self.intervention == PATCHING else self.intervention,
            f"seed {self.seed}" if self.seed else None,
            self.restriction,
        )

    @property
    def restriction(self) -> str | None:
        """The units it is restricted to, for people: `top 500 of EAP`; None where it is not."""
        if self.of is not None:
            return f"top {self.top} of {self.of.label}"
        names = self.named_units
        if names is None:
            return None
        return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


class ExtractionChoice(NamedSection):
    """An extraction rule; `values` are the thresholds of `threshold`, `sizes` are the others'.

    Where it names a `level`, it is for scores of that level alone. Units without a score stay in if
    `keep_unscored`, out if not; by default nodes and neurons stay in, edges out.
    """

    name: Word
    absolute: StrictBool = True
    keep_unscored: StrictBool | None = None
    level: Word | None = None
    values: tuple[Threshold, ...] | None = None
    sizes: tuple[Size, ...] | None = None

    @property
    def label(self) -> str:
        """The rule for people: `top-n`, `greedy (signed)`."""
        unscored = {None: None, True: "unscored in", False: "unscored out"}[self.keep_unscored]
        return _with_options(self.name, None if self.absolute else "signed", unscored)


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
    shard_units: Positive = 256
    memory_budget: Bytes = 2**30
    device: Device = "auto"

    def cells(self) -> Iterator[Cell]:
        """Every model × task × method, the cells of one model together, then those of one task."""
        for model in self.models:
            for task in self.tasks:
                for method in self.methods:
                    yield Cell(model, task, method)

    def extractions_of(self, method: MethodChoice) -> tuple[ExtractionChoice, ...]:
        """The extraction rules that are for scores of the method's level."""
        return tuple(rule for rule in self.extraction if rule.level in (None, method.level))

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

    def means_of(self, task: TaskChoice) -> tuple[str, int | None]:
        """The split that means are taken over, and how many of its examples."""
        return task.means_on or task.train_on, task.means or self.counts_of(task)[0]


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


def _with_options(name: str, *options: object) -> str:
    """A name with those options that say something, for people: `gpt2 (bfloat16)`."""
    said = [str(option) for option in options if option is not None]
    return f"{name} ({', '.join(said)})" if said else name


def _base(info: ValidationInfo) -> Path:
    return Path((info.context or {}).get("base", "."))
