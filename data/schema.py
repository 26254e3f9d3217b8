"""Every table that is ever persisted: its columns, their types and what they mean.

A star: dimensions (`models`, `graphs`, `edges`, `nodes`, `datasets`, `examples`, `methods`) and
facts: what was measured on the way (`mean_activations`, `shards`, `scores`), the circuits
(`circuits`, `extractions`, `members`, `member_neurons`), how they do (`evaluations`,
`example_values`, `baselines`, `baseline_values`, `intervals`, `curves`, `marginals`,
`marginal_values`), and how results hold and compare (`stability`, `recoveries`,
`score_comparisons`, `circuit_comparisons`). Ids that name content are
lower-case hexadecimal keys, ids within one of them (`edge_id`, `node_id`, `example_id`) are small
integers. What is scored is a *unit*, with a `unit_id` within its level: at edge level the edge's
`edge_id`, at node level the writer's `node_id`, at neuron level `node_id * d_model + dimension`.
The views have the names. A table's `key` columns tell its rows apart. A *companion* is written
under its primary's key, before it: the primary is complete only where all its companions are.

Raise `SCHEMA_VERSION` whenever anything in a store changes, and the `since` of every table whose
columns do: artifacts of older versions whose tables are the same are used as they are.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa

from data.errors import StoreError

SCHEMA_VERSION = 4

TEXT, FLAG, REAL = pa.string(), pa.bool_(), pa.float64()
ID, BIG = pa.int32(), pa.int64()
TOKENS = pa.list_(pa.field("token", pa.int32(), nullable=False))
NAMES = pa.list_(pa.field("name", pa.string(), nullable=False))
INDICES = pa.list_(pa.field("index", pa.int32(), nullable=False))
VECTOR = pa.list_(pa.field("value", pa.float64(), nullable=False))


@dataclass(frozen=True)
class Table:
    """One kind of artifact: a name, what a row is, and the schema its files have."""

    name: str
    row: str
    schema: pa.Schema
    key: tuple[str, ...]
    companion_of: str | None = None
    since: int = 1  # the schema version that gave it its columns

    @property
    def text_columns(self) -> list[str]:
        """The columns that are dictionary-encoded in the files."""
        return [field.name for field in self.schema if field.type == TEXT]


def _declare(
    name: str,
    row: str,
    key: str,
    *columns: tuple[str, pa.DataType, str],
    companion_of: str | None = None,
    since: int,
) -> Table:
    """A table from (column, type, description) triples; a column that may be null ends in `?`."""
    fields = [
        pa.field(
            column.rstrip("?"), kind, column.endswith("?"), metadata={"description": description}
        )
        for column, kind, description in columns
    ]
    metadata = {"description": f"one row is {row}"}
    schema = pa.schema(fields, metadata)
    return Table(name, row, schema, tuple(key.split()), companion_of, since)


MODELS = _declare(
    "models", "a model", "model",
    ("model", TEXT, "fingerprint: digest of the weights"),
    ("name", TEXT, "the name it was loaded by"),
    ("family", TEXT, "architecture family, such as gpt2"),
    ("n_layers", ID, "number of layers"),
    ("n_heads", ID, "query heads per layer"),
    ("n_kv_heads", ID, "key-value heads per layer; as many as query heads where not grouped"),
    ("d_model", ID, "width of the residual stream"),
    ("d_head", ID, "width of a head"),
    ("d_mlp", ID, "width of an MLP's hidden layer"),
    ("d_vocab", ID, "number of tokens"),
    ("n_positions", ID, "longest input"),
    ("parallel", FLAG, "whether attention and MLP of a layer read the same stream"),
    ("n_parameters", BIG, "number of parameters"),
    ("dtype?", TEXT, "dtype of the weights as loaded"),
    since=2,
)  # fmt: skip

GRAPHS = _declare(
    "graphs", "the computational graph of an architecture", "graph",
    ("graph", TEXT, "digest of the graph"),
    ("n_layers", ID, "number of layers"),
    ("n_heads", ID, "query heads per layer"),
    ("n_kv_heads", ID, "k readers per layer; as many as query heads where each has its own"),
    ("parallel", FLAG, "whether attention and MLP of a layer read the same stream"),
    ("n_writers", ID, "number of writers"),
    ("n_readers", ID, "number of readers"),
    ("n_nodes", ID, "number of nodes: the writers and logits"),
    ("n_edges", ID, "number of edges that exist"),
    since=2,
)  # fmt: skip

EDGES = _declare(
    "edges", "an edge of a graph", "graph edge_id",
    ("graph", TEXT, "the graph it belongs to"),
    ("edge_id", ID, "position among the graph's edges, row by row over (writer, reader)"),
    ("edge", TEXT, "name, such as a0.h3->m2"),
    ("writer_id", ID, "position of the writer"),
    ("reader_id", ID, "position of the reader"),
    ("writer", TEXT, "name of the writer"),
    ("reader", TEXT, "name of the reader"),
    ("kind", TEXT, "what the reader feeds: q, k, v, mlp or logits"),
    ("writer_layer", ID, "layer of the writer; -1 for input"),
    ("writer_head?", ID, "head of the writer; null if it is none"),
    ("reader_layer", ID, "layer of the reader; n_layers for logits"),
    ("reader_head?", ID, "head of the reader; null if it is none, or several of a group"),
    ("reader_nodes", NAMES, "the nodes that the reader feeds: several for the k or v of a group"),
    companion_of="graphs", since=2,
)  # fmt: skip

NODES = _declare(
    "nodes", "a node of a graph", "graph node_id",
    ("graph", TEXT, "the graph it belongs to"),
    ("node_id", ID, "position among the nodes: the writers in order, then logits"),
    ("node", TEXT, "name, such as a0.h3"),
    ("kind", TEXT, "input, head, mlp or logits"),
    ("layer", ID, "layer; -1 for input, n_layers for logits"),
    ("head?", ID, "head; null if it is none"),
    companion_of="graphs", since=1,
)  # fmt: skip

DATASETS = _declare(
    "datasets", "a set of clean and corrupted examples", "dataset",
    ("dataset", TEXT, "id of the dataset"),
    ("task", TEXT, "the task it was made for"),
    ("source", TEXT, "task name or file it came from"),
    ("split", TEXT, "train, validation, test or all"),
    ("seed?", BIG, "seed of the generator; null if nothing was drawn"),
    ("asked?", ID, "number of examples asked for; null for all there are"),
    ("n_examples", ID, "number of examples kept"),
    ("dropped_json", TEXT, "examples dropped in alignment: JSON object, reason to count"),
    ("tokenizer", TEXT, "digest of the tokenizer"),
    since=1,
)  # fmt: skip

EXAMPLES = _declare(
    "examples", "an example of a dataset", "dataset example_id",
    ("dataset", TEXT, "the dataset it belongs to"),
    ("example_id", ID, "position in the dataset"),
    ("clean", TEXT, "clean text"),
    ("corrupted", TEXT, "corrupted text"),
    ("clean_tokens", TOKENS, "token ids of the clean text"),
    ("corrupted_tokens", TOKENS, "token ids of the corrupted text, as many; none without one"),
    ("correct", TOKENS, "token ids of the correct answers"),
    ("incorrect", TOKENS, "token ids of the incorrect answers"),
    companion_of="datasets", since=1,
)  # fmt: skip

METHODS = _declare(
    "methods", "an attribution method with its options", "method",
    ("method", TEXT, "id of method and options"),
    ("name", TEXT, "name, such as EAP-IG-inputs; ensemble; file for scores that were imported"),
    ("label", TEXT, "name and options for people, such as EAP-IG-inputs (5, midpoint)"),
    ("level", TEXT, "edge, node or neuron"),
    ("intervention?", TEXT, "what replaces a contribution; null for methods that take none"),
    ("steps?", ID, "points on the path; null for methods without a path"),
    ("quadrature?", TEXT, "quadrature rule; null for methods without a path"),
    ("scope?", TEXT, "component or all: which edges a point counts for; null where all do"),
    ("seed?", BIG, "seed of the numbers drawn; null for methods that draw none"),
    ("restriction?", TEXT, "the units it is restricted to, such as top 500 of EAP; null for none"),
    ("metric?", TEXT, "metric whose loss is attributed; null for methods that take none"),
    ("combine?", TEXT, "how an ensemble combines its members' scores; null for other methods"),
    since=3,
)  # fmt: skip

MEAN_ACTIVATIONS = _declare(
    "mean_activations", "the mean output of a writer, at every position or at one",
    "means writer_id position",
    ("means", TEXT, "id of the set of means: the key of its artifact"),
    ("model", TEXT, "the model"),
    ("dataset", TEXT, "the dataset whose clean inputs were averaged over"),
    ("kind", TEXT, "mean or mean-positional"),
    ("writer_id", ID, "position of the writer"),
    ("writer", TEXT, "name of the writer"),
    ("position?", ID, "the position; null where the mean is over all of them"),
    ("vector", VECTOR, "the mean output; of a head d_head numbers, before its output projection"),
    ("n_positions", BIG, "how many real positions each mean is over"),
    since=2,
)  # fmt: skip

SHARDS = _declare(
    "shards", "the sums over a shard's examples for one unit", "shard_index unit_id",
    ("shard_index", ID, "position of the shard's examples among those of its dataset"),
    ("first_example", ID, "first example of the shard"),
    ("n_examples", ID, "number of examples in the shard"),
    ("level", TEXT, "edge, node or neuron"),
    ("unit_id", ID, "the edge, node or neuron"),
    ("total", REAL, "sum of the examples' scores"),
    ("total_of_squares", REAL, "sum of the squares of the examples' scores"),
    since=2,
)  # fmt: skip

SCORES = _declare(
    "scores", "the score of a unit", "scores unit_id",
    ("scores", TEXT, "id of the set of scores: the key of its artifact"),
    ("model", TEXT, "the model"),
    ("graph", TEXT, "its graph"),
    ("dataset?", TEXT, "the dataset scored on; null for scores that were imported"),
    ("method", TEXT, "the method"),
    ("level", TEXT, "edge, node or neuron"),
    ("unit_id", ID, "the edge, node or neuron"),
    ("score?", REAL, "mean over examples; positive: the unit helps; null where it was not scored"),
    ("standard_error?", REAL, "standard error of the mean; null where unknown, as for one example"),
    ("n_examples?", ID, "number of examples; null for scores that were imported"),
    since=3,
)  # fmt: skip

CIRCUITS = _declare(
    "circuits", "a circuit extracted from scores, or imported", "circuit",
    ("circuit", TEXT, "id of the circuit"),
    ("scores", TEXT, "the scores it was extracted from, or that its file has"),
    ("graph", TEXT, "its graph"),
    ("level", TEXT, "edge, node or neuron"),
    ("algorithm", TEXT, "top-n, threshold or greedy; imported for a file's own circuit"),
    ("rule", TEXT, "algorithm and options for people, such as top-n (signed)"),
    ("absolute?", FLAG, "whether units were ranked by |score|; null for an imported circuit"),
    ("size_asked?", REAL, "fraction of all units of its level asked for; null if none was"),
    ("units_asked?", ID, "number of units asked for; null if none was"),
    ("threshold?", REAL, "least score asked for; null if none was"),
    ("n_units", ID, "number of edges, nodes or neurons in it, after pruning"),
    ("n_edges", ID, "number of edges in it"),
    ("n_nodes", ID, "number of nodes in it"),
    ("fraction", REAL, "achieved: n_units over all units of its level, in [0, 1]"),
    since=3,
)  # fmt: skip

EXTRACTIONS = _declare(
    "extractions", "a circuit of an extraction: one rule and a list of sizes", "extraction circuit",
    ("extraction", TEXT, "the extraction: what CPR and CMD are taken over"),
    ("circuit", TEXT, "a circuit it gave; the same circuit may come from several"),
    companion_of="circuits", since=1,
)  # fmt: skip

MEMBERS = _declare(
    "members", "an edge of a circuit, whatever its level", "circuit edge_id",
    ("circuit", TEXT, "the circuit"),
    ("edge_id", ID, "the edge"),
    companion_of="circuits", since=1,
)  # fmt: skip

MEMBER_NEURONS = _declare(
    "member_neurons", "a node of a circuit at neuron level", "circuit node_id",
    ("circuit", TEXT, "the circuit"),
    ("node_id", ID, "the node, a writer"),
    ("dimensions", INDICES, "the output dimensions of the writer that are in the circuit"),
    companion_of="circuits", since=2,
)  # fmt: skip

EVALUATIONS = _declare(
    "evaluations", "the metric of a circuit on a dataset", "evaluation",
    ("evaluation", TEXT, "id of the evaluation"),
    ("circuit", TEXT, "the circuit that was run"),
    ("part", TEXT, "circuit, or complement: the model without the circuit was run"),
    ("model", TEXT, "the model"),
    ("dataset", TEXT, "the dataset it was run on"),
    ("intervention", TEXT, "what replaced the contributions that are not in the circuit"),
    ("metric", TEXT, "the metric"),
    ("mean", REAL, "mean of the metric over examples"),
    ("standard_error?", REAL, "standard error of the mean; null or NaN for a single example"),
    ("faithfulness?", REAL, "(m(C) - m(empty)) / (m(model) - m(empty)); null where undefined"),
    ("baseline", TEXT, "the baseline that m(model) and m(empty) are of"),
    ("n_examples", ID, "number of examples"),
    since=3,
)  # fmt: skip

EXAMPLE_VALUES = _declare(
    "example_values", "the metric of a circuit on one example", "evaluation example_id",
    ("evaluation", TEXT, "the evaluation"),
    ("example_id", ID, "the example"),
    ("value", REAL, "the metric"),
    companion_of="evaluations", since=1,
)  # fmt: skip

BASELINES = _declare(
    "baselines", "the metric of the whole model, or of its empty circuit", "baseline run",
    ("baseline", TEXT, "id of the baseline"),
    ("model", TEXT, "the model"),
    ("dataset", TEXT, "the dataset"),
    ("intervention", TEXT, "what replaces every contribution in the corrupted run"),
    ("means?", TEXT, "the mean activations that replace them; null for other interventions"),
    ("metric", TEXT, "the metric"),
    ("run", TEXT, "clean, or corrupted: the empty circuit under the intervention"),
    ("mean", REAL, "mean of the metric over examples"),
    ("standard_error?", REAL, "standard error of the mean; null or NaN for a single example"),
    ("n_examples", ID, "number of examples"),
    since=2,
)  # fmt: skip

BASELINE_VALUES = _declare(
    "baseline_values", "the metric of the model on one example", "baseline run example_id",
    ("baseline", TEXT, "the baseline"),
    ("run", TEXT, "clean, or corrupted: the empty circuit under the intervention"),
    ("example_id", ID, "the example"),
    ("value", REAL, "the metric"),
    companion_of="baselines", since=1,
)  # fmt: skip

INTERVALS = _declare(
    "intervals", "the uncertainty of a faithfulness", "evaluation n_resamples confidence seed",
    ("evaluation", TEXT, "the evaluation"),
    ("n_resamples", ID, "resamples of the examples that it rests on"),
    ("confidence", REAL, "share of the resamples within the interval"),
    ("seed", BIG, "seed of the resamples: the same examples in all circuits and baselines"),
    ("standard_error?", REAL, "standard error of the faithfulness; null where undefined"),
    ("low?", REAL, "lower end of the interval; null where undefined"),
    ("high?", REAL, "upper end of the interval; null where undefined"),
    since=3,
)  # fmt: skip

CURVES = _declare(
    "curves", "one number for all sizes of an extraction, with its uncertainty",
    "extraction baseline axis n_resamples confidence seed",
    ("extraction", TEXT, "the extraction"),
    ("baseline", TEXT, "the baseline that its circuits were measured between"),
    ("axis", TEXT, "linear or log: what the areas are taken over"),
    ("n_resamples", ID, "resamples of the examples"),
    ("confidence", REAL, "share of the resamples within the intervals"),
    ("seed", BIG, "seed of the resamples"),
    ("cpr?", REAL, "area under faithfulness; null where undefined"),
    ("cpr_standard_error?", REAL, "its standard error"),
    ("cpr_low?", REAL, "lower end of its interval"),
    ("cpr_high?", REAL, "upper end of its interval"),
    ("cmd?", REAL, "area between faithfulness and 1; null where undefined"),
    ("cmd_standard_error?", REAL, "its standard error"),
    ("cmd_low?", REAL, "lower end of its interval"),
    ("cmd_high?", REAL, "upper end of its interval"),
    companion_of="intervals", since=3,
)  # fmt: skip

MARGINALS = _declare(
    "marginals", "what a unit adds to its circuit", "circuit baseline unit_id",
    ("circuit", TEXT, "the circuit"),
    ("baseline", TEXT, "the baseline: says the dataset, the metric and the intervention"),
    ("level", TEXT, "edge, node or neuron"),
    ("unit_id", ID, "the edge, node or neuron"),
    ("marginal", REAL, "mean metric of the circuit less that of the circuit without the unit"),
    ("standard_error?", REAL, "standard error of the mean; null or NaN for a single example"),
    ("n_examples", ID, "number of examples"),
    since=3,
)  # fmt: skip

MARGINAL_VALUES = _declare(
    "marginal_values", "what a unit adds to its circuit on one example",
    "circuit baseline unit_id example_id",
    ("circuit", TEXT, "the circuit"),
    ("baseline", TEXT, "the baseline"),
    ("unit_id", ID, "the edge, node or neuron"),
    ("example_id", ID, "the example"),
    ("value", REAL, "metric of the circuit less that of the circuit without the unit"),
    companion_of="marginals", since=3,
)  # fmt: skip

STABILITY = _declare(
    "stability", "how often a unit is among the best when the examples are drawn again",
    "scores n_best n_resamples seed unit_id",
    ("scores", TEXT, "the scores whose examples were drawn again"),
    ("n_best", ID, "how many units count as the best, by |score|"),
    ("n_resamples", ID, "how often the examples were drawn"),
    ("seed", BIG, "seed of the draws"),
    ("unit_id", ID, "the edge, node or neuron; those that were never among the best are left out"),
    ("frequency", REAL, "share of the draws in which it was among the best, above 0"),
    ("mean_jaccard?", REAL, "mean Jaccard index of a draw's best with those of all examples"),
    since=3,
)  # fmt: skip

RECOVERIES = _declare(
    "recoveries", "how well scores find a circuit that is known", "scores truth",
    ("scores", TEXT, "the scores"),
    ("truth", TEXT, "the model whose circuit is known by construction"),
    ("n_true", ID, "units of the known circuit"),
    ("precision?", REAL, "share of the n_true best units that are in it; null where undefined"),
    ("recall?", REAL, "share of its units that are among the n_true best; null where undefined"),
    ("auroc?", REAL, "area under the receiver operating characteristic; null where undefined"),
    ("auprc?", REAL, "area under precision over recall: average precision; null where undefined"),
    since=3,
)  # fmt: skip

SCORE_COMPARISONS = _declare(
    "score_comparisons", "a set of scores beside another of one graph and level",
    "scores_a scores_b",
    ("scores_a", TEXT, "the one whose id is less"),
    ("scores_b", TEXT, "the other"),
    ("n_common", ID, "units that are scored in both"),
    ("kendall_tau?", REAL, "Kendall's tau-b of the scores; null where undefined"),
    ("rank_biased_overlap?", REAL, "of the rankings by |score|; null where undefined"),
    ("weighted_iou?", REAL, "shared over joint |score|, each set's summing to 1; null: undefined"),
    since=3,
)  # fmt: skip

CIRCUIT_COMPARISONS = _declare(
    "circuit_comparisons", "a circuit beside another of one graph, level, rule and size",
    "circuit_a circuit_b",
    ("circuit_a", TEXT, "the one whose id is less"),
    ("circuit_b", TEXT, "the other"),
    ("n_a", ID, "units of a"),
    ("n_b", ID, "units of b"),
    ("n_shared", ID, "units in both"),
    ("jaccard_edges?", REAL, "edges in both over edges in either; null where both are empty"),
    ("jaccard_nodes?", REAL, "nodes in both over nodes in either; null where both are empty"),
    ("precision?", REAL, "share of the units of a that are in b; null where a is empty"),
    ("recall?", REAL, "share of the units of b that are in a; null where b is empty"),
    ("expected?", REAL, "units that circuits of these sizes share by chance"),
    ("p_value?", REAL, "probability that chance shares as many or more"),
    since=3,
)  # fmt: skip

TABLES: Mapping[str, Table] = {
    table.name: table
    for table in (
        MODELS, GRAPHS, EDGES, NODES, DATASETS, EXAMPLES, METHODS,
        MEAN_ACTIVATIONS, SHARDS, SCORES, CIRCUITS, EXTRACTIONS, MEMBERS, MEMBER_NEURONS,
        EVALUATIONS, EXAMPLE_VALUES, BASELINES, BASELINE_VALUES, INTERVALS, CURVES,
        MARGINALS, MARGINAL_VALUES, STABILITY, RECOVERIES,
        SCORE_COMPARISONS, CIRCUIT_COMPARISONS,
    )
}  # fmt: skip


def table(kind: str) -> Table:
    """The declaration of a kind; StoreError if there is no such table."""
    if kind not in TABLES:
        raise StoreError(f"There is no table {kind!r}: the tables are {', '.join(TABLES)}.")
    return TABLES[kind]


def companions(kind: str) -> Iterator[str]:
    """The kinds that must exist under the same key before `kind` is complete."""
    return (other.name for other in TABLES.values() if other.companion_of == kind)


def since(kind: str) -> int:
    """The least schema version whose artifacts of a kind, and all its companions, are as now."""
    primary = table(kind).companion_of or kind
    return max(TABLES[one].since for one in (primary, *companions(primary)))
