"""Converted detectors of torchvision find what torchvision's own find, on photographs.

`torchvision_reference.py` made the expected numbers with torchvision 0.16.2. Weights are random, of
the real names and shapes; no image is resized. Needs `LIBRA_KERAS_DATA`.
"""

import functools
import zlib
from pathlib import Path

import numpy as np
import pytest
from convert import key_lists
from convert.detection_distance import detection_distance
from convert.golden_checkpoints import checkpoint
from convert.seeded_weights import seeded_weights
from keras import ops

from libra_keras.convert import load
from libra_keras.data import InputPolicy, read_image
from libra_keras.data.known_classes import COCO_CATEGORIES

FASTER, RETINA = "fasterrcnn_resnet50_fpn", "retinanet_resnet50_fpn"
KEYS = {FASTER: key_lists.torchvision_faster_rcnn, RETINA: key_lists.torchvision_retinanet}
PUBLISHED = {FASTER: "258fb6c6", RETINA: "eeacb38b"}  # starts of the hashes of published files
CASES = ["small", "landscape", "portrait", "grey", "batch of two sizes", "small, epsilon 0"]
PIXELS, SCORE = 0.05, 1e-4  # may differ by


@functools.lru_cache(maxsize=1)
def detector(name, published):
    """Converts; a published file has the names from before 0.13, and an epsilon of 0."""
    tensors = {key: seeded_weights(key, shape) for key, shape in KEYS[name]().items()}
    if not published:
        return load(checkpoint(tensors)).model
    tensors = {key_lists.before_0_13(key): value for key, value in tensors.items()}
    return load(checkpoint(tensors, sha256=PUBLISHED[name] + "0" * 56)).model


@functools.lru_cache(maxsize=1)
def expected_of(name):
    return dict(np.load(Path(__file__).parent / "fixtures" / f"torchvision_{name}.npz"))


def photographs_of(expected, case, folder):
    images = [read_image(folder / str(file)) for file in expected[f"{case}|files"]]
    for i, image in enumerate(images):
        decoded = zlib.crc32(image.tobytes()) == expected[f"{case}|{i}|pixels_crc32"]
        assert decoded, "this version of Pillow decodes the photograph to other pixels"
    return images


def padded(images):
    """A batch as torchvision makes it; what the padding holds must not matter."""
    height, width = (-(-max(sides) // 32) * 32 for sides in zip(*map(size, images), strict=True))
    batch = np.full((len(images), height, width, 3), 77, "uint8")
    for row, image in zip(batch, images, strict=True):
        row[: image.shape[0], : image.shape[1]] = image
    return {"images": batch, "image_sizes": np.array([size(image) for image in images], "int32")}


def size(image):
    return image.shape[:2]


def assert_same_detections(found, expected, record_property, title):
    """`found` has our labels, `expected` torchvision's; both are compared as COCO's ids."""
    ids = np.array(list(COCO_CATEGORIES))
    found = {**found, "labels": ids[found["labels"]]}
    assert np.all(np.diff(found["scores"]) <= 0) and set(expected["labels"]) <= set(ids)
    assert len(found["scores"]) == len(expected["scores"]) > 50
    expected = {**expected, "labels": expected["labels"].astype(int)}
    pixels, score = detection_distance(found, expected)
    record_property("difference", f"{title}: {pixels:.1e} pixels, {score:.1e} of a score")
    assert pixels < PIXELS and score < SCORE


def row_of(expected, case, row):
    prefix = f"{case}|{row}|"
    return {k.removeprefix(prefix): v for k, v in expected.items() if k.startswith(prefix)}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", KEYS)
def test_same_detections(name, case, photographs, record_property):
    expected = expected_of(name)
    images = photographs_of(expected, case, photographs("coco_mini"))
    outputs = detector(name, published=case.endswith("epsilon 0"))(padded(images))
    for i in range(len(images)):
        row = row_of(expected, case, i)
        levels = [ops.convert_to_numpy(level)[i] for level in outputs["pyramid"]]
        statistics = [(level.mean(), level.std(ddof=1)) for level in levels]
        np.testing.assert_allclose(statistics, row["level_means_and_deviations"], atol=1e-4)
        if name == FASTER:
            boxes = ops.convert_to_numpy(outputs["proposals"]["boxes"])[i]
            np.testing.assert_allclose(boxes[:50], row["proposals"], atol=PIXELS)
        count = int(outputs["num_detections"][i])
        keys = ("boxes", "scores", "labels")
        found = {key: ops.convert_to_numpy(outputs[key])[i, :count] for key in keys}
        assert_same_detections(found, row, record_property, f"torchvision's {name}, {case}")


@pytest.mark.slow
def test_detect_finds_what_torchvision_finds(photographs, record_property):
    expected = expected_of(RETINA)
    folder = photographs("coco_mini")
    (image,) = photographs_of(expected, "small", folder)
    model = detector(RETINA, published=False)
    model.input_policy = InputPolicy(*sorted(size(image)))  # no resizing
    found = model.detect(folder / str(expected["small|files"][0]))
    row = row_of(expected, "small", 0)
    assert_same_detections(found, row, record_property, f"torchvision's {RETINA}, detect")
    first = COCO_CATEGORIES[int(row["labels"][0])]
    assert found["names"][0] == first and len(set(found["names"])) > 20


@pytest.mark.parametrize("name", KEYS)
def test_epsilon_shows(name):
    # Some channels have variances as small as 1e-5, so a wrong epsilon cannot pass.
    expected = expected_of(name)
    rows = [row_of(expected, case, 0) for case in ("small", "small, epsilon 0")]
    assert detection_distance(*rows)[0] > 10 * PIXELS
