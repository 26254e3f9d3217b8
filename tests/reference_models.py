"""Models of every family, taken apart straight from the state dict of a `transformers` model.

What `tests/oracle.py` runs. A layer attends from a stream of its own for every reader, so nothing
is shared between heads but what keys and values of a group share. In half precision the upcasts
are those of transformers: norms and softmax in float32, rotations and scores where it does so.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    return x.float() if x.dtype.itemsize < 4 else x


@dataclass(frozen=True)
class Norm:
    """One norm over the last axis, in float32 at least and rounded to the model's dtype after."""

    kind: str  # layer | rms
    weight: Tensor | None
    bias: Tensor | None
    epsilon: float
    rounds_before_weight: bool = False  # as Llama does: the weight multiplies the rounded values

    def scale(self, x: Tensor) -> Tensor:
        wide = at_least_float32(x)
        if self.kind == "layer":
            wide = wide - wide.mean(-1, keepdim=True)
        return torch.sqrt((wide**2).mean(-1, keepdim=True) + self.epsilon)

    def __call__(self, x: Tensor) -> Tensor:
        wide = at_least_float32(x)
        if self.kind == "layer":
            wide = wide - wide.mean(-1, keepdim=True)
        wide = wide / self.scale(x)
        if self.rounds_before_weight:
            wide = wide.to(x.dtype)
        if self.weight is not None:
            wide = wide * self.weight
        if self.bias is not None:
            wide = wide + self.bias
        return wide.to(x.dtype)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": lambda x: x * (x > 0),
    "silu": lambda x: x * torch.sigmoid(x),
    "sigmoid": torch.sigmoid,
    "gelu": torch.nn.functional.gelu,
    "gelu_new": lambda x: (
        0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    ),
}
ACTIVATIONS["gelu_pytorch_tanh"] = ACTIVATIONS["gelu_new"]


@dataclass(frozen=True)
class Linear:
    """x @ matrix [inputs, outputs] + bias."""

    matrix: Tensor
    bias: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        out = x @ self.matrix
        return out if self.bias is None else out + self.bias


@dataclass(frozen=True)
class MLP:
    into: Linear
    out: Linear
    activation: str
    gate: Linear | None = None

    def __call__(self, x: Tensor) -> Tensor:
        activation = ACTIVATIONS[self.activation]
        if self.gate is None:
            return self.out(activation(self.into(x)))
        return self.out(activation(self.gate(x)) * self.into(x))


@dataclass(frozen=True)
class Rotary:
    """Rotates the first 2·len(frequencies) entries of a head: pairs (i, i + half) or (2i, 2i+1)."""

    frequencies: Tensor  # [pairs] in radians a position
    interleaved: bool
    wide: bool  # whether half precision is rotated in float32

    def __call__(self, x: Tensor) -> Tensor:
        n_pos, pairs = x.shape[-2], len(self.frequencies)
        angle_dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        positions = torch.arange(n_pos, dtype=angle_dtype)
        angles = positions[:, None] * self.frequencies.to(angle_dtype)
        cos, sin = angles.cos(), angles.sin()
        turned = x[..., : 2 * pairs]
        if self.wide:
            turned = at_least_float32(turned)
        else:
            cos, sin = cos.to(x.dtype), sin.to(x.dtype)
        if self.interleaved:
            a, b = turned[..., 0::2], turned[..., 1::2]
            turned = torch.stack([a * cos - b * sin, b * cos + a * sin], -1).flatten(-2)
        else:
            a, b = turned[..., :pairs], turned[..., pairs:]
            turned = torch.cat([a * cos - b * sin, b * cos + a * sin], -1)
        return torch.cat([turned.to(x.dtype), x[..., 2 * pairs :]], -1)


def rotary_frequencies(parameters: dict, d_head: int) -> Tensor:
    """[pairs] for a head of this width by a configuration's `rope_parameters`.

    Float32 numbers, as published: constants of the function, like its weights.
    """
    width = int(d_head * parameters.get("partial_rotary_factor", 1.0))
    plain = _plain_frequencies(parameters["rope_theta"], width)
    kind = parameters["rope_type"]
    if kind == "default":
        return plain
    factor = parameters["factor"]
    if kind == "linear":
        return plain / factor
    if kind != "llama3":
        raise KeyError(kind)
    low, high = parameters["low_freq_factor"], parameters["high_freq_factor"]
    turns = parameters["original_max_position_embeddings"] / (2 * math.pi / plain)
    smooth = ((turns - low) / (high - low)).clamp(0, 1)  # 0: slow, stretched; 1: fast, kept
    return (1 - smooth) * plain / factor + smooth * plain


def _plain_frequencies(theta: float, width: int) -> Tensor:
    return 1.0 / theta ** (torch.arange(0, width, 2, dtype=torch.float32) / width)


@dataclass(frozen=True)
class Layer:
    """One block, projections split by head. Where `parallel`, both halves read one stream."""

    pre_attention: Norm | None
    pre_mlp: Norm | None
    post_attention: Norm | None
    post_mlp: Norm | None
    query: Tensor  # [heads, d_model, d_head]
    key: Tensor  # [readers of keys, d_model, d_head]
    value: Tensor
    query_bias: Tensor | None  # [heads, d_head]
    key_bias: Tensor | None
    value_bias: Tensor | None
    output: Tensor  # [heads, d_head, d_model]
    output_bias: Tensor | None  # [d_model]
    mlp: MLP
    attention_scale: float
    query_norm: Norm | None = None
    key_norm: Norm | None = None
    norms_all_heads_as_one: bool = False
    clip: float | None = None
    rotary: Rotary | None = None
    window: int | None = None
    cap: float | None = None
    wide_scores: bool = False  # whether half precision multiplies q and k in float32

    def attention_contribution(self, summed: Tensor) -> Tensor:
        """What the stream gets, from the sum of what the heads write."""
        if self.output_bias is not None:
            summed = summed + self.output_bias
        return summed if self.post_attention is None else self.post_attention(summed)

    def mlp_contribution(self, stream: Tensor) -> Tensor:
        written = self.mlp(stream if self.pre_mlp is None else self.pre_mlp(stream))
        return written if self.post_mlp is None else self.post_mlp(written)

    def _project(self, streams: Tensor, letter: str) -> Tensor:
        """[..., readers, pos, d_head] of q, k or v, each reader from its own stream."""
        if self.pre_attention is not None:
            streams = self.pre_attention(streams)
        matrix, bias = {
            "q": (self.query, self.query_bias),
            "k": (self.key, self.key_bias),
            "v": (self.value, self.value_bias),
        }[letter]
        read = streams @ matrix
        if bias is not None:
            read = read + bias[:, None]
        if self.clip is not None:
            read = read.clamp(-self.clip, self.clip)
        norm = {"q": self.query_norm, "k": self.key_norm, "v": None}[letter]
        if norm is not None and self.norms_all_heads_as_one:
            n_readers = read.shape[-3]
            joint = norm(read.transpose(-3, -2).flatten(-2))
            read = joint.unflatten(-1, (n_readers, -1)).transpose(-3, -2)
        elif norm is not None:
            read = norm(read)
        if letter != "v" and self.rotary is not None:
            read = self.rotary(read)
        return read

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """z [..., heads, pos, d_head] from every reader's own stream [..., readers, pos, d_model].

        A key-value head serves as many query heads as share it.
        """
        query, key, value = (self._project(s, n) for s, n in ((q, "q"), (k, "k"), (v, "v")))
        shared_by = query.shape[-3] // key.shape[-3]
        key, value = (x.repeat_interleave(shared_by, -3) for x in (key, value))
        if self.wide_scores:
            query, key = at_least_float32(query), at_least_float32(key)
        scores = query @ key.transpose(-1, -2) * self.attention_scale
        if self.cap is not None:
            scores = self.cap * torch.tanh(scores / self.cap)
        here = torch.arange(scores.shape[-1])
        distance = here[:, None] - here[None, :]
        hidden = distance < 0
        if self.window is not None:
            hidden = hidden | (distance >= self.window)
        scores = at_least_float32(scores).masked_fill(hidden, -math.inf)
        return torch.softmax(scores, -1).to(value.dtype) @ value


# --- families: from a state dict to the parts


class _Tensors:
    """A state dict under a prefix."""

    def __init__(self, tensors: dict[str, Tensor], prefix: str = "") -> None:
        self.tensors, self.prefix = tensors, prefix

    def under(self, prefix: str) -> _Tensors:
        return _Tensors(self.tensors, f"{self.prefix}{prefix}.")

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[self.prefix + name]

    def get(self, name: str) -> Tensor | None:
        return self.tensors.get(self.prefix + name)

    def linear(self, name: str) -> Linear:
        """A torch Linear, whose weight is [outputs, inputs]."""
        return Linear(self[f"{name}.weight"].T, self.get(f"{name}.bias"))

    def columns(self, name: str) -> Linear:
        """GPT-2's kind, whose weight is [inputs, outputs]."""
        return Linear(self[f"{name}.weight"], self.get(f"{name}.bias"))

    def layer_norm(self, name: str, epsilon: float) -> Norm:
        return Norm("layer", self[f"{name}.weight"], self[f"{name}.bias"], epsilon)


def _by_head(linear: Linear, n_heads: int) -> tuple[Tensor, Tensor | None]:
    """[heads, d_model, d_head] and [heads, d_head] of a projection with heads side by side."""
    matrix = linear.matrix.unflatten(-1, (n_heads, -1)).permute(1, 0, 2)
    return matrix, None if linear.bias is None else linear.bias.unflatten(0, (n_heads, -1))


@dataclass(frozen=True)
class Parts:
    """A whole model, heads split; key-value heads as they are stored."""

    layers: list[Layer]
    embedding: Tensor  # [vocab, d_model], scaled
    positions: Tensor | None  # [positions, d_model]
    final_norm: Norm
    unembed: Linear
    parallel: bool = False
    final_cap: float | None = None


def _attention(
    q: Linear, k: Linear, v: Linear, o: Linear, n_heads: int, n_kv_heads: int
) -> dict[str, Tensor | None]:
    query, query_bias = _by_head(q, n_heads)
    key, key_bias = _by_head(k, n_kv_heads)
    value, value_bias = _by_head(v, n_kv_heads)
    return {
        "query": query,
        "key": key,
        "value": value,
        "query_bias": query_bias,
        "key_bias": key_bias,
        "value_bias": value_bias,
        "output": o.matrix.unflatten(0, (n_heads, -1)),
        "output_bias": o.bias,
    }


def _gpt2(config: object, tensors: _Tensors) -> Parts:
    layers = []
    d_head = config.n_embd // config.n_head
    for layer in range(config.n_layer):
        here = tensors.under(f"transformer.h.{layer}")
        joint = here.columns("attn.c_attn")
        q, k, v = (
            Linear(m, b)
            for m, b in zip(joint.matrix.chunk(3, -1), joint.bias.chunk(3), strict=True)
        )
        scale = 1 / math.sqrt(d_head)
        if config.scale_attn_by_inverse_layer_idx:
            scale = scale / (layer + 1)
        layers.append(
            Layer(
                pre_attention=here.layer_norm("ln_1", config.layer_norm_epsilon),
                pre_mlp=here.layer_norm("ln_2", config.layer_norm_epsilon),
                post_attention=None,
                post_mlp=None,
                mlp=MLP(
                    here.columns("mlp.c_fc"),
                    here.columns("mlp.c_proj"),
                    config.activation_function,
                ),
                attention_scale=scale,
                **_attention(q, k, v, here.columns("attn.c_proj"), config.n_head, config.n_head),
            )
        )
    return Parts(
        layers,
        tensors["transformer.wte.weight"],
        tensors["transformer.wpe.weight"],
        tensors.layer_norm("transformer.ln_f", config.layer_norm_epsilon),
        tensors.linear("lm_head"),
    )


def _gpt_neox(config: object, tensors: _Tensors) -> Parts:
    n_heads = config.num_attention_heads
    d_head = config.hidden_size // n_heads
    layers = []
    for layer in range(config.num_hidden_layers):
        here = tensors.under(f"gpt_neox.layers.{layer}")
        joint = here.linear("attention.query_key_value")
        # outputs lie as [head, letter, d_head]
        matrix = joint.matrix.unflatten(-1, (n_heads, 3, d_head))
        bias = joint.bias.unflatten(0, (n_heads, 3, d_head))
        q, k, v = (Linear(matrix[:, :, i].flatten(1), bias[:, i].flatten()) for i in range(3))
        layers.append(
            Layer(
                pre_attention=here.layer_norm("input_layernorm", config.layer_norm_eps),
                pre_mlp=here.layer_norm("post_attention_layernorm", config.layer_norm_eps),
                post_attention=None,
                post_mlp=None,
                mlp=MLP(
                    here.linear("mlp.dense_h_to_4h"),
                    here.linear("mlp.dense_4h_to_h"),
                    config.hidden_act,
                ),
                attention_scale=1 / math.sqrt(d_head),
                rotary=Rotary(rotary_frequencies(config.rope_parameters, d_head), False, False),
                **_attention(q, k, v, here.linear("attention.dense"), n_heads, n_heads),
            )
        )
    unembed = "lm_head" if tensors.get("lm_head.weight") is not None else "embed_out"
    return Parts(
        layers,
        tensors["gpt_neox.embed_in.weight"],
        None,
        tensors.layer_norm("gpt_neox.final_layer_norm", config.layer_norm_eps),
        tensors.linear(unembed),
        parallel=config.use_parallel_residual,
    )


def _gptj(config: object, tensors: _Tensors) -> Parts:
    d_head = config.n_embd // config.n_head
    frequencies = _plain_frequencies(10000.0, config.rotary_dim)
    layers = []
    for layer in range(config.n_layer):
        here = tensors.under(f"transformer.h.{layer}")
        norm = here.layer_norm("ln_1", config.layer_norm_epsilon)
        projections = [here.linear(f"attn.{name}_proj") for name in ("q", "k", "v", "out")]
        layers.append(
            Layer(
                pre_attention=norm,
                pre_mlp=norm,
                post_attention=None,
                post_mlp=None,
                mlp=MLP(
                    here.linear("mlp.fc_in"),
                    here.linear("mlp.fc_out"),
                    config.activation_function,
                ),
                attention_scale=1 / math.sqrt(d_head),
                rotary=Rotary(frequencies, True, False),
                wide_scores=True,
                **_attention(*projections, config.n_head, config.n_head),
            )
        )
    return Parts(
        layers,
        tensors["transformer.wte.weight"],
        None,
        tensors.layer_norm("transformer.ln_f", config.layer_norm_epsilon),
        tensors.linear("lm_head"),
        parallel=True,
    )


def _phi(config: object, tensors: _Tensors) -> Parts:
    n_heads, n_kv_heads = config.num_attention_heads, config.num_key_value_heads
    d_head = config.hidden_size // n_heads
    layers = []
    for layer in range(config.num_hidden_layers):
        here = tensors.under(f"model.layers.{layer}")
        norm = here.layer_norm("input_layernorm", config.layer_norm_eps)
        projections = [
            here.linear(f"self_attn.{n}") for n in ("q_proj", "k_proj", "v_proj", "dense")
        ]
        layers.append(
            Layer(
                pre_attention=norm,
                pre_mlp=norm,
                post_attention=None,
                post_mlp=None,
                mlp=MLP(here.linear("mlp.fc1"), here.linear("mlp.fc2"), config.hidden_act),
                attention_scale=1 / math.sqrt(d_head),
                rotary=Rotary(rotary_frequencies(config.rope_parameters, d_head), False, False),
                **_attention(*projections, n_heads, n_kv_heads),
            )
        )
    return Parts(
        layers,
        tensors["model.embed_tokens.weight"],
        None,
        tensors.layer_norm("model.final_layernorm", config.layer_norm_eps),
        tensors.linear("lm_head"),
        parallel=True,
    )


def _gated(config: object, tensors: _Tensors) -> Parts:
    """Llama and what was made from it: gated MLPs, rotary heads, RMSNorms (OLMo: LayerNorms)."""
    family = config.model_type
    gemma = family.startswith("gemma")
    n_heads, n_kv_heads = config.num_attention_heads, config.num_key_value_heads
    d_head = getattr(config, "head_dim", None) or config.hidden_size // n_heads

    def norm(name: str, place: _Tensors) -> Norm:
        if family == "olmo":
            return Norm("layer", None, None, 1e-5)
        weight = place[f"{name}.weight"]
        if gemma:
            weight = 1 + at_least_float32(weight)
        rounds = not gemma and family != "olmo2"
        return Norm("rms", weight, None, config.rms_norm_eps, rounds_before_weight=rounds)

    layers = []
    for layer in range(config.num_hidden_layers):
        here = tensors.under(f"model.layers.{layer}")
        layer_type = (getattr(config, "layer_types", None) or {layer: None})[layer]
        rope = config.rope_parameters
        windowed = layer_type == "sliding_attention" or family == "mistral"
        norms = {
            "pre_attention": None if family == "olmo2" else norm("input_layernorm", here),
            "pre_mlp": norm("post_attention_layernorm", here),
            "post_attention": None,
            "post_mlp": None,
        }
        if family in ("olmo2", "gemma2", "gemma3_text"):
            norms |= {
                "pre_mlp": None if family == "olmo2" else norm("pre_feedforward_layernorm", here),
                "post_attention": norm("post_attention_layernorm", here),
                "post_mlp": norm("post_feedforward_layernorm", here),
            }
        if family in ("qwen3", "gemma3_text", "olmo2"):
            norms |= {
                "query_norm": norm("self_attn.q_norm", here),
                "key_norm": norm("self_attn.k_norm", here),
                "norms_all_heads_as_one": family == "olmo2",
            }
        projections = [here.linear(f"self_attn.{letter}_proj") for letter in "qkvo"]
        activation = getattr(config, "hidden_activation", None) or config.hidden_act
        layers.append(
            Layer(
                mlp=MLP(
                    here.linear("mlp.up_proj"),
                    here.linear("mlp.down_proj"),
                    activation,
                    here.linear("mlp.gate_proj"),
                ),
                attention_scale=getattr(config, "query_pre_attn_scalar", d_head) ** -0.5,
                clip=getattr(config, "clip_qkv", None),
                rotary=Rotary(
                    rotary_frequencies(rope.get(layer_type, rope), d_head),
                    interleaved=False,
                    wide=family in ("olmo", "olmo2"),
                ),
                window=config.sliding_window if windowed else None,
                cap=config.attn_logit_softcapping if family == "gemma2" else None,
                **norms,
                **_attention(*projections, n_heads, n_kv_heads),
            )
        )
    embedding = tensors["model.embed_tokens.weight"]
    if gemma:
        embedding = embedding * torch.tensor(config.hidden_size**0.5, dtype=embedding.dtype)
    return Parts(
        layers,
        embedding,
        None,
        norm("model.norm", tensors),
        tensors.linear("lm_head"),
        final_cap=getattr(config, "final_logit_softcapping", None),
    )


FAMILIES: dict[str, Callable[[object, _Tensors], Parts]] = {
    "gpt2": _gpt2,
    "gpt_neox": _gpt_neox,
    "gptj": _gptj,
    "phi": _phi,
    **dict.fromkeys(
        ("llama", "mistral", "qwen2", "qwen3", "olmo", "olmo2", "gemma", "gemma2", "gemma3_text"),
        _gated,
    ),
}


def parts_of(hf_model: torch.nn.Module) -> Parts:
    tensors = {name: tensor.detach().clone() for name, tensor in hf_model.state_dict().items()}
    return FAMILIES[hf_model.config.model_type](hf_model.config, _Tensors(tensors))
