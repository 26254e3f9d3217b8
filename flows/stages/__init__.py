"""The stages of a grid, in the order in which a cell goes through them.

| stage      | writes                     | depends on                                            |
|------------|----------------------------|-------------------------------------------------------|
| model      | models graphs edges nodes  | the weights, how key-value heads are counted          |
| dataset    | datasets examples          | task or file, split, size, seed, tokenizer            |
| method     | methods                    | the method and its options                            |
| means      | mean_activations           | the weights, the examples, the kind                   |
| shard      | shards                     | the weights, its own examples and units, the method   |
| scores     | scores                     | the shards, joined and added in order                 |
| circuits   | circuits members …         | the scores, an extraction rule, all its sizes         |
| baselines  | baselines baseline_values  | the weights, the examples, a metric, an intervention  |
| evaluation | evaluations example_values | the weights, circuits and examples, the baselines     |
"""

from flows.stages.attribution import ScoresStage, ShardStage
from flows.stages.description import DatasetStage, MethodStage, ModelStage
from flows.stages.evaluation import BaselinesStage, EvaluationStage
from flows.stages.extraction import CircuitsStage
from flows.stages.means import MeansStage
from flows.stages.stage import Found, Rows, Stage

__all__ = [
    "BaselinesStage",
    "CircuitsStage",
    "DatasetStage",
    "EvaluationStage",
    "Found",
    "MeansStage",
    "MethodStage",
    "ModelStage",
    "Rows",
    "ScoresStage",
    "ShardStage",
    "Stage",
]
