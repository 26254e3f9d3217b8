"""What the graph must know of a model family; the only place that knows families.

A family is a declaration: how its configuration names the sizes, which settings shape the function
(they enter the fingerprint, with their defaults), which norm it has, whether attention and MLP run
in parallel, and how its attention turns queries, keys and values into head outputs. Anything that
is not declared here is refused by name, before any weight is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor, nn

from circuits.errors import ModelFamilyError
from circuits.graph import Graph

Attend = Callable[
    [
        Float[Tensor, "batch query_pos heads d_head"],
        Float[Tensor, "batch key_pos heads d_head"],
        Float[Tensor, "batch key_pos heads d_head"],
    ],
    Float[Tensor, "batch query_pos heads d_head"],
]


def at_least_float32(value: Tensor) -> Tensor:
    """Half precision as float32; float32 and float64 as they are."""
    return value.float() if value.dtype.itemsize < 4 else value


@dataclass(frozen=True)
class Architecture:
    """The sizes and the wiring of one model."""

    family: str
    n_layers: int
    n_heads: int
    d_model: int
    d_head: int
    d_mlp: int
    d_vocab: int
    n_positions: int
    parallel: bool

    @property
    def graph(self) -> Graph:
        """The graph of writers and readers."""
        return Graph(self.n_layers, self.n_heads, self.parallel)


@dataclass(frozen=True, eq=False)
class Norm:
    """The norm in front of a reader: the model's own module, and what its Jacobian needs."""

    module: nn.Module
    weight: Float[Tensor, " d_model"] | None
    bias: Float[Tensor, " d_model"] | None
    epsilon: float
    centred: bool  # LayerNorm subtracts the mean, RMSNorm does not

    def __call__(self, stream: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
        """The normed stream, in the model's own arithmetic."""
        return self.module(stream)

    def normalise(
        self, stream: Float[Tensor, "... d_model"]
    ) -> tuple[Float[Tensor, "... d_model"], Float[Tensor, "... 1"]]:
        """The stream x̂ before the norm's weight and bias, and the norm's scale σ: x̂ = (x − μ)/σ."""
        if self.centred:
            stream = stream - stream.mean(-1, keepdim=True)
        scale = (stream.square().mean(-1, keepdim=True) + self.epsilon).sqrt()
        return stream / scale, scale


@dataclass(frozen=True, eq=False)
class Layer:
    """One block of a loaded model, taken apart: norms, per-head projections, attention, MLP."""

    norm_of_heads: Norm
    norm_of_mlp: Norm
    mlp: nn.Module
    weights: Mapping[str, Float[Tensor, "heads d_model d_head"]]  # by head input: q, k, v
    biases: Mapping[str, Float[Tensor, "heads d_head"]]
    output: Float[Tensor, "heads d_head d_model"]
    attend: Attend


@dataclass(frozen=True)
class Family:
    """One model family, as Hugging Face's `model_type` names it."""

    name: str
    function_settings: Mapping[str, Any]  # the settings that shape the function, with defaults
    refused_settings: Mapping[str, Any]  # settings with a value the graph does not describe
    checkpoint_prefix: str  # in front of tensor names in some checkpoints
    not_weights: tuple[str, ...]  # endings of tensors that are constants, not weights
    sizes: Callable[[Any], Architecture]
    layer: Callable[[Any, int], Layer]
    logits: Callable[[Any, Float[Tensor, "... d_model"]], Float[Tensor, "... vocab"]]


def _gpt2_sizes(config: Any) -> Architecture:
    return Architecture(
        family="GPT-2",
        n_layers=config.n_layer,
        n_heads=config.n_head,
        d_model=config.n_embd,
        d_head=config.n_embd // config.n_head,
        d_mlp=config.n_inner or 4 * config.n_embd,
        d_vocab=config.vocab_size,
        n_positions=config.n_positions,
        parallel=False,
    )


def _gpt2_layer(bridge: Any, index: int) -> Layer:
    block, config = bridge.blocks[index], bridge.original_model.config
    heads = config.n_head
    scale = (config.n_embd // heads) ** -0.5
    if config.scale_attn_by_inverse_layer_idx:
        scale /= index + 1
    attention = block.attn
    projections = {"q": attention.q, "k": attention.k, "v": attention.v}
    return Layer(
        norm_of_heads=_layer_norm(block.ln1.original_component),
        norm_of_mlp=_layer_norm(block.ln2.original_component),
        mlp=block.mlp.original_component,
        weights={
            kind: _per_head(p.original_component.weight, heads) for kind, p in projections.items()
        },
        biases={
            kind: p.original_component.bias.detach().view(heads, -1)
            for kind, p in projections.items()
        },
        output=attention.W_O.detach(),
        attend=_causal_attention(scale, upcast=config.reorder_and_upcast_attn),
    )


def _layer_norm(module: nn.LayerNorm) -> Norm:
    return Norm(module, module.weight, module.bias, module.eps, centred=True)


def _gpt2_logits(bridge: Any, stream: Float[Tensor, "... d_model"]) -> Float[Tensor, "... vocab"]:
    return bridge.unembed(bridge.ln_final(stream))


def _per_head(
    weight: Float[Tensor, "heads_d_head d_model"], heads: int
) -> Float[Tensor, "heads d_model d_head"]:
    return weight.detach().unflatten(0, (heads, -1)).transpose(1, 2)


def _causal_attention(scale: float, upcast: bool = False) -> Attend:
    """Softmax attention in which the queries are the last positions of the keys."""

    def attend(
        q: Float[Tensor, "batch query_pos heads d_head"],
        k: Float[Tensor, "batch key_pos heads d_head"],
        v: Float[Tensor, "batch key_pos heads d_head"],
    ) -> Float[Tensor, "batch query_pos heads d_head"]:
        n_queries, n_keys = q.shape[1], k.shape[1]
        future = torch.ones(n_queries, n_keys, dtype=torch.bool, device=q.device).triu(
            n_keys - n_queries + 1
        )
        if upcast:
            q, k = q.float(), k.float()
        attention = "batch query head d_head, batch key head d_head -> batch head query key"
        pattern = (einsum(q, k, attention) * scale).masked_fill(future, -torch.inf).softmax(-1)
        mix = "batch head query key, batch key head d_head -> batch query head d_head"
        return einsum(pattern.to(v.dtype), v, mix)

    return attend


FAMILIES: dict[str, Family] = {
    "gpt2": Family(
        name="GPT-2",
        function_settings={
            "n_layer": 12,
            "n_head": 12,
            "n_embd": 768,
            "n_inner": None,
            "activation_function": "gelu_new",
            "layer_norm_epsilon": 1e-5,
            "scale_attn_by_inverse_layer_idx": False,
            "reorder_and_upcast_attn": False,
            "tie_word_embeddings": True,
        },
        # the bridge computes attention as if scale_attn_weights were true
        refused_settings={"add_cross_attention": True, "scale_attn_weights": False},
        checkpoint_prefix="transformer.",
        not_weights=(".attn.bias", ".attn.masked_bias"),
        sizes=_gpt2_sizes,
        layer=_gpt2_layer,
        logits=_gpt2_logits,
    )
}


def family_of(model_type: str | None, name: str) -> Family:
    """The family declared for a `model_type`; raises `ModelFamilyError` for any other."""
    if model_type in FAMILIES:
        return FAMILIES[model_type]
    known = ", ".join(f"{family.name} ({key})" for key, family in FAMILIES.items())
    raise ModelFamilyError(
        f"the model {name!r} is of the family {model_type!r}, whose wiring is not described in "
        f"circuits/architecture.py: use a model of the family {known}"
    )


def architecture_of(config: Any, name: str) -> Architecture:
    """The architecture that a Hugging Face configuration describes.

    Raises `ModelFamilyError` for a family, or a setting of one, that the graph does not describe.
    """
    family = family_of(getattr(config, "model_type", None), name)
    for setting, value in family.refused_settings.items():
        if getattr(config, setting, None) == value:
            raise ModelFamilyError(
                f"the model {name!r} has {setting}={value}, which is not described for "
                f"models of the family {family.name}"
            )
    try:
        architecture = family.sizes(config)
        _ = architecture.graph  # refuses impossible sizes
    except (ValueError, TypeError, ZeroDivisionError):
        raise ModelFamilyError(
            f"config.json of the model {name!r} has sizes that no model can have: look at its "
            f"numbers of layers, heads and dimensions"
        ) from None
    return architecture
