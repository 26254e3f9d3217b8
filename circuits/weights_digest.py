"""A name for what a model computes: the digest of its weights and of the settings that shape it.

Two directories, or two names on a hub, with the same weights have the same fingerprint, however the
weights are split over files; one changed weight, or another activation function, gives another one.
It is read from the checkpoint's files: no model is built for it.
"""

from __future__ import annotations

import hashlib
import json
import math
import pickle
import struct
from collections.abc import Iterator
from pathlib import Path

from circuits.architecture import Family, family_of
from circuits.digest_cache import remembered
from circuits.errors import ModelError
from circuits.memory import is_out_of_memory

_CHUNK = 1 << 22
_SHAPES_NOTHING = {
    "_name_or_path",
    "architectures",
    "dtype",
    "initializer_range",
    "model_type",
    "torch_dtype",
    "transformers_version",
    "use_cache",
}
_TOKENIZER_FILES = (
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
)


def fingerprint_of_directory(directory: Path, name: str) -> str:
    """The SHA-256, in hex, of a Hugging Face directory's weights and function-shaping settings.

    Raises `ModelError` where there is no readable configuration or weights file.
    """
    try:
        return _fingerprint(directory, name)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ModelError(
            f"{error.filename} of the model {name!r} cannot be read: {reason}"
        ) from None


def _fingerprint(directory: Path, name: str) -> str:
    config = read_config(directory, name)
    family = family_of(config.get("model_type"), name)
    settings = _settings(config, family)
    tied = settings.get("tie_word_embeddings", False)
    digests = {
        tensor: digest
        for tensor, digest in _tensors(directory, name, family)
        if not tensor.endswith(family.not_weights) and not (tied and tensor == "lm_head.weight")
    }
    text = json.dumps([config["model_type"], settings, digests], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _settings(config: dict, family: Family) -> dict:
    """The settings that shape what the model computes."""
    if family.function_settings is not None:
        return {key: config.get(key, value) for key, value in family.function_settings.items()}
    return {
        key: value
        for key, value in config.items()
        if key not in _SHAPES_NOTHING and not key.endswith(("_token_id", "dropout", "_pdrop"))
    }


def weight_count_of_directory(directory: Path, name: str) -> int:
    """About how many weights a directory holds, from the headers of its files.

    Of a `pytorch_model*.bin`, which has none, as many as there would be at two bytes each: not
    fewer than there are. Raises `ModelError` for a file that can't be read.
    """
    count = 0
    for file in sorted(directory.glob("*.safetensors")):
        for _, entry, _ in _entries(file, name):
            count += math.prod(entry["shape"])
    if count:
        return count
    return sum(file.stat().st_size // 2 for file in directory.glob("pytorch_model*.bin"))


def fingerprint_of_tokenizer(directory: Path, with_code: bool = False) -> str:
    """The SHA-256, in hex, of a directory's tokenizer files, and of its code where that is run."""
    digest = hashlib.sha256()
    code = sorted(directory.glob("*.py")) if with_code else []
    for file in [*_tokenizer_files(directory), *code]:
        digest.update(f"{file.name} {file.stat().st_size}\n".encode() + file.read_bytes())
    return digest.hexdigest()


def has_tokenizer(directory: Path) -> bool:
    """Whether a directory has a tokenizer of its own."""
    return bool(_tokenizer_files(directory))


def has_tokenizer_code(directory: Path) -> bool:
    """Whether a directory's tokenizer is code that comes with it."""
    try:
        config = json.loads((directory / "tokenizer_config.json").read_text())
    except (OSError, ValueError):
        return False
    named = config.get("auto_map") if isinstance(config, dict) else None
    return bool(named.get("AutoTokenizer") if isinstance(named, dict) else named)


def _tokenizer_files(directory: Path) -> list[Path]:
    return sorted(file for pattern in _TOKENIZER_FILES for file in directory.glob(pattern))


def read_config(directory: Path, name: str) -> dict:
    """The `config.json` of a directory; raises `ModelError` where there is none to read."""
    path = directory / "config.json"
    try:
        config = json.loads(path.read_text())
    except FileNotFoundError:
        raise ModelError(
            f"the directory of the model {name!r} has no config.json: give a Hugging Face "
            f"directory, as save_pretrained writes it"
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"config.json of the model {name!r} is not JSON: {error}") from None
    if not isinstance(config, dict):
        raise ModelError(f"config.json of the model {name!r} is not a JSON object")
    return config


def _tensors(directory: Path, name: str, family: Family) -> Iterator[tuple[str, str]]:
    files = sorted(directory.glob("*.safetensors"))
    read = _safetensors_digests
    if not files:
        files, read = sorted(directory.glob("pytorch_model*.bin")), _pickled_digests
    if not files:
        raise ModelError(
            f"the directory of the model {name!r} has no weights: a *.safetensors or a "
            f"pytorch_model*.bin file is needed"
        )
    for file in files:
        digests = remembered(file, lambda file: dict(read(file, name)))
        for tensor, digest in digests.items():
            yield tensor.removeprefix(family.checkpoint_prefix), digest


def _pickled_digests(file: Path, name: str) -> Iterator[tuple[str, str]]:
    """The same of a file of torch's own; nothing but tensors is read from it."""
    import torch

    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        if is_out_of_memory(error):
            raise
        raise ModelError(
            f"the weights file {file.name} of the model {name!r} is damaged or holds more than "
            f"weights ({str(error).splitlines()[0]}): fetch or save it again"
        ) from None
    for tensor, value in state.items():
        raw = value.contiguous().flatten().view(torch.uint8).numpy().tobytes()
        header = f"{_DTYPE_NAMES.get(str(value.dtype), value.dtype)} {list(value.shape)}"
        yield tensor, hashlib.sha256(header.encode() + raw).hexdigest()


_DTYPE_NAMES = {
    "torch.float64": "F64",
    "torch.float32": "F32",
    "torch.float16": "F16",
    "torch.bfloat16": "BF16",
}


def _safetensors_digests(file: Path, name: str) -> Iterator[tuple[str, str]]:
    """Each tensor's name and the digest of its dtype, shape and bytes, read in pieces."""
    for tensor, entry, start in _entries(file, name):
        try:
            digest = hashlib.sha256(f"{entry['dtype']} {entry['shape']}".encode())
            begin, end = entry["data_offsets"]
            with file.open("rb") as stream:
                stream.seek(start + begin)
                remaining = end - begin
                while remaining:
                    piece = stream.read(min(_CHUNK, remaining))
                    if not piece:
                        raise ValueError(f"the file ends within {tensor}")
                    digest.update(piece)
                    remaining -= len(piece)
        except (ValueError, KeyError, TypeError) as error:
            raise _damaged(file, name, error) from None
        yield tensor, digest.hexdigest()


def _entries(file: Path, name: str) -> Iterator[tuple[str, dict, int]]:
    """Each tensor's name and entry in the header of a file, and where the file's data begin."""
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > file.stat().st_size:
                raise ValueError("the header is longer than the file")
            header = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        entries = [(tensor, entry, 8 + length) for tensor, entry in header.items()]
        if not all(isinstance(entry["shape"], list) for _, entry, _ in entries):
            raise ValueError("the header has a tensor without a shape")
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(file, name, error) from None
    yield from entries


def _damaged(file: Path, name: str, error: Exception) -> ModelError:
    return ModelError(
        f"the weights file {file.name} of the model {name!r} is damaged ({error}): "
        f"fetch or save it again"
    )
