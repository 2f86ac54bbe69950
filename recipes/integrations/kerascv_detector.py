"""A tiny RetinaNet of KerasCV 0.9 and its training on one scene, for the recipes `kerascv_*.py`.

What to know about KerasCV 0.9: presets are downloaded, even those without weights, so the backbone
is built from arguments. Anchors need the height and width of a batch as numbers, not as unknowns.
Its Faster R-CNN cannot be called in this version, so the recipes only use RetinaNet.
"""

import keras
import keras_cv
import numpy as np
import tensorflow as tf
from scene import NUM_CLASSES, SIZE, average_precision, batch_of, drawn_scene, freeze_batch_norm

from libra_keras.data import dialects

FORMAT = "xyxy"


def small_backbone():
    model = keras_cv.models.ResNetV2Backbone(
        stackwise_filters=[64, 64, 64, 64],
        stackwise_blocks=[2, 2, 2, 2],  # of a stack of 1, two layers have the same name
        stackwise_strides=[1, 2, 2, 2],
        include_rescaling=True,
        input_shape=(SIZE, SIZE, 3),
        block_type="basic_block",
    )
    freeze_batch_norm(model)
    return model


def small_retinanet(backbone, feature_pyramid=None):
    head = keras_cv.models.retinanet.PredictionHead
    sizes, strides = [[first * 2.0**i for i in range(5)] for first in (16, 8)]  # P3 to P7
    scales, ratios = [2 ** (i / 3) for i in range(3)], [0.5, 1.0, 2.0]
    return keras_cv.models.RetinaNet(
        backbone,
        num_classes=NUM_CLASSES,
        bounding_box_format=FORMAT,
        anchor_generator=keras_cv.layers.AnchorGenerator(
            FORMAT, sizes=sizes, scales=scales, aspect_ratios=ratios, strides=strides
        ),
        feature_pyramid=feature_pyramid,
        classification_head=head(9 * NUM_CLASSES, keras.initializers.Constant(-np.log(99)), 1),
        box_head=head(9 * 4, keras.initializers.Zeros(), 1),
        prediction_decoder=keras_cv.layers.NonMaxSuppression(
            FORMAT, from_logits=True, confidence_threshold=0.05
        ),
    )


def overfit(model, steps=100):
    """Trains on one drawn scene; returns the AP on it."""
    scene = drawn_scene()
    sample = dialects.to_sample(*batch_of(scene), FORMAT, label_key="classes")
    pair = tf.cast(sample["images"], "float32"), sample["bounding_boxes"]
    model.fit(tf.data.Dataset.from_tensors(pair).repeat(steps), shuffle=False, verbose=2)

    def predict(images):
        found = model.predict(images.astype("float32"), verbose=0)
        return dialects.from_predictions(found, FORMAT, (SIZE, SIZE))

    return average_precision(scene, predict)
