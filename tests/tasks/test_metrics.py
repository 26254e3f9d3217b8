import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tasks import Answers, Example, TaskError, get_metric, metric, metric_names
from tasks.metrics import METRICS


def answers(*rows):
    """Answers from (correct, incorrect) per example."""
    return Answers.of([Example("", "", (0,), (0,), *row) for row in rows])


LOGITS = torch.tensor([[math.log(w) for w in (1.0, 2.0, 3.0, 4.0)]], dtype=torch.float64)


def test_logit_diff_is_the_difference_of_mean_logits():
    value = get_metric("logit-diff")(LOGITS, answers(((3, 1), (0,))))
    assert value.item() == pytest.approx((math.log(4) + math.log(2)) / 2 - 0.0)


def test_prob_diff_is_the_difference_of_summed_probabilities():
    value = get_metric("prob-diff")(LOGITS, answers(((3, 1), (0, 2))))
    assert value.item() == pytest.approx(0.4 + 0.2 - 0.1 - 0.3)


def test_kl_sums_over_the_vocabulary_and_goes_from_reference_to_run():
    reference, run = [0.1, 0.2, 0.3, 0.4], [0.25, 0.25, 0.4, 0.1]
    value = get_metric("kl")(
        torch.tensor([run], dtype=torch.float64).log(),
        answers(((0,), (1,))),
        torch.tensor([reference], dtype=torch.float64).log() + 7.0,
    )
    by_hand = sum(p * math.log(p / q) for p, q in zip(reference, run, strict=True))
    assert value.item() == pytest.approx(by_hand, rel=1e-12)
    other_way = sum(q * math.log(q / p) for p, q in zip(reference, run, strict=True))
    assert value.item() != pytest.approx(other_way, rel=1e-3)


def test_kl_is_zero_and_flat_where_the_run_is_the_reference():
    logits = torch.randn(3, 50, generator=torch.manual_seed(0), dtype=torch.float64)
    logits.requires_grad_()
    value = get_metric("kl")(logits, answers(*[((0,), (1,))] * 3), logits.detach())
    [gradient] = torch.autograd.grad(value.sum(), logits)
    assert value.abs().max() < 1e-12
    assert gradient.abs().max() < 1e-12
    assert get_metric("kl").flat_at_clean


def test_kl_ignores_tokens_that_both_runs_rule_out():
    logits = torch.tensor([[0.0, 1.0, -math.inf]], requires_grad=True)
    value = get_metric("kl")(logits, answers(((0,), (1,))), torch.tensor([[1.0, 0.0, -math.inf]]))
    [gradient] = torch.autograd.grad(value.sum(), logits)
    assert value.item() == pytest.approx(math.tanh(0.5))
    assert torch.isfinite(gradient).all()


def test_no_gradient_flows_into_the_reference():
    reference = torch.zeros(1, 4, requires_grad=True)
    logits = torch.ones(1, 4).cumsum(-1).requires_grad_()
    get_metric("kl")(logits, answers(((0,), (1,))), reference).sum().backward()
    assert reference.grad is None


def test_accuracy_is_one_where_prob_diff_is_above_zero():
    rows = answers(((3,), (0, 1)), ((2,), (0, 3)), ((0, 1), (2,)))
    logits = LOGITS.expand(3, 4)
    assert get_metric("accuracy")(logits, rows).tolist() == [1.0, 0.0, 0.0]


def test_accuracy_tells_apart_probabilities_too_small_for_a_float():
    logits = torch.tensor([[0.0, -200.0, -300.0]])
    rows = answers(((1,), (2,)))
    assert get_metric("prob-diff")(logits, rows).item() == 0.0
    assert get_metric("accuracy")(logits, rows).item() == 1.0


@given(data=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=6))
def test_padding_of_answers_changes_nothing(data):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(len(data), 12, generator=generator, dtype=torch.float64)
    rows = [
        (tuple(range(n_correct)), tuple(range(6, 6 + n_incorrect)))
        for n_correct, n_incorrect in data
    ]
    for name in ("logit-diff", "prob-diff", "accuracy"):
        together = get_metric(name)(logits, answers(*rows))
        alone = [get_metric(name)(logits[i : i + 1], answers(row)) for i, row in enumerate(rows)]
        assert torch.allclose(together, torch.cat(alone), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["logit-diff", "prob-diff", "kl", "accuracy"])
@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_half_precision_is_upcast_and_float64_stays(name, dtype, expected):
    logits = torch.randn(2, 40, generator=torch.manual_seed(1)).to(dtype)
    reference = torch.randn(2, 40, generator=torch.manual_seed(2)).to(dtype)
    rows = answers(((1, 2), (3,)), ((4,), (5, 6)))
    value = get_metric(name)(logits, rows, reference)
    exact = get_metric(name)(logits.double(), rows, reference.double())
    assert value.dtype == expected
    assert torch.allclose(value.double(), exact, rtol=1e-4, atol=1e-6)


def test_the_loss_is_lower_where_the_run_is_better():
    rows = answers(((3,), (0,)))
    assert get_metric("logit-diff").loss(LOGITS, rows).item() == pytest.approx(-math.log(4))
    worse = get_metric("kl").loss(LOGITS, rows, LOGITS.flip(-1))
    assert worse.item() > get_metric("kl").loss(LOGITS, rows, LOGITS).item()


def test_metrics_declare_what_methods_must_know():
    declared = {
        name: (m.higher_is_better, m.differentiable, m.needs_reference, m.flat_at_clean)
        for name in ("logit-diff", "prob-diff", "kl", "accuracy")
        for m in [get_metric(name)]
    }
    assert declared == {
        "logit-diff": (True, True, False, False),
        "prob-diff": (True, True, False, False),
        "kl": (False, True, True, True),
        "accuracy": (True, False, False, False),
    }


def test_kl_without_a_reference_is_refused():
    with pytest.raises(TaskError, match="kl compares with the model's clean run"):
        get_metric("kl")(LOGITS, answers(((0,), (1,))))
    with pytest.raises(TaskError, match=r"the shape of the logits, \(1, 4\), not \(1, 3\)"):
        get_metric("kl")(LOGITS, answers(((0,), (1,))), LOGITS[:, :3])


@pytest.mark.parametrize("shape", [(4,), (2, 4), (1, 3, 4)])
def test_logits_of_another_shape_are_refused(shape):
    with pytest.raises(TaskError, match="answer position of 1 examples, not a tensor of shape"):
        get_metric("logit-diff")(torch.zeros(shape), answers(((0,), (1,))))


def test_an_unknown_metric_is_answered_with_the_nearest():
    with pytest.raises(TaskError, match="no metric 'logit_dif'; did you mean 'logit-diff'"):
        get_metric("logit_dif")


def test_a_metric_of_ones_own_is_registered_by_a_decorator():
    @metric("margin", higher_is_better=False)
    def margin(logits, answers, reference):
        return logits.max(-1).values - logits.gather(-1, answers.correct)[:, 0]

    try:
        assert "margin" in metric_names()
        assert get_metric("margin")(LOGITS, answers(((1,), (0,)))).item() == pytest.approx(
            math.log(2)
        )
    finally:
        del METRICS._entries["margin"], METRICS._origins["margin"]


def test_names_are_known_without_importing_torch():
    script = (
        "import sys, tasks; tasks.metric_names(), tasks.task_names(); print('torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (lambda logits: None, "None"),
        (lambda logits: 1.0, "a float"),
        (lambda logits: [1.0, 2.0], "a list"),
        (lambda logits: logits.detach().sum(-1).numpy(), "a ndarray"),
        (lambda logits: logits.mean(), r"one of shape \[\]"),
        (lambda logits: logits[:, :1], r"one of shape \[2, 1\]"),
        (lambda logits: logits[:1, 0], r"one of shape \[1\]"),
        (lambda logits: logits.argmax(-1), r"one of int64: call \.float\(\) on it"),
    ],
)
@pytest.mark.parametrize("is_registered", [True, False])
def test_a_metric_that_gives_anything_but_a_number_an_example_is_refused(
    returned, said, is_registered, monkeypatch
):
    from tasks.metrics import as_metric

    def astray(logits, answers, reference=None):
        return returned(logits)

    if is_registered:
        monkeypatch.setattr("tasks.metrics.METRICS", type(METRICS)("metric"))
        metric("astray")(astray)
    wanted = r"must return a tensor of one floating-point number an example, \[2\]"
    with pytest.raises(TaskError, match=f"^the metric astray {wanted}, not {said}$"):
        as_metric("astray" if is_registered else astray)(
            torch.zeros(2, 3), answers(((0,), (1,)), ((1,), (2,)))
        )
