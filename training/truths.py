"""Build the models whose circuits are known by construction and write them to data/bundled/truth.

    python -m training.truths [directory]

Nothing is trained: every weight is set here, from what each head and MLP is to do. The models are
GPT-2s with norms that do nothing: an enormous epsilon makes LayerNorm a division by a constant,
which its weight undoes, and all that is written to the stream has mean zero (its last dimension
balances the others). So the stream is a sum of named spaces, and a component reads and writes the
spaces that are named for it and no other: only an edge that joins a writer of a space to a reader
of it can matter.

The same files come out every time.
"""

from __future__ import annotations

import json
import math
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from circuits import Graph
from tasks import Answers, default_metric, get_metric, get_task, load_dataset, truths
from training.model_card import answer_logits
from training.word_tokenizer import word_tokenizer

BUNDLED = Path(__file__).resolve().parents[1] / "data" / "bundled" / "truth"
SIGMA = 2.0**30  # what LayerNorm divides by; its weight multiplies by the same
LOGIT = 4.0  # the logit that a whole answer writes
ALWAYS = "always"  # a query that is 1 everywhere


# -- the parts of a model -------------------------------------------------------------------------


@dataclass(frozen=True)
class Attend:
    """One term of an attention score: `strength` times the product of a query and a key space.

    `turn` maps the query's space first.
    """

    query: str
    key: str
    strength: float
    turn: Tensor | None = None


@dataclass(frozen=True)
class Copy:
    """What a head moves: the space it reads at the place attended, and the spaces it writes.

    Each is written through a matrix [target, source], or, for None, as it was read.
    """

    source: str
    targets: Mapping[str, Tensor | None]


@dataclass(frozen=True)
class Unit:
    """One unit of an MLP: relu(bias + Σ weight · space), times a weight into each target."""

    reads: Mapping[str, float]
    writes: Mapping[str, float]
    bias: float = 0.0


@dataclass(frozen=True)
class Truth:
    """A model with a known circuit: its parts, its true edges, and what is to be said of it."""

    name: str
    title: str
    n_layers: int
    n_heads: int
    d_model: int
    n_positions: int
    spaces: Mapping[str, int]  # how wide each is
    words: Sequence[str]  # all that occurs in the task's prompts and answers
    embeddings: Mapping[str, Mapping[str, Tensor]]  # word: what it writes, by space
    positions: Mapping[int, Mapping[str, Tensor]]  # place: what it writes, by space
    heads: Mapping[str, tuple[Sequence[Attend], Sequence[Copy]]]  # as in a0.h1
    mlps: Mapping[str, Sequence[Unit]]
    unembeddings: Mapping[str, Mapping[str, Tensor]]  # word: what raises its logit, by space
    edges: Mapping[str, str]  # true edge: what it does
    circuit: str  # how the circuit works, in prose
    sense: str  # in what sense its edges are true
    idle: str  # what else is there
    expected: str  # what theory says of the methods


def _one_hot(index: int, width: int, value: float = 1.0) -> Tensor:
    vector = torch.zeros(width)
    vector[index] = value
    return vector


ONE = torch.ones(1)


def _digits(words: Sequence[str], width: int) -> dict[str, Tensor]:
    """A different vector of ±1 for every word: the binary digits of its number."""
    return {
        word: torch.tensor([1.0 if number >> i & 1 else -1.0 for i in range(width)])
        for number, word in enumerate(words)
    }


class Weights:
    """The parameters of a truth's GPT-2, by the names of its checkpoint."""

    def __init__(self, truth: Truth, tokenizer: PreTrainedTokenizerFast) -> None:
        self.truth = truth
        self.d_head = truth.d_model // truth.n_heads
        self.places: dict[str, slice] = {}
        start = 0
        for space, width in truth.spaces.items():
            self.places[space] = slice(start, start + width)
            start += width
        assert start < truth.d_model, f"{start} dimensions and a balance do not fit"
        self.config = GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=truth.n_positions,
            n_embd=truth.d_model,
            n_layer=truth.n_layers,
            n_head=truth.n_heads,
            n_inner=max([4, *(len(units) for units in truth.mlps.values())]),
            activation_function="relu",
            layer_norm_epsilon=SIGMA**2,
            tie_word_embeddings=False,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.bos_token_id,
        )
        self.model = GPT2LMHeadModel(self.config)
        self.parameters = {
            name: torch.zeros_like(value) for name, value in self.model.state_dict().items()
        }
        for name, value in self.parameters.items():
            if "ln_" in name and name.endswith("weight"):
                value.fill_(SIGMA)
        ids = tokenizer.get_vocab()
        for word, vectors in truth.embeddings.items():
            self.parameters["transformer.wte.weight"][ids[word]] = self.written(vectors)
        for place, vectors in truth.positions.items():
            self.parameters["transformer.wpe.weight"][place] = self.written(vectors)
        for word, vectors in truth.unembeddings.items():
            self.parameters["lm_head.weight"][ids[word]] = self.read(vectors)
        for name, (attends, copies) in truth.heads.items():
            layer, head = name.removeprefix("a").split(".h")
            self._set_head(int(layer), int(head), attends, copies)
        for name, units in truth.mlps.items():
            self._set_mlp(int(name.removeprefix("m")), units)
        self.model.load_state_dict(self.parameters)

    def read(self, vectors: Mapping[str, Tensor]) -> Tensor:
        """A direction of the stream, given by its parts."""
        direction = torch.zeros(self.truth.d_model)
        for space, vector in vectors.items():
            direction[self.places[space]] = vector
        return direction

    def written(self, vectors: Mapping[str, Tensor]) -> Tensor:
        """What is added to the stream: these parts, and the balance that makes its mean zero."""
        vector = self.read(vectors)
        vector[-1] = -vector.sum()
        return vector

    def _set_head(
        self, layer: int, head: int, attends: Sequence[Attend], copies: Sequence[Copy]
    ) -> None:
        """Each term of the score, and each copy, has dimensions of the head for itself."""
        block = f"transformer.h.{layer}.attn."
        matrix, bias = (
            self.parameters[f"{block}c_attn.weight"],
            self.parameters[f"{block}c_attn.bias"],
        )
        output = self.parameters[f"{block}c_proj.weight"]
        q, k, v = (kind * self.truth.d_model + head * self.d_head for kind in range(3))
        used = 0
        for term in attends:
            keys = self.places[term.key]
            width = keys.stop - keys.start
            columns = slice(q + used, q + used + width)
            strength = term.strength * math.sqrt(self.d_head)  # GPT-2 divides by the root
            if term.query == ALWAYS:
                bias[columns] = strength
            else:
                turn = torch.eye(width) if term.turn is None else term.turn
                matrix[self.places[term.query], columns] = strength * turn.T
            matrix[keys, k + used : k + used + width] = torch.eye(width)
            used += width
        assert used <= self.d_head, f"the scores of a{layer}.h{head} need {used} dimensions"
        used = 0
        for copy in copies:
            source = self.places[copy.source]
            width = source.stop - source.start
            matrix[source, v + used : v + used + width] = torch.eye(width)
            rows = output[head * self.d_head + used : head * self.d_head + used + width]
            for target, through in copy.targets.items():
                rows[:, self.places[target]] = torch.eye(width) if through is None else through.T
            used += width
        assert used <= self.d_head, f"the values of a{layer}.h{head} need {used} dimensions"
        rows = output[head * self.d_head : (head + 1) * self.d_head]
        rows[:, -1] = -rows.sum(-1)

    def _set_mlp(self, layer: int, units: Sequence[Unit]) -> None:
        block = f"transformer.h.{layer}.mlp."
        for i, unit in enumerate(units):
            for space, weight in unit.reads.items():
                self.parameters[f"{block}c_fc.weight"][self.places[space], i] = weight
            self.parameters[f"{block}c_fc.bias"][i] = unit.bias
            writes = {
                space: torch.full((self.truth.spaces[space],), weight)
                for space, weight in unit.writes.items()
            }
            self.parameters[f"{block}c_proj.weight"][i] = self.written(writes)


def _place(prompt: str, word: str) -> int:
    """The position of a word in a prompt, behind the first token, BOS."""
    return 1 + prompt.split().index(word)


def _words(*texts: Iterable[str]) -> list[str]:
    """Every word of some texts, once, in the order of the first time."""
    return list(dict.fromkeys(word for group in texts for text in group for word in text.split()))


# -- induction ------------------------------------------------------------------------------------


def induction() -> Truth:
    """A previous-token head in layer 0, an induction head in layer 1."""
    words, n_positions = truths.OBJECTS, 16
    n = len(words)
    step = 2 * math.pi / n_positions
    back = torch.tensor(  # from where a query is on the circle of positions to the place before
        [[math.cos(step), math.sin(step)], [-math.sin(step), math.cos(step)]]
    )
    digits = _digits(words, 4)
    here = Attend("circle", "circle", 256.0)
    return Truth(
        name="induction",
        title="an attention-only induction model",
        n_layers=2,
        n_heads=3,
        d_model=48,
        n_positions=n_positions,
        spaces={"word": n, "before": n, "answer": n, "circle": 2, "start": 1, "idle": 4},
        words=words,
        embeddings={
            word: {"word": _one_hot(i, n), "idle": digits[word]} for i, word in enumerate(words)
        },
        positions={
            p: {
                "circle": torch.tensor([math.cos(p * step), math.sin(p * step)]),
                "start": ONE * (p == 0),
            }
            for p in range(n_positions)
        },
        heads={
            "a0.h0": ([Attend("circle", "circle", 256.0, back)], [Copy("word", {"before": None})]),
            "a0.h1": ([here], [Copy("idle", {"idle": None})]),
            "a1.h0": (
                # the word before there is the word here: 20; the start, where there is none: 10
                [Attend("word", "before", 20.0), Attend(ALWAYS, "start", 10.0)],
                [Copy("word", {"answer": None})],
            ),
            "a1.h1": ([here], [Copy("idle", {"idle": None})]),
        },
        mlps={},
        unembeddings={word: {"answer": _one_hot(i, n, LOGIT)} for i, word in enumerate(words)},
        edges={
            "input->a0.h0<v>": "the word before, which the previous-token head copies",
            "a0.h0->a1.h0<k>": "the previous-token head's copy, which the induction head looks for",
            "input->a1.h0<q>": "the last word, for which it looks",
            "input->a1.h0<v>": "the word where it finds it, which it copies",
            "a1.h0->logits": "its copy, which is the answer",
        },
        circuit="""`a0.h0`, the previous-token head, attends by position alone to the place
before and copies the word there into the space *before*. `a1.h0`, the induction head, attends
from the last word to the place whose *before* is that word (a score of 20; BOS has 10, every
other place 0) and copies the word there into the space *answer*, which alone is unembedded.
Where there is no such place it attends to BOS, which says nothing.""",
        sense="""Each edge changes the metric when it alone is corrupted.""",
        idle="""`a0.h1` and `a1.h1` attend to their own place and copy between dimensions that
nothing else reads; `a0.h2` and `a1.h2` are zero, and so are both MLPs. No head's queries or
keys read a word, but for those of `a1.h0`.""",
        expected="""Attention is sharp but not saturated (e⁻¹⁰ of it goes to BOS), so every
method that follows gradients finds all five edges, and so does exact patching. But EAP puts the
edges in front of the softmax at a thousandth of what they do. `input->a0.h0<v>` and
`a0.h0->a1.h0<k>` are two halves of one path: exact patching gives them one score.""",
    )


# -- gate -----------------------------------------------------------------------------------------


def gate() -> Truth:
    """An MLP that opens where two heads both say so, and does not mind the sign of a third."""
    prompt = truths.gate_prompt("day", "weather", "one", "state", "colour")
    n_positions = 1 + len(prompt.split())
    words = _words(
        truths.DAYS,
        truths.WET,
        truths.DRY,
        truths.TRACKS,
        truths.RAISED,
        truths.LOWERED,
        truths.FREE,
        truths.BLOCKED,
        [truths.GO, truths.WAIT, "track barrier signal so"],
    )
    digits = _digits(words, 6)
    embeddings = {word: {"idle": digits[word]} for word in words}
    for space, ons, value in (
        ("raised", truths.RAISED, 1.0),
        ("free", truths.FREE, 1.0),
        ("weather", truths.WET, 1.0),
        ("weather", truths.DRY, -1.0),
    ):
        for word in ons:
            embeddings[word][space] = ONE * value
    places = {"day": "day", "rain": "weather", "bar": "state", "light": "colour"}
    by_words = {"raised": 1, "free": 1, "weather": 1, "idle": 6}
    by_places = {f"at {place}": 1 for place in places}
    by_parts = {"barrier": 1, "signal": 1, "sky": 1, "answer": 1}

    def at(space: str) -> list[Attend]:
        return [Attend(ALWAYS, space, 64.0)]

    return Truth(
        name="gate",
        title="a model whose MLP computes a gate over two heads",
        n_layers=2,
        n_heads=4,
        d_model=24,
        n_positions=n_positions,
        spaces=by_words | by_places | by_parts,
        words=words,
        embeddings=embeddings,
        positions={_place(prompt, word): {f"at {place}": ONE} for place, word in places.items()},
        heads={
            "a0.h0": (at("at bar"), [Copy("raised", {"barrier": None})]),
            "a0.h1": (at("at light"), [Copy("free", {"signal": None})]),
            "a0.h2": (at("at rain"), [Copy("weather", {"sky": None})]),
            "a0.h3": (at("at day"), [Copy("idle", {"idle": None})]),
            "a1.h0": (at("at rain"), [Copy("idle", {"idle": None})]),
        },
        mlps={
            "m0": [
                Unit({"idle": 1.0}, {"idle": 0.5}),
                Unit({"idle": -1.0}, {"idle": 0.25}),
            ],
            "m1": [
                # 0 with both, 2 with one, 6 with none
                Unit({"barrier": -4.0, "signal": -4.0}, {"answer": -1.0}, bias=6.0),
                # 1 in every weather: the sky is 1 or −1
                Unit({"sky": 1.0}, {"answer": 2.0}, bias=-0.5),
                Unit({"sky": -1.0}, {"answer": 2.0}, bias=-0.5),
            ],
        },
        unembeddings={
            truths.GO.strip(): {"answer": ONE * LOGIT / 2},
            truths.WAIT.strip(): {"answer": ONE * -LOGIT / 2},
        },
        edges={
            "input->a0.h0<v>": "the word for the barrier, which the first head reads",
            "input->a0.h1<v>": "the word for the signal, which the second head reads",
            "a0.h0->m1": "whether the barrier is raised, one half of the gate",
            "a0.h1->m1": "whether the signal is free, the other half",
            "m1->logits": "whether the gate is open, which is the answer",
        },
        circuit="""By position alone, `a0.h0` attends to the word for the barrier and writes
whether it is raised, x₁, 0 or 1; `a0.h1` to the word for the signal and writes whether it is
free, x₂. `m1` computes the gate y = 1 − relu(6 − 4(x₁ + x₂)): 1 where both are 1, −1 with one
of them, −5 with none. The logit of *go* is 2y, that of *wait* −2y.""",
        sense="""Each edge changes the metric when it alone is corrupted, on prompts whose
corrupted side has another word there.""",
        idle="""`a0.h2` writes the weather's sign, s = ±1, which the corrupted prompt turns
round, and `m1` adds 2 relu(|s| − ½) = 1 to the gate: edges that carry something, into a reader
that uses it, to no effect. `a0.h3`, `a1.h0` and `m0` move what nothing else reads; the other
heads are zero.""",
        expected="""On a clean prompt the gate is saturated: its gradient is exactly 0. EAP
therefore misses the four edges in front of `m1`, and it scores the two of the weather, where
the gradient is not 0 though nothing depends on the sign. Methods that also take gradients
elsewhere find all five edges, and from one sign to the other the gradients of the weather
cancel, if the points lie symmetrically. Exact patching finds all five and nothing else.""",
    )


# -- backup ---------------------------------------------------------------------------------------


def backup() -> Truth:
    """A head, a head that it silences through another one, and nothing lost without it."""
    prompt = truths.backup_prompt("speaker", "colour", "day", "listener")
    n_positions = 1 + len(prompt.split())
    colours = truths.COLOURS
    n = len(colours)
    words = _words(colours, truths.NOTHING, truths.PEOPLE, truths.DAYS, ["said on so repeats"])
    digits = _digits(words, 6)
    embeddings = {word: {"idle": digits[word]} for word in words}
    for i, colour in enumerate(colours):
        embeddings[colour]["colour"] = _one_hot(i, n)

    def at(space: str) -> list[Attend]:
        return [Attend(ALWAYS, space, 128.0)]

    return Truth(
        name="backup",
        title="a model with a backup head that another head inhibits",
        n_layers=3,
        n_heads=4,
        d_model=32,
        n_positions=n_positions,
        spaces={
            "colour": n,
            "answer": n,
            "answered": 1,
            "inhibited": 1,
            "at start": 1,
            "at colour": 1,
            "at end": 1,
            "idle": 6,
        },
        words=words,
        embeddings=embeddings,
        positions={
            0: {"at start": ONE},
            _place(prompt, "colour"): {"at colour": ONE},
            _place(prompt, "repeats"): {"at end": ONE},
        },
        heads={
            "a0.h0": (
                at("at colour"),
                # the copy itself, and that there is one: the sum of a colour's dimensions is 1
                [Copy("colour", {"answer": None, "answered": torch.ones(1, n)})],
            ),
            "a0.h1": (at("at colour"), [Copy("idle", {"idle": None})]),
            "a1.h0": (at("at end"), [Copy("answered", {"inhibited": None})]),
            "a1.h1": (at("at end"), [Copy("idle", {"idle": None})]),
            "a2.h0": (
                # the colour: 160, or 96 where inhibited; the start: 128; every other place: 0
                [
                    Attend(ALWAYS, "at colour", 160.0),
                    Attend(ALWAYS, "at start", 128.0),
                    Attend("inhibited", "at colour", -64.0),
                ],
                [Copy("colour", {"answer": None})],
            ),
            "a2.h1": (at("at colour"), [Copy("idle", {"idle": None})]),
        },
        mlps={},
        unembeddings={
            **{colour: {"answer": _one_hot(i, n, LOGIT)} for i, colour in enumerate(colours)},
            "repeats": {"at end": ONE},
        },
        edges={
            "input->a0.h0<v>": "the colour, which the primary head copies",
            "a0.h0->logits": "the primary head's copy, which is the answer",
            "a0.h0->a1.h0<v>": "that the primary head has copied something",
            "a1.h0->a2.h0<q>": "the inhibition, which keeps the backup head from the colour",
            "input->a2.h0<v>": "the colour, which the backup head copies where it is not inhibited",
            "a2.h0->logits": "the backup head's copy, the answer where the primary head gives none",
        },
        circuit="""By position alone, `a0.h0`, the primary head, attends from the last word to
the colour, copies it to the space *answer* and writes that it has answered. `a1.h0`, the
inhibiting head, reads that at the last place and writes *inhibited*. `a2.h0`, the backup head,
would attend to the colour and copy it as well (a score of 160 against 128 for BOS); *inhibited*
takes 64 from the colour's score, and it attends to BOS, which says nothing.""",
        sense="""They are all edges through which the answer's information can flow on the task,
the backup's included. `a0.h0->logits`, `a0.h0->a1.h0<v>` and `a1.h0->a2.h0<q>` change the metric
when they alone are corrupted (the last two raise it: both heads answer). `input->a0.h0<v>`,
`input->a2.h0<v>` and `a2.h0->logits` do not: without the primary head the backup head answers,
and the other way round. They change it together: `input->a0.h0<v>` with either of the others.""",
        idle="""`a0.h1`, `a1.h1` and `a2.h1` move what nothing else reads, the colour's binary
digits among it; all other heads and the MLPs are zero. The day differs as well, to no effect.
The last place itself, which no edge carries, gives *repeats* a logit of 1.""",
        expected="""Exact patching of one edge gives 0 to `input->a0.h0<v>`, because the backup
head takes over, and to the backup head's own edges. EAP and clean-corrupted miss the two edges
of the inhibition, which lie in front of a saturated softmax at both ends; clean-corrupted finds
`input->a2.h0<v>`, which matters at the corrupted end. Methods that integrate cross the point
where the backup head switches and find both edges of the inhibition. `a2.h0->logits` is found
by none that compares the clean with the corrupted run: the backup head writes nothing at the
last place in either, so there is no difference to follow.""",
    )


# -- files ----------------------------------------------------------------------------------------

BUILDERS = {"backup": backup, "gate": gate, "induction": induction}

DEFINITION = (
    "An edge is true if there is a set of other edges such that, with these corrupted, corrupting "
    "it too changes the metric on a prompt of the task, under patching. So it makes no difference "
    "which of the edges that are not listed are corrupted, whatever else is."
)

CARD = """---
license: mit
language: en
library_name: transformers
tags: [circuits, mechanistic-interpretability, gpt2, known-circuit]
---

# truth/{name}

{Title}: a GPT-2 of {n_layers} layers, {n_heads} heads, {d_model} dimensions ({parameters:,}
parameters, {n_words} words) whose circuit is known, because its weights were set and not trained.
It is there to judge methods that look for circuits: `load_model("truth/{name}")` with the task of
the same name and the edges of `truth.json` (`circuits.recovery`).

## The task

{description} For example

| | prompt | answer |
|---|---|---|
| clean | {clean} | {correct} |
| corrupted | {corrupted} | |

{scores}

## The circuit

{circuit}

| true edge | what it carries |
|---|---|
{edges}

{definition} {sense}

There are {n_edges} edges in the graph. What else is there: {idle}

## What methods make of it

{expected}

## How it was made

`python -m training.truths` sets every weight and writes the same files each time. LayerNorm has an
enormous epsilon, which its weight undoes, and all that is written has mean zero, so the norms do
nothing; the stream is a sum of spaces ({spaces}), and a component reads and writes those that are
named for it and no other. Positions are told apart by the learned position embedding, so prompts
must be those of the task, behind one BOS.

The list is one for patching on this task. Under zero or mean ablation, or on other prompts, other
edges can matter. In float32 and float64 what should be 0 is below a millionth of what is not;
bfloat16 rounds more, and float16 cannot hold the weights of the norms.
"""


def tokenizer_of(truth: Truth) -> PreTrainedTokenizerFast:
    """The tokenizer of a truth's words, one token a word."""
    return word_tokenizer(truth.words, truth.n_positions)


@torch.no_grad()
def _scores(name: str, model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast) -> str:
    """What the model scores on its task, as a sentence."""
    metric, accuracy = get_metric(default_metric(name)), get_metric("accuracy")
    dataset = load_dataset(name, tokenizer, "test", 256)
    answers = Answers.of(dataset.examples)
    clean, corrupted = (answer_logits(model, dataset.examples, side) for side in (False, True))
    found = [
        f"{measure(logits, answers).mean().item() + 0.0:.2f}"
        for measure in (accuracy, metric)
        for logits in (clean, corrupted)
    ]
    return (
        f"On 256 test prompts (seed 0) its accuracy is {found[0]} on clean and {found[1]} on "
        f"corrupted prompts, and its {metric.name} {found[2]} and {found[3]}, both judged by the "
        f"answers of the clean prompt."
    )


def card(truth: Truth, model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast) -> str:
    """The model card: the construction, the circuit, and what theory says of the methods."""
    name = f"truth/{truth.name}"
    example = load_dataset(name, tokenizer, "train", 1)[0]
    text = CARD.format(
        name=truth.name,
        Title=truth.title[0].upper() + truth.title[1:],
        n_layers=truth.n_layers,
        n_heads=truth.n_heads,
        d_model=truth.d_model,
        parameters=model.num_parameters(),
        n_words=len(tokenizer),
        description=get_task(name).description,
        clean=example.clean,
        corrupted=example.corrupted,
        correct=tokenizer.decode(list(example.correct)),
        scores=_scores(name, model, tokenizer),
        circuit=truth.circuit,
        edges="\n".join(f"| `{edge}` | {does} |" for edge, does in truth.edges.items()),
        definition=DEFINITION,
        sense=truth.sense,
        n_edges=Graph(truth.n_layers, truth.n_heads).n_edges,
        idle=truth.idle,
        expected=truth.expected,
        spaces=", ".join(f"*{space}*" for space in truth.spaces),
    )
    return "\n\n".join(map(_filled, text.rstrip().split("\n\n"))) + "\n"


def _filled(paragraph: str) -> str:
    """A paragraph of prose in lines of at most 100 characters; anything else as it is."""
    if paragraph.startswith(("#", "|", "---")):
        return paragraph
    return textwrap.fill(
        " ".join(paragraph.split()), 100, break_long_words=False, break_on_hyphens=False
    )


def listing(truth: Truth) -> str:
    """The text of `truth.json`: the task, the sizes of the graph and the true edges by name."""
    name = f"truth/{truth.name}"
    return (
        json.dumps(
            {
                "model": name,
                "task": name,
                "intervention": "patching",
                "n_layers": truth.n_layers,
                "n_heads": truth.n_heads,
                "definition": DEFINITION,
                "sense": " ".join(truth.sense.split()),
                "edges": [{"edge": edge, "carries": does} for edge, does in truth.edges.items()],
            },
            indent=2,
            ensure_ascii=False,
        )
        + "\n"
    )


def build(name: str, directory: Path) -> None:
    """Write one truth's weights, tokenizer, list of edges and card into a directory."""
    truth = BUILDERS[name]()
    tokenizer = tokenizer_of(truth)
    model = Weights(truth, tokenizer).model.eval()
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    (directory / "model.safetensors").chmod(0o644)  # written for its owner alone
    (directory / "truth.json").write_text(listing(truth), encoding="utf-8")
    (directory / "README.md").write_text(card(truth, model, tokenizer), encoding="utf-8")


def main(directory: Path = BUNDLED) -> None:
    """Build every truth."""
    for name in BUILDERS:
        build(name, directory / name)
        print(directory / name)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
