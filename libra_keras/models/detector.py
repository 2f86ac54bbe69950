"""What all detectors share: the way from pixels to a pyramid, and what Keras asks of a model."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, Self

import keras
import numpy as np
from keras import ops

from libra_keras.backbones.adapter import check_feature_maps
from libra_keras.data.images import InputPolicy
from libra_keras.functional import native_gradients, replicas
from libra_keras.functional.random_keys import random_keys
from libra_keras.keras_private import has_compiled_metrics
from libra_keras.layers import ImageNormalization
from libra_keras.layers.channels_last import keep_channels_last
from libra_keras.models import distributed
from libra_keras.models.detect import detect
from libra_keras.models.fine_tuning import freeze_layer, tell_parts, warn_of_random_features
from libra_keras.models.ground_truth import GroundTruth, check_labels, truth_of
from libra_keras.models.habits import is_auto, refuse_box_format, refuse_weights
from libra_keras.models.inputs import Batch, TakesLists, as_batch, images_and_sizes, is_image
from libra_keras.models.settings import MOST, check_kind, live, live_parts
from libra_keras.models.strides import check_strides
from libra_keras.ranges import POSITIVE, SEED, whole
from libra_keras.typing import Tensor

NOT_FOR_DETECTORS = (
    "loss", "loss_weights", "box_loss", "classification_loss", "metrics", "weighted_metrics"
)  # fmt: skip
QUANTIZED = (
    "A detector cannot be quantized in place: its saved file could not be loaded again. Export "
    "it: `model.export(path, options=libra_keras.export.ExportOptions(precision='bfloat16'))` "
    "halves the weights, and `export_onnx` and `export_openvino` of `libra_keras.export` write "
    "int8. Received: {}"
)


class Detector(TakesLists, keras.Model):
    """Base of the detectors: normalisation, backbone and neck; subclasses add heads, and call
    `self.build` last in the constructor, so that all weights exist as soon as the object does.
    `largest_object` is the longest side of the objects that it learnt from, in their images'
    pixels, or `None` if it was not set.
    """

    LOSSES: tuple[str, ...] = ()  # names, as of metrics, in the order of `compute_losses`
    INPUTS: tuple[str, ...] = ("images", "image_sizes")  # what an exported model takes
    # What `predict` returns.
    OUTPUTS: tuple[str, ...] = ("boxes", "scores", "labels", "num_detections")
    PARTS: tuple[str, ...] = ()  # arguments of the constructor, beside the neck, that are objects

    def __init__(
        self,
        backbone: keras.layers.Layer,
        neck: keras.layers.Layer | list[keras.layers.Layer],
        normalization: keras.layers.Layer | None = None,
        input_policy: InputPolicy | None = None,
        class_names: Sequence[str] | None = None,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        refuse_box_format(kwargs)
        # Pixels, sizes and boxes keep their types in mixed precision; layers cast for themselves.
        super().__init__(autocast=False, **kwargs)
        self.backbone = backbone
        self.neck = list(neck) if isinstance(neck, (list, tuple)) else [neck]
        self.normalization = normalization or self._default_normalization()
        self.input_policy = input_policy or InputPolicy(short_side=800, long_side=1333)
        check_kind("input_policy", self.input_policy, InputPolicy)
        self.class_names = class_names
        self.largest_object: float | None = None
        self.seed = SEED.check("`seed`", seed)
        self.process = os.getpid()  # which its threads live in
        self.trained_steps = self.add_weight(
            name="trained_steps", shape=(), dtype="int32", initializer="zeros", trainable=False
        )
        self.loss_means = [distributed.replicated_mean(name) for name in self.LOSSES]

    @property
    def num_classes(self) -> int:
        """Number of classes without the background."""
        raise NotImplementedError

    def heads(self) -> list[keras.layers.Layer]:
        """Returns the layers that read the pyramid; each is built with its levels' shapes."""
        raise NotImplementedError

    def build(self, input_shape):
        # Every part is built here: `load_weights` silently skips what is built later.
        if self.built:
            return
        self.check_names(self.class_names)
        keep_channels_last(self)  # whatever Keras' setting is: the images of detectors have
        images = (None, None, None, 3)
        _ensure_built(self.normalization, images)
        _ensure_built(self.backbone, images)
        shapes = self.backbone.compute_output_shape(images)
        check_feature_maps(self.backbone, shapes)
        for layer in self.neck:
            _ensure_built(layer, shapes)
            shapes = layer.compute_output_shape(shapes)
        for head in self.heads():
            check_strides(self, head, shapes)
            _ensure_built(head, _levels(shapes))
        self.built = True
        if not self.trainable:
            freeze_layer(self)

    @property
    def class_names(self) -> list[str] | None:
        """List of one name for each class, or `None`."""
        return self._class_names

    @class_names.setter
    def class_names(self, names: Sequence[str] | None) -> None:
        if isinstance(names, str):
            raise TypeError(f"`class_names` must be a list of strings. Received: {names!r}")
        names = None if names is None else list(names)
        if names is not None and len(set(names)) < len(names):
            raise ValueError(f"`class_names` must hold each name once. Received: {names}")
        if self.built:  # else the heads are not there
            self.check_names(names)
        self._class_names = names

    def check_names(self, names: Sequence[str] | None) -> None:
        """Raises a ValueError unless there is one name for each class, or none at all."""
        if names is not None and len(names) != self.num_classes:
            raise ValueError(
                f"`class_names` must have one name for each of {self.num_classes} classes. "
                f"Received: {len(names)} names"
            )

    @property
    def max_detections(self) -> int:
        """Maximum number of detections per image; it can be set."""
        return getattr(self._last_settings(), self._limit_name())

    @max_detections.setter
    def max_detections(self, number: int) -> None:
        number, settings = whole(1, MOST).check("`max_detections`", number), self._last_settings()
        changes = {self._limit_name(): number}
        for name in ("pre_nms_test", "max_candidates"):  # as many must enter NMS
            if hasattr(settings, name):
                changes[name] = max(number, getattr(settings, name))
        self.heads()[-1].settings = dataclasses.replace(settings, **changes)

    def _last_settings(self):
        return self.heads()[-1].settings

    def _limit_name(self):
        return "max_detections" if hasattr(self._last_settings(), "max_detections") else "post_nms"

    def _default_normalization(self):
        rescales = getattr(self.backbone, "rescales", False)  # of a `BackboneAdapter`
        style = ImageNormalization.none if rescales else ImageNormalization.torch_style
        return style(dtype=self.dtype_policy)

    def get_build_config(self):
        return None  # the constructor builds

    def compile(
        self,
        optimizer: Any = "auto",
        loss: Any = "auto",
        *,
        jit_compile: bool | str | None = None,
        **kwargs: Any,
    ) -> None:
        """Like `keras.Model.compile`, without a `loss`: the losses are the model's own.

        `"auto"` chooses the optimizer with which `libra-keras train` trains such a detector, and
        prints it: `AdamW` for one that trains from scratch, `SGD` for others, at the rate after the
        warm-up. The rate does not drop: the number of steps is not known here. For batch sizes
        other than the one printed, pass an optimizer whose rate is in proportion.

        On TensorFlow, `jit_compile` is off by default: XLA makes a complete step on CPUs slower,
        and fails under a distribution strategy.

        Raises:
            ValueError: if a loss or metrics are given (pass a box loss to the heads), if the model
                was built under a strategy of several replicas whose scope is not entered, or if a
                batch normalisation in it uses the statistics of one replica only.
        """
        refuse_box_format(kwargs)
        own = {"loss": loss, **{name: kwargs.pop(name, None) for name in NOT_FOR_DETECTORS[1:]}}
        given = [name for name, value in own.items() if not is_auto(value)]
        if given:
            raise ValueError(
                "A detector has its own losses; pass `box_loss` to its heads, and use the "
                f"callback `COCOEvaluation` for metrics. Received: {', '.join(given)}"
            )
        if isinstance(optimizer, str) and optimizer == "auto":
            from libra_keras.runs.usual import usual_optimizer  # it imports models

            optimizer = usual_optimizer(self)
        if jit_compile is None:
            jit_compile = False if keras.backend.backend() == "tensorflow" else "auto"
        distributed.check_scope(self)
        distributed.check_batch_norm(self)
        if kwargs.get("auto_scale_loss", True):
            optimizer = distributed.with_loss_scale(optimizer, self.dtype_policy)
        super().compile(optimizer=optimizer, jit_compile=jit_compile, **kwargs)
        distributed.track_loss(self)
        if self.optimizer is not None:
            tell_parts(self)
            # TensorFlow traces a step twice, which takes long, if the first trace makes variables.
            self.optimizer.build(self.trainable_variables)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles a reloaded model as it was compiled when it was saved."""
        config = dict(keras.saving.deserialize_keras_object(config))
        # That of the backend that saved, which Keras has put in the place of a default.
        self.compile(**{**config, "jit_compile": None})

    def fit(self, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        """Like `keras.Model.fit`; warns if the first features are random and do not train."""
        warn_of_random_features(self.backbone)
        return super().fit(*args, **kwargs)

    def pyramid(self, images: Tensor, image_sizes: Tensor, training: bool = False) -> list[Tensor]:
        """Returns the list of pyramid levels of a batch, finest first.

        Args:
            images: `(B, H, W, 3)`, RGB in 0..255.
            image_sizes: int `(B, 2)`, height and width before padding.
            training: bool.
        """
        features = self.normalization(images, image_sizes)
        with replicas.counting(image_sizes):
            features = self.backbone(features, training=training)
            for layer in self.neck:
                features = layer(features)
        return _levels(features)

    def compute_losses(
        self, x: Batch, truth: GroundTruth, y_pred: dict[str, Any], training: bool
    ) -> tuple[Tensor, ...]:
        """Returns the losses of a batch in the order of `LOSSES`, each divided by a global count.

        Args:
            x: as in `call`.
            truth: `GroundTruth`.
            y_pred: the result of `call`.
            training: bool.
        """
        raise NotImplementedError

    def compute_loss(
        self,
        x: Batch | None = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: None = None,
        training: bool = True,
    ) -> Tensor:
        """Returns the sum of the losses, and keeps the mean of each as a metric."""
        refuse_weights({"sample_weight": sample_weight})
        truth = truth_of(x, y)
        is_wrong = check_labels(truth.labels, self)
        losses = list(self.compute_losses(x, truth, y_pred, training))
        losses = replicas.with_global_value(losses)
        # By numbers of images, as Keras' own loss is, which is the sum of these.
        count = ops.sum(is_image(images_and_sizes(x)[1]))
        for tracker, loss in zip(self.loss_means, losses, strict=True):
            # A replica has its share of the global sum; metrics average over replicas.
            tracker.update_state(loss * replicas.num_replicas(), sample_weight=count)
        if training:
            with native_gradients.after(*losses):  # as a `Mean` does
                self.trained_steps.assign(self.trained_steps + 1)
        # Replicas' gradients are added up, and each replica has all of the weights.
        others = [loss / replicas.num_replicas() for loss in self.losses]
        total = ops.where(is_wrong, float("nan"), sum([*losses, *others]))
        # Gradients of a loss that is not finite may be, for example where a logarithm overflowed:
        # all become NaN, so that optimizers can refuse them.
        return total * ops.where(ops.isfinite(total), 1.0, float("nan"))

    def key_maker(self, batch_size: Tensor, stage: int) -> Callable[[Tensor], Tensor]:
        """Returns a function of N that gives the keys `(B, N)` of this step for stage 0 or 1."""
        return functools.partial(self._keys, batch_size, stage)

    def _keys(self, batch_size, stage, num):
        positions = replicas.global_positions(batch_size)
        return random_keys(self.seed, 2 * self.trained_steps + stage, positions, num)

    def make_train_function(self, force=False):
        distributed.check_process(self)
        return super().make_train_function(self.has_changed("train") or force)

    def make_test_function(self, force=False):
        distributed.check_process(self)
        return super().make_test_function(self.has_changed("test") or force)

    def make_predict_function(self, force=False):
        distributed.check_process(self)
        return super().make_predict_function(self.has_changed("predict") or force)

    def has_changed(self, kind: str) -> bool:
        """Whether settings or parts of heads, which a graph keeps, changed since this was asked."""
        parts = ("settings", "sampler", "class_loss", "box_loss", "box_loss_weight")
        now = [tuple(getattr(head, part, None) for part in parts) for head in self.heads()]
        before = self.__dict__.get(f"_traced_{kind}", now)
        object.__setattr__(self, f"_traced_{kind}", now)  # past Keras' tracking
        return before != now

    def _maybe_symbolic_build(self, *args, **kwargs):
        # Under a strategy Keras adds up the replicas' first batches to learn their shapes, and
        # fails where these differ. But for metrics of others, everything here is built.
        if has_compiled_metrics(self):
            super()._maybe_symbolic_build(*args, **kwargs)

    def predict_step(self, *args):
        """One batch of `predict`: Keras' own step, without the raw outputs."""
        result = super().predict_step(*args)
        if isinstance(result, tuple):  # JAX passes its state along
            return self._outputs(result[0]), *result[1:]
        return distributed.without_blank(self._outputs(result), args[0])

    def _outputs(self, outputs):
        return {key: outputs[key] for key in self.OUTPUTS}

    def predict_on_batch(self, x: Any) -> dict[str, np.ndarray]:
        """Like `keras.Model.predict_on_batch`; several devices share a batch of any size."""
        return distributed.predict_evenly(self, super().predict_on_batch, as_batch(x))

    def detect(
        self,
        images: Any,
        score_threshold: float = 0.05,
        batch_size: int = 1,
        exif_rotation: bool = False,
        tile: int | None = None,
        overlap: float = 0.2,
    ) -> Any:  # a dict, a list of them, or a generator of them
        """Finds objects in images of any kind and size; boxes are in each image's own pixels.

        Args:
            images: a path, an address (`https://`, `file://`), bytes, Pillow image or `(H, W, 3)`
                array; or many: a list of these, a folder, a pattern such as `"photos/*.jpg"`, a
                batch `(B, H, W, 3)`, or an iterator, which is read as results are requested.
            score_threshold: float in 0..1; lower scores are left out. The detector's own threshold
                applies as well.
            batch_size: int, images of equal orientation, or tiles, that are run together.
            exif_rotation: bool, whether images are rotated according to their EXIF data; boxes then
                refer to the rotated images. By default pixels are taken as stored.
            tile: int, pixels: larger images are cut into squares of this side, each resized
                according to `input_policy`, and their detections are merged. Each tile may have
                `max_detections`. By default images are not cut.
            overlap: float from 0 to below 1, the minimum share of a tile that it has in common with
                the next one. Objects up to this size are complete in some tile, and are found once;
                parts cut off by a border are left out.

        Returns:
            A dict of arrays `"boxes"` `(n, 4)`, `"scores"` `(n,)`, `"labels"` `(n,)` and a list
            `"names"`, best first; for many images, a list of such dicts; for a folder or a pattern
            they are in the order of names and also have `"file"`; for an iterator, a generator.

        Raises:
            TypeError: if `tile` or `overlap` is not a number.
            ValueError: if an image cannot be read (the message names it, by its path or its
                position in the list, and the reason), if a folder has no image, or if a number is
                out of range.

        Example:

        ```python
        for found in model.detect(frame for frame in video):  # one after the other
            print(found["names"])
        ```
        """
        return detect(
            self, images, score_threshold, batch_size, exif_rotation, tile=tile, overlap=overlap
        )

    def export(
        self,
        filepath: str | os.PathLike[str],
        format: str = "tf_saved_model",
        verbose: bool | None = None,
        input_signature: Any = None,
        **kwargs: Any,
    ) -> None:
        """Writes the detector for programs without Keras, as `keras.Model.export` does.

        The export takes what `predict` takes and returns what it returns: boxes in pixels of the
        padded images. `libra_keras.export` and `libra-keras export` write more: a SavedModel that
        also reads JPEG and PNG files of any size, and a note of classes and input policy.

        Args:
            filepath: path of the SavedModel's folder or of the file; OpenVINO's must end in `.xml`,
                LiteRT's in `.tflite`.
            format: `"tf_saved_model"`, with `serve` for `tf.saved_model.load(filepath).serve(x)`
                and `keras.layers.TFSMLayer(filepath)`, and the signatures `serve` and
                `serving_default`; `"onnx"`, `"openvino"` or `"litert"`.
            verbose: bool, whether to print a line about what was written. Defaults to `True`.
            input_signature: `keras.InputSpec` or `tf.TensorSpec` of the images, or a dict of them
                by the names in `INPUTS`, for types or sizes other than uint8 and free (for LiteRT:
                those of `input_policy`). Without `"image_sizes"`, images count as unpadded.
            **kwargs: `overwrite` (an earlier export is replaced unless it is `False`), `options`
                (`ExportOptions`); for LiteRT also `batch_size` and `num_proposals`.

        Raises:
            ValueError: if the backend is not TensorFlow, the format or an argument is unknown, or
                there is something else at `filepath`.
            ImportError: if a package is missing. The message says how to install it.

        Example:

        ```python
        model.export("exported")
        found = tf.saved_model.load("exported").serve(images)  # or {"images": …, "image_sizes": …}
        ```
        """
        from libra_keras.export.shortcut import export  # it imports models

        return export(self, filepath, format, verbose, input_signature, **kwargs)

    @classmethod
    def from_preset(
        cls,
        preset: str | os.PathLike[str],
        num_classes: int | None = None,
        class_names: Sequence[str] | None = None,
    ) -> Self:
        """Loads a pretrained detector by name, or a saved one.

        A published detector comes with the names of COCO's 80 classes and the preprocessing of its
        weights. On first use it is downloaded, checked and converted; the variable
        `LIBRA_KERAS_WEIGHTS` names a folder that holds the published file, or another address.

        Args:
            preset: a name that `libra-keras models --pretrained` lists, or the path of what
                `save_to_preset`, a training run, `libra-keras convert` or `save` has written. An
                existing path takes precedence over a name.
            num_classes: int, if the classes are not the preset's. The layers whose size depends on
                the classes are initialised again, all other values are kept.
            class_names: list of their names, which also gives their number. If they are the
                preset's own, nothing is initialised again.

        Returns:
            A detector of this class; it is not compiled.

        Raises:
            ValueError: if there is no such name or path, the detector is of another class, its file
                is damaged, or the number of `class_names` is not `num_classes`.
            OSError: if it cannot be downloaded. The message states where to put the file manually.

        Example:

        ```python
        name = "libra_faster_rcnn_r50_fpn_1x_coco"
        print(FasterRCNN.from_preset(name).detect("street.jpg")["names"])
        pets = FasterRCNN.from_preset(name, num_classes=2, class_names=["cat", "dog"])
        ```
        """
        from libra_keras.models.saved import from_preset  # it imports this module

        return from_preset(cls, preset, num_classes, class_names)

    def save_to_preset(self, folder: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Saves the detector without its optimizer, for `from_preset`, `libra_keras.runs.open`,
        `libra-keras predict`, `evaluate`, `export` and `train --init`.

        Args:
            folder: where `model.json` and `last.weights.h5` are written.
            overwrite: bool, whether an earlier preset there is replaced. The folder must contain
                nothing else.

        Raises:
            ValueError: if there is something at `folder` that may not be replaced.
            OSError: if the disk is full; an earlier preset is kept.

        Example:

        >>> import tempfile
        >>> from libra_keras.models import RetinaNet, retinanet_small
        >>> folder = f"{tempfile.mkdtemp()}/shapes"
        >>> retinanet_small(num_classes=6).save_to_preset(folder)
        >>> pets = RetinaNet.from_preset(folder, class_names=["cat", "dog"])
        >>> pets.num_classes, pets.class_names
        (2, ['cat', 'dog'])
        """
        from libra_keras.models.saved import save_to_preset  # it imports this module

        save_to_preset(self, pathlib.Path(folder).expanduser(), overwrite)

    def quantize(self, mode: Any = None, config: Any = None, **kwargs: Any) -> None:
        """Not supported: Keras would save a quantized detector to a file that cannot be loaded.

        Raises:
            ValueError: always. The message states what to do instead.
        """
        received = f"config={config!r}" if mode is None else f"mode={mode!r}"
        raise ValueError(QUANTIZED.format(received))

    def get_config(self) -> dict[str, Any]:
        serialize, own = keras.saving.serialize_keras_object, super().get_config()
        longest = self.largest_object
        return {
            **{key: own[key] for key in ("name", "trainable", "dtype")},
            "backbone": serialize(self.backbone),
            "neck": [serialize(layer) for layer in self.neck],
            **{part: serialize(getattr(self, part)) for part in self.PARTS},
            "normalization": serialize(self.normalization),
            "input_policy": serialize(self.input_policy),
            "class_names": self.class_names,
            "seed": self.seed,
            **({} if longest is None else {"largest_object": longest}),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Self:
        parts = ("backbone", *cls.PARTS, "normalization", "input_policy")
        necks = config["neck"] if isinstance(config["neck"], (list, tuple)) else [config["neck"]]
        neck = [live(f"neck[{i}]", layer, custom_objects) for i, layer in enumerate(necks)]
        config = {**config, **live_parts(config, parts, custom_objects), "neck": neck}
        longest = config.pop("largest_object", None)
        detector = cls(**config)
        if longest is not None:
            detector.largest_object = POSITIVE.check("`largest_object`", longest)
        return detector


def _ensure_built(layer, shapes):
    if not layer.built:  # a reloaded layer comes back built
        layer.build(shapes)
    if not layer.trainable:
        freeze_layer(layer)


def _levels(pyramid):
    return list(pyramid.values()) if isinstance(pyramid, dict) else list(pyramid)
