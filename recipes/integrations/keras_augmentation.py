"""The box-aware preprocessing layers of Keras itself (and of KerasHub) in front of our `fit`.

Overfits one drawn scene and prints the AP. Run: python recipes/integrations/keras_augmentation.py
(no extra packages; under a minute on two cores).

Inside `data.training_batches` the layers do the same image by image, as
`augment=data.Augmentation(functions=(dialects.as_function(LAYERS[:2], FORMAT),))`.

What to know about Keras 3.15, and what to do about it:
* Layers require "labels" and reject "classes".
* Called eagerly, they modify the dict they are given: `to_sample` makes a new one.
* Padding rows are moved like boxes, for example to [97, 0, 97, 0]: `from_sample` looks only at
  labels.
* What is cropped away keeps an empty or outside box: `from_sample` clips boxes and drops these.
* `RandomCrop` moves x by the offset of y, and the reverse: boxes are wrong, use another layer.
  `RandomRotation` is correct only in "xyxy", `RandomShear` is wrong by some pixels. `CutMix` takes
  no boxes, `MixUp` breaks their labels.
* `Resizing(pad_to_aspect_ratio=True)` puts the content in the middle: `from_sample` treats the
  whole image as content.
"""

import keras
import tensorflow as tf
from scene import NUM_CLASSES, POLICY, SIZE, batch_of, drawn_scene

from libra_keras import evaluation
from libra_keras.data import dialects
from libra_keras.models import faster_rcnn_small

FORMAT, STEPS, MAX_BOXES = "rel_xyxy", 200, 4
LAYERS = [
    keras.layers.RandomFlip("horizontal", bounding_box_format=FORMAT, seed=1),
    keras.layers.RandomZoom(0.1, fill_mode="constant", bounding_box_format=FORMAT, seed=2),
    keras.layers.Resizing(SIZE, SIZE, pad_to_aspect_ratio=True, bounding_box_format=FORMAT),
]


def augmented(sample):
    """From a batch in Keras' dialect to `(x, y)` of `fit`."""
    for layer in LAYERS:
        sample = layer(sample, training=True)
    return dialects.from_sample(sample, FORMAT, MAX_BOXES)


def main():
    keras.utils.set_random_seed(0)
    scene = drawn_scene()
    sample = dialects.to_sample(*batch_of(scene, size=4), FORMAT)
    batches = tf.data.Dataset.from_tensors(sample).repeat(STEPS).map(augmented).prefetch(2)
    model = faster_rcnn_small(NUM_CLASSES, input_policy=POLICY)
    model.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(2e-3, STEPS)))
    model.fit(batches, verbose=2, shuffle=False)
    return evaluation.evaluate(model, scene, verbose=0)["AP"]


if __name__ == "__main__":
    print(f"AP {main():.3f}")
