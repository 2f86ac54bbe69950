"""Every detector infers and learns the same on TensorFlow, JAX and PyTorch."""

import keras
import numpy as np
import pytest
from conftest import random_boxes
from PIL import Image
from processes import need, run_on

from libra_keras import models
from libra_keras.backbones import ResNet
from libra_keras.data import shapes
from libra_keras.training import SGD

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow compares"),
]
NAMES = (
    "faster_rcnn_small",
    "libra_faster_rcnn_small",
    "libra_retinanet_small",
    "libra_rpn_small",
    "libra_fast_rcnn_small",
)
# The others have the frozen batch normalisation of all large detectors. With statistics of the
# batch, TensorFlow's kernel for them rounds by up to 1e-5, and some ReLUs near 0 switch.
BATCH_STATISTICS = ("faster_rcnn_small",)
SIDE = 160
LIMIT, GRADIENT_LIMIT = 1e-4, 1e-2


def batch(rng):
    """Two drawn scenes with their boxes; the second is smaller than the batch."""
    scenes = shapes("val")
    x = {"images": np.zeros((2, SIDE, SIDE, 3), "uint8"), "image_sizes": []}
    y = {"boxes": np.zeros((2, 12, 4), "float32"), "labels": np.full((2, 12), -1, "int32")}
    for i, side in enumerate((SIDE, 128)):
        example, pixels = scenes.examples[i], scenes.read_image(i)
        x["images"][i, :side, :side] = np.asarray(Image.fromarray(pixels).resize((side, side)))
        x["image_sizes"].append((side, side))
        num = len(example.boxes)
        y["boxes"][i, :num] = example.boxes * (side / pixels.shape[0])
        y["labels"][i, :num] = example.labels
    x["image_sizes"] = np.array(x["image_sizes"], "int32")
    around = y["boxes"][:, :, None] + rng.normal(size=(2, 12, 5, 4)) * 3  # near the objects
    around = np.where(y["labels"][:, :, None, None] >= 0, around, 0).reshape(2, -1, 4)
    anywhere = random_boxes(rng, 2, 40, height=128, width=128, smallest=8)
    return x, y, np.concatenate([np.maximum(around, 0), anywhere], 1).astype("float32")


def spread_weights(model, rng):
    """Gives all weights random values under which scores differ widely, so that none is a tie."""
    for variable in model.weights:
        name, shape = variable.path.split("/")[-1], variable.shape
        if name == "kernel":
            # The last layers get less, so that probabilities do not saturate.
            last = any(part in variable.path for part in ("logits", "deltas", "conv2d", "dense"))
            size = (2.0 / np.prod(shape[:-1])) ** 0.5 * (0.3 if last else 1.0)
            variable.assign(rng.normal(size=shape) * size)
        elif name == "gamma":
            variable.assign(rng.uniform(0.4, 0.6, shape))
        elif name in ("beta", "bias", "moving_mean"):
            variable.assign(rng.normal(size=shape) * 0.1)
        elif name == "moving_variance":
            variable.assign(rng.uniform(0.5, 1.5, shape))


def save(folder, name, x, y):
    """Saves a model of that name, and its batch beside it."""
    backbone = None if name in BATCH_STATISTICS else ResNet(18, width=16, frozen_stages=-1)
    model = getattr(models, name)(backbone=backbone)
    spread_weights(model, np.random.default_rng(2))
    model.save(folder / f"{name}.keras")
    arrays = {"x": x, "y": y}
    flat = {f"{part}/{key}": v for part, own in arrays.items() for key, v in own.items()}
    np.savez(folder / f"{name}.npz", **flat)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Saved models with their batches, and what TensorFlow makes of them."""
    folder = tmp_path_factory.mktemp("detectors")
    x, y, proposals = batch(np.random.default_rng(1))
    for name in NAMES:
        save(folder, name, {**x, "proposals": proposals} if "fast_rcnn" in name else x, y)
    run_on("tensorflow", "backends/detectors.py", folder)
    return folder


@pytest.fixture(scope="module", params=["jax", "torch"])
def other(request, folder):
    """Another backend, which has run every model too."""
    need(request.param)
    run_on(request.param, "backends/detectors.py", folder)
    return request.param


@pytest.mark.parametrize("name", NAMES)
def test_equals_tensorflow(name, other, folder, record_property):
    expected, found = (dict(np.load(folder / f"{name}.{b}.npz")) for b in ("tensorflow", other))
    assert expected.keys() == found.keys()
    if name in BATCH_STATISTICS:  # scores of the second prediction differ by what the steps do
        expected = {key: part for key, part in expected.items() if "second" not in key}
    assert np.any(expected["first/scores"] > 0.1)
    drawn = [key for key in expected if key.startswith("samples/")]
    assert len(drawn) == 3 * ("rcnn" in name) + 3 * ("faster" in name or "rpn" in name)
    for key, array in expected.items():
        if array.dtype.kind in "ib" or key in drawn:
            np.testing.assert_array_equal(found[key], array, err_msg=key)
    largest = {
        "boxes": max(difference(found[key], expected[key]) for key in expected if "/boxes" in key),
        "scores": max(
            difference(found[key], expected[key]) for key in expected if "/scores" in key
        ),
        "losses": max(
            difference(found[key], expected[key]) for key in expected if key.startswith("losses/")
        ),
        "weights": max(weight_differences(found, expected)),
        "gradient": gradient_difference(found, expected),
    }
    row = "  ".join(f"{part} {value:.1e}" for part, value in largest.items())
    record_property("difference", f"{name:24} {other:6} {row}")
    limit = GRADIENT_LIMIT if name in BATCH_STATISTICS else LIMIT
    assert largest.pop("gradient") < limit
    assert max(largest.values()) < LIMIT


def test_a_trained_model_goes_back_to_tensorflow(other, folder):
    name = "faster_rcnn_small"
    model = keras.saving.load_model(folder / f"{name}.{other}.keras")
    assert type(model.optimizer) is SGD and int(model.optimizer.iterations) == 1
    found = model.predict_on_batch({"images": np.load(folder / f"{name}.npz")["x/images"]})
    expected = np.load(folder / f"{name}.{other}.npz")
    np.testing.assert_array_equal(found["labels"][0], expected["second/labels"][0])
    np.testing.assert_allclose(found["boxes"][0], expected["second/boxes"][0], atol=0.01)


def difference(found, expected):
    """Largest deviation, in parts of the largest entry."""
    return np.abs(found - expected).max() / np.abs(expected).max()


def weight_differences(found, expected):
    """Deviation of each variable after the step, in norms, in parts of its own norm."""
    for key in expected:
        if key.startswith("weights/"):
            yield np.linalg.norm(found[key] - expected[key]) / np.linalg.norm(expected[key])


def gradient_difference(found, expected):
    """Deviation of the gradient of all variables together, in norms."""
    keys = [key for key in expected if key.startswith("gradients/")]
    apart = sum(np.sum(np.square(found[key] - expected[key])) for key in keys)
    return np.sqrt(apart / sum(np.sum(np.square(expected[key])) for key in keys))
