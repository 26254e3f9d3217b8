"""Attacks by way of what people are given: checkpoints, circuit files, stores, names in a grid.

Each is tried and must fail. Those on other surfaces stand beside what they attack: SQL that reads
or writes outside the store in `tests/data/test_walls.py`; tags of objects, aliases without end and
huge files in YAML in `tests/flows/test_reading.py`; programs in circuit files of every kind, packed
archives and huge files in `tests/circuits/test_interchange_malformed.py`.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from circuits import InterchangeError, ModelError, load_circuit_file, load_model
from circuits.model import fingerprint, load_tokenizer
from data import Store, StoreError
from data.artifact import Voucher, file_digest
from flows.errors import GridError
from flows.reading import parse_grid
from tasks import TaskError
from tests.checkpoints import tiny_gpt2
from tests.data.synthetic import build


class Sentinel:
    """A file that is there if code of an attacker has run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def program(self) -> str:
        return f"import pathlib; pathlib.Path({str(self.path)!r}).write_text('ran')"

    def __reduce__(self) -> tuple[object, ...]:
        return exec, (self.program,)

    @property
    def ran(self) -> bool:
        return self.path.exists()


@pytest.fixture
def sentinel(tmp_path: Path) -> Sentinel:
    return Sentinel(tmp_path / "sentinel")


def test_the_sentinel_tells(sentinel: Sentinel) -> None:
    pickle.loads(pickle.dumps(sentinel))
    assert sentinel.ran


# --- code that comes with a model

CODE = """
{program}
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
class OwnConfig(GPT2Config):
    model_type = {family!r}
class OwnModel(GPT2LMHeadModel):
    pass
class OwnTokenizer(PreTrainedTokenizerFast):
    pass
"""


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def with_code(directory: Path, sentinel: Sentinel, family: str = "gpt2") -> Path:
    """A checkpoint whose configuration and model are its own code."""
    tiny_gpt2(directory)
    (directory / "own.py").write_text(CODE.format(program=sentinel.program, family=family))
    names = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    edit(directory / "config.json", auto_map=names, model_type=family)
    return directory


def with_tokenizer_code(directory: Path, sentinel: Sentinel) -> Path:
    """A checkpoint whose tokenizer alone is its own code."""
    tiny_gpt2(directory)
    (directory / "own.py").write_text(CODE.format(program=sentinel.program, family="gpt2"))
    edit(
        directory / "tokenizer_config.json",
        auto_map={"AutoTokenizer": [None, "own.OwnTokenizer"]},
        tokenizer_class="OwnTokenizer",
    )
    return directory


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where transformers puts code that it may run."""
    from transformers import dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))


def test_a_models_own_code_is_not_run(tmp_path: Path, sentinel: Sentinel, modules: None) -> None:
    """One that says it is a GPT-2 is loaded as a GPT-2; any other family is refused by name."""
    told = with_code(tmp_path / "told", sentinel)
    assert load_model(told, "cpu").architecture.family == "GPT-2"
    fingerprint(told)
    other = with_code(tmp_path / "other", sentinel, "own-family")
    with pytest.raises(ModelError, match=r"own-family"):
        load_model(other, "cpu")
    assert not sentinel.ran


def test_a_tokenizers_own_code_is_not_run(
    tmp_path: Path, sentinel: Sentinel, modules: None
) -> None:
    directory = with_tokenizer_code(tmp_path / "model", sentinel)
    for load in (load_tokenizer, lambda name: load_model(name, "cpu")):
        with pytest.raises(ModelError) as refused:
            load(directory)
        sentence = str(refused.value)
        assert "code of its own, which is not run" in sentence
        assert "set trust_remote_code" in sentence
        assert len(sentence.splitlines()) == 1
    assert not sentinel.ran


def test_code_runs_for_those_who_trust_it(
    tmp_path: Path, sentinel: Sentinel, modules: None
) -> None:
    directory = with_tokenizer_code(tmp_path / "model", sentinel)
    assert type(load_tokenizer(directory, trust_remote_code=True)).__name__ == "OwnTokenizer"
    assert sentinel.ran
    sentinel.path.unlink()
    other = with_code(tmp_path / "other", sentinel, "own-family")
    with pytest.raises(ModelError, match="own-family"):  # trust does not describe a family
        load_model(other, "cpu", trust_remote_code=True)


def test_a_grid_trusts_no_code_unless_it_says_so(
    tmp_path: Path, sentinel: Sentinel, modules: None
) -> None:
    from flows.identity import Identities
    from flows.stages import DatasetStage
    from flows.workbench import Workbench

    with_tokenizer_code(tmp_path / "model", sentinel)
    bench = Workbench(str(tmp_path / "store"), 1 << 30)

    def draw(model: str) -> None:
        text = f"models: [{model}]\ntasks: [ioi]\nmethods: [EAP]"
        config = parse_grid(text, "x.yaml", tmp_path)
        identity = Identities().model(config.models[0], "cpu")
        stage = DatasetStage("x", config.tasks[0], "content", "train", 1, identity)
        stage.build(bench)

    with pytest.raises(ModelError, match="code of its own, which is not run"):
        draw("model")
    with pytest.raises(ModelError, match="code of its own, which is not run"):
        draw("{name: model, trust_remote_code: false}")
    assert not sentinel.ran
    with pytest.raises(TaskError):  # the words of the task are unknown to it
        draw("{name: model, trust_remote_code: true}")
    assert sentinel.ran


@pytest.mark.parametrize("value", ["'yes'", "1", "'false'", "[true]"])
def test_trust_is_said_in_so_many_words(value: str) -> None:
    text = f"models: [{{name: bundled/behaviours, trust_remote_code: {value}}}]"
    with pytest.raises(GridError, match="trust_remote_code"):
        parse_grid(f"{text}\ntasks: [ioi]\nmethods: [EAP]", "x.yaml", Path())


# --- pickles


@pytest.mark.parametrize("kind", ["object", "tensor", "bare"])
def test_weights_that_are_a_program_are_not_run(
    kind: str, tmp_path: Path, sentinel: Sentinel
) -> None:
    directory = tiny_gpt2(tmp_path / "model")
    state = load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    weights = directory / "pytorch_model.bin"
    if kind == "object":
        torch.save(sentinel, weights)
    elif kind == "tensor":
        torch.save({**state, "more": sentinel}, weights)
    else:
        weights.write_bytes(pickle.dumps(sentinel))
    for load in (fingerprint, lambda name: load_model(name, "cpu")):
        with pytest.raises(ModelError, match=r"pytorch_model\.bin .* damaged or holds more than"):
            load(directory)
    assert not sentinel.ran


def test_a_program_beside_sound_weights_is_not_run(tmp_path: Path, sentinel: Sentinel) -> None:
    directory = tiny_gpt2(tmp_path / "model")
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt", "model.pkl"):
        torch.save(sentinel, directory / name)
    load_model(directory, "cpu")
    assert not sentinel.ran


@pytest.mark.parametrize("form", ["torch", "torch, old", "pickle", "npy"])
def test_a_circuit_file_that_is_a_program_is_not_run(
    form: str, tmp_path: Path, sentinel: Sentinel
) -> None:
    path = tmp_path / "circuit.pt"
    document = {"cfg": sentinel, "src_nodes": ["input"], "edges_scores": torch.zeros(1, 1)}
    if form == "pickle":
        path.write_bytes(pickle.dumps(document))
    elif form == "npy":
        import numpy as np

        with path.open("wb") as file:
            np.save(file, np.array([sentinel], dtype=object), allow_pickle=True)
    else:
        torch.save(document, path, _use_new_zipfile_serialization=form == "torch")
    with pytest.raises(InterchangeError):
        load_circuit_file(path)
    assert not sentinel.ran


# --- the store


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(build(Store.open(tmp_path_factory.mktemp("built") / "store")).store.location.root)


@pytest.fixture
def store(built: Path, tmp_path: Path) -> Store:
    return Store.open(shutil.copytree(built, tmp_path / "store"))


def forge(store: Store, kind: str, content: bytes) -> str:
    """Put content in place of an artifact's file, with a voucher that vouches for it."""
    artifact = next(iter(store.artifacts(kind)))
    root = Path(store.location.root)
    rows = root / kind / artifact.key[:2] / f"{artifact.key}.parquet"
    assert rows.is_file()
    rows.write_bytes(content)
    voucher = Voucher(artifact, file_digest(content))
    rows.with_suffix(".json").write_bytes(voucher.to_json())
    return artifact.key


def parquet(table: pa.Table, path: Path) -> bytes:
    pq.write_table(table, path)
    return path.read_bytes()


def test_a_pickle_in_the_store_is_not_read(store: Store, sentinel: Sentinel) -> None:
    key = forge(store, "scores", pickle.dumps(sentinel))
    fresh = Store.open(store.location.root)
    with pytest.raises(StoreError, match=r"scores .* is damaged|cannot be read"):
        fresh.read("scores", key)
    assert not sentinel.ran


def test_types_that_name_code_are_not_rebuilt(
    store: Store, sentinel: Sentinel, tmp_path: Path
) -> None:
    """Arrow's extension types could once be pickles in a field's metadata."""
    field = pa.field(
        "score",
        pa.float64(),
        metadata={
            b"ARROW:extension:name": b"arrow.py_extension_type",
            b"ARROW:extension:metadata": pickle.dumps(sentinel),
        },
    )
    whole = store.read("scores", next(iter(store.artifacts("scores"))).key)
    schema = pa.schema([field if one.name == "score" else one for one in whole.schema])
    schema = schema.with_metadata(
        {b"pandas": pickle.dumps(sentinel), b"circuit-grid": pickle.dumps(sentinel)}
    )
    key = forge(store, "scores", parquet(whole.cast(schema), tmp_path / "x.parquet"))
    fresh = Store.open(store.location.root)
    fresh.find("scores", key)
    try:
        table = fresh.read("scores", key)
    except StoreError:
        pass
    else:
        assert type(table.schema.field("score").type) is type(pa.float64())
        table.to_pandas()
    assert not sentinel.ran


NO_JSON = [b"\x80\x04.", b"[" * 200_000, b'{"__class__": "os.system"}', b"null", b"1e999", b"\xff"]


@pytest.mark.parametrize("content", NO_JSON)
def test_a_marker_that_cannot_be_read_is_refused_in_a_sentence(
    content: bytes, store: Store
) -> None:
    root = Path(store.location.root)
    for said in (content, b'{"format": "circuit-grid", "schema_version": 1e999}'):
        (root / "store.json").write_bytes(said)
        with pytest.raises(StoreError, match=r"store\.json that cannot be read|no store|other"):
            Store.open(root)


@pytest.mark.parametrize("content", NO_JSON)
def test_json_of_the_store_is_data_whatever_it_says(content: bytes, store: Store) -> None:
    """Vouchers, notes of failures and of grids, leases: what cannot be read counts as missing."""
    root = Path(store.location.root)
    store.record_failure("ab" * 32, "scores", "a cell", "it failed")
    store.save_grid("a-grid", [])
    artifact = next(iter(store.artifacts("scores")))
    kept = store.grids().keys()
    for path in root.rglob("*.json"):
        if path.name != "store.json" and "bundled" not in path.parts:
            path.write_bytes(content)
    (root / "leases").mkdir(exist_ok=True)
    (root / "leases" / f"{'ab' * 32}.{'0' * 32}.json").write_bytes(content)
    fresh = Store.open(root)
    assert fresh.find("scores", artifact.key) is None
    assert fresh.failures() == []
    assert not fresh.grids().keys() - kept
    assert isinstance(fresh.leases(), list)


# --- names

NAMES = ["../outside", "../../outside", "/tmp/outside", "..", ".", "a/../../outside", "~/outside",
         "outside\x00", "CON", "a\\..\\outside", "%2e%2e%2foutside", "x" * 300, "‮gnp"]  # fmt: skip


def everything(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize("name", NAMES)
def test_names_of_grids_do_not_lead_outside(name: str, tmp_path: Path) -> None:
    """A grid's name becomes a file of the store, or is refused."""
    store = Store.open(tmp_path / "deep" / "er" / "store")
    inside = Path(store.location.root)
    before = {one for one in everything(tmp_path) if not one.startswith("deep/er/store")}
    there = Path("/tmp/outside").exists()
    if name == "CON":
        store.save_grid(name, [])
        assert [path.name for path in (inside / "grids").iterdir()] == ["CON.json"]
    else:
        with pytest.raises(StoreError, match="cannot name a grid"):
            store.save_grid(name, [])
        assert not (inside / "grids").exists()
    after = {one for one in everything(tmp_path) if not one.startswith("deep/er/store")}
    assert after == before
    assert Path("/tmp/outside").exists() == there


@pytest.mark.parametrize("name", [*NAMES, "", "AB" * 32, "ab" * 31 + "/.", "gg" * 32])
def test_keys_and_kinds_do_not_lead_outside(name: str, store: Store) -> None:
    for ask in (
        lambda: store.find("scores", name),
        lambda: store.read("scores", name),
        lambda: store.path("scores", name),
        lambda: store.record_failure(name, "scores", "cell", "sentence"),
        lambda: store.clear_failure(name),
        lambda: store.lease(name),
    ):
        with pytest.raises(StoreError, match="is no key"):
            ask()
    with pytest.raises((StoreError, KeyError)):
        store.find(name, "ab" * 32)


@pytest.mark.parametrize("name", ["../../etc", "..", "a/../b", "bundled/../../etc", "x\x00y"])
def test_names_of_models_are_no_paths(name: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises((ModelError, GridError)) as refused:
        fingerprint(name)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("file", ["../outside.bin", "/etc/passwd"])
def test_an_index_of_weights_does_not_lead_outside(file: str, tmp_path: Path) -> None:
    """A checkpoint in parts names its files; those are files of its own directory."""
    directory = tiny_gpt2(tmp_path / "model")
    weights = directory / "model.safetensors"
    weights.rename(tmp_path / "outside.bin")
    index = {"metadata": {}, "weight_map": dict.fromkeys(load_file(tmp_path / "outside.bin"), file)}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="has no weights"):
        load_model(directory, "cpu")


def test_a_link_in_the_store_is_not_followed_by_writing(store: Store, tmp_path: Path) -> None:
    """What is put in place replaces a link, and leaves what it points to alone."""
    outside = tmp_path / "outside"
    outside.write_text("mine")
    artifact = next(iter(store.artifacts("scores")))
    rows = Path(store.path("scores", artifact.key))
    table = store.read("scores", artifact.key)
    rows.unlink()
    os.symlink(outside, rows)
    fresh = Store.open(store.location.root)
    fresh.write("scores", artifact.key, table, {})
    assert outside.read_text() == "mine"
    assert not rows.is_symlink()
    assert fresh.read("scores", artifact.key).num_rows == table.num_rows
