"""Behaviours: what a model is asked to do, as clean and corrupted pairs, and how it is judged."""

from tasks.metrics import Answers, Metric, get_metric, metric, metric_names
from tasks.registry import get_task, task, task_names
from tasks.task import Dataset, Example, Pair, Task, TaskError

__all__ = [
    "Answers",
    "Dataset",
    "Example",
    "Metric",
    "Pair",
    "Task",
    "TaskError",
    "get_metric",
    "get_task",
    "metric",
    "metric_names",
    "task",
    "task_names",
]
