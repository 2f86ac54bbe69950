"""Program: counts what JAX compiles while a detector learns from images of two forms.

Writes `counts.json` into a folder: for each step, how often Keras had it traced. JAX compiles each
trace once. Nine landscape and four portrait images make batches of two: all six of an epoch are
full, one of the evaluation has a single image.
"""

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from libra_keras import data
from libra_keras.evaluation import COCOEvaluation
from libra_keras.models import faster_rcnn_small
from libra_keras.training import SGD, StepLogger, StopOnNonFinite


def photographs(folder, sizes):
    examples = []
    for i, (width, height) in enumerate(sizes):
        file = folder / f"{i}.png"
        Image.new("RGB", (width, height), (i, 99, 0)).save(file)
        box, label = np.array([[4, 4, 40, 30]], "float32"), np.array([0], "int32")
        examples.append(data.Example(i + 1, file, height, width, box, label, np.array([False])))
    images = [{"id": e.image_id, "height": e.height, "width": e.width} for e in examples]
    categories = [{"id": 1, "name": "thing"}]
    annotations = {"images": images, "annotations": [], "categories": categories}
    return data.DetectionData("two forms", ("thing",), (1,), examples, annotations)


def counted(model, name, counts):
    step = getattr(model, name)

    def counting(*arguments):
        counts[name] = counts.get(name, 0) + 1
        return step(*arguments)

    setattr(model, name, counting)


folder = Path(sys.argv[1])
scenes = photographs(folder, [(96, 64)] * 9 + [(64, 96)] * 4)
model = faster_rcnn_small(1, input_policy=data.InputPolicy(64, 96))
model.compile(SGD(1e-4))
counts = {}
for name in ("train_step", "predict_step"):
    counted(model, name, counts)
batches = data.training_batches(scenes, model.input_policy, batch_size=2)
callbacks = [
    StopOnNonFinite(batches.source.batch_files),
    COCOEvaluation(scenes, batch_size=2),
    StepLogger(folder / "steps.csv", every=2),
]
model.fit(
    batches,
    steps_per_epoch=batches.source.steps_per_epoch,
    epochs=2,
    shuffle=False,
    verbose=0,
    callbacks=callbacks,
)
(folder / "counts.json").write_text(json.dumps(counts))
