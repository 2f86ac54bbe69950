"""How fast a run is, and the event files."""

import time

import keras
import numpy as np
import pytest

from libra_keras.runs.watching import Speedometer, TensorBoardLogger
from libra_keras.training import SGD, StepLogger, WarmupMultiStep


def fit(callbacks, epochs=1, steps=6):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(SGD(WarmupMultiStep(0.5, warmup_steps=0, drops=(4,))), "mse")
    ones = np.ones((2 * steps, 1))
    model.fit(ones, ones, 2, epochs, verbose=0, callbacks=callbacks)


def test_images_per_second_of_the_last_batches(monkeypatch):
    clock = iter([0.0, 10.0, 11.0, 13.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    speed = Speedometer(batch_size=6, window=2)
    speed.on_epoch_begin(0)
    seen = []
    for batch in range(4):
        speed.on_train_batch_end(batch)
        seen.append(speed.images_per_second)
    # Nothing before two batches; one in 10 s; two in 11 s; the first is out of the window: 2 in 3 s
    assert seen[1:] == pytest.approx([6 / 10, 12 / 11, 12 / 3])
    speed.on_epoch_begin(1)
    assert np.isnan([seen[0], speed.images_per_second]).all()


def read_events(folder):
    pytest.importorskip("tensorboard", reason="TensorBoard's own reader")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util import tensor_util

    events = EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()
    return {
        name: [(e.step, tensor_util.make_ndarray(e.tensor_proto)) for e in events.Tensors(name)]
        for name in events.Tags()["tensors"]
    }


class Evaluation(keras.callbacks.Callback):
    """Measures every second epoch."""

    def on_epoch_end(self, epoch, logs=None):
        logs["val_AP"] = 0.25 if epoch % 2 else float("nan")


def test_event_files_hold_rows_metrics_and_a_picture(tmp_path):
    pytest.importorskip("tensorflow", reason="event files are written by it")
    picture = np.zeros((8, 12, 3), "uint8")
    picture[:, 6:] = 255
    speed = Speedometer(batch_size=2)
    board = TensorBoardLogger(tmp_path / "board", speed, lambda: picture)
    steps = StepLogger(tmp_path / "steps.csv", every=5, on_row=board.write_row)
    fit([speed, Evaluation(), steps, board], epochs=2)
    found = read_events(tmp_path / "board")
    rows = (tmp_path / "steps.csv").read_text().splitlines()[1:]
    losses = [(int(row.split(",")[2]), float(row.split(",")[-1])) for row in rows]
    assert [step for step, _ in losses] == [5, 10, 12]
    written = found["train/loss"]
    assert [step for step, _ in written] == [5, 10, 12]
    assert [float(loss) for _, loss in written] == pytest.approx([loss for _, loss in losses], 1e-4)
    assert [float(rate) for _, rate in found["train/learning_rate"]] == pytest.approx([0.05] * 3)
    assert all(float(value) > 0 for _, value in found["train/images_per_second"])
    assert [(step, float(value)) for step, value in found["val/AP"]] == [(12, 0.25)]
    ((step, (width, height, content)),) = found["val/annotated and detected"]
    assert (step, width, height) == (12, b"12", b"8")
    decoded = keras.utils.img_to_array(_opened(content))
    np.testing.assert_array_equal(decoded, picture)


def _opened(content):
    import io

    from PIL import Image

    return Image.open(io.BytesIO(content))
