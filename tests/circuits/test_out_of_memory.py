"""Where memory ends: fewer examples at a time, the same numbers, nothing held of the attempt."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import weakref
from itertools import pairwise

import numpy as np
import pytest
import torch

from circuits import (
    Circuit,
    ModelError,
    attribute,
    evaluate_many,
    load_model,
    mean_activations,
)
from circuits.batching import batches
from circuits.completeness import completeness
from circuits.memory import AtMost, at_most, is_out_of_memory, let_go
from circuits.minimality import minimality
from circuits.stability import stability
from tests.checkpoints import random_dataset, tiny_gpt2
from tests.circuits.test_memory import Held

DATASET = random_dataset(7, seed=4)
CALM = {"steps": 2, "quadrature": "midpoint"}
SCORES = [
    *[(method, level, {}) for method in ("EAP", "clean-corrupted") for level in ("edge", "neuron")],
    ("EAP", "node", {"intervention": "mean"}),
    *[("EAP-IG-inputs", level, CALM) for level in ("edge", "node")],
    ("EAP-IG-activations", "edge", CALM),
    ("EAP-IG-activations", "edge", CALM | {"scope": "all"}),
    ("EAP-IG-activations", "node", CALM | {"intervention": "zero"}),
    *[("information-flow-routes", level, {}) for level in ("edge", "node")],
    *[("exact", level, {}) for level in ("edge", "node")],
    ("exact", "neuron", {"nodes": ["a0.h1", "m1"]}),
    *[("random", level, {}) for level in ("edge", "node", "neuron")],
]


def some_circuits(model, n):
    edges, random = model.graph.edge_mask, np.random.default_rng(0)
    return [Circuit(model.graph, edges & (random.random(edges.shape) < 0.5)) for _ in range(n)]


def close(found, expected, tolerance=1e-11):
    largest = np.nanmax(np.abs(expected))
    return np.allclose(found, expected, rtol=0, atol=tolerance * largest, equal_nan=True)


# --- a cap


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize(("method", "level", "options"), SCORES)
def test_scores_do_not_depend_on_a_cap(method, level, options, n, engine):
    model, _ = engine()
    how = {"level": level, **options}
    expected = attribute(model, DATASET, method, **how)
    with at_most(n) as cap:
        found = attribute(model, DATASET, method, **how)
    assert cap.largest == n
    assert close(found.values, expected.values)
    if method == "random":  # all examples score alike: rounding is all there is
        assert np.abs(found.standard_error).max() < 1e-7
    else:
        assert close(found.standard_error, expected.standard_error)


@pytest.mark.parametrize("n", [1, 3])
def test_what_circuits_are_worth_does_not_depend_on_a_cap(n, engine):
    model, _ = engine()
    circuits = some_circuits(model, 5)
    small = Circuit.from_edges(model.graph, ["input->a0.h0<q>", "a0.h0->m1", "m1->logits"])

    def everything():
        for intervention in ("patching", "mean"):
            of_many = evaluate_many(model, circuits, DATASET, intervention=intervention)
            yield np.array([one.values for one in of_many])
            yield of_many[0].baselines.corrupted
        means = mean_activations(model, DATASET)
        yield from (means.embedding, means.heads, means.mlps)
        yield minimality(model, small, DATASET).marginals
        yield completeness(model, small, DATASET, subsets=3).model_values
        yield stability(model, DATASET, "EAP", size=5, resamples=6).frequency

    expected = list(everything())
    with at_most(n) as cap:
        found = list(everything())
    assert cap.largest == n
    assert len(found) == 10
    assert all(map(close, found, expected))


@pytest.mark.parametrize("method", ["EAP", "EAP-IG-activations", "exact"])
def test_a_smaller_cap_holds_less(method, engine):
    model, _ = engine("float32", n_layers=2, n_heads=2, d_model=64)
    dataset = random_dataset(8, lengths=(24,), shared_prefix=1, seed=3)
    options = {"edges": some_circuits(model, 1)[0]} if method == "exact" else {}
    peaks = []
    for n in (None, 4, 2, 1):
        with Held() as held, at_most(n) as cap:
            attribute(model, dataset, method, memory_budget=32 << 20, **options)
        peaks.append(held.peak)
        assert cap.largest == (n or 8)
    assert all(after < 0.7 * before for before, after in pairwise(peaks)), peaks


def test_one_example_has_nothing_run_beside_it(engine):
    """Copies of exact, and circuits side by side, need memory of their own."""
    model, _ = engine("float32", n_layers=2, n_heads=2, d_model=64)
    dataset = random_dataset(1, lengths=(24,), shared_prefix=1, seed=3)
    circuits = some_circuits(model, 40)
    for work in (
        lambda: attribute(model, dataset, "exact"),
        lambda: evaluate_many(model, circuits, dataset),
    ):
        with Held() as freely, at_most(None) as cap:
            work()
        assert cap.half == 1
        with Held() as alone, at_most(cap.half) as cap:
            work()
        assert cap.half is None
        assert alone.peak < 0.3 * freely.peak


def test_a_cap_is_tried_by_halves_down_to_one(engine):
    model, _ = engine()
    n, tried = None, []
    while True:
        with at_most(n) as cap:
            attribute(model, DATASET, "EAP")
        tried.append(cap.largest)
        if cap.half is None:
            break
        n = cap.half
    assert tried == [7, 3, 1]


def test_a_cap_says_nothing_of_what_batches_nothing():
    with at_most(None) as cap:
        pass
    assert (cap.largest, cap.half) == (0, None)
    with pytest.raises(ValueError, match="at least 1 example runs at a time, not 0"), at_most(0):
        pass


def test_caps_end_with_their_block_and_the_smaller_of_two_holds(engine):
    model, _ = engine()
    with at_most(2) as outer:
        with at_most(5) as inner:
            attribute(model, DATASET, "EAP")
        assert (inner.largest, outer.largest) == (2, 2)
        with at_most(1):
            attribute(model, DATASET, "EAP")
        with at_most(None):
            attribute(model, DATASET, "EAP")
        assert outer.largest == 2
    with pytest.raises(KeyError), at_most(1):
        raise KeyError
    with at_most(None) as cap:
        attribute(model, DATASET, "EAP")
    assert cap.largest == 7


def test_long_prompts_shrink_with_short_ones():
    """The batch that memory did not hold may be one of few long prompts."""
    short = random_dataset(8, lengths=(5,), seed=0).examples
    long = random_dataset(4, lengths=(20,), seed=0).examples

    def sizes():
        made = batches(short + long, torch.device("cpu"), 80, lambda n, _, longest: n * longest)
        return [(batch.size, batch.budget) for batch in made]

    with at_most(None) as cap:
        whole = sizes()
    n_short = sum(size for size, _ in whole[:-1])
    assert whole == [(8, 80), (4, 80)]
    assert n_short == 8
    with at_most(cap.half):
        assert sizes() == [(4, 40)] * 2 + [(2, 40)] * 2
    with at_most(1):
        assert sizes() == [(1, 0)] * 12


def test_half_is_of_what_was_being_made_when_memory_ended():
    """Means may have fitted 64 at a time, while scores of 6 at a time did not."""
    cap = AtMost(None)
    cap.allow(64)
    cap.largest = 64
    cap.allow(6)
    assert cap.half == 3


# --- errors

TEXTS = """
import json, resource, sys
import numpy, pyarrow, torch
torch.ones(9, 9) @ torch.ones(9, 9)
large, wide = torch.ones(1500, 1500), torch.ones(3000, 1500)
half = large.bfloat16(), wide.bfloat16()
torch.nn.functional.linear(half[1][:2], half[0])
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (48 << 20),) * 2)

def backward():
    x = y = torch.ones(1000, 1000, requires_grad=True)
    for _ in range(40):
        y = (y * 1.01).exp().clamp(0, 1)
    y.sum().backward()

work = {
    "tensor": lambda: torch.ones(1 << 28),
    "product": lambda: [large @ large for _ in range(20)],
    "backward": backward,
    "half precision": lambda: [torch.nn.functional.linear(half[1], half[0]) for _ in range(20)],
    "softmax": lambda: torch.ones(3000, 3000).softmax(-1),
    "numpy": lambda: numpy.ones(1 << 28),
    "list": lambda: [0] * (1 << 28),
    "arrow": lambda: pyarrow.allocate_buffer(1 << 30),
    "mapping": lambda: __import__("mmap").mmap(-1, 1 << 30),
}
from circuits.memory import is_out_of_memory, let_go
for name, do in work.items():
    try:
        found = do()
    except Exception as error:
        print(name, type(error).__name__, is_out_of_memory(error), file=sys.stderr)
        said = is_out_of_memory(error)
        let_go(error)
    else:
        said = "it fitted"
        del found
    print(json.dumps([name, said]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits a process's memory")
def test_every_library_is_understood_when_it_finds_no_memory():
    done = subprocess.run(
        [sys.executable, "-c", TEXTS], capture_output=True, text=True, timeout=300, check=True
    )
    found = dict(json.loads(line) for line in done.stdout.splitlines())
    assert len(found) == 9
    assert set(found.values()) == {True}, done.stderr


@pytest.mark.parametrize(
    "text",
    [
        "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 79.1 GiB",
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "MPS backend out of memory (MPS allocated: 9.00 GB, other allocations: 3.37 MB)",
        "DefaultCPUAllocator: not enough memory: you tried to allocate 8589934592 bytes.",
    ],
)
def test_what_accelerators_say_is_understood(text):
    assert is_out_of_memory(RuntimeError(text))
    assert not is_out_of_memory(ValueError(text))  # a sentence about it is no such error


def test_other_errors_are_not_taken_for_it():
    with pytest.raises(RuntimeError) as shapes:
        torch.ones(2, 3) @ torch.ones(2, 3)
    assert not is_out_of_memory(shapes.value)
    assert not is_out_of_memory(OSError(errno.ENOSPC, "No space left on device"))
    assert not is_out_of_memory(ModelError("there is no model 'x'"))
    assert is_out_of_memory(OSError(errno.ENOMEM, "Cannot allocate memory"))
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))


def test_it_is_understood_through_what_it_was_raised_from():
    error = ModelError("the weights cannot be loaded")
    error.__cause__ = MemoryError()
    assert is_out_of_memory(error)


def test_a_checkpoint_that_does_not_fit_is_not_called_damaged(tmp_path, monkeypatch):
    directory = tiny_gpt2(tmp_path)
    import transformers

    def refuse(*args, **kwargs):
        torch.empty(1 << 60)  # really asks for it

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", refuse)
    with pytest.raises(RuntimeError) as failed:
        load_model(directory, "cpu")
    assert is_out_of_memory(failed.value)


def test_asking_needs_no_torch():
    code = (
        "import sys; from circuits.memory import at_most, is_out_of_memory, let_go\n"
        "with at_most(2): pass\n"
        "let_go(MemoryError()); print(is_out_of_memory(MemoryError()), 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True
    )
    assert done.stdout.split() == ["True", "False"]


# --- what is held


def test_nothing_is_held_of_a_failed_attempt(engine):
    """Neither what the frames held, nor what a generator in their middle did."""
    model, _ = engine()
    held = []

    def metric(logits, answers):
        for frame in (sys._getframe(i) for i in range(40)):
            held.extend(
                weakref.ref(value)
                for value in frame.f_locals.values()
                if isinstance(value, torch.Tensor)
            )
            if frame.f_code.co_name == "attribute":
                break
        try:
            raise MemoryError("the first")
        except MemoryError as first:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory") from first

    before = after = None
    try:
        attribute(model, DATASET, "EAP", metric=metric)
    except RuntimeError as error:
        before = sum(one() is not None for one in held)
        let_go(error)
        after = sum(one() is not None for one in held)
    assert before > 4
    assert after == 0
