"""Our layers inside the pyramids of KerasCV and KerasHub: structure, values, saving."""

import keras
import numpy as np
import pytest

from libra_keras.layers import BalancedFeaturePyramid

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def random_weights(model, rng):
    for variable in model.weights:
        if "float" in str(variable.dtype):
            variable.assign(rng.uniform(-0.05, 0.05, variable.shape))


def test_kerascv_pyramid_is_refined_and_weights_survive(recipe, rng, tmp_path):
    module = recipe("kerascv_retinanet")
    model = module.build()
    images = rng.uniform(0, 255, (1, 128, 128, 3)).astype("float32")
    levels = model.feature_pyramid(model.feature_extractor(images))
    assert [level.shape[1:3] for level in levels] == [(s, s) for s in (16, 8, 4, 2, 1)]
    random_weights(model, rng)
    model.save_weights(tmp_path / "model.weights.h5")
    expected = model(images)
    again = module.build()
    again.load_weights(tmp_path / "model.weights.h5")
    for name, values in again(images).items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-5, err_msg=name)


def test_kerashub_backbone_is_refined(recipe, rng):
    module = recipe("kerashub_retinanet")
    detector = recipe("kerashub_detector")
    plain = detector.small_backbone()
    balanced = module.BalancedRetinaNetBackbone(plain)
    images = rng.uniform(0, 1, (1, 128, 128, 3)).astype("float32")
    # Both blocks start as the identity: what is added is the plain average.
    expected = BalancedFeaturePyramid(refine_level=1)(plain(images))
    result = balanced(images)
    assert list(result) == ["P3", "P4", "P5", "P6", "P7"]
    for level, values in result.items():
        np.testing.assert_allclose(values, expected[level], rtol=1e-4, atol=1e-5, err_msg=level)


def test_kerashub_model_survives_a_file(recipe, rng, tmp_path):
    model = recipe("kerashub_retinanet").build()
    random_weights(model, rng)
    images = rng.uniform(0, 1, (1, 128, 128, 3)).astype("float32")
    expected = model(images)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    for name, values in again(images).items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-5, atol=1e-6, err_msg=name)
