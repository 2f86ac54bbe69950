"""Files of proposals, and samples that carry them."""

import json
import math

import numpy as np
import pytest

from libra_keras import data
from libra_keras.data.batches import EvaluationSource, TrainingSource

POLICY = data.InputPolicy(20, 30)  # halves 60 x 40; bucket 32 x 32
TWO = [[0, 0, 8, 4], [1, 2, 3, 9]]


def image(image_id, boxes=TWO, scores=(0.25, 0.5)):
    return {"image_id": image_id, "boxes": boxes, "scores": scores}


@pytest.mark.parametrize("suffix", [".npz", ".json"])
def test_a_file_gives_back_what_was_written_best_first(tmp_path, suffix):
    path = tmp_path / "made" / f"proposals{suffix}"
    data.write_proposals(path, [image(9), image(2, [[1.5, 2, 3, 4.25]], [0.125])])
    first, second = data.read_proposals(path)
    assert (first["image_id"], second["image_id"]) == (9, 2)
    assert first["boxes"].tolist() == TWO[::-1] and first["scores"].tolist() == [0.5, 0.25]
    assert second["boxes"].tolist() == [[1.5, 2, 3, 4.25]]
    assert first["boxes"].dtype == first["scores"].dtype == np.float32
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_an_image_without_proposals_is_in_the_file(tmp_path):
    data.write_proposals(tmp_path / "a.npz", [image(1, [], []), image(2)])
    read = data.read_proposals(tmp_path / "a.npz")
    assert [len(found["boxes"]) for found in read] == [0, 2]
    data.write_proposals(tmp_path / "none.npz", [])
    assert data.read_proposals(tmp_path / "none.npz") == []


def test_result_files_of_other_programs(tmp_path):
    rows = [
        {"image_id": 7, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.1},
        {"image_id": 8, "category_id": 1, "bbox": [0, 0, 5, 5], "score": 0.9},
        {"image_id": 7, "category_id": 1, "bbox": [10, 20, 30, 40], "score": 0.7},
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    first, second = data.read_proposals(tmp_path / "rows.json")
    assert first["boxes"].tolist() == [[10, 20, 40, 60], [1, 2, 4, 6]]
    assert second["image_id"] == 8


@pytest.mark.parametrize(
    "wrong, message",
    [
        (image(3, [[0, 0, np.nan, 4]], [0.5]), r"image 3, box 0: .*finite.*nan"),
        (image(3, [[0, 0, 4, 4]], [np.inf]), r"image 3, box 0: .*finite.*score inf"),
        (image(3, [[0, 0, 4, 4], [5, 0, 4, 4]], [1, 1]), r"image 3, box 1: .*x1 <= x2"),
        (image(3, [[0, 0, 4]], [1]), r"expected boxes \(n, 4\).*\(1, 3\)"),
        (image(3, [[0, 0, 4, 4]], [1, 1]), r"Received: \(1, 4\) and \(2,\)"),
        (image(3, [["0", "0", "4", "4"]], [1]), r"image 3: boxes must be .*\[\['0', '0', '4', '4'"),
        (image(3, [[0, 0, 4, 4], [1]], [1, 1]), r"image 3: boxes must be .*\[\[0, 0, 4, 4\], \[1"),
        (image(3, [[0, 0, 4, 4]], ["1"]), r"image 3: scores must be numbers.*\['1'\]"),
        (image(7.9), "image_id must be an integer. Received: 7.9"),
        (image("7"), "image_id must be an integer. Received: '7'"),
        (image(True), "image_id must be an integer. Received: True"),
        (image(2**63), "image_id must be an integer. Received: 922"),
        (image(1), "each image once. Received: 1 twice"),
        ({"image_id": 3}, "expected dicts of image_id, boxes, scores. Received: {'image_id': 3}"),
    ],
)
def test_bad_proposals_are_refused_by_image(tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message):
        data.write_proposals(tmp_path / "a.npz", [image(1), wrong])
    assert not any(tmp_path.iterdir())


def test_bad_files_are_refused_by_name(tmp_path):
    """What tests/hostile/test_proposals.py does not see: the messages, and what fills memory."""
    with pytest.raises(ValueError, match="end in .npz or .json"):
        data.read_proposals(tmp_path / "a.pkl")
    whole = {"image_ids": [1], "counts": [1], "boxes": np.ones((1, 4)), "scores": [1.0]}
    large = np.zeros((4 * 10**6, 4), "float32")
    for change, message in (
        ({"counts": [2]}, "its arrays do not fit: .* 1 counts of 2 boxes in total, 1 b"),
        ({"counts": [-1]}, "its counts must not be negative. Received: -1"),
        ({"image_ids": [1.5]}, "its image_ids must be 1-dimensional integers. .* float64 of sha"),
        ({"boxes": large, "scores": large[:, 0]}, r"its arrays unfold to 80,000,\d+ bytes"),
    ):
        np.savez_compressed(tmp_path / "odd.npz", **whole | change)
        with pytest.raises(ValueError, match=f"odd.npz cannot be read: {message}"):
            data.read_proposals(tmp_path / "odd.npz")
    del whole["scores"], whole["boxes"]
    np.savez(tmp_path / "few.npz", **whole)
    with pytest.raises(ValueError, match="few.npz cannot be read: it has no array boxes, scores"):
        data.read_proposals(tmp_path / "few.npz")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bbox": [math.nan, 2, 3, 4]}, r"its bbox of image 1 must be four .*: \[nan, 2, 3, 4\]"),
        ({"bbox": ["1", "2", "3", "4"]}, r"its bbox .* Received: \['1', '2', '3', '4'\]"),
        ({"bbox": [1, 2, -3, 4]}, r"its bbox of image 1 has a negative side: \[1, 2, -3, 4\]"),
        ({"image_id": 7.9}, "its image_id must be an integer. Received: 7.9"),
    ],
)
def test_rows_of_a_json_are_shown_as_they_stand_there(tmp_path, change, message):
    rows = [{"image_id": 1, "bbox": [1, 2, 3, 4], "score": 1} for _ in range(2)]
    rows[1] |= change
    (tmp_path / "a.json").write_text(json.dumps(rows))
    with pytest.raises(ValueError, match=f"a.json cannot be read: row 1: {message}"):
        data.read_proposals(tmp_path / "a.json")


def test_unknown_and_missing_images_are_one_error(files, tmp_path):
    read = files([(60, 40)] * 9)
    data.write_proposals(tmp_path / "other.npz", [image(1), image(44), image(45)])
    with pytest.raises(
        ValueError, match=r"other.npz does not belong to files: .*44, 45; no pro"
    ) as e:
        data.with_proposals(read, tmp_path / "other.npz")
    assert "2, 3, 4, 5, 6, ... (8 in total)" in str(e.value)


def test_proposals_are_clipped_and_the_best_are_kept(files):
    boxes = [[-5, 0, 20, 10], [70, 0, 80, 10], [50, 30, 90, 90], [0, 0, 1, 1]]
    read = data.with_proposals(files([(60, 40)]), [image(1, boxes, [0.4, 0.9, 0.5, 0.1])], most=2)
    assert read.examples[0].proposals.tolist() == [[50, 30, 60, 40], [0, 0, 20, 10]]
    assert read.max_proposals == 2 and read.subset([0]).max_proposals == 2
    with pytest.raises(ValueError, match="`most` must be.*Received: 0"):
        data.with_proposals(read, [image(1)], most=0)


def carrying(files):
    boxes = [[0, 0, 10, 20], [30, 10, 50, 40]]
    found = [image(1, boxes, [0.9, 0.8]), image(2, boxes[:1], [0.9])]
    return data.with_proposals(files([(60, 40)] * 2), found)


@pytest.mark.parametrize("flip, expected", [(0.0, [0, 0, 5, 10]), (1.0, [25, 0, 30, 10])])
def test_samples_hold_proposals_resized_and_mirrored_with_the_image(files, flip, expected):
    source = TrainingSource(carrying(files), POLICY, 2, flip=flip)
    assert source.inputs[-1] == "proposals"
    for number in range(2):
        *_, image_id, proposals, boxes, labels = source.sample(number)
        assert proposals.shape == (2, 4) and proposals.dtype == np.float32
        assert proposals[0].tolist() == expected  # 30 - 5 .. 30 - 0 where mirrored
        assert proposals[1].any() == (image_id == 1)  # the other image has one only
        assert labels.shape == (1,) and boxes.shape == (1, 4)


def test_evaluation_samples_hold_proposals(files):
    source = EvaluationSource(carrying(files), POLICY)
    *_, proposals = source.sample(0)
    assert proposals.tolist() == [[0, 0, 5, 10], [15, 5, 25, 20]]


def test_a_stand_in_for_a_damaged_image_brings_its_own_proposals(files):
    read = carrying(files)
    read.examples[0].file.write_bytes(b"damaged")
    source = TrainingSource(read, POLICY, 2, flip=0.0)
    assert not any(source.sample(number)[4][1].any() for number in range(2))


def test_batches_hold_proposals(files):
    pytest.importorskip("tensorflow", reason="batches for Keras on TensorFlow")
    read = carrying(files)
    x, _ = data.training_batches(read, POLICY, 2, epochs=1).element_spec
    assert tuple(x["proposals"].shape) == (2, 2, 4)
    (x,) = data.evaluation_batches(read, POLICY, 2)
    np.testing.assert_array_equal(x["proposals"][1], [[0, 0, 5, 10], [0] * 4])
    x, _ = data.training_batches(files([(60, 40)] * 2), POLICY, 2).element_spec
    assert "proposals" not in x
