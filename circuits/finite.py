"""What counts as a number: a NaN or an infinity anywhere in what an example says is none.

Some measures hide it: a comparison with NaN is false, and an answer's logit says nothing of the
others. Checks are sums, so that nothing of the size of what is checked is made, and stay on the
device: whoever reads the values reads the verdict with them.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuits.layers import at_least_float32


def finite_rows(value: Float[Tensor, "rows ..."]) -> Bool[Tensor, " rows"]:
    """Whether all numbers of a row are finite."""
    wide = torch.float32 if value.dtype.itemsize < 4 else value.dtype
    return value.detach().flatten(1).sum(1, dtype=wide).isfinite()


def checked(
    values: Float[Tensor, " rows"], logits: Float[Tensor, "rows vocab"]
) -> Float[Tensor, " rows"]:
    """A metric's values without gradients: NaN where a row of the logits is not finite."""
    return at_least_float32(values.detach()).masked_fill(~finite_rows(logits), torch.nan)
