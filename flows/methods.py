"""What gives a cell its scores: an attribution method, an ensemble of several, or a file.

A grid's entry is one of the three by its keys: `name` (or a bare word), `ensemble`, or `path`.
"""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import (
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

from flows.quantities import Names, Positive, Section, Seed, Size, Word, base_of, with_options

PATCHING = "patching"  # what interventions are where nothing else is said
DEFAULT_COMBINATION = "rank-mean"
_FILES = (".json", ".pt", ".graphml")


class Source(Section):
    """Whatever gives scores of one level, and what the circuits found in them are run under."""

    judged_under: tuple[Word, ...] = ()

    if TYPE_CHECKING:  # of some kinds a field, of others a property

        @property
        def level(self) -> str:
            """The level of the scores: edge, node or neuron."""

    @property
    @abstractmethod
    def own_interventions(self) -> frozenset[str]:
        """What contributions are replaced by on the way to the scores; empty if by nothing."""

    @property
    @abstractmethod
    def label(self) -> str:
        """The source with its options, for people."""

    @property
    def methods(self) -> tuple[MethodChoice, ...]:
        """The attribution methods that it runs."""
        return ()

    @property
    def evaluated_under(self) -> tuple[str, ...]:
        """The interventions that the circuits are run under."""
        return self.judged_under or tuple(sorted(self.own_interventions)) or (PATCHING,)

    @property
    def scored_under(self) -> frozenset[str]:
        """Its own interventions, and those of the methods that it is made of or ranked by."""
        return self.own_interventions

    @property
    def takes_means(self) -> bool:
        """Whether means replace contributions on the way to the scores."""
        return any(one.startswith("mean") for one in self.scored_under)

    def label_with(self, means: str | None) -> str:
        """The label, and what means are over where they are said: `EAP (mean), means over 20`."""
        return self.label if means is None else f"{self.label}, means {means}"

    @property
    def interventions(self) -> frozenset[str]:
        """All that contributions are replaced by, on the way to scores and in running circuits."""
        return self.scored_under | set(self.evaluated_under)


class MethodChoice(Source):
    """An attribution method and its options; what an option means is the method's own affair.

    None stands for the method's own default. `edges`, `nodes`, or `top` and `of` restrict a method
    that can score some units alone: to these, or to those of greatest |score| by another method on
    the same model and task. `judged_under` lists the interventions that the circuits are run under.
    """

    name: Word
    level: Word = "edge"
    intervention: Word | None = None
    steps: Positive | None = None
    quadrature: Word | None = None
    scope: Word | None = None
    seed: Seed | None = None
    edges: Names | None = None
    nodes: Names | None = None
    top: Size | None = None
    of: MethodChoice | None = None

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @property
    def methods(self) -> tuple[MethodChoice, ...]:
        """Itself."""
        return (self,)

    @property
    def named_units(self) -> tuple[str, ...] | None:
        """The edges or nodes that are named; None where none are."""
        return self.edges if self.edges is not None else self.nodes

    @property
    def own_interventions(self) -> frozenset[str]:
        """Its intervention, if it is given one."""
        return frozenset() if self.intervention is None else frozenset({self.intervention})

    @property
    def scored_under(self) -> frozenset[str]:
        """Its own, and that of what ranks its units."""
        others = self.of.scored_under if self.of is not None else frozenset()
        return self.own_interventions | others

    @property
    def label(self) -> str:
        """The method with options for people: `EAP-IG-inputs (5, left)`, `EAP (node, zero)`."""
        return with_options(
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


class EnsembleChoice(Source):
    """Methods whose scores are combined into one set; a unit that one has not scored is out.

    Members are run on the same model and task, as if they were methods of the grid, and shared with
    those that are. They have one level. Circuits are run under every intervention that a member
    takes, or under those of `judged_under`.
    """

    ensemble: Annotated[tuple[MethodChoice, ...], Field(min_length=1, max_length=1000)]
    combine: Word = DEFAULT_COMBINATION

    @property
    def methods(self) -> tuple[MethodChoice, ...]:
        """Its members."""
        return self.ensemble

    @property
    def level(self) -> str:
        """The level of its members."""
        return self.ensemble[0].level

    @property
    def own_interventions(self) -> frozenset[str]:
        """Those of its members."""
        return frozenset().union(*(member.own_interventions for member in self.ensemble))

    @property
    def scored_under(self) -> frozenset[str]:
        """Those of its members, and of what ranks their units."""
        return frozenset().union(*(member.scored_under for member in self.ensemble))

    @property
    def label(self) -> str:
        """The combination and the members, for people: `rank-mean of EAP and exact`."""
        *others, last = [member.label for member in self.ensemble]
        return f"{self.combine} of {', '.join(others)} and {last}"


class FileChoice(Source):
    """A file of scores, of a circuit, or of both, as others publish them; relative to the grid.

    It is judged on every task of the grid. `level` says which of its scores are meant.
    """

    path: Word
    level: Word = "edge"

    @field_validator("path")
    @classmethod
    def _file(cls, path: str, info: ValidationInfo) -> str:
        file = (base_of(info) / Path(path).expanduser()).resolve()
        if not file.is_file():
            raise ValueError(f"there is no file {file}")
        if file.suffix.lower() not in _FILES:
            raise ValueError(f"{file.name} is no circuit file: those end in {', '.join(_FILES)}")
        return str(file)

    @property
    def own_interventions(self) -> frozenset[str]:
        """None: nothing is run for its scores."""
        return frozenset()

    @property
    def label(self) -> str:
        """The file's name: `ioi.json (node)`."""
        return with_options(Path(self.path).name, None if self.level == "edge" else self.level)


KINDS: dict[str, type[Source]] = {
    "<method>": MethodChoice,
    "<ensemble>": EnsembleChoice,
    "<file>": FileChoice,
}


def kind_of(entry: object) -> str:
    """Which of the three an entry of a grid is; what is none of them is a method gone wrong."""
    if isinstance(entry, Source):
        return next(tag for tag, kind in KINDS.items() if isinstance(entry, kind))
    if isinstance(entry, dict) and "ensemble" in entry:
        return "<ensemble>"
    return "<file>" if isinstance(entry, dict) and "path" in entry else "<method>"


AnySource = Annotated[
    Annotated[MethodChoice, Tag("<method>")]
    | Annotated[EnsembleChoice, Tag("<ensemble>")]
    | Annotated[FileChoice, Tag("<file>")],
    Discriminator(kind_of),
]
