"""Our samplers behind a `BoxMatcher`: translation, what is kept, new draws, unknown sizes."""

import keras
import numpy as np
import pytest
from keras import ops

from libra_keras.functional.matching import Match
from libra_keras.samplers import (
    IoUBalancedSampler,
    RandomSampler,
    SampledBoxMatcher,
    from_box_matcher,
)

pytestmark = pytest.mark.portable


class Matcher(keras.layers.Layer):
    """As `BoxMatcher(thresholds=[0.4, 0.5], match_values=[-1, -2, 1])`."""

    def call(self, similarity):
        best = ops.max(similarity, axis=2)
        values = ops.where(best >= 0.5, 1, ops.where(best < 0.4, -1, -2))
        return ops.argmax(similarity, axis=2), values


def matched(layer, overlaps):
    return [ops.convert_to_numpy(part) for part in layer(ops.convert_to_tensor(overlaps))]


@pytest.fixture
def overlaps(rng):
    """Two images, 150 boxes, 3 objects; a third of the boxes is background."""
    return rng.uniform(0, 0.6, (2, 150, 3)).astype("float32")


def test_translation_by_hand():
    overlaps = [[[0.8, -1.0], [0.1, -1.0], [-0.3, -1.0], [0.45, -1.0]]]
    values = [[7, 0, 0, 3]]
    result = from_box_matcher(overlaps, [[0, 0, 1, 0]], values, positive_value=7, negative_value=0)
    assert isinstance(result, Match)
    owner, max_iou, positive, negative = (ops.convert_to_numpy(part) for part in result)
    np.testing.assert_allclose(max_iou, [[0.8, 0.1, 0.0, 0.45]])  # -1 of padding counts as 0
    assert owner.tolist() == [[0, 0, 1, 0]] and owner.dtype == "int32"
    assert positive.tolist() == [[True, False, False, False]]
    assert negative.tolist() == [[False, True, True, False]]


def test_without_objects_all_overlaps_are_0():
    found = from_box_matcher(np.zeros((1, 3, 0), "float32"), [[0] * 3], [[-1] * 3])
    assert ops.convert_to_numpy(found.max_iou).tolist() == [[0, 0, 0]]


def test_keeps_a_sample_and_ignores_the_rest(overlaps):
    columns, values = matched(Matcher(), overlaps)
    layer = SampledBoxMatcher(Matcher(), RandomSampler(16, positive_fraction=0.25))
    our_columns, ours = matched(layer, overlaps)
    assert our_columns.tolist() == columns.tolist()
    assert np.all((ours == values) | (ours == -2)), "nothing changes sides"
    assert np.sum(ours == 1, axis=1).tolist() == [4, 4]
    assert np.sum(ours == -1, axis=1).tolist() == [12, 12]


def test_few_candidates_are_all_kept():
    # One positive, one negative, one ignored of 3: padding rows of the sample point at box 0,
    # which is ignored here and must stay so.
    overlaps = np.array([[[0.45], [0.9], [0.1]]], "float32")
    _, values = matched(SampledBoxMatcher(Matcher(), RandomSampler(8, 0.5)), overlaps)
    assert values.tolist() == [[-2, 1, -1]]


def test_each_call_draws_anew_and_a_seed_repeats_it(overlaps):
    first, second = (SampledBoxMatcher(Matcher(), RandomSampler(8, 0.5), seed=3) for _ in range(2))
    draws = [matched(first, overlaps)[1].tolist() for _ in range(2)]
    assert draws[0] != draws[1]
    assert [matched(second, overlaps)[1].tolist() for _ in range(2)] == draws
    assert int(first.calls) == 2


def test_balances_negatives(rng):
    # 300 negatives, 3 of them with an IoU above 0.25: bins of a third of 0.5 take all of these.
    overlaps = rng.uniform(0, 0.1, (1, 300, 1)).astype("float32")
    overlaps[0, [10, 20, 30], 0] = 0.3, 0.35, 0.39
    sampler = IoUBalancedSampler.preset("paper_text", num=12, positive_fraction=0.0)
    _, values = matched(SampledBoxMatcher(Matcher(), sampler), overlaps)
    assert values[0, [10, 20, 30]].tolist() == [-1, -1, -1] and np.sum(values == -1) == 12


def test_overlaps_are_not_rounded_in_mixed_precision():
    # 0.49995 is neither positive nor negative, but 0.5 in float16.
    matcher = Matcher(dtype="float32")
    layer = SampledBoxMatcher(matcher, RandomSampler(4, 0.5), dtype="mixed_float16")
    _, values = matched(layer, np.array([[[0.49995]]], "float32"))
    assert values.tolist() == [[-2]]


def test_other_values():
    layer = SampledBoxMatcher(
        Matcher(), RandomSampler(1, 1.0), positive_value=-1, negative_value=1, ignored_value=9
    )
    _, values = matched(layer, np.array([[[0.1], [0.9]]], "float32"))
    assert values.tolist() == [[-1, 9]]


def test_two_axes_are_refused():
    layer = SampledBoxMatcher(Matcher(), RandomSampler(1, 1.0))
    with pytest.raises(ValueError, match=r"`similarity` .*\(B, N, M\).*\(3, 2\)"):
        layer(np.zeros((3, 2), "float32"))
    with pytest.raises(ValueError, match=r"`matched_values` .*\(B, N\).*\(3,\)"):
        from_box_matcher(np.zeros((1, 3, 2)), [[0, 0, 1]], [1, 1, 1])


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="sizes are known elsewhere")
def test_unknown_sizes_in_a_graph(overlaps):
    import tensorflow as tf

    eager, traced = (SampledBoxMatcher(Matcher(), RandomSampler(8, 0.5)) for _ in range(2))
    graph = tf.function(traced, input_signature=[tf.TensorSpec((None, None, None))])
    assert graph(overlaps)[1].numpy().tolist() == matched(eager, overlaps)[1].tolist()
