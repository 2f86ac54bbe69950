"""Which `reduction` the detectors of KerasCV and KerasHub need, and on what scale losses are.

Both weigh each box by 1 / number of positives, so losses must add up: `reduction="sum"`. Their
own losses average the four numbers of a box, ours add them: ours is 4 times theirs, exactly.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

from libra_keras.data import dialects
from libra_keras.losses import BalancedL1Loss, SmoothL1Loss, balanced_l1

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def kerascv_model(recipe, scene):
    detector = recipe("kerascv_detector")
    model = detector.small_retinanet(detector.small_backbone())
    sample = dialects.to_sample(*scene.batch_of(scene.drawn_scene()), detector.FORMAT, "classes")
    return model, sample, "box"


def kerashub_model(recipe, scene):
    detector = recipe("kerashub_detector")
    model = detector.small_retinanet(detector.small_backbone())
    sample = dialects.to_sample(*scene.batch_of(scene.drawn_scene()), detector.FORMAT)
    return model, sample, "bbox_regression"


class Recorded(keras.losses.Loss):
    """Adds up to 0; keeps what it is called with."""

    def __init__(self):
        super().__init__(reduction="sum")
        self.seen = {}

    def __call__(self, y_true, y_pred, sample_weight=None):
        self.seen = {"y_true": y_true, "y_pred": y_pred, "weight": sample_weight}
        return 0.0 * tf.reduce_sum(y_pred)


def measured(model, sample, box_loss, loss_weights=None):
    """Evaluates one batch, eagerly; returns the metrics."""
    focal = keras.losses.BinaryFocalCrossentropy(from_logits=True, reduction="sum")
    model.compile(
        box_loss=box_loss, classification_loss=focal, loss_weights=loss_weights, run_eagerly=True
    )
    pair = tf.cast(sample["images"], "float32"), sample["bounding_boxes"]
    return model.evaluate(tf.data.Dataset.from_tensors(pair), return_dict=True, verbose=0)


@pytest.mark.parametrize("build", [kerascv_model, kerashub_model])
def test_scale_in_the_real_detector(build, recipe):
    keras.utils.set_random_seed(0)
    model, sample, name = build(recipe, recipe("scene"))
    if name == "box":
        theirs = "smoothl1"
    else:  # their default: quadratic up to 1, then linear, as smooth L1
        theirs = keras.losses.Huber(reduction="sum")
    expected = measured(model, sample, theirs)
    ours = measured(model, sample, SmoothL1Loss(beta=1.0, reduction="sum"))
    key = f"{name}_loss"
    assert expected[key] > 0.01, "there are positives"
    np.testing.assert_allclose(ours[key], 4 * expected[key], rtol=1e-5)
    others = {n: 0.25 if n == name else 1.0 for n in model.output_names}
    weighted = measured(model, sample, SmoothL1Loss(beta=1.0, reduction="sum"), others)
    np.testing.assert_allclose(weighted["loss"], expected["loss"], rtol=1e-5)

    # The balanced loss differs element by element, and in nothing else.
    recorded = Recorded()
    measured(model, sample, recorded)
    y_true, y_pred, weight = (np.asarray(recorded.seen[k]) for k in ("y_true", "y_pred", "weight"))
    assert y_true.shape == y_pred.shape == (*weight.shape, 4) and weight.ndim == 2  # (B, N)
    terms = keras.ops.convert_to_numpy(balanced_l1(y_true, y_pred))
    balanced = measured(model, sample, BalancedL1Loss(reduction="sum"))
    np.testing.assert_allclose(balanced[key], np.sum(terms.sum(-1) * weight), rtol=1e-5)
    np.testing.assert_allclose(weight.sum(), 1.0, rtol=1e-5)  # 1 / positives for each of them


def test_kerascv_smooth_l1_is_right_at_1_only(keras_cv):
    # At 2 its branches do not meet: 0.5 * 2 ** 2 = 2 before the jump, 2 - 0.5 = 1.5 after it.
    theirs = keras_cv.losses.SmoothL1Loss(l1_cutoff=2.0, reduction="sum")
    below, above = (float(theirs(np.zeros((1, 4)), np.full((1, 4), x))) for x in (1.9999, 2.0001))
    assert below == pytest.approx(2.0, abs=0.01) and above == pytest.approx(1.5, abs=0.01)
