"""OpenVINO's TopK returns equal values by their index, as everywhere here."""

import numpy as np
import pytest

openvino = pytest.importorskip("openvino", reason="openvino is not installed")

from openvino import opset13 as op  # noqa: E402

from libra_keras.export import openvino as exporting  # noqa: E402


def best(values, k, mode="max"):
    """Indices of the k best values, by a graph of one node."""
    given = op.parameter([-1, -1], np.float32)
    found = op.topk(given, op.constant(np.int64(k)), -1, mode, "value", "i64")
    graph = openvino.Model([found.output(0), found.output(1)], [given])
    exporting._decide_ties(graph)
    detect = openvino.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    scores, indices = detect(values).values()
    np.testing.assert_array_equal(np.take_along_axis(values, indices, 1), scores)
    assert indices.dtype == np.int64
    return indices


@pytest.mark.parametrize("k", [1, 7, 100, 1000])
@pytest.mark.parametrize("levels", [1, 3, 50, 10**6])
def test_equal_values_come_by_their_index(k, levels, rng):
    for number in (1000, 4999):
        values = rng.integers(0, levels, (2, number)).astype("float32") / levels - 0.5
        expected = np.argsort(-values, axis=1, kind="stable")[:, :k]
        np.testing.assert_array_equal(best(values, k), expected)


def test_more_values_than_keys_of_32_bits_can_order(rng, monkeypatch):
    monkeypatch.setattr(exporting, "MOST", 5)
    values = rng.integers(0, 9, (2, 100)).astype("float32")
    for k in (5, 6):
        expected = np.argsort(-values, axis=1, kind="stable")[:, :k]
        np.testing.assert_array_equal(best(values, k), expected)


def test_infinite_values_and_the_smallest(rng):
    values = rng.choice(np.float32([-np.inf, -1.0, 0.0, 2.0, np.inf]), (3, 500))
    expected = np.argsort(-values, axis=1, kind="stable")[:, :300]
    np.testing.assert_array_equal(best(values, 300), expected)
    expected = np.argsort(values, axis=1, kind="stable")[:, :300]
    np.testing.assert_array_equal(best(values, 300, "min"), expected)


def test_no_rows():
    assert best(np.zeros((0, 50), "float32"), 20).shape == (0, 20)
