"""Behaviours: what a model is asked to do, as clean and corrupted pairs, and how it is judged.

A task of one's own is a function that returns pairs, in one's own file::

    from tasks import Pair, load_dataset, task

    @task("capitals", metric="logit-diff")
    def capitals():
        '''Name the capital of a country.'''
        prompt = "The capital of {} is called"
        pairs = [("France", "Paris", "Italy", "Rome"), ("Japan", "Tokyo", "Peru", "Lima")]
        return [
            Pair(prompt.format(a), prompt.format(b), (f" {x}",), (f" {y}",)) for a, x, b, y in pairs
        ]
"""

from tasks.combinations import Combinations
from tasks.loading import default_metric, load_dataset
from tasks.metrics import Answers, Metric, as_metric, get_metric, metric, metric_names
from tasks.registry import get_task, task, task_names
from tasks.rules import rule, rule_names
from tasks.splits import SPLITS, split_of
from tasks.task import Dataset, Example, Pair, Task, TaskError

__all__ = [
    "SPLITS",
    "Answers",
    "Combinations",
    "Dataset",
    "Example",
    "Metric",
    "Pair",
    "Task",
    "TaskError",
    "as_metric",
    "default_metric",
    "get_metric",
    "get_task",
    "load_dataset",
    "metric",
    "metric_names",
    "rule",
    "rule_names",
    "split_of",
    "task",
    "task_names",
]
