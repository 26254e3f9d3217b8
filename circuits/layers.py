"""One block of a transformer, taken apart: norms, projections per head, attention, MLP.

Every family's block is put together from these; `architecture.py` says how. All of it runs in the
model's dtype, with norms and softmax in float32 at least, and can be differentiated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from circuits.graph import HEAD_INPUTS

Heads = Float[Tensor, "batch pos heads d_head"]


def at_least_float32(value: Tensor) -> Tensor:
    """Half precision as float32; float32 and float64 as they are."""
    return value.float() if value.dtype.itemsize < 4 else value


@dataclass(frozen=True, eq=False)
class Norm:
    """LayerNorm (`centred`) or RMSNorm: x̂ = (x − μ)/σ, then weight and bias where there are any."""

    weight: Float[Tensor, " width"] | None
    bias: Float[Tensor, " width"] | None
    epsilon: float
    centred: bool

    def __call__(self, stream: Float[Tensor, "... width"]) -> Float[Tensor, "... width"]:
        """The normed stream, in the stream's dtype."""
        if self.centred:
            shape = stream.shape[-1:]
            return functional.layer_norm(stream, shape, self.weight, self.bias, self.epsilon)
        normal, _ = self.normalise(at_least_float32(stream))
        return (normal if self.weight is None else normal * self.weight).to(stream.dtype)

    def normalise(
        self, stream: Float[Tensor, "... width"]
    ) -> tuple[Float[Tensor, "... width"], Float[Tensor, "... 1"]]:
        """The stream x̂ before weight and bias, and the norm's scale σ."""
        if self.centred:
            stream = stream - stream.mean(-1, keepdim=True)
        scale = (stream.square().mean(-1, keepdim=True) + self.epsilon).sqrt()
        return stream / scale, scale

    def push_forward(
        self, at: Float[Tensor, "... width"], change: Float[Tensor, "... width"]
    ) -> Float[Tensor, "... width"]:
        """J · change: what a small change of the stream `at` does behind the norm."""
        normal, scale = self.normalise(at_least_float32(at))
        change = self._project(normal, at_least_float32(change)) / scale
        return change if self.weight is None else change * self.weight

    def pull_back(
        self, at: Float[Tensor, "... width"], gradient: Float[Tensor, "... width"]
    ) -> Float[Tensor, "... width"]:
        """Jᵀ · gradient: the gradient in front of the norm from the one behind it."""
        normal, scale = self.normalise(at_least_float32(at))
        gradient = at_least_float32(gradient)
        weighted = gradient if self.weight is None else gradient * self.weight
        return self._project(normal, weighted) / scale

    def _project(self, normal: Tensor, vector: Tensor) -> Tensor:
        """Without its parts along x̂ and, for LayerNorm, along the constant vector."""
        if self.centred:
            vector = vector - vector.mean(-1, keepdim=True)
        return vector - normal * (normal * vector).mean(-1, keepdim=True)


@dataclass(frozen=True, eq=False)
class Projection:
    """The queries, keys or values of all heads; each native head serves `repeats` readers."""

    matrix: Float[Tensor, "native_d_head d_model"]
    bias: Float[Tensor, " native_d_head"] | None
    n_native: int
    repeats: int = 1

    def __call__(self, normal: Float[Tensor, "... d_model"]) -> Float[Tensor, "... readers d_head"]:
        """One vector a reader."""
        native = functional.linear(normal, self.matrix, self.bias).unflatten(
            -1, (self.n_native, -1)
        )
        return native if self.repeats == 1 else native.repeat_interleave(self.repeats, dim=-2)

    @property
    def weights(self) -> Float[Tensor, "readers d_model d_head"]:
        """One matrix a reader."""
        native = self.matrix.unflatten(0, (self.n_native, -1)).transpose(1, 2)
        return native if self.repeats == 1 else native.repeat_interleave(self.repeats, dim=0)

    @property
    def biases(self) -> Float[Tensor, "readers d_head"] | None:
        """One bias a reader."""
        if self.bias is None:
            return None
        native = self.bias.unflatten(0, (self.n_native, -1))
        return native if self.repeats == 1 else native.repeat_interleave(self.repeats, dim=0)


@dataclass(frozen=True, eq=False)
class Rotary:
    """Rotary position embedding of the first `2·len(frequencies)` dimensions of a head."""

    frequencies: Float[Tensor, " pairs"]
    scaling: float
    neighbours: bool  # dimensions 2i and 2i+1 turn together, not i and i + half

    def __call__(self, values: Heads, first: int) -> Heads:
        """The values turned by their positions, which start at `first`."""
        exact = self.frequencies.double() if values.dtype == torch.float64 else self.frequencies
        positions = torch.arange(first, first + values.shape[1], device=values.device)
        angles = (positions[:, None].to(exact) * exact)[:, None]  # [pos, 1, pairs]
        cos = (angles.cos() * self.scaling).to(values.dtype)
        sin = (angles.sin() * self.scaling).to(values.dtype)
        width = 2 * exact.shape[0]
        turning, rest = values[..., :width], values[..., width:]
        if self.neighbours:
            a, b = turning[..., 0::2], turning[..., 1::2]
            turned = torch.stack([a * cos - b * sin, b * cos + a * sin], dim=-1).flatten(-2)
        else:
            a, b = turning.chunk(2, dim=-1)
            turned = torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)
        return torch.cat([turned, rest], dim=-1) if rest.shape[-1] else turned


@dataclass(frozen=True, eq=False)
class Attention:
    """How queries, keys and values become head outputs, behind the projections."""

    d_head: int
    scale: float
    norms: Mapping[str, Norm]  # of queries and keys
    rotary: Rotary | None
    window: int | None  # how many keys a query sees, itself included
    softcap: float | None
    clip: float | None

    @property
    def coupled(self) -> bool:
        """Whether one norm runs over all heads together, so that a head cannot be run alone."""
        widths = [norm.weight.shape[0] for norm in self.norms.values() if norm.weight is not None]
        return any(width != self.d_head for width in widths)

    def prepare(self, kind: str, values: Heads, first: int) -> Heads:
        """Projected queries, keys or values as attention uses them; positions start at `first`."""
        if self.clip is not None:
            values = values.clamp(-self.clip, self.clip)
        norm = self.norms.get(kind)
        if norm is not None:
            values = self._normed(norm, values)
        return values if self.rotary is None or kind == "v" else self.rotary(values, first)

    def _normed(self, norm: Norm, values: Heads) -> Heads:
        n_heads, d_head = values.shape[-2:]
        assert norm.weight is not None
        width = norm.weight.shape[0]
        if width == d_head:
            return norm(values)
        # one norm over all heads; its weight is that of the native heads
        repeats = n_heads * d_head // width
        weight = norm.weight.view(-1, d_head).repeat_interleave(repeats, dim=0).flatten()
        joint = Norm(weight, None, norm.epsilon, norm.centred)
        return joint(values.flatten(-2)).unflatten(-1, (n_heads, d_head))

    def mix(
        self,
        q: Float[Tensor, "batch query_pos heads d_head"],
        k: Float[Tensor, "batch key_pos kv_heads d_head"],
        v: Float[Tensor, "batch key_pos kv_heads d_head"],
    ) -> Float[Tensor, "batch query_pos heads d_head"]:
        """Head outputs from prepared inputs; the queries are the last positions of the keys.

        Where there are fewer key-value heads than queries, each serves a run of queries.
        """
        shared = q.shape[2] // k.shape[2]
        if shared > 1:
            k, v = (x.repeat_interleave(shared, dim=2) for x in (k, v))
        n_queries, n_keys = q.shape[1], k.shape[1]
        pattern = torch.matmul(q.transpose(1, 2), k.permute(0, 2, 3, 1)) * self.scale
        if self.softcap is not None:
            pattern = torch.tanh(pattern / self.softcap) * self.softcap
        ones = torch.ones(n_queries, n_keys, dtype=torch.bool, device=q.device)
        hidden = ones.triu(n_keys - n_queries + 1)
        if self.window is not None:
            hidden |= ones.tril(n_keys - n_queries - self.window)
        pattern = at_least_float32(pattern).masked_fill(hidden, -torch.inf).softmax(-1)
        return torch.matmul(pattern.to(v.dtype), v.transpose(1, 2)).transpose(1, 2)


@dataclass(frozen=True, eq=False)
class Layer:
    """One block of a loaded model: what stands in front of, in and behind its two branches."""

    norm_of_heads: Norm | None
    norm_of_mlp: Norm | None
    norm_after_heads: Norm | None
    norm_after_mlp: Norm | None
    mlp: nn.Module
    projections: Mapping[str, Projection]
    attention: Attention
    output: Float[Tensor, "heads d_head d_model"]
    output_bias: Float[Tensor, " d_model"] | None

    def head_inputs(self, stream: Float[Tensor, "... d_model"]) -> dict[str, Tensor]:
        """Queries, keys and values of every reader, as projected."""
        normal = stream if self.norm_of_heads is None else self.norm_of_heads(stream)
        return {kind: self.projections[kind](normal) for kind in HEAD_INPUTS}

    def head_input(
        self, kind: str, readers: Sequence[int], streams: Float[Tensor, "readers batch pos d_model"]
    ) -> Float[Tensor, "batch pos readers d_head"]:
        """What some readers of one kind project, each from a stream of its own."""
        normal = streams if self.norm_of_heads is None else self.norm_of_heads(streams)
        projection = self.projections[kind]
        weights, biases = projection.weights, projection.biases
        if list(readers) != list(range(len(weights))):
            weights = weights[list(readers)]
            biases = None if biases is None else biases[list(readers)]
        found = einsum(normal, weights, "r b p d_model, r d_model d_head -> b p r d_head")
        return found if biases is None else found + biases

    def sum_of_heads(self, z: Heads) -> Float[Tensor, "batch pos d_model"]:
        """What the heads and the output bias add up to, in front of a post-norm."""
        total = z.flatten(-2) @ self.output.flatten(0, 1)
        return total if self.output_bias is None else total + self.output_bias

    def attended(self, z: Heads) -> Float[Tensor, "batch pos d_model"]:
        """What attention adds to the stream."""
        total = self.sum_of_heads(z)
        return total if self.norm_after_heads is None else self.norm_after_heads(total)

    def mlp_output(self, stream: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
        """What the MLP adds to the stream that it reads."""
        normal = stream if self.norm_of_mlp is None else self.norm_of_mlp(stream)
        output = self.mlp(normal)
        return output if self.norm_after_mlp is None else self.norm_after_mlp(output)
