"""One batch under one method's options: the runs that methods share, each made when it is needed.

A method asks for passes with gradients (`follow`) and collects them in `gradients`, which then
become each example's scores. What is the same for all methods (the clean run, what contributions
are replaced by, the check that every number is finite) is here.
"""

from __future__ import annotations

from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.attribution.method import Options
from circuits.batching import Batch
from circuits.errors import AttributionError
from circuits.finite import checked
from circuits.forward import Forward, Trace
from circuits.intervention import Contributions, MeanActivations, zeros
from circuits.layers import at_least_float32
from circuits.model import Model
from circuits.reader_gradients import ReaderGradients, WriterChanges, writer_changes
from circuits.writer_gradients import WriterGradients

Collected = ReaderGradients | WriterGradients
_STATE = ("embedding", "stream", "q", "k", "v", "z", "attended", "middle", "mlp_in", "mlp")


class Run:
    """The batch `batch` of examples, scored on `model` as `options` say."""

    def __init__(
        self,
        model: Model,
        batch: Batch,
        options: Options,
        means: MeanActivations | None,
        first_example: int,
    ) -> None:
        self.model = model
        self.batch = batch
        self.options = options
        self.means = means
        self.first_example = first_example
        self.n_layers = model.architecture.n_layers
        self.forward = Forward(model, batch)
        self._clean_logits: Tensor | None = None
        self._clean: Contributions | None = None
        self._corrupted: Contributions | None = None

    # -- runs -------------------------------------------------------------------------------------

    def collect(self, of_many: bool = False) -> Collected:
        """An empty sum of gradients, at the readers for edges and at the writers for the others.

        `of_many` says that more points will be added than it can remember.
        """
        if self.options.level != "edge":
            return WriterGradients(self.model, self.batch)
        return ReaderGradients(self.model, self.batch, self.changes if of_many else None)

    def follow(self, embedding: Tensor, gradients: Collected, weight: float, place: str) -> Trace:
        """Run a whole input and add the gradients of its loss, `weight` times."""
        trace = Trace(keep=(*gradients.KEEP, *Contributions.KEEP), fork=gradients.FORK)
        logits = self.forward.run(embedding, trace)
        if self._clean_logits is None:  # the clean input comes first: others are compared with it
            self._clean_logits = logits.detach()
        trace.differentiate([self.loss(logits, place).sum()])
        gradients.add(trace, weight)
        return trace

    def follow_clean(
        self, gradients: Collected, weight: float, place: str = "the clean input"
    ) -> None:
        """Add the gradients at the clean input."""
        trace = self.follow(self.forward.embed(self.batch.clean), gradients, weight, place)
        self._clean = Contributions.of(trace, self.n_layers)

    def follow_corrupted(self, gradients: Collected, weight: float, place: str) -> None:
        """Add the gradients at the corrupted input."""
        _ = self.clean_logits  # what some metrics compare with
        trace = self.follow(self.forward.embed(self.batch.corrupted), gradients, weight, place)
        self._corrupted = Contributions.of(trace, self.n_layers)

    @cached_property
    def state(self) -> Trace:
        """Everything that passes in the clean run."""
        with torch.no_grad():
            trace = Trace(keep=(*_STATE, "logits"))
            self._clean_logits = self.forward.run(self.forward.embed(self.batch.clean), trace)
        self._clean = Contributions.of(trace, self.n_layers)
        return trace

    @property
    def clean(self) -> Contributions:
        """What every writer writes on the clean input."""
        if self._clean is None:
            self._run_clean()
        assert self._clean is not None
        return self._clean

    @property
    def clean_logits(self) -> Float[Tensor, "batch vocab"]:
        """The model's logits on the clean input."""
        if self._clean_logits is None:
            self._run_clean()
        assert self._clean_logits is not None
        return self._clean_logits

    @torch.no_grad()
    def _run_clean(self) -> None:
        trace = Trace(keep=Contributions.KEEP)
        self._clean_logits = self.forward.run(self.forward.embed(self.batch.clean), trace)
        self._clean = Contributions.of(trace, self.n_layers)

    @cached_property
    def ablated(self) -> Contributions:
        """What replaces every writer's contribution under the intervention."""
        if self.options.intervention == "zero":
            return zeros(self.clean)
        if self.options.intervention != "patching":
            assert self.means is not None
            return self.means.contributions(self.clean)
        if self._corrupted is None:
            with torch.no_grad():
                trace = Trace(keep=Contributions.KEEP)
                self.forward.run(self.forward.embed(self.batch.corrupted), trace)
            self._corrupted = Contributions.of(trace, self.n_layers)
        return self._corrupted

    @cached_property
    def changes(self) -> WriterChanges:
        """Δ, to first order where a post-norm lies behind the heads."""
        return writer_changes(self.model, self.batch, self.clean, self.ablated)

    # -- numbers ----------------------------------------------------------------------------------

    def loss(self, logits: Float[Tensor, "rows vocab"], place: str) -> Float[Tensor, " rows"]:
        """The loss of every row; raises `AttributionError` where it is not finite."""
        copies = len(logits) // self.batch.size
        answers, clean = self.batch.answers, self._clean_logits
        if copies > 1:
            answers = answers.repeat(copies)
            clean = None if clean is None else clean.repeat(copies, 1)
        metric = self.options.metric
        assert metric is not None
        values = metric.loss(logits, answers, logits.detach() if clean is None else clean)
        if logits.requires_grad and not values.requires_grad:
            raise AttributionError(
                f"the metric {metric.name!r} does not depend on the logits in a way that has a "
                f"gradient: use another metric, or exact, which needs none"
            )
        known = checked(values, logits)
        finite = known.isfinite()
        if not finite.all():
            row = self.batch.first_unsound(finite.unflatten(0, (copies, -1)).all(0))
            of_row = known.unflatten(0, (copies, -1))[:, row]
            found = float(of_row[~of_row.isfinite()][0])
            raise AttributionError(
                f"the metric {metric.name!r} is {found} for example {self.example(row)}, at {place}"
            )
        return values

    def example(self, row: int) -> int:
        """The place in the dataset of a row of the batch."""
        return self.first_example + self.batch.indices[row]

    def no_scores(self) -> Tensor:
        """Zeros in the shape of the batch's scores."""
        graph, like = self.model.graph, at_least_float32(self.clean.embedding)
        shape = {
            "edge": (graph.n_writers, graph.n_readers),
            "node": (graph.n_writers,),
            "neuron": (graph.n_writers, self.model.architecture.d_model),
        }[self.options.level]
        return like.new_zeros(self.batch.size, *shape)

    def add_scores(
        self, scores: Tensor, gradients: Collected, writers: slice = slice(0, None)
    ) -> None:
        """Add the scores of some writers' units, by the gradients collected, to `scores`."""
        if isinstance(gradients, ReaderGradients):
            gradients.add_scores(scores, self.changes, writers)
            return
        neurons = gradients.neuron_scores(self.clean, self.ablated)[:, writers]
        scores[:, writers] += neurons.sum(-1) if self.options.level == "node" else neurons

    def scores(self, gradients: Collected) -> Tensor:
        """Each example's scores of all units by one sum of gradients."""
        scores = self.no_scores()
        self.add_scores(scores, gradients)
        return scores
