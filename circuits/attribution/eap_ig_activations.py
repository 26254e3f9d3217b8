r"""EAP-IG-activations: integrated gradients along each component's output (Hanna, Pezzelle,
Belinkov 2024, arXiv:2403.17806; integrated gradients: Sundararajan et al. 2017, arXiv:1703.01365,
eq. 1).

A *component* c is the embedding, a layer's whole attention output or an MLP. Its output goes from
ablated to clean, y(α) = y' + α (y − y'), while all below it is clean and all above it flows freely:

    scope "component":  score(u → v) = Σ_pos Δ_u · ∫₀¹ ∂L/∂x_v at y_c(α) dα,   c the component of u
    scope "all":        score(u → v) = Σ_pos Δ_u · 1/n Σ_c ∫₀¹ ∂L/∂x_v at y_c(α) dα

`component` is the integrated-gradients reading: only edges out of the interpolated component get
its gradients. `all` is what published edge scores used: every edge gets the gradients of all n =
2L + 1 interpolations, readers below the component those with its output held fixed.

Nothing below a component is run again: each of its points starts from the clean stream at its
place. Below it, all gradients of all points pass through one and the same clean model, so scope
`all` sends their sum down in a single backward pass.

Cost: about m·(2L+1)/2 forward-backwards, without the unembedding of other positions.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from circuits.attribution.method import attribution_method
from circuits.attribution.run import Collected, Run
from circuits.forward import Place, Trace


@dataclass(frozen=True)
class Component:
    """A component: where its output passes, the clean stream beside it, and how to go on."""

    place: Place
    base: Place | None  # the stream that it adds to; None for the embedding
    writers: slice
    clean: Tensor
    ablated: Tensor
    onward: Callable[[Tensor, Tensor | None, Trace], Tensor]  # (output, base, trace) -> logits


@attribution_method(
    "EAP-IG-activations",
    takes_steps=True,
    takes_scope=True,
    defaults={"steps": 5, "quadrature": "midpoint", "scope": "component"},
)
def eap_ig_activations(run: Run) -> Tensor:
    """Component by component."""
    return _one_by_one(run) if run.options.scope == "component" else _all_together(run)


def _one_by_one(run: Run) -> Tensor:
    scores = None
    for component in _components(run):
        gradients = run.collect(of_many=True)
        for trace, weight in _points(run, component, gradients):
            gradients.add(trace, weight)
        scores = run.no_scores() if scores is None else scores
        run.add_scores(scores, gradients, component.writers)
    assert scores is not None
    return scores


def _all_together(run: Run) -> Tensor:
    gradients = run.collect(of_many=True)
    below: dict[Place, Tensor] = {}
    share = 1 / (2 * run.n_layers + 1)
    for component in _components(run):
        for trace, weight in _points(run, component, gradients):
            gradients.add(trace, weight * share)
            if component.base is not None:
                term = trace.gradients[component.base] * (weight * share)
                before = below.get(component.base)
                below[component.base] = term if before is None else before + term
    _send_down(run, gradients, below)
    return run.scores(gradients)


def _points(run: Run, component: Component, gradients: Collected) -> Iterator[tuple[Trace, float]]:
    """The runs along one component's path, differentiated, with their weights."""
    fork = (
        gradients.FORK
        if run.options.level == "edge" or run.options.scope == "all"
        else (component.place,)
    )
    what, layer = component.place
    for step, (alpha, weight) in enumerate(run.options.path, 1):
        trace = Trace(keep=gradients.KEEP, fork=fork)
        base = None
        if component.base is not None:
            base = run.state[component.base]
            if run.options.scope == "all":
                base = base.clone().requires_grad_(True)
                trace.leaves[component.base] = base
        output = torch.lerp(component.ablated, component.clean, alpha)
        logits = component.onward(output, base, trace)
        where = f"layer {layer}" if layer >= 0 else "the embedding"
        place = (
            f"step {step} of {len(run.options.path)} (α = {alpha:.4g}) on the way of "
            f"{where if what == 'embedding' else f'{what} in {where}'}"
        )
        trace.differentiate([run.loss(logits, place).sum()])
        yield trace, weight


def _components(run: Run) -> Iterator[Component]:
    """The embedding, then every layer's attention and MLP."""
    state, forward, graph = run.state, run.forward, run.model.graph
    ablated = run.ablated

    def embedding(output: Tensor, base: Tensor | None, trace: Trace) -> Tensor:
        return forward.run(output, trace)

    yield Component(
        ("embedding", -1), None, slice(0, 1), state["embedding", -1],
        ablated.embedding.to(run.model.dtype), embedding,
    )  # fmt: skip
    for index, layer in enumerate(run.model.layers):

        def heads(output: Tensor, base: Tensor | None, trace: Trace, index: int = index) -> Tensor:
            assert base is not None
            return forward.onward(base, index, trace, output)

        def mlp(output: Tensor, base: Tensor | None, trace: Trace, index: int = index) -> Tensor:
            assert base is not None
            return forward.onward(base + trace("mlp", index, output), index + 1, trace)

        with torch.no_grad():
            attended = layer.attended(ablated.heads[index].to(run.model.dtype))
        yield Component(
            ("attended", index), ("stream", index), graph.heads(index),
            state["attended", index], attended, heads,
        )  # fmt: skip
        yield Component(
            ("mlp", index), ("middle", index), slice(graph.mlp(index), graph.mlp(index) + 1),
            state["mlp", index], ablated.mlps[index].to(run.model.dtype), mlp,
        )  # fmt: skip


def _send_down(run: Run, gradients: Collected, below: dict[Place, Tensor]) -> None:
    """Send gradients that arrive at clean streams on to what lies below, in one backward pass."""
    trace = _Passing(keep=gradients.KEEP, fork=gradients.FORK)
    run.forward.run(run.state["embedding", -1], trace)
    places = [place for place in below if trace.passed[place].requires_grad]
    trace.differentiate([trace.passed[p] for p in places], [below[p] for p in places])
    gradients.add(trace, 1.0)


class _Passing(Trace):
    """A trace that also holds on to the streams themselves, for gradients to start from."""

    def __init__(self, **places: tuple) -> None:
        super().__init__(**places)
        self.passed: dict[Place, Tensor] = {}

    def __call__(self, what: str, layer: int, value: Tensor) -> Tensor:
        value = super().__call__(what, layer, value)
        if what in ("stream", "middle"):
            self.passed[what, layer] = value
        return value
