"""Requests to an exported detector: each image gets its answer, whatever lies beside it."""

import numpy as np
import pytest
from hostile_files import bad_files, encoded, scene
from hypothesis import given, settings
from hypothesis import strategies as st
from mutations import SLOW, cases, damaged_bytes

tf = pytest.importorskip("tensorflow")
preparing = pytest.importorskip("libra_keras.export.preparing")
pytestmark = pytest.mark.slow  # for the export that they share, which takes half a minute

GOOD = encoded(scene(), "JPEG")
SOUND = [GOOD, encoded(scene(), "PNG"), encoded(scene().convert("P"), "PNG")]
BAD = bad_files()
REFUSED = tf.errors.InvalidArgumentError, TypeError, ValueError
FILES = st.one_of(
    st.sampled_from(SOUND).flatmap(damaged_bytes),
    st.sampled_from(sorted(BAD)).map(lambda name: BAD[name][0]),
    st.binary(max_size=64),
)
SHAPES = [(48, 64, 3), (1, 48, 64, 1), (1, 0, 5, 3), (0, 48, 64, 3), (2, 48, 64, 3), (), (2, 3)]
PIXELS = [0, 255, 127.4, -1, 256, 1e30, np.nan, np.inf, -np.inf]
STATUS = preparing.STATUS
LATEST = 60_000  # ms: a first request, on a busy machine


@pytest.fixture(scope="module")
def served(served_folder):
    """The signatures of the small detector, and its answer to `GOOD` alone."""
    signatures = tf.saved_model.load(str(served_folder / "1")).signatures
    return signatures, ask(signatures, "serving_default", image_bytes=[GOOD])


def ask(signatures, name, **inputs):
    found = signatures[name](**{key: tf.constant(value) for key, value in inputs.items()})
    return {key: value.numpy() for key, value in found.items()}


def check_files(served, files):
    """A sound file among others gets the answer that it gets alone."""
    signatures, alone = served
    found = ask(signatures, "serving_default", image_bytes=[*files, GOOD])
    check_rows(found, len(files) + 1)
    for file, status in zip(files, found["status"], strict=False):
        known = [code for content, code in BAD.values() if content == file]
        assert not known or status == known[0]
    count = alone["num_detections"][0]
    assert found["status"][-1] == 0 and found["num_detections"][-1] == count > 0
    np.testing.assert_allclose(
        found["detection_boxes"][-1, :count], alone["detection_boxes"][0, :count], atol=1e-2
    )


def check_rows(found, count):
    """Each row has a status that is documented, and detections only if that is 0."""
    assert all(len(values) == count for values in found.values())
    for row, status in enumerate(found["status"].tolist()):
        num = found["num_detections"][row]
        assert status in STATUS and (status == 0 or num == 0)
        assert not found["detection_boxes"][row, num:].any()
        assert np.isfinite(found["detection_boxes"][row]).all()


def check_array(served, name, shape, dtype, value):
    """An array of another shape or type is refused; pixels that are none get a status."""
    with np.errstate(all="ignore"):
        images = np.full(shape, 90).astype(dtype)
        if images.size:
            images.reshape(-1)[-1] = np.array(value).astype(dtype)
    is_right = len(shape) == 4 and shape[3] == 3
    is_right &= dtype == {"images": "uint8", "images_float": "float32"}[name]
    if not is_right:
        with pytest.raises(REFUSED):
            ask(served[0], name, images=images)
        return
    found = ask(served[0], name, images=images)
    check_rows(found, shape[0])
    if images.size and name == "images_float":
        is_pixel = 0 <= value <= 255
        assert found["status"].tolist() == [0] * (shape[0] - 1) + [0 if is_pixel else 5]


ARRAYS = {
    "name": st.sampled_from(["images", "images_float"]),
    "shape": st.sampled_from(SHAPES),
    "dtype": st.sampled_from(["uint8", "float32", "float32", "int32", "bool"]),
    "value": st.sampled_from(PIXELS),
}


@settings(cases(SLOW), deadline=LATEST)
@given(files=st.lists(FILES, max_size=4), **ARRAYS)
def test_many_requests(served, files, name, shape, dtype, value):
    check_files(served, files)
    check_array(served, name, shape, dtype, value)
