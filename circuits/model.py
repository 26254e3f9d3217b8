"""Load a model: a bundled one, a local Hugging Face directory, or a name on the hub.

The model is TransformerLens' `TransformerBridge` around the Hugging Face model: weights as
published, nothing folded or centred, logits equal to transformers'.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

import data.bundled
from circuits.architecture import (
    KV,
    Architecture,
    architecture_of,
    embedding_module,
    final_norm,
    position_table,
    take_layer_apart,
    unembed,
)
from circuits.errors import ModelError, ModelFamilyError
from circuits.graph import Graph
from circuits.layers import Layer, Norm, at_least_float32
from circuits.memory import is_out_of_memory
from circuits.weights_digest import (
    fingerprint_of_directory,
    fingerprint_of_tokenizer,
    has_tokenizer,
    has_tokenizer_code,
    weight_count_of_directory,
)

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


@dataclass(frozen=True, eq=False)
class Model:
    """A loaded model, its tokenizer, and what the graph must know of it."""

    name: str
    bridge: Any  # transformer_lens.model_bridge.TransformerBridge
    tokenizer: Any  # transformers.PreTrainedTokenizerBase
    architecture: Architecture
    fingerprint: str
    n_parameters: int  # tied ones counted once
    device: torch.device
    dtype: torch.dtype

    def __repr__(self) -> str:
        a = self.architecture
        return (
            f"Model({self.name!r}, {a.family}, {a.n_layers} layers, {a.n_heads} heads, "
            f"d_model {a.d_model}, {str(self.dtype).removeprefix('torch.')}, {self.device})"
        )

    @property
    def graph(self) -> Graph:
        """The graph of the model's writers and readers."""
        return self.architecture.graph

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The model's blocks, taken apart."""
        n_layers = self.architecture.n_layers
        return tuple(take_layer_apart(self.bridge, i, self.architecture) for i in range(n_layers))

    @cached_property
    def positions(self) -> Float[Tensor, "positions d_model"] | None:
        """The learned position embedding; None where the family has none."""
        return position_table(self.bridge)

    @cached_property
    def final_norm(self) -> Norm:
        """The norm in front of the unembedding."""
        return final_norm(self.bridge)

    def embed(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos d_model"]:
        """What the token embedding writes, without positions."""
        return embedding_module(self.bridge)(tokens)

    def logits(self, stream: Float[Tensor, "... d_model"]) -> Float[Tensor, "... vocab"]:
        """What the model says at positions whose final residual stream is given."""
        return unembed(self.bridge, self.final_norm(stream))


def load_model(
    name: str | Path,
    device: str = "auto",
    dtype: str = "float32",
    revision: str | None = None,
    tokenizer: Any = None,
    kv: str = "ungrouped",
    trust_remote_code: bool = False,
) -> Model:
    """Load a model by name for attribution and evaluation; its parameters are frozen.

    `name` is a bundled model (`bundled/behaviours`, or `truth/gate` and the other models whose
    circuit is known), a local Hugging Face directory, or a name on the hub (`gpt2`), there at
    `revision`. `device` is a torch device, or `auto`: a GPU where there is one. `dtype` is float32,
    bfloat16, float16 or float64. `tokenizer` (a tokenizer, or the name of one) replaces the
    directory's own. `kv` says how heads that share keys and values enter the graph: each with a k
    and a v input of its own (`ungrouped`, as in published circuits), or with one k and one v input
    a key-value head (`grouped`). Code that comes with a model is only run with `trust_remote_code`.
    Raises `ModelError` and `ModelFamilyError`.
    """
    name = str(name)
    if kv not in KV:
        raise ModelError(f"there is no kv {kv!r}: choose {' or '.join(KV)}")
    if dtype not in DTYPES:
        raise ModelError(f"there is no dtype {dtype!r}: choose from {', '.join(DTYPES)}")
    torch_device = _device(device)
    directory = find_directory(name, revision, trust_remote_code)
    digest = fingerprint_of_directory(directory, name)

    architecture = architecture_of(_config(directory, name, trust_remote_code), name, kv)
    own_tokenizer = _tokenizer(directory, name, tokenizer, trust_remote_code)
    with _quiet_transformers():
        hf_model = _read_weights(directory, name, DTYPES[dtype], trust_remote_code)
        hf_model = hf_model.to(torch_device)
        n_parameters = sum(parameter.numel() for parameter in hf_model.parameters())
        bridge = _bridge(directory, hf_model, torch_device, DTYPES[dtype])
    model = Model(
        name=name,
        bridge=bridge,
        tokenizer=own_tokenizer,
        architecture=architecture,
        fingerprint=digest,
        n_parameters=n_parameters,
        device=torch_device,
        dtype=DTYPES[dtype],
    )
    _check_function(model)
    return model


_SAME = {torch.float64: 1e-4, torch.float32: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.2}


@torch.no_grad()
def _check_function(model: Model) -> None:
    """Refuse a model whose blocks, run one by one, do not say what the whole model says."""
    from circuits.forward import logits_of

    generator = torch.Generator().manual_seed(0)
    n = min(24, model.architecture.n_positions)
    tokens = torch.randint(model.architecture.d_vocab, (1, n), generator=generator)
    tokens = tokens.to(model.device)
    expected = at_least_float32(model.bridge(tokens)[:, -1])
    found = at_least_float32(logits_of(model, tokens))
    if not expected.isfinite().all():
        raise ModelError(
            f"the logits of the model {model.name!r} are nan or infinite on a short prompt: its "
            f"weights are damaged, or too large for {str(model.dtype).removeprefix('torch.')}"
        )
    distance = (found - expected).norm() / (expected - expected.mean()).norm().clamp_min(1e-6)
    if not distance <= _SAME[model.dtype]:
        raise ModelFamilyError(
            f"the model {model.name!r} computes something that is not described for its family "
            f"{model.architecture.family}: run block by block, its logits differ by "
            f"{float(distance):.1%}"
        )


def fingerprint(name: str | Path, revision: str | None = None) -> str:
    """The fingerprint that `load_model(name)` would have, without building the model."""
    return fingerprint_of_directory(find_directory(str(name), revision), str(name))


def weight_count(name: str | Path, revision: str | None = None) -> int:
    """About how many weights a model has (tied ones as its files hold them), from their headers."""
    return weight_count_of_directory(find_directory(str(name), revision), str(name))


def load_tokenizer(
    name: str | Path, revision: str | None = None, trust_remote_code: bool = False
) -> Any:
    """The tokenizer that `load_model(name)` would have; raises `ModelError` where there is none."""
    directory = find_directory(str(name), revision, trust_remote_code)
    return _tokenizer(directory, str(name), None, trust_remote_code)


def tokenizer_fingerprint(
    name: str | Path, revision: str | None = None, trust_remote_code: bool = False
) -> str:
    """The digest of the files of a model's own tokenizer, with its code if that is run."""
    directory = find_directory(str(name), revision, trust_remote_code)
    return fingerprint_of_tokenizer(directory, with_code=trust_remote_code)


def find_directory(name: str, revision: str | None = None, with_code: bool = False) -> Path:
    """The directory that holds a model's files; a hub name is fetched first, code only if asked.

    Raises `ModelError` where there is no such model.
    """
    if data.bundled.is_bundled_name(name):
        try:
            return data.bundled.model_path(name)
        except FileNotFoundError as error:
            raise ModelError(str(error)) from None
    if Path(name).is_dir():
        return Path(name)
    if not _HUB_NAME.fullmatch(name) or name.startswith("."):
        raise ModelError(f"there is no directory {name!r} to load a model from")
    return _fetch(name, revision, with_code)


def _fetch(name: str, revision: str | None, with_code: bool) -> Path:
    import httpx
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    described = f"the model {name!r}" + (f" at revision {revision!r}" if revision else "")
    bundled = ", ".join(data.bundled.models())
    texts = ["*.json", "*.txt", "*.model", *(["*.py"] if with_code else [])]
    try:
        with _quiet_transformers():
            path = Path(
                snapshot_download(name, revision=revision, allow_patterns=[*texts, "*.safetensors"])
            )
            if not any(path.glob("*.safetensors")):
                path = Path(
                    snapshot_download(
                        name, revision=revision, allow_patterns=[*texts, "pytorch_model*.bin"]
                    )
                )
            return path
    except GatedRepoError:
        raise ModelError(
            f"{described} is gated on the hub: accept its terms there and run `hf auth login`"
        ) from None
    except RevisionNotFoundError:
        raise ModelError(f"the hub has no such revision of {described}") from None
    except (RepositoryNotFoundError, HFValidationError):
        raise ModelError(
            f"there is no model {name!r}: it is no directory, not on the hub, and the bundled "
            f"models are {bundled}"
        ) from None
    except (LocalEntryNotFoundError, HfHubHTTPError, httpx.HTTPError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(
            f"{described} is no directory and could not be fetched from the hub ({reason}): give a "
            f"local Hugging Face directory or a bundled model ({bundled})"
        ) from None


def _device(device: str) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise ModelError(
            f"there is no device {device!r}: use auto, cpu, cuda, cuda:N or mps"
        ) from None
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise ModelError("the device 'mps' is not there on this machine: use auto or cpu")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ModelError(
            f"the device {device!r} is not there: torch sees {torch.cuda.device_count()} CUDA "
            f"devices; use auto or cpu"
        )
    return chosen


def _config(directory: Path, name: str, trust_remote_code: bool) -> Any:
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(directory, trust_remote_code=trust_remote_code)
    except (StrictDataclassError, OSError, ValueError, TypeError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"config.json of the model {name!r} cannot be used: {reason}") from None


def _tokenizer(directory: Path, name: str, tokenizer: Any, trust_remote_code: bool) -> Any:
    from transformers import AutoTokenizer

    if tokenizer is not None and not isinstance(tokenizer, str | Path):
        return tokenizer
    source = find_directory(str(tokenizer)) if tokenizer is not None else directory
    if not has_tokenizer(source):
        raise ModelError(
            f"there is no tokenizer beside the model {str(tokenizer or name)!r}: pass load_model "
            f"one as tokenizer="
        )
    if not trust_remote_code and has_tokenizer_code(source):
        raise ModelError(
            f"the tokenizer of {str(tokenizer or name)!r} is code of its own, which is not run: "
            f"read it, then set trust_remote_code, or pass load_model another tokenizer"
        )
    try:
        with _quiet_transformers():
            return AutoTokenizer.from_pretrained(source, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(
            f"the tokenizer of {str(tokenizer or name)!r} cannot be loaded ({reason}): pass "
            f"load_model another one as tokenizer="
        ) from None


def _read_weights(directory: Path, name: str, dtype: torch.dtype, trust_remote_code: bool) -> Any:
    from transformers import AutoModelForCausalLM

    try:
        hf_model, report = AutoModelForCausalLM.from_pretrained(
            directory,
            dtype=dtype,
            attn_implementation="eager",
            output_loading_info=True,
            trust_remote_code=trust_remote_code,
            weights_only=True,
        )
    except (OSError, ValueError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        reason = str(error).splitlines()[0]
        if "mismatched" in reason:
            reason = "they do not have the shapes that its config.json says"
        raise ModelError(f"the weights of the model {name!r} cannot be loaded: {reason}") from None
    missing = sorted(report["missing_keys"])
    if missing:
        raise ModelError(
            f"the checkpoint of the model {name!r} lacks {len(missing)} weights, {missing[0]} "
            f"among them: they would be random"
        )
    return hf_model


def _bridge(directory: Path, hf_model: Any, device: torch.device, dtype: torch.dtype) -> Any:
    from transformer_lens.model_bridge import TransformerBridge

    bridge = TransformerBridge.boot_transformers(
        str(directory), device=device, dtype=dtype, hf_model=hf_model
    )
    bridge.eval()
    bridge.requires_grad_(False)
    return bridge


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    """No progress bars and no advice from transformers and the hub while a model loads."""
    from huggingface_hub.utils import are_progress_bars_disabled
    from huggingface_hub.utils import disable_progress_bars as hide_downloads
    from huggingface_hub.utils import enable_progress_bars as show_downloads
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    downloads = not are_progress_bars_disabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    hide_downloads()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
        if downloads:
            show_downloads()
