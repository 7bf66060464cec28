"""The comparer itself: what is different must be found, what is equal must pass."""

import numpy as np
import pytest

from vqvae_gluon.artifacts.trace import Trace, TraceWriter
from vqvae_gluon.parity.compare import compare_nodes, compare_stages

VALUES = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)


def record(path, values, name="node", operator="Convolution") -> Trace:
    writer = TraceWriter(path, "test")
    writer.add("graph", name, operator, values)
    return writer.close()


def compare(tmp_path, expected, actual):
    ours, theirs = record(tmp_path / "a", expected), record(tmp_path / "b", actual)
    return compare_nodes(ours.nodes[0], theirs.nodes[0])


def test_equal_tensors_are_equal(tmp_path):
    result = compare(tmp_path, VALUES, VALUES.copy())
    assert result.equal
    assert (result.elements, result.differing, result.max_abs) == (VALUES.size, 0, 0.0)


@pytest.mark.parametrize(
    "actual",
    [VALUES[::-1], VALUES[..., ::-1], np.roll(VALUES, 1), np.zeros_like(VALUES), -VALUES, VALUES * np.float32(1.001)],
    ids=["reversed", "mirrored", "shifted", "zeroed", "negated", "scaled"],
)
def test_altered_tensors_are_not_equal(tmp_path, actual):
    actual = np.ascontiguousarray(actual)
    result = compare(tmp_path, VALUES, actual)
    assert not result.equal
    assert result.max_abs == np.abs(VALUES.astype(float) - actual).max()
    assert result.mean_abs == pytest.approx(np.abs(VALUES.astype(float) - actual).mean())
    index = result.worst.index
    assert abs(float(VALUES[index]) - float(actual[index])) == result.max_abs


def test_zeros_against_ones_are_as_far_off_as_can_be(tmp_path):
    assert compare(tmp_path, np.zeros(4, np.float32), np.ones(4, np.float32)).max_rel == 1.0


def test_one_unit_in_the_last_place_is_found(tmp_path):
    actual = VALUES.copy()
    actual[1, 2, 3, 4] = np.nextafter(actual[1, 2, 3, 4], np.float32(np.inf))
    result = compare(tmp_path, VALUES, actual)
    assert (result.equal, result.differing, result.worst.index) == (False, 1, (1, 2, 3, 4))


def test_the_sign_of_zero_is_found(tmp_path):
    result = compare(tmp_path, np.array([1.0, 0.0], np.float32), np.array([1.0, -0.0], np.float32))
    assert (result.equal, result.differing, result.max_abs, result.worst.index) == (False, 1, 0.0, (1,))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_found(tmp_path, bad):
    actual = VALUES.copy()
    actual[0, 1, 2, 3] = bad
    result = compare(tmp_path, VALUES, actual)
    assert (result.equal, result.max_abs, result.nonfinite) == (False, np.inf, 1)
    assert result.worst.index == (0, 1, 2, 3)


def test_not_finite_on_both_sides_is_no_agreement(tmp_path):
    values = np.array([1.0, np.nan], np.float32)
    assert not compare(tmp_path, values, values).equal


@pytest.mark.parametrize(
    ("actual", "problem"),
    [
        (VALUES.astype(np.float64), "the type is float32 against float64"),
        (VALUES.reshape(6, 4, 5), "the shape is (2, 3, 4, 5) against (6, 4, 5)"),
    ],
)
def test_types_and_shapes_come_before_values(tmp_path, actual, problem):
    result = compare(tmp_path, VALUES, actual)
    assert (result.equal, result.problem) == (False, problem)


def test_nodes_are_matched_by_name(tmp_path):
    ours, theirs = record(tmp_path / "a", VALUES, "one"), record(tmp_path / "b", VALUES, "two")
    missing, extra = compare_stages(ours.nodes, theirs.by_key(), ("graph",))
    assert (missing.name, missing.problem) == ("one", "the candidate does not have it")
    assert (extra.name, extra.problem) == ("two", "the reference does not have it")


def test_nothing_compared_is_not_equal(tmp_path):
    empty = np.zeros((0, 3), np.float32)
    assert not compare(tmp_path, empty, empty).equal


def test_batches_are_summed_up(tmp_path):
    other = VALUES.copy()
    other[0, 0, 0, 0] += 4
    equal = compare(tmp_path / "1", VALUES, VALUES)
    worse = compare(tmp_path / "2", VALUES, other)
    merged = equal.merge(worse)
    assert (merged.elements, merged.differing) == (2 * VALUES.size, 1)
    assert (merged.max_abs, merged.worst) == (worse.max_abs, worse.worst)
    assert merged.mean_abs == pytest.approx(worse.mean_abs / 2)
