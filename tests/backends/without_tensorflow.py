"""Run by `test_without_tensorflow.py` on JAX: everything that a program does with a detector."""

import importlib
import json
import sys
from pathlib import Path

import keras
import numpy as np

import libra_keras
from libra_keras import data, evaluation
from libra_keras.training import SGD

problems = []


def check(what, is_true):
    if not is_true:
        problems.append(what)


for name in libra_keras.__all__:
    importlib.import_module(f"libra_keras.{name}")

run = Path(sys.argv[1])
record = json.loads((run / "metrics.json").read_text())["metrics"]
model = keras.saving.load_model(run / "model.keras")
scenes = data.shapes(3)

metrics = evaluation.evaluate(model, scenes, batch_size=2, verbose=0)
check(
    "evaluate does not repeat the numbers of the run",
    all(np.isclose(metrics[name], record[name] or 0.0, atol=1e-6) for name in ("AP", "AR100")),
)

found = model.detect(scenes.read_image(0), score_threshold=0.0)
check("detect returns no boxes", found["boxes"].ndim == 2 and len(found["boxes"]) > 0)

before = model.get_weights()
model.compile(SGD(1e-3))
batches = data.training_batches(data.shapes(4), model.input_policy, batch_size=2)
history = model.fit(batches, steps_per_epoch=2, epochs=1, shuffle=False, verbose=0)
check("fit gives no finite loss", np.isfinite(history.history["loss"]).all())
after = model.get_weights()
check("fit changes nothing", any((a != b).any() for a, b in zip(before, after, strict=True)))

try:
    data.training_batches(data.shapes(4), model.input_policy, batch_size=2, kind="tf")
    check("tf.data is there", False)
except ImportError as error:
    check(f"no reason given: {error}", "TensorFlow" in str(error))

print(json.dumps({"tensorflow": "tensorflow" in sys.modules, "problems": problems}))
