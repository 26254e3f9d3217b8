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
| confidence | intervals curves           | the values of evaluations, how examples are drawn     |

where the grid asks for it,

| stage               | writes                    | depends on                                     |
|---------------------|---------------------------|------------------------------------------------|
| ensemble            | scores                    | the members' scores, how they are combined     |
| file                | scores circuits members … | the content of a file, the graph               |
| stability           | stability                 | the weights, examples, method, how many draws  |
| recovery            | recoveries                | scores, the edges that are known to be true    |
| minimality          | marginals marginal_values | as evaluation, and how large circuits may be   |

and once all cells are done,

| stage               | writes                    | depends on                                     |
|---------------------|---------------------------|------------------------------------------------|
| evaluation          | as above                  | a cell's circuits, another task's baselines    |
| score comparisons   | score_comparisons         | all scores of one graph and level              |
| circuit comparisons | circuit_comparisons       | all circuits of one graph, level and rule      |
"""

from flows.stages.attribution import ScoresStage, ShardStage
from flows.stages.comparison import CircuitComparisonsStage, Compared, ScoreComparisonsStage
from flows.stages.confidence import ConfidenceStage
from flows.stages.description import DatasetStage, MethodStage, ModelStage
from flows.stages.ensemble import EnsembleMethodStage, EnsembleStage
from flows.stages.evaluation import CIRCUIT, COMPLEMENT, BaselinesStage, EvaluationStage
from flows.stages.extraction import CircuitsStage
from flows.stages.imported import FileMethodStage, FileStage
from flows.stages.means import MeansStage
from flows.stages.minimality import MinimalityStage
from flows.stages.recovery import RecoveryStage
from flows.stages.stability import StabilityStage
from flows.stages.stage import Found, Rows, Stage

__all__ = [
    "CIRCUIT",
    "COMPLEMENT",
    "BaselinesStage",
    "CircuitComparisonsStage",
    "CircuitsStage",
    "Compared",
    "ConfidenceStage",
    "DatasetStage",
    "EnsembleMethodStage",
    "EnsembleStage",
    "EvaluationStage",
    "FileMethodStage",
    "FileStage",
    "Found",
    "MeansStage",
    "MethodStage",
    "MinimalityStage",
    "ModelStage",
    "RecoveryStage",
    "Rows",
    "ScoreComparisonsStage",
    "ScoresStage",
    "ShardStage",
    "StabilityStage",
    "Stage",
]
