"""What replaces a writer's contribution when it is corrupted.

- `patching`: what it writes on the corrupted input;
- `zero`: nothing;
- `mean`: what it writes on average over all real positions of a dataset's clean inputs;
- `mean-positional`: the same at each position; all inputs must have one length.

Position embeddings and attention output biases belong to no writer and are never replaced.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from circuits.batching import DEFAULT_MEMORY_BUDGET, Batch, batches, check_examples
from circuits.errors import CircuitError
from circuits.forward import Forward, Trace
from circuits.layers import at_least_float32
from circuits.model import Model
from tasks import Dataset, Example

INTERVENTIONS = ("patching", "zero", "mean", "mean-positional")
MEANS = ("mean", "mean-positional")


@dataclass(frozen=True, eq=False)
class Contributions:
    """What every writer wrote in one run: heads before their output projection."""

    embedding: Float[Tensor, "batch pos d_model"]
    heads: list[Float[Tensor, "batch pos heads d_head"]]  # one a layer
    mlps: list[Float[Tensor, "batch pos d_model"]]

    KEEP = ("embedding", "z", "mlp")

    @classmethod
    def of(cls, trace: Trace, n_layers: int) -> Contributions:
        """Those of a run that kept `KEEP`."""
        layers = range(n_layers)
        return cls(
            trace["embedding", -1],
            [trace["z", i] for i in layers],
            [trace["mlp", i] for i in layers],
        )


@dataclass(frozen=True, eq=False)
class MeanActivations:
    """The mean contribution of every writer, in float64; `pos` is 1 for `mean`."""

    kind: str
    embedding: Float[np.ndarray, "pos d_model"]
    heads: Float[np.ndarray, "layers pos heads d_head"]  # before the output projection
    mlps: Float[np.ndarray, "layers pos d_model"]
    n_positions: int  # how many real positions each mean is over
    model: str | None = None  # the fingerprint of the model whose means these are, where known

    def contributions(self, like: Contributions) -> Contributions:
        """The means as the contributions of a run of the same shape."""

        def spread(mean: np.ndarray, of: Tensor) -> Tensor:
            return torch.from_numpy(mean).to(of)[None].expand_as(of)

        return Contributions(
            spread(self.embedding, at_least_float32(like.embedding)),
            [spread(self.heads[i], at_least_float32(z)) for i, z in enumerate(like.heads)],
            [spread(self.mlps[i], at_least_float32(m)) for i, m in enumerate(like.mlps)],
        )


def check_one_length(examples: Sequence[Example], what: str) -> int:
    """The length of all examples; raises `CircuitError` with the lengths where there are more."""
    lengths = sorted({example.length for example in examples})
    if len(lengths) > 1:
        shown = ", ".join(map(str, lengths))
        raise CircuitError(
            f"mean-positional needs inputs of one length, but {what} has inputs of {shown} "
            f"tokens: choose one length, or use mean"
        )
    return lengths[0]


def check_source(
    intervention: str | None, source: Dataset | None, error: type[CircuitError]
) -> None:
    """Raise `error` where a dataset to take means over is given and no means are taken."""
    if source is not None and intervention not in MEANS:
        raise error(
            f"intervention_dataset is what mean interventions average over, and "
            f"{intervention or 'a method without intervention'} takes no mean: leave it out, or "
            f"use the intervention {' or '.join(MEANS)}"
        )


def check_means(
    model: Model,
    intervention: str | None,
    means: MeanActivations | None,
    examples: Sequence[Example],
    error: type[CircuitError],
) -> None:
    """Raise `error` unless a mean intervention has means that fit, and others have none."""
    if intervention not in MEANS:
        if means is not None:
            raise error(f"means of the kind {means.kind} say nothing under {intervention}")
        return
    if means is None or means.kind != intervention:
        raise error(
            f"the intervention {intervention} needs means of its kind: pass means="
            f"mean_activations(model, dataset, {intervention!r})"
        )
    a = model.architecture
    found, expected = (
        means.heads.shape[::2] + means.heads.shape[3:],
        (a.n_layers, a.n_heads, a.d_head),
    )
    other = means.model is not None and means.model != model.fingerprint
    if other or found != expected or means.embedding.shape[-1] != a.d_model:
        raise error(
            f"these means are of another model than {model.name!r}: take them with "
            f"mean_activations(model, dataset, {intervention!r})"
        )
    if intervention == "mean-positional":
        length = check_one_length(examples, "the dataset")
        if length != len(means.embedding):
            raise error(
                f"mean-positional needs inputs of one length, but the dataset has inputs of "
                f"{length} tokens and the means are over inputs of {len(means.embedding)}"
            )


@torch.no_grad()
def mean_activations(
    model: Model,
    dataset: Dataset,
    kind: str = "mean",
    *,
    memory_budget: int = DEFAULT_MEMORY_BUDGET,
) -> MeanActivations:
    """The mean contribution of every writer on a dataset's clean inputs, over real positions.

    Raises `CircuitError` for an unknown kind, for inputs of several lengths under
    `mean-positional`, and for examples the model cannot take.
    """
    if kind not in MEANS:
        raise CircuitError(f"there are no means of the kind {kind!r}: choose {' or '.join(MEANS)}")
    check_examples(dataset.examples, model.architecture, of=" that means are taken over")
    if kind == "mean-positional":
        check_one_length(dataset.examples, f"the dataset {dataset.name!r}")
    a = model.architecture
    n_layers, totals, count = a.n_layers, None, 0

    def bytes_of(n_examples: int, n_prefix: int, longest: int) -> int:
        wide = n_layers * (8 * a.d_model + 3 * a.d_mlp + 4 * a.n_heads * longest)
        return n_examples * longest * max(4, model.dtype.itemsize) * wide

    for batch in batches(
        dataset.examples, model.device, memory_budget, bytes_of, suffix_only=False
    ):
        forward, trace = Forward(model, batch), Trace(keep=Contributions.KEEP)
        forward.run(forward.embed(batch.clean), trace)
        found = Contributions.of(trace, n_layers)
        written = (found.embedding, *found.heads, *found.mlps)
        sums = [_sum(value, batch, kind) for value in written]
        if not all(np.isfinite(one).all() for one in sums):
            _refuse(model, batch, written)
        totals = sums if totals is None else [a + b for a, b in zip(totals, sums, strict=True)]
        count += int(batch.real.sum()) if kind == "mean" else batch.size
    assert totals is not None
    means = [total / count for total in totals]
    heads, mlps = np.stack(means[1 : 1 + n_layers]), np.stack(means[1 + n_layers :])
    return MeanActivations(kind, means[0], heads, mlps, count, model.fingerprint)


def _sum(value: Tensor, batch: Batch, kind: str) -> np.ndarray:
    real = batch.real.view(*batch.real.shape, *[1] * (value.ndim - 2))
    if value.device.type == "mps":
        value, real = value.cpu(), real.cpu()
    total = value.double().masked_fill(~real, 0.0).sum(0)
    return (total.sum(0, keepdim=True) if kind == "mean" else total).cpu().numpy()


def _refuse(model: Model, batch: Batch, written: Sequence[Tensor]) -> None:
    """Raise `CircuitError` with the first example that does not write finite numbers."""
    finite = torch.stack([value.isfinite().flatten(2).all(2) for value in written]).all(0)
    row = batch.first_unsound((finite | ~batch.real).all(1))
    raise CircuitError(
        f"example {batch.indices[row]} that means are taken over has activations that are not "
        f"finite: they overflow or are NaN in {str(model.dtype).removeprefix('torch.')}"
    )


def zeros(like: Contributions) -> Contributions:
    """No contribution at all."""
    return Contributions(
        torch.zeros_like(like.embedding),
        [torch.zeros_like(z) for z in like.heads],
        [torch.zeros_like(m) for m in like.mlps],
    )
