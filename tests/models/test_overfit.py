"""A detector that cannot learn one image by heart will not learn a data set."""

import keras
import numpy as np
import pytest

from libra_keras import data, evaluation
from libra_keras.models import libra_faster_rcnn_small
from libra_keras.training import SGD, WarmupMultiStep

STEPS = 200


@pytest.mark.slow
def test_one_drawn_scene_is_learnt_by_heart():
    keras.utils.set_random_seed(0)
    scenes = data.shapes("train", num=20)
    crowded = int(np.argmax([len(example.boxes) for example in scenes.examples]))
    scene = scenes.subset([crowded])
    assert len(scene.examples[0].boxes) >= 8
    model = libra_faster_rcnn_small(scene.num_classes)
    batches = data.training_batches(scene, model.input_policy, batch_size=1, flip=0.0)
    rate = WarmupMultiStep(0.01, warmup_steps=20, drops=(160,))
    model.compile(SGD(rate, global_clipnorm=10.0))
    model.fit(batches, steps_per_epoch=STEPS, epochs=1, verbose=0, shuffle=False)
    metrics = evaluation.evaluate(model, scene, batch_size=1, verbose=0)
    assert metrics["AP"] > 0.9, metrics
