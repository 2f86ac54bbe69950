"""The two-stage detector."""

import functools

import keras
from keras import ops

from libra_keras.data.images import InputPolicy
from libra_keras.functional import native
from libra_keras.functional.random_keys import random_keys
from libra_keras.layers import ImageNormalization
from libra_keras.models.detect import detect
from libra_keras.models.ground_truth import GroundTruth
from libra_keras.models.settings import live_parts

LOSSES = ("rpn_class_loss", "rpn_box_loss", "class_loss", "box_loss")
DETECTIONS = ("boxes", "scores", "labels", "num_detections")


@keras.saving.register_keras_serializable(package="libra_keras")
class FasterRCNN(keras.Model):
    """Two-stage detector: a backbone, a pyramid, proposals, and a box head.

    Plain and Libra R-CNN are the same class with other parts: the neck with or without a
    `BalancedFeaturePyramid`, the box head with a random or a balanced sampler and with an L1 or a
    `BalancedL1Loss`. All weights exist as soon as the object does.

    Args:
        backbone: layer or model from normalised images to a dict or list of feature maps.
        neck: layer, or list of layers applied one after the other, from the backbone's outputs to
            a dict or list of pyramid levels, finest first.
        rpn: `RPNHead`; reads all levels.
        box_head: `BoxHead`; reads the finest levels, as many as its RoIAlign has strides.
        normalization: layer `(images, image_sizes)` that scales pixels. Defaults to
            `ImageNormalization()`, RGB as torchvision's weights expect it.
        input_policy: `InputPolicy`, how `detect` and the data pipeline size images.
        class_names: list of K strings, or `None`.
        seed: int; with the count of steps it determines which boxes are sampled.

    Call arguments:
        x: dict of `"images"` `(B, H, W, 3)`, RGB in 0..255, padded at the right and the bottom to
            multiples of 32, and `"image_sizes"` `(B, 2)`, height and width before padding. Images
            alone are enough when none is padded.
        training: bool.

    Returns:
        Dict of the raw outputs `"pyramid"` and `"rpn"`, and, unless training, `"proposals"` and
        the detections `"boxes"` `(B, D, 4)` in pixels of the padded image, `"scores"` `(B, D)`,
        `"labels"` `(B, D)` (-1 is padding) and `"num_detections"` `(B,)`. `predict` returns the
        detections alone.

    Raises:
        ValueError: if `class_names` has not one name a class.

    Example:

    >>> import numpy as np
    >>> from libra_keras.models import libra_faster_rcnn_small
    >>> model = libra_faster_rcnn_small(num_classes=6)
    >>> images = np.zeros((1, 64, 96, 3), "uint8")
    >>> sorted(model.predict({"images": images}, verbose=0))
    ['boxes', 'labels', 'num_detections', 'scores']

    Reference: [Ren et al., 2015](https://arxiv.org/abs/1506.01497);
    [Lin et al., 2017](https://arxiv.org/abs/1612.03144);
    [Pang et al., 2019](https://arxiv.org/abs/1904.02701).
    """

    def __init__(
        self,
        backbone,
        neck,
        rpn,
        box_head,
        normalization=None,
        input_policy=None,
        class_names=None,
        seed=0,
        **kwargs,
    ):
        # Pixels, sizes and boxes keep their types in mixed precision; layers cast for themselves.
        super().__init__(autocast=False, **kwargs)
        if class_names is not None and len(class_names) != box_head.num_classes:
            raise ValueError(
                f"`class_names` must have one name for each of {box_head.num_classes} classes. "
                f"Received: {len(class_names)} names"
            )
        self.backbone = backbone
        self.neck = list(neck) if isinstance(neck, (list, tuple)) else [neck]
        self.rpn = rpn
        self.box_head = box_head
        self.normalization = normalization or ImageNormalization(dtype=self.dtype_policy)
        self.input_policy = input_policy or InputPolicy(short_side=800, long_side=1333)
        self.class_names = None if class_names is None else list(class_names)
        self.seed = seed
        self.trained_steps = self.add_weight(
            name="trained_steps", shape=(), dtype="int32", initializer="zeros", trainable=False
        )
        self.loss_means = [keras.metrics.Mean(name=name) for name in LOSSES]
        self.build((None, None, None, 3))

    @property
    def num_classes(self):
        """Number of classes without the background."""
        return self.box_head.num_classes

    def build(self, input_shape):
        # Every part is built here: `load_weights` silently skips what is built later.
        if self.built:
            return
        images = (None, None, None, 3)
        _ensure_built(self.normalization, images)
        _ensure_built(self.backbone, images)
        shapes = self.backbone.compute_output_shape(images)
        for layer in self.neck:
            _ensure_built(layer, shapes)
            shapes = layer.compute_output_shape(shapes)
        _ensure_built(self.rpn, _levels(shapes))
        _ensure_built(self.box_head, _levels(shapes))
        self.built = True

    def get_build_config(self):
        return None  # the constructor builds

    def compile(self, optimizer="rmsprop", jit_compile=None, **kwargs):
        """Like `keras.Model.compile`, without `loss`: the losses are the model's own.

        `jit_compile` is off unless asked for on TensorFlow: XLA makes a whole step on CPUs slower,
        and fails under a distribution strategy.

        Raises:
            ValueError: if a `loss` or `loss_weights` is given; pass a box loss to the heads.
        """
        given = [name for name in ("loss", "loss_weights") if kwargs.get(name) is not None]
        if given:
            raise ValueError(
                "A detector has its own losses; give `box_loss` to `RPNHead` and `BoxHead`. "
                f"Received: {', '.join(given)}"
            )
        if jit_compile is None:
            jit_compile = False if keras.backend.backend() == "tensorflow" else "auto"
        super().compile(optimizer=optimizer, jit_compile=jit_compile, **kwargs)
        if self.optimizer is not None:
            # TensorFlow traces a step twice, which takes long, if the first trace makes variables.
            self.optimizer.build(self.trainable_variables)

    def compile_from_config(self, config):
        """Compiles a reloaded model as it was compiled when it was saved."""
        self.compile(**keras.saving.deserialize_keras_object(config))

    def call(self, x, training=False):
        images, image_sizes = _images_and_sizes(x)
        pyramid = self._pyramid(images, image_sizes, training)
        outputs = {"pyramid": pyramid, "rpn": self.rpn(pyramid)}
        if training:
            return outputs
        proposals = self.rpn.propose(outputs["rpn"], image_sizes)
        detections = self.box_head.detect(pyramid, proposals, image_sizes)
        return {**outputs, "proposals": proposals._asdict(), **detections}

    def _pyramid(self, images, image_sizes, training):
        features = self.normalization(images, image_sizes)
        features = self.backbone(features, training=training)
        for layer in self.neck:
            features = layer(features)
        return _levels(features)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Returns the sum of the four losses, and keeps the mean of each as a metric."""
        if sample_weight is not None:
            raise ValueError("Detectors take no `sample_weight`.")
        _, image_sizes = _images_and_sizes(x)
        truth = GroundTruth.of(y)
        make_rpn_keys, make_box_keys = (
            functools.partial(self._keys, ops.shape(truth.labels)[0], stage) for stage in (0, 1)
        )
        rpn_losses = self.rpn.compute_losses(y_pred["rpn"], truth, image_sizes, make_rpn_keys)
        proposals = self.rpn.propose(y_pred["rpn"], image_sizes, training=training)
        box_losses = self.box_head.compute_losses(
            y_pred["pyramid"], proposals, truth, make_box_keys
        )
        losses = [*rpn_losses, *box_losses]
        for tracker, loss in zip(self.loss_means, losses, strict=True):
            # A replica has its share of the global sum; metrics average over replicas.
            tracker.update_state(loss * native.num_replicas())
        if training:
            self.trained_steps.assign(self.trained_steps + 1)
        return _poisoned(sum([*losses, *self.losses]))

    def _keys(self, batch_size, stage, num):
        """Keys `(B, num)` of this step; the two stages draw from different streams."""
        positions = native.global_positions(batch_size)
        return random_keys(self.seed, 2 * self.trained_steps + stage, positions, num)

    def predict_step(self, *args):
        """One batch of `predict`: Keras' own step, without the raw outputs."""
        result = super().predict_step(*args)
        if isinstance(result, tuple):  # JAX passes its state along
            return _detections(result[0]), *result[1:]
        return _detections(result)

    def propose(self, x):
        """Returns the first stage's proposals for a batch.

        Args:
            x: as in `call`.

        Returns:
            Dict of `"boxes"` `(B, P, 4)` in pixels of the padded image, `"scores"` `(B, P)` and
            `"mask"` `(B, P)`, best first.
        """
        images, image_sizes = _images_and_sizes(x)
        outputs = self.rpn(self._pyramid(images, image_sizes, training=False))
        return self.rpn.propose(outputs, image_sizes)._asdict()

    def detect(self, images, score_threshold=0.05, batch_size=1, exif_rotation=False):
        """Finds objects in images of any kind and size; boxes are in each image's own pixels.

        Args:
            images: a path, bytes, Pillow image or `(H, W, 3)` array, or a list of them.
            score_threshold: float in 0..1; lower scores are left out. The box head's own
                `score_threshold` applies besides.
            batch_size: int, images of equal orientation that are run together.
            exif_rotation: bool, whether images are turned as their EXIF data say, and boxes refer
                to the turned ones; by default pixels are taken as they are stored.

        Returns:
            A dict of arrays `"boxes"` `(n, 4)`, `"scores"` `(n,)`, `"labels"` `(n,)` and a list
            `"names"`, best first; for a list of images, a list of such dicts.
        """
        return detect(self, images, score_threshold, batch_size, exif_rotation)

    def get_config(self):
        serialize = keras.saving.serialize_keras_object
        return {
            **{k: v for k, v in super().get_config().items() if k in ("name", "dtype")},
            "backbone": serialize(self.backbone),
            "neck": [serialize(layer) for layer in self.neck],
            "rpn": serialize(self.rpn),
            "box_head": serialize(self.box_head),
            "normalization": serialize(self.normalization),
            "input_policy": serialize(self.input_policy),
            "class_names": self.class_names,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        parts = ("backbone", "rpn", "box_head", "normalization", "input_policy")
        config = {**config, **live_parts(config, parts)}
        necks = config["neck"] if isinstance(config["neck"], (list, tuple)) else [config["neck"]]
        neck = [live_parts({"layer": layer}, ["layer"])["layer"] for layer in necks]
        return cls(**{**config, "neck": neck})


def _ensure_built(layer, shapes):
    if not layer.built:  # a reloaded layer comes back built
        layer.build(shapes)


def _poisoned(loss):
    """Makes every gradient of a loss that is not finite NaN, so that optimizers can refuse it.

    An infinite loss can have finite gradients, for example where a logarithm overflowed.
    """
    return loss * ops.where(ops.isfinite(loss), 1.0, float("nan"))


def _levels(pyramid):
    return list(pyramid.values()) if isinstance(pyramid, dict) else list(pyramid)


def _images_and_sizes(x):
    """Splits a batch; images without sizes are taken as unpadded."""
    if not isinstance(x, dict):
        x = {"images": x}
    images = ops.convert_to_tensor(x["images"])
    if "image_sizes" in x:
        return images, ops.cast(x["image_sizes"], "int32")
    batch, height, width = ops.shape(images)[:3]
    size = ops.stack([ops.cast(height, "int32"), ops.cast(width, "int32")])
    return images, ops.broadcast_to(size, (batch, 2))


def _detections(outputs):
    return {key: outputs[key] for key in DETECTIONS}
