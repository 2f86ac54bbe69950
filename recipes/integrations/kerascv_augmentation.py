"""KerasCV's augmentation layers in front of our `fit`.

Overfits one drawn scene and prints the AP. Run: python recipes/integrations/kerascv_augmentation.py
(with `pip install '.[keras-cv]'`; under a minute on two cores).

What to know about KerasCV 0.9, and what `dialects` does about it:
* Layers require "classes", and all values or none as tensors: `to_sample` provides that.
* Boxes come back ragged, even if they went in padded: `from_sample` pads them to `max_boxes`.
* `RandomZoom` takes no boxes, and `Resizing` only with `pad_to_aspect_ratio=True`; then the content
  is in the middle of the image, so `from_sample` treats the whole image as content.
"""

import keras
import keras_cv
import tensorflow as tf
from scene import NUM_CLASSES, POLICY, SIZE, batch_of, drawn_scene

from libra_keras import evaluation
from libra_keras.data import dialects
from libra_keras.models import faster_rcnn_small

FORMAT, STEPS, MAX_BOXES = "xywh", 200, 4
LAYERS = [
    keras_cv.layers.RandomFlip("horizontal", bounding_box_format=FORMAT, seed=1),
    keras_cv.layers.JitteredResize(
        target_size=(SIZE, SIZE), scale_factor=(0.9, 1.1), bounding_box_format=FORMAT, seed=2
    ),
]


def augmented(sample):
    """From a batch in KerasCV's dialect to `(x, y)` of `fit`."""
    for layer in LAYERS:
        sample = layer(sample)
    return dialects.from_sample(sample, FORMAT, MAX_BOXES)


def main():
    keras.utils.set_random_seed(0)
    scene = drawn_scene()
    sample = dialects.to_sample(*batch_of(scene, size=4), FORMAT, label_key="classes")
    batches = tf.data.Dataset.from_tensors(sample).repeat(STEPS).map(augmented).prefetch(2)
    model = faster_rcnn_small(NUM_CLASSES, input_policy=POLICY)
    model.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(2e-3, STEPS)))
    model.fit(batches, verbose=2, shuffle=False)
    return evaluation.evaluate(model, scene, verbose=0)["AP"]


if __name__ == "__main__":
    print(f"AP {main():.3f}")
