"""A tiny RetinaNet of KerasHub 0.32 and its training on one scene, for the recipes `kerashub_*.py`.

What to know about KerasHub 0.32: `dtype`, anchors and heads follow the backbone's `min_level` and
`max_level`. Anchors need the height and width of a batch as numbers. Boxes are regressed without
variances, and the low prior of the focal loss is in the bias of the *box* head, so a decaying
learning rate is what gets boxes exact. The docstrings say "classes"; the code reads "labels".
"""

import keras
import keras_hub
import tensorflow as tf
from scene import NUM_CLASSES, SIZE, average_precision, batch_of, drawn_scene, freeze_batch_norm

from libra_keras.data import dialects

FORMAT = "yxyx"


def small_backbone():
    """KerasHub's ResNet with its pyramid P3 to P7."""
    encoder = keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, 64, 64, 64],
        stackwise_num_blocks=[1, 1, 1, 1],
        stackwise_num_strides=[1, 2, 2, 2],
        block_type="basic_block",
        image_shape=(SIZE, SIZE, 3),
    )
    freeze_batch_norm(encoder)
    return keras_hub.models.RetinaNetBackbone(
        encoder, min_level=3, max_level=7, use_p5=False, image_shape=(SIZE, SIZE, 3)
    )


def small_retinanet(backbone):
    return keras_hub.models.RetinaNetObjectDetector(
        backbone,
        num_classes=NUM_CLASSES,
        bounding_box_format=FORMAT,
        anchor_generator=keras_hub.layers.AnchorGenerator(
            FORMAT, min_level=3, max_level=7, num_scales=3, aspect_ratios=[0.5, 1.0, 2.0],
            anchor_size=2.0,
        ),
        pre_logits_num_conv_layers=1,
        prediction_decoder=keras_hub.layers.NonMaxSuppression(
            FORMAT, from_logits=True, confidence_threshold=0.05
        ),
    )  # fmt: skip


def optimizer(steps=150):
    schedule = keras.optimizers.schedules.CosineDecay(1e-3, steps)
    return keras.optimizers.Adam(schedule)


def overfit(model, steps=150):
    """Trains on one drawn scene; returns the AP on it."""
    scene = drawn_scene()
    sample = dialects.to_sample(*batch_of(scene), FORMAT)
    pair = tf.cast(sample["images"], "float32") / 255, sample["bounding_boxes"]
    model.fit(tf.data.Dataset.from_tensors(pair).repeat(steps), shuffle=False, verbose=2)

    def predict(images):
        found = model.predict(images.astype("float32") / 255, verbose=0)
        return dialects.from_predictions(found, FORMAT, (SIZE, SIZE))

    return average_precision(scene, predict)
