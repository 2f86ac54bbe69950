"""Batches without TensorFlow: those of the plan, equal to tf.data, in `fit` as in a loop."""

import keras
import numpy as np
import pytest
from keras import ops

from libra_keras import data
from libra_keras.data.batches import TrainingSource
from libra_keras.data.findings import TooManyDamagedImages
from libra_keras.data.py_dataset import Batches
from libra_keras.runs.inputs import damage_explained

pytestmark = pytest.mark.portable
POLICY = data.InputPolicy(40, 60, pad_multiple=8)  # buckets 40 x 64 and 64 x 40
LANDSCAPE, PORTRAIT = (60, 40), (40, 60)


def py_batches(*args, **kwargs):
    return data.training_batches(*args, **kwargs, kind="py")


def ids_of(batches):
    return [x["image_ids"].tolist() for x, _ in batches]


def planned(plan, epochs):
    return (np.concatenate([plan.batches(epoch) for epoch in epochs]) + 1).tolist()


def assert_equal(mine, others):
    mine, others = list(mine), list(others)
    assert len(mine) == len(others) > 0
    for batch, other in zip(mine, others, strict=True):
        mine_flat, other_flat = keras.tree.flatten(batch), keras.tree.flatten(other)
        keras.tree.assert_same_structure(batch, other)
        for array, tensor in zip(mine_flat, other_flat, strict=True):
            tensor = np.asarray(tensor)
            assert array.dtype == tensor.dtype
            np.testing.assert_array_equal(array, tensor)


def test_bit_for_bit_those_of_tf_data(files):
    pytest.importorskip("tensorflow", reason="what is compared with")
    read = files([LANDSCAPE] * 5 + [PORTRAIT] * 3)
    options = {"seed": 3, "epochs": 3, "start_epoch": 2, "max_boxes": 2}
    mine, others = (
        data.training_batches(read, POLICY, 2, kind=kind, **options) for kind in ("py", "tf")
    )
    assert len(mine) == len(others) == 9
    assert_equal(mine, others)
    assert_equal(*(data.evaluation_batches(read, POLICY, 2, kind=kind) for kind in ("py", "tf")))


def test_the_backend_chooses(files):
    batches = data.training_batches(files([LANDSCAPE] * 2), POLICY, 2)
    assert isinstance(batches, Batches) == (keras.backend.backend() != "tensorflow")
    with pytest.raises(ValueError, match="kind='numpy'"):
        data.evaluation_batches(files([LANDSCAPE]), POLICY, 2, kind="numpy")


def test_order_is_that_of_the_plan_and_resumes(files):
    read = files([LANDSCAPE] * 5)
    ids = ids_of(py_batches(read, POLICY, 2, epochs=3))
    assert ids == planned(data.BatchPlan([False] * 5, 2), range(3))
    assert ids_of(py_batches(read, POLICY, 2, epochs=1, start_epoch=2)) == ids[4:]
    assert ids_of(py_batches(read, POLICY, 2, epochs=2, start_epoch=1, start_step=1)) == ids[3:]
    assert ids_of(py_batches(read, POLICY, 2, epochs=3, start_step=5)) == ids[5:]


def test_only_what_is_left_of_a_run_is_read(files):
    batches = py_batches(files([LANDSCAPE] * 4), POLICY, 2, epochs=2, start_step=3)
    asked, load = [], batches.source.sample
    batches.source.sample = lambda number: (asked.append(number), load(number))[1]
    list(batches)
    assert sorted(asked) == [6, 7]  # the last two of eight samples


@pytest.mark.parametrize("start", [{"start_step": -1}, {"start_step": 5}, {"start_epoch": -1}])
def test_a_start_outside_of_the_run_is_refused(files, start):
    with pytest.raises(ValueError, match="must not be negative or past the end"):
        py_batches(files([LANDSCAPE] * 4), POLICY, 2, epochs=2, **start)


def test_batches_are_pure_functions_of_their_number(files):
    batches = py_batches(files([LANDSCAPE] * 4), POLICY, 2)
    in_order = [batches[i] for i in range(5)]
    assert_equal([batches[i] for i in (4, 0, 3, 2)], [in_order[i] for i in (4, 0, 3, 2)])


def test_only_a_few_batches_are_loaded_ahead(files):
    source = TrainingSource(files([LANDSCAPE] * 4), POLICY, 2)
    asked = []
    source.sample = lambda number: (asked.append(number), TrainingSource.sample(source, number))[1]
    batches = Batches(source, lambda i: [2 * i, 2 * i + 1], None, threads=2, max_queue_size=3)
    batches[0]
    batches[1]
    batches._pool.shutdown()
    assert sorted(asked) == list(range(10))  # batches 0 to 1 + 3, each sample once


def test_nothing_is_loaded_ahead_of_what_is_asked_for_at_random(files):
    batches = py_batches(files([LANDSCAPE] * 16), POLICY, 2, epochs=1)
    expected = ids_of(batches)
    loaded, sample = [], batches.source.sample
    batches.source.sample = lambda number: loaded.append(number) or sample(number)
    order = [5, 2, 7, 1]
    assert [batches[i][0]["image_ids"].tolist() for i in order] == [expected[i] for i in order]
    assert sorted(loaded) == sorted(2 * i + j for i in order for j in range(2))


def test_length_and_end(files):
    read = files([LANDSCAPE] * 4)
    endless = py_batches(read, POLICY, 2)
    assert endless.num_batches is None and endless.source.steps_per_epoch == 2
    with pytest.raises(TypeError, match="steps_per_epoch"):
        len(endless)
    with pytest.raises(IndexError, match="0 and on. Received: -1"):
        endless[-1]
    finite = py_batches(read, POLICY, 2, epochs=2)
    with pytest.raises(IndexError, match="0 to 3. Received: 4"):
        finite[4]
    with pytest.raises(ValueError, match="threads=0"):
        py_batches(read, POLICY, 2, threads=0)
    with pytest.raises(ValueError, match="batch_size=0"):
        data.evaluation_batches(read, POLICY, 0, kind="py")


def test_damage_keeps_the_number_of_steps_and_too_much_stops(files):
    read = files([LANDSCAPE] * 6)
    read.examples[2].file.write_bytes(b"damaged")
    batches = py_batches(read, POLICY, 2, epochs=2)
    assert len(list(batches)) == 6
    assert list(batches.source.damaged) == [str(read.examples[2].file)]
    read.examples[3].file.unlink()
    with pytest.raises(TooManyDamagedImages, match=r"2 of 6 images are damaged"):
        list(py_batches(read, POLICY, 2, epochs=1))


def test_evaluation_shows_every_image_once(files):
    read = files([LANDSCAPE] * 3 + [PORTRAIT] * 2)
    batches = data.evaluation_batches(read, POLICY, 2, kind="py")
    assert [x["image_ids"].tolist() for x in batches] == [[1, 2], [3], [4, 5]]
    assert len(batches) == 3
    assert [x["images"].shape[:3] for x in batches] == [(2, 40, 64), (1, 40, 64), (2, 64, 40)]


class Recorder(keras.Model):
    """Writes down the ids of the images that it is trained on."""

    def __init__(self, steps):
        super().__init__()
        self.scale = self.add_weight(shape=(), initializer="ones")
        self.count = self.add_weight(shape=(), dtype="int32", initializer="zeros", trainable=False)
        self.seen = self.add_weight(
            shape=(steps, 2), dtype="int32", initializer="zeros", trainable=False
        )
        self.built = True

    def call(self, x, training=False):
        row = ops.arange(self.seen.shape[0]) == self.count
        ids = ops.reshape(ops.cast(x["image_ids"], "int32"), (1, 2))
        self.seen.assign(ops.where(row[:, None], ids, ops.convert_to_tensor(self.seen)))
        self.count.assign_add(1)
        return self.scale * 1.0

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return y_pred


@pytest.mark.parametrize("epochs", [None, 6], ids=["endless", "finite"])
def test_fit_sees_the_order_of_the_plan_whatever_the_steps_per_epoch(files, epochs):
    """Three epochs of `fit` with 4 steps each are not those of the plan, with 2 steps each."""
    read = files([LANDSCAPE] * 5)
    batches = py_batches(read, POLICY, 2, epochs=epochs)
    model = Recorder(steps=12)
    model.compile(keras.optimizers.SGD(0.0))
    model.fit(batches, epochs=3, steps_per_epoch=4, shuffle=False, verbose=0)
    seen = ops.convert_to_numpy(model.seen).tolist()
    assert seen == planned(data.BatchPlan([False] * 5, 2), range(6))


def test_fit_is_stopped_by_damage_with_the_names_of_the_files(files):
    read = files([LANDSCAPE] * 6)
    for example in read.examples[:4]:
        example.file.write_bytes(b"damaged")
    batches = py_batches(read, POLICY, 2)
    model = Recorder(steps=6)
    model.compile(keras.optimizers.SGD(0.0))
    with pytest.raises(ValueError, match=r"training: .*00\d.png") as stopped:
        with damage_explained(lambda: {"training": batches.source.damaged}):
            model.fit(batches, epochs=2, steps_per_epoch=3, shuffle=False, verbose=0)
    assert "Too many images are damaged" in str(stopped.value)
