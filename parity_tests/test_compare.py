"""The comparer, the bounds and the adjudication of jumps: what is different must be found, what is equal must pass."""

import numpy as np
import pytest

from vqvae_gluon.artifacts.graph import Node
from vqvae_gluon.artifacts.trace import Trace, TraceWriter
from vqvae_gluon.parity import metrics
from vqvae_gluon.parity.bounds import FACTOR, errors
from vqvae_gluon.parity.discrete import adjudicate
from vqvae_gluon.parity.metrics import QUANTILES, Metrics, compare_nodes

VALUES = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)


def record(path, values, name="node", operator="Convolution") -> Trace:
    writer = TraceWriter(path, "test")
    writer.add("graph", name, operator, values)
    return writer.close()


def compare(tmp_path, expected, actual):
    ours, theirs = record(tmp_path / "a", expected), record(tmp_path / "b", actual)
    return compare_nodes(ours.nodes[0], theirs.nodes[0])


def measure(expected: np.ndarray, actual: np.ndarray) -> Metrics:
    found = metrics.measure(expected, actual)
    assert found is not None
    return found


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
    index = result.metrics.worst.index
    assert abs(float(VALUES[index]) - float(actual[index])) == result.max_abs


def test_zeros_against_ones_are_as_far_off_as_can_be(tmp_path):
    assert compare(tmp_path, np.zeros(4, np.float32), np.ones(4, np.float32)).max_rel == 1.0


def test_one_unit_in_the_last_place_is_found(tmp_path):
    actual = VALUES.copy()
    actual[1, 2, 3, 4] = np.nextafter(actual[1, 2, 3, 4], np.float32(np.inf))
    result = compare(tmp_path, VALUES, actual)
    assert (result.equal, result.differing, result.metrics.worst.index) == (False, 1, (1, 2, 3, 4))
    assert result.metrics.max_ulp == 1


def test_the_sign_of_zero_is_found(tmp_path):
    result = compare(tmp_path, np.array([1.0, 0.0], np.float32), np.array([1.0, -0.0], np.float32))
    assert (result.equal, result.differing, result.max_abs, result.metrics.worst.index) == (False, 1, 0.0, (1,))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_found(tmp_path, bad):
    actual = VALUES.copy()
    actual[0, 1, 2, 3] = bad
    result = compare(tmp_path, VALUES, actual)
    assert (result.equal, result.max_abs, result.nonfinite) == (False, np.inf, 1)
    assert result.metrics.worst.index == (0, 1, 2, 3)


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


def test_a_missing_node_and_another_operator_are_no_agreement(tmp_path):
    ours = record(tmp_path / "a", VALUES).nodes[0]
    other = record(tmp_path / "b", VALUES, operator="Pooling").nodes[0]
    for candidate, problem in (
        (None, "the candidate does not have it"),
        (other, "the operator is Convolution against Pooling"),
    ):
        result = compare_nodes(ours, candidate)
        assert (result.equal, result.problem) == (False, problem)


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
    assert (merged.max_abs, merged.metrics.worst) == (worse.max_abs, worse.metrics.worst)
    assert merged.mean_abs == pytest.approx(worse.mean_abs / 2)


def test_units_in_the_last_place_are_counted_across_zero_and_in_half_precision():
    smallest = np.nextafter(np.float32(0), np.float32(1))
    assert measure(np.array([smallest]), np.array([-smallest])).max_ulp == 2
    a = np.array([1.0, 2.0], np.float16)
    assert measure(a, np.nextafter(a, np.float16(4))).max_ulp == 1
    assert measure(np.array([1.0], np.float32), np.array([np.nan], np.float32)).max_ulp == np.inf


def test_every_metric_is_over_all_elements():
    # More elements than are looked at together; the one that is off lies at the very end.
    a = np.ones(3_000_001, np.float32)
    b = a.copy()
    b[-1] = 3
    found = measure(a, b)
    assert (found.differing, found.max_abs, found.worst.index) == (1, 2.0, (3_000_000,))
    assert found.snr_db == pytest.approx(10 * np.log10(a.size / 4))
    assert found.cosine == pytest.approx((a.size + 2) / np.sqrt(a.size * (a.size + 8.0)), abs=1e-12)
    assert found.quantiles == (0.0,) * len(QUANTILES)
    assert measure(a, 2 * a).quantiles == (1.0,) * len(QUANTILES)


def test_a_reversed_tensor_is_told_by_cosine_and_signal_though_mean_and_deviation_are_the_same():
    a = VALUES.ravel()
    found = measure(a, a[::-1].copy())
    assert found.cosine < 0.5
    assert found.snr_db < 3


def judged(truth, reference, candidate, yardstick=None):
    reference = np.asarray(reference, np.float32)
    honest = reference if yardstick is None else np.asarray(yardstick, np.float32)
    return errors(reference, np.asarray(candidate, np.float32), np.asarray(truth, np.float64), honest)


def test_an_error_like_float32s_own_is_honest_and_a_larger_one_is_not():
    truth = np.random.default_rng(1).normal(size=1000)
    noise = np.random.default_rng(2).normal(size=1000) * 1e-5
    assert judged(truth, truth + noise, truth - 2 * noise).honest
    assert judged(truth, truth + noise, truth).honest  # A candidate may be better.
    found = judged(truth, truth + noise, truth + 20 * noise)
    assert (found.honest, found.off) == (False, "candidate")
    assert found.excess == pytest.approx(20 / FACTOR, rel=0.05)


def test_a_reference_that_is_off_does_not_widen_the_bound():
    truth = np.linspace(0, 1, 100)
    found = judged(truth, truth + 1, truth, yardstick=truth)
    assert (found.honest, found.off) == (False, "reference")


def test_where_float32_is_exact_a_few_units_in_the_last_place_are_honest():
    truth = np.full(10, 1000.0)
    assert judged(truth, truth, truth + np.spacing(np.float32(1000))).honest
    assert not judged(truth, truth, truth + 20 * np.spacing(np.float32(1000))).honest


def test_nan_is_never_honest():
    assert not judged([1.0], [1.0], [np.nan]).honest


def flips(operator, inputs, reference, candidate, bound, evaluate=None, **attributes):
    node = Node("node", operator, {key: str(value) for key, value in attributes.items()}, ())
    reference, candidate = np.asarray(reference, np.float32), np.asarray(candidate, np.float32)
    return adjudicate(
        node, [np.asarray(values, np.float32) for values in inputs], reference, candidate, bound, evaluate
    )


def test_a_code_may_flip_between_near_ties_alone():
    distances = np.array([[[[1.0]], [[1.0001]], [[5.0]]]])  # (1, 3, 1, 1)
    near = flips("argmin", [distances], [[[0]]], [[[1]]], bound=1e-4, axis=1)
    assert (near.compared, near.legal, near.real) == (1, 1, 0)
    assert near.flips[0].margin == pytest.approx(1e-4, rel=1e-2)
    assert flips("argmin", [distances], [[[0]]], [[[2]]], bound=1e-4, axis=1).real == 1
    assert flips("argmin", [distances], [[[0]]], [[[1]]], bound=1e-6, axis=1).real == 1
    assert flips("argmin", [distances], [[[0]]], [[[7]]], bound=10, axis=1).real == 1, "no row 7"


def test_an_exact_tie_may_be_broken_either_way():
    distances = np.ones((1, 4, 2, 2))
    found = flips("argmin", [distances], np.zeros((1, 2, 2)), np.full((1, 2, 2), 3), bound=0.0, axis=1)
    assert (found.legal, found.real) == (4, 0)


def test_each_flip_is_judged_by_its_own_row():
    distances = np.array([[0.0, 1e-6, 3.0], [0.0, 2.0, 3.0]])
    found = flips("argmax", [-distances], [0, 0], [1, 1], bound=1e-5, axis=1)
    assert (found.legal, found.real) == (1, 1)
    assert [(flip.index, flip.legal) for flip in found.flips] == [((1,), False), ((0,), True)]


def test_the_order_of_equals_is_free_in_topk():
    values = np.array([[3.0, 2.0, 2.0 + 1e-7, 1.0]])
    assert flips("topk", [values], [[0, 2, 1]], [[0, 1, 2]], bound=1e-6, axis=-1, k=3).legal == 2
    assert flips("topk", [values], [[0, 2, 1]], [[3, 2, 1]], bound=1e-6, axis=-1, k=3).real == 1


def test_without_an_axis_the_whole_tensor_is_the_row():
    values = np.array([[1.0, 2.0], [2.0, 0.0]])
    assert flips("argmax", [values], [1], [2], bound=0.0).legal == 1
    assert flips("argmax", [values], [1], [3], bound=0.0).real == 1


def test_rounding_may_jump_at_its_edge_alone():
    values = np.array([0.4999999, 0.3])
    found = flips("round", [values], [0, 0], [1, 1], bound=1e-6, evaluate=lambda moved: np.round(moved[0]))
    assert [(flip.index, flip.legal) for flip in found.flips] == [((1,), False), ((0,), True)]
    assert flips("round", [values], [0, 0], [2, 0], bound=1e-6, evaluate=lambda m: np.round(m[0])).real == 1


def test_a_comparison_may_jump_where_its_sides_meet():
    a, b = np.array([1.0, 1.0]), np.array([1.0 + 1e-7, 2.0])
    found = flips("_greater", [a, b], [0, 0], [1, 1], bound=1e-6, evaluate=lambda moved: (moved[0] > moved[1]) * 1.0)
    assert (found.legal, found.real) == (1, 1)


def test_what_cannot_be_judged_is_real():
    assert flips("_contrib_quantize_v2", [VALUES], [1], [2], bound=1.0).real == 1
