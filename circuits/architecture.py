"""What the graph must know of a model family; the only place that knows families.

A family is a declaration: whether attention and MLP run in parallel, how queries and keys are
rotated, what softens or limits attention. The rest (sizes, norms, projections) is read off the
loaded model. Anything that is not declared here is refused by name, before any weight is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.errors import ModelFamilyError
from circuits.graph import HEAD_INPUTS, Graph
from circuits.layers import Attention, Layer, Norm, Projection, Rotary, at_least_float32

KV = ("ungrouped", "grouped")


@dataclass(frozen=True)
class Architecture:
    """The sizes and the wiring of one model; `n_kv_heads` are the graph's."""

    family: str
    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_model: int
    d_head: int
    d_mlp: int
    d_vocab: int
    n_positions: int
    parallel: bool

    @property
    def graph(self) -> Graph:
        """The graph of writers and readers."""
        return Graph(self.n_layers, self.n_heads, self.parallel, self.n_kv_heads)


def _none(*_: Any) -> None:
    """What a family does not have."""


def _yes(*_: Any) -> bool:
    return True


def _no(*_: Any) -> bool:
    return False


def _is_false(value: Any) -> bool:
    return value is False


def _is_given(value: Any) -> bool:
    return value is not None


def _setting(name: str) -> Callable[..., Any]:
    return lambda config, *_: getattr(config, name, None)


def _by_d_head(config: Any, index: int) -> float:
    return _d_head(config) ** -0.5


def _d_head(config: Any) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def _window_by_type(config: Any, index: int) -> int | None:
    """Layers take turns in some families: `layer_types` says which look back without limit."""
    return config.sliding_window if config.layer_types[index] == "sliding_attention" else None


@dataclass(frozen=True)
class Family:
    """One model family, as Hugging Face's `model_type` names it.

    `function_settings` are the settings that shape the function, with defaults: they enter the
    fingerprint. None: all of `config.json` but what is known to shape nothing.
    """

    name: str
    parallel: Callable[[Any], bool] = _no
    scale: Callable[[Any, int], float] = _by_d_head
    rotary: str | None = "halves"  # which dimensions turn together: "halves", "neighbours"
    window: Callable[[Any, int], int | None] = _none
    softcap: Callable[[Any], float | None] = _none
    final_softcap: Callable[[Any], float | None] = _none
    clip: Callable[[Any], float | None] = _none
    norm_offset: float = 0.0  # what is added to an RMSNorm's weight
    positions: str | None = None  # where the bridge keeps a learned position embedding
    refused_settings: Mapping[str, Callable[[Any], bool]] = field(default_factory=dict)
    function_settings: Mapping[str, Any] | None = None
    checkpoint_prefix: str = "model."  # in front of tensor names in some checkpoints
    not_weights: tuple[str, ...] = (".rotary_emb.inv_freq",)


_GPT2_SETTINGS = {
    "n_layer": 12,
    "n_head": 12,
    "n_embd": 768,
    "n_inner": None,
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5,
    "scale_attn_by_inverse_layer_idx": False,
    "reorder_and_upcast_attn": False,
    "tie_word_embeddings": True,
}
_GEMMA_LOGITS: dict[str, Any] = {
    "softcap": _setting("attn_logit_softcapping"),
    "final_softcap": _setting("final_logit_softcapping"),
    "scale": lambda config, index: config.query_pre_attn_scalar**-0.5,
    "window": _window_by_type,
}

FAMILIES: dict[str, Family] = {
    "gpt2": Family(
        "GPT-2",
        scale=lambda config, index: (
            _d_head(config) ** -0.5 / (index + 1 if config.scale_attn_by_inverse_layer_idx else 1)
        ),
        rotary=None,
        positions="pos_embed",
        # the bridge computes attention as if scale_attn_weights were true
        refused_settings={"add_cross_attention": bool, "scale_attn_weights": _is_false},
        function_settings=_GPT2_SETTINGS,
        checkpoint_prefix="transformer.",
        not_weights=(".attn.bias", ".attn.masked_bias"),
    ),
    "gpt_neox": Family(
        "GPT-NeoX",
        parallel=lambda config: config.use_parallel_residual,
        checkpoint_prefix="gpt_neox.",
        not_weights=(".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq"),
        # the bridge counts on the biases
        refused_settings={"attention_bias": _is_false},
    ),
    "gptj": Family(
        "GPT-J",
        parallel=_yes,
        rotary="neighbours",
        checkpoint_prefix="transformer.",
        not_weights=(".attn.bias", ".attn.masked_bias", ".attn.embed_positions"),
    ),
    "llama": Family("Llama"),
    "mistral": Family("Mistral", window=_setting("sliding_window")),
    "qwen2": Family("Qwen2", window=_window_by_type),
    "qwen3": Family("Qwen3", window=_window_by_type),
    "olmo": Family("OLMo", clip=_setting("clip_qkv")),
    "olmo2": Family("OLMo 2"),
    # the bridge has no place for the norms of queries and keys in a Phi
    "phi": Family("Phi", parallel=_yes, refused_settings={"qk_layernorm": bool}),
    "gemma": Family("Gemma", norm_offset=1.0),
    "gemma2": Family("Gemma 2", norm_offset=1.0, **_GEMMA_LOGITS),
    "gemma3_text": Family(
        "Gemma 3",
        norm_offset=1.0,
        # the bridge caps where transformers does not
        refused_settings={
            "attn_logit_softcapping": _is_given,
            "use_bidirectional_attention": bool,
        },
        **_GEMMA_LOGITS,
    ),
}
_KNOWN_ROTATIONS = ("default", "linear", "llama3", "yarn")


def family_of(model_type: str | None, name: str) -> Family:
    """The family declared for a `model_type`; raises `ModelFamilyError` for any other."""
    if model_type in FAMILIES:
        return FAMILIES[model_type]
    known = ", ".join(f"{family.name} ({key})" for key, family in FAMILIES.items())
    raise ModelFamilyError(
        f"the model {name!r} is of the family {model_type!r}, whose wiring is not described in "
        f"circuits/architecture.py: use a model of the family {known}"
    )


def architecture_of(config: Any, name: str, kv: str = "ungrouped") -> Architecture:
    """The architecture that a Hugging Face configuration describes.

    `kv` says whether heads that share keys and values count as ordinary heads (`ungrouped`) or
    read through one k and one v input a key-value head (`grouped`). Raises `ModelFamilyError` for a
    family, or a setting of one, that the graph does not describe.
    """
    family = family_of(getattr(config, "model_type", None), name)
    for setting, refused in family.refused_settings.items():
        value = getattr(config, setting, None)
        if refused(value):
            raise ModelFamilyError(
                f"the model {name!r} has {setting}={value}, which is not described for "
                f"models of the family {family.name}"
            )
    for rotation in _rotations(config):
        if rotation not in _KNOWN_ROTATIONS:
            raise ModelFamilyError(
                f"the model {name!r} rotates positions by the rule {rotation!r}, which is not "
                f"described: known are {', '.join(_KNOWN_ROTATIONS)}"
            )
    try:
        n_heads = config.num_attention_heads
        native = getattr(config, "num_key_value_heads", None) or n_heads
        architecture = Architecture(
            family=family.name,
            n_layers=config.num_hidden_layers,
            n_heads=n_heads,
            n_kv_heads=native if kv == "grouped" else n_heads,
            d_model=config.hidden_size,
            d_head=_d_head(config),
            d_mlp=getattr(config, "intermediate_size", None)
            or getattr(config, "n_inner", None)
            or 4 * config.hidden_size,
            d_vocab=config.vocab_size,
            n_positions=config.max_position_embeddings,
            parallel=bool(family.parallel(config)),
        )
        _ = architecture.graph  # refuses impossible sizes
    except (ValueError, TypeError, ZeroDivisionError, AttributeError):
        raise ModelFamilyError(
            f"config.json of the model {name!r} has sizes that no model can have: look at its "
            f"numbers of layers, heads and dimensions"
        ) from None
    return architecture


def _rotations(config: Any) -> list[str]:
    parameters = getattr(config, "rope_parameters", None) or {}
    nested = [value for value in parameters.values() if isinstance(value, dict)]
    return [one.get("rope_type", "default") for one in nested or [parameters]]


def take_layer_apart(bridge: Any, index: int, architecture: Architecture) -> Layer:
    """One block of a loaded model as the engine computes it."""
    config = bridge.original_model.config
    family = FAMILIES[config.model_type]
    block = bridge.blocks[index]
    parts = dict(block.named_children())
    offset = family.norm_offset

    def norm(name: str) -> Norm | None:
        return _norm(parts[name].original_component, offset) if name in parts else None

    before_heads = norm("ln1")
    # GPT-J and Phi have one norm in front of both branches
    before_mlp = norm("ln2") if "ln2" in parts or not architecture.parallel else before_heads
    attention = block.attn
    query_norms = {
        kind: _norm(part.original_component, offset)
        for kind, part in (
            ("q", getattr(attention, "q_norm", None)),
            ("k", getattr(attention, "k_norm", None)),
        )
        if part is not None
    }
    return Layer(
        norm_of_heads=before_heads,
        norm_of_mlp=before_mlp,
        norm_after_heads=norm("ln1_post"),
        norm_after_mlp=norm("ln2_post"),
        mlp=block.mlp.original_component,
        projections={kind: _projection(attention, kind, architecture) for kind in HEAD_INPUTS},
        attention=Attention(
            d_head=architecture.d_head,
            scale=family.scale(config, index),
            norms=query_norms,
            rotary=_rotary(bridge, index, family),
            window=family.window(config, index),
            softcap=family.softcap(config),
            clip=family.clip(config),
        ),
        output=attention.W_O.detach(),
        output_bias=None if attention.b_O is None else attention.b_O.detach(),
    )


def _projection(attention: Any, kind: str, architecture: Architecture) -> Projection:
    linear = getattr(attention, kind).original_component
    n_readers = architecture.n_heads if kind == "q" else architecture.n_kv_heads
    native = linear.weight.shape[0] // architecture.d_head
    return Projection(
        matrix=linear.weight.detach(),
        bias=None if linear.bias is None else linear.bias.detach(),
        n_native=native,
        repeats=n_readers // native,
    )


def _norm(module: Any, offset: float) -> Norm:
    """A norm module as weight, bias and ε; `offset` is added to the weight of an RMSNorm."""
    weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
    centred = "RMS" not in type(module).__name__
    found = [getattr(module, name) for name in ("eps", "variance_epsilon") if hasattr(module, name)]
    if weight is not None and not centred and offset:
        weight = at_least_float32(weight) + offset
    return Norm(
        weight=None if weight is None else weight.detach(),
        bias=None if bias is None else bias.detach(),
        epsilon=found[0] if found else 1e-5,  # OLMo's has no setting
        centred=centred,
    )


def _unwrapped(module: Any) -> Any:
    return getattr(module, "original_component", module)


def _rotary(bridge: Any, index: int, family: Family) -> Rotary | None:
    if family.rotary is None:
        return None
    hf_model = bridge.original_model
    config = hf_model.config
    device = next(hf_model.parameters()).device
    if family.rotary == "neighbours":
        width = config.rotary_dim or config.hidden_size
        steps = torch.arange(0, width, 2, dtype=torch.int64, device=device).float()
        return Rotary(1.0 / 10_000 ** (steps / width), 1.0, neighbours=True)
    module = _unwrapped(hf_model.base_model.rotary_emb)
    kind = f"{config.layer_types[index]}_" if hasattr(module, "layer_types") else ""
    return Rotary(
        getattr(module, f"{kind}inv_freq").to(device).float(),
        float(getattr(module, f"{kind}attention_scaling")),
        neighbours=False,
    )


def embedding_module(bridge: Any) -> Any:
    """The token embedding, with the scale that the family gives it."""
    return bridge.embed.original_component


def position_table(bridge: Any) -> Float[Tensor, "positions d_model"] | None:
    """The learned position embedding; None where the family has none."""
    name = FAMILIES[bridge.original_model.config.model_type].positions
    return None if name is None else getattr(bridge, name).original_component.weight.detach()


def final_norm(bridge: Any) -> Norm:
    """The norm in front of the unembedding."""
    offset = FAMILIES[bridge.original_model.config.model_type].norm_offset
    return _norm(bridge.ln_final.original_component, offset)


def unembed(bridge: Any, normal: Float[Tensor, "... d_model"]) -> Float[Tensor, "... vocab"]:
    """Logits from the normed final stream, soft-capped where the family does so."""
    logits = bridge.unembed.original_component(normal)
    config = bridge.original_model.config
    cap = FAMILIES[config.model_type].final_softcap(config)
    return logits if cap is None else torch.tanh(logits / cap) * cap
