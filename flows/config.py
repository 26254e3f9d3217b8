"""A grid: which models, tasks and methods to cross, and how to extract and evaluate circuits.

```yaml
name: demo
models:                         # `bundled/…`, `truth/…`, a Hugging Face directory, or a hub name
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
  - {ensemble: [EAP, {name: exact, top: 500, of: EAP}], combine: rank-mean}
  - {path: published/ioi.json}  # scores, or a circuit, from a file of the field's formats
extraction:                     # what turns scores into circuits
  - top-n                       # short for {name: top-n, absolute: true}
  - {name: greedy, absolute: false, level: edge}    # of scores of this level alone
  - {name: threshold, values: [0.01, 0.1]}   # a circuit a value; all the others: a circuit a size
sizes: [0.001, 0.1, 1.0, 200]   # with a decimal point: fractions of the units; whole: units
shard_size: 32                  # examples a shard
shard_units: 256                # edges (nodes, neurons) a shard, where each costs runs of its own
memory_budget: 1GiB             # what a stage may hold at a time, beside the model
max_models: 1                   # in memory at a time, on each device …
max_bytes: 60GiB                # … and how much all their weights may take; null: no bound
time_limit: 24h                 # for a stage, which is then stopped and has failed; null: none
retries: 3                      # of what may pass: no memory, no disk, a killed process, lost input
device: auto
judging:
  resamples: 1000               # of the examples, for standard errors and intervals
  confidence: 0.95
  seed: 0
  cross_task: true              # every task's circuits on every other task's examples
  completeness: true            # the model without each circuit
  minimality: 50                # circuits of at most so many units without each of them
  stability: {resamples: 100, size: 0.01}   # which units are best when examples are drawn again
  comparisons: true             # scores beside scores, circuits beside circuits of one size
```

Only `models`, `tasks` and `methods` are needed. A cell of the grid is a model, a task and a method;
a model `truth/…` and the task of its name go together, and with no other of these.
The *units* of a method are the edges, nodes or neurons of its level. Where `judging` says nothing,
there are intervals and comparisons and none of the rest. A task's metric is what
attribution follows and what circuits are judged by; `judged_by` lists other metrics for the
judging. Circuits are run under their method's intervention, or patched where it takes none;
`judged_under` lists others. `read_grid` reports everything that is wrong at once, by line.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from data.bundled import is_bundled_name
from flows.judging import Judging
from flows.methods import (
    PATCHING,
    AnySource,
    EnsembleChoice,
    FileChoice,
    MethodChoice,
    Source,
)
from flows.quantities import (
    Bytes,
    Count,
    Device,
    NamedSection,
    Positive,
    Seconds,
    Section,
    Seed,
    Size,
    Threshold,
    Word,
    base_of,
    with_options,
)

__all__ = [
    "PATCHING",
    "Cell",
    "EnsembleChoice",
    "ExampleCounts",
    "ExtractionChoice",
    "FileChoice",
    "GridConfig",
    "Judging",
    "MethodChoice",
    "ModelChoice",
    "Section",
    "Source",
    "TaskChoice",
]

DEFAULT_SIZES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


class ModelChoice(NamedSection):
    """A model by name, how its weights are held, and how its graph takes grouped heads.

    `kv: ungrouped` gives every query head a k and a v reader of its own, as published circuits do;
    `kv: grouped` one to each key-value head. Where heads are not grouped the two are the same, and
    only one of them can be listed. Code that comes with a model or its tokenizer is run with
    `trust_remote_code` alone.
    """

    name: Word
    dtype: Word = "float32"
    kv: Word = "ungrouped"
    revision: Word | None = None
    device: Device | None = None
    trust_remote_code: StrictBool = False

    @field_validator("name")
    @classmethod
    def _directory(cls, name: str, info: ValidationInfo) -> str:
        """A name that is a directory beside the grid's file means that directory."""
        if is_bundled_name(name):
            return name
        directory = (base_of(info) / Path(name).expanduser()).resolve()
        if directory.is_dir():
            return str(directory)
        if name.startswith((".", "/", "~")):
            raise ValueError(f"there is no model directory {directory}")
        return name

    @property
    def is_directory(self) -> bool:
        """Whether the name is that of a directory."""
        return Path(self.name).is_absolute()

    @property
    def short_name(self) -> str:
        """What people call the weights: `gpt2`, `gpt2@step1000`, or their directory's name."""
        name = Path(self.name).name if self.is_directory else self.name
        return name if self.revision is None else f"{name}@{self.revision}"

    @property
    def label(self) -> str:
        """The model and how it is held, for people: `gpt2`, `gpt2 (bfloat16)`."""
        dtype = None if self.dtype == "float32" else self.dtype
        kv = None if self.kv == "ungrouped" else self.kv
        return with_options(self.short_name, dtype, kv)


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
    train: Count | None = None
    evaluate: Count | None = None
    means: Count | None = None
    train_on: Word = "train"
    evaluate_on: Word = "test"
    means_on: Word | None = None
    seed: Seed = 0
    metric: Word | None = None
    judged_by: tuple[Word, ...] = ()
    prepend_bos: StrictBool = True

    @field_validator("path")
    @classmethod
    def _file(cls, path: str | None, info: ValidationInfo) -> str | None:
        """Paths are relative to the grid's file."""
        if path is None:
            return None
        file = (base_of(info) / Path(path).expanduser()).resolve()
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

    @property
    def title(self) -> str:
        """The task with the options that it is given: `ioi (train 5, means_on validation)`."""
        said = self.model_dump(exclude_defaults=True, exclude={"name", "path"})
        return with_options(self.label, *(f"{key} {_shown(value)}" for key, value in said.items()))


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value).lower()


class ExtractionChoice(NamedSection):
    """An extraction rule; `values` are the thresholds of `threshold`, `sizes` are the others'.

    Where it names a `level`, it is for scores of that level alone. Units without a score stay in if
    `keep_unscored`, out if not; by default nodes and neurons stay in, edges out.
    """

    name: Word
    absolute: StrictBool = True
    keep_unscored: StrictBool | None = None
    level: Word | None = None
    values: Annotated[tuple[Threshold, ...], Field(min_length=1)] | None = None
    sizes: Annotated[tuple[Size, ...], Field(min_length=1)] | None = None

    @property
    def label(self) -> str:
        """The rule for people: `top-n`, `greedy (signed)`."""
        unscored = {None: None, True: "unscored in", False: "unscored out"}[self.keep_unscored]
        return with_options(self.name, None if self.absolute else "signed", unscored)

    def at(self, level: str) -> ExtractionChoice:
        """What the rule means for scores of a level, with nothing left open."""
        keeps = level != "edge" if self.keep_unscored is None else self.keep_unscored
        return self.model_copy(update={"level": level, "keep_unscored": keeps})


class ExampleCounts(Section):
    """How many examples scores (`train`) and judgements (`evaluate`) rest on."""

    train: Count = 64
    evaluate: Count = 64


def _list_of(kind: Any) -> Any:
    return Annotated[tuple[kind, ...], Field(min_length=1, max_length=10_000)]


class GridConfig(Section):
    """A whole grid, as its YAML file says; see the module's docstring."""

    name: Annotated[StrictStr, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")] = "grid"
    models: _list_of(ModelChoice)
    tasks: _list_of(TaskChoice)
    methods: _list_of(AnySource)
    examples: ExampleCounts = ExampleCounts()
    extraction: _list_of(ExtractionChoice) = (ExtractionChoice(name="top-n"),)
    sizes: Annotated[tuple[Size, ...], Field(min_length=1, max_length=1000)] = DEFAULT_SIZES
    shard_size: Positive = 32
    shard_units: Positive = 256
    memory_budget: Bytes = 2**30
    max_models: Annotated[StrictInt, Field(ge=1, le=1000)] = 1
    max_bytes: Bytes | None = None
    time_limit: Seconds | None = 86400.0
    retries: Annotated[StrictInt, Field(ge=0, le=100)] = 3
    device: Device = "auto"
    judging: Judging = Judging()

    def cells(self) -> Iterator[Cell]:
        """Every pair × method, the cells of one model together, then those of one task."""
        named = Counter(task.label for task in self.tasks)
        for model, task in self.pairs:
            title = task.label if named[task.label] == 1 else task.title
            for method in self.methods:
                yield Cell(model, task, method, title)

    @property
    def pairs(self) -> tuple[tuple[ModelChoice, TaskChoice], ...]:
        """Every model with every task, but a truth with its own task alone."""
        return tuple(
            (model, task) for model in self.models for task in self.tasks if goes_with(model, task)
        )

    def extractions_of(self, method: Source) -> tuple[ExtractionChoice, ...]:
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

    def means_said(self, task: TaskChoice) -> str | None:
        """What means are over, for people: `over 20 of test`; None where the task does not say."""
        if task.means is None and task.means_on is None:
            return None
        split, n = self.means_of(task)
        return f"over {'all' if n is None else n}" + (f" of {split}" if task.means_on else "")


@dataclass(frozen=True)
class Cell:
    """One model, one task, one method: what fails or succeeds together."""

    model: ModelChoice
    task: TaskChoice
    method: Source
    title: str  # of the task, among those of the grid

    @property
    def label(self) -> str:
        """The cell for people: `bundled/behaviours · ioi · EAP`."""
        return f"{self.model.label} · {self.title} · {self.method.label}"


def goes_with(model: ModelChoice, task: TaskChoice) -> bool:
    """Whether the two belong together: a truth and the task of its name are for each other alone.

    A file of pairs may be for any model.
    """
    is_own = model.name == task.name
    return task.path is not None or is_own or not (_is_truth(model.name) or _is_truth(task.name))


def _is_truth(name: str | None) -> bool:
    return name is not None and name.startswith("truth/")
