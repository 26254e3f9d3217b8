"""Stage keys: the same question has one key, another question another one."""

import json
import math
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data import StoreError, stage_key
from data.keys import canonical_json, is_hex

patiently = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # shared cores
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.text('abé𝄞\0\n"', max_size=5)
    | st.floats(allow_nan=False).filter(math.isfinite)
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text('abé𝄞\0\n"', max_size=5), inner, max_size=4)
    ),
)
parameters = st.dictionaries(st.text('abé𝄞\0\n"', max_size=5), values, max_size=5)


def same_bits(one: object, other: object) -> bool:
    """Equality that tells 1, 1.0 and True apart, and 0.0 and -0.0."""
    return type(one) is type(other) and (
        repr(one) == repr(other)
        if not isinstance(one, list | dict)
        else len(one) == len(other)
        and (
            all(same_bits(a, b) for a, b in zip(one, other, strict=True))
            if isinstance(one, list)
            else one.keys() == other.keys() and all(same_bits(one[k], other[k]) for k in one)
        )
    )


@patiently
@given(values)
def test_canonical_json_gives_back_the_same_value_to_the_bit(value: object) -> None:
    assert same_bits(json.loads(canonical_json(value)), value)


@patiently
@given(values, values)
def test_two_values_have_one_canonical_json_exactly_if_they_are_the_same(one, other) -> None:
    assert (canonical_json(one) == canonical_json(other)) == same_bits(one, other)


@patiently
@given(parameters)
def test_key_does_not_depend_on_the_order_of_parameters(given_parameters: dict) -> None:
    turned = dict(reversed(given_parameters.items()))
    assert stage_key("scores", 1, given_parameters, {}) == stage_key("scores", 1, turned, {})


def test_key_changes_with_stage_version_parameters_and_upstream() -> None:
    keys = {
        stage_key("scores", 1, {"steps": 5}, {"dataset": "a" * 64}),
        stage_key("circuits", 1, {"steps": 5}, {"dataset": "a" * 64}),
        stage_key("scores", 2, {"steps": 5}, {"dataset": "a" * 64}),
        stage_key("scores", 1, {"steps": 5.0}, {"dataset": "a" * 64}),
        stage_key("scores", 1, {"steps": "5"}, {"dataset": "a" * 64}),
        stage_key("scores", 1, {"steps": 5}, {"dataset": "b" * 64}),
        stage_key("scores", 1, {"steps": 5}, {"examples": "a" * 64}),
        stage_key("scores", 1, {"steps": 5, "dataset": "a" * 64}, {}),
    }
    assert len(keys) == 8
    assert all(is_hex(key) and len(key) == 64 for key in keys)


def test_key_is_the_same_in_another_process() -> None:
    code = "from data import stage_key; print(stage_key('s', 1, {'b': [0.1, None], 'a': 'é'}, {}))"
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env={"PYTHONHASHSEED": "7"}, cwd=".",
    ).stdout.strip()  # fmt: skip
    assert printed == stage_key("s", 1, {"a": "é", "b": [0.1, None]}, {})


@pytest.mark.parametrize(
    "value", [(1, 2), {1}, b"x", object(), 1j, {1: 2}, {"deep": [{"a": (1,)}]}]
)
def test_key_refuses_other_types_and_says_where(value: object) -> None:
    with pytest.raises(TypeError, match="'sizes'"):
        stage_key("circuits", 1, {"sizes": value}, {})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_key_refuses_floats_that_are_not_finite(value: float) -> None:
    with pytest.raises(ValueError, match="'t'"):
        stage_key("circuits", 1, {"t": [value]}, {})


def test_key_refuses_an_upstream_that_is_no_digest() -> None:
    with pytest.raises(StoreError, match="'dataset'"):
        stage_key("scores", 1, {}, {"dataset": "ioi"})


@pytest.mark.parametrize(
    "key",
    ["", "abc", "A" * 64, "../../etc/passwd", "a" * 63 + "/", "a" * 64 + "\n", "g" * 64, None],
)
def test_only_lower_case_hexadecimal_is_a_key(key: object) -> None:
    assert not is_hex(key)
