"""Networks of other packages as backbones."""

from collections.abc import Sequence
from typing import Any, Self

import keras

from libra_keras.backbones import feature_maps
from libra_keras.backbones.feature_maps import LEVELS
from libra_keras.keras_private import layers_in
from libra_keras.typing import Tensor

BATCH_NORMS = ("frozen", "trainable")
_ADVICE = "build it with include_top=False, input_shape=(None, None, 3)"


@keras.saving.register_keras_serializable(package="libra_keras")
class BackboneAdapter(keras.layers.Layer):
    """Makes a backbone of `{"C2", "C3", "C4", "C5"}` from a model of another package.

    The model may be one of

    - `keras.applications`, or any functional model with one output: the last feature map of each
      stride is found in its graph (the output of a stage, not what lies beside a shortcut; where
      stages have neither shortcuts nor concatenations, the last map before the next stride);
    - KerasHub with `pyramid_outputs`, or KerasCV with `pyramid_level_inputs`: these are used;
    - any other `keras.Model` with several outputs, a list or a dict: these are used.

    Layers after the last feature map are left out. Weights are shared with `model`.

    Networks differ in the pixel values that they expect; detectors normalise images with their
    `normalization`. Networks with `rescales` true (of `keras.applications` EfficientNet,
    EfficientNetV2, ConvNeXt, MobileNetV3) rescale internally: pass `ImageNormalization.none()`. For
    the others: `caffe_style()` for ResNet and VGG of `keras.applications`, `tf_style()` for
    ResNetV2, MobileNet and MobileNetV2, `torch_style()`, the default, for its DenseNet and
    KerasHub's timm weights.

    Args:
        model: `keras.Model` of images `(B, H, W, 3)` with H and W unknown.
        levels: names of four layers whose outputs are C2 to C5, or `None` to find them.
        batch_norm: `"frozen"`: the network runs in inference mode even in training, with moving
            statistics and without dropout or stochastic depth; scales and offsets of batch
            normalisation do train. Detectors see too few images at a time for batch statistics.
            `"trainable"`: the network trains as it would on its own; required for random weights,
            whose moving statistics normalise nothing. Defaults to `"frozen"`.
        frozen_stages: int, 0 (all trains) or 1..4: the layers up to C2..C5 do not train, and their
            moving statistics do not change. `ResNet` has 1 by default; here the weights may equally
            well be random. Defaults to 0.
        **kwargs: `name`; `trainable=False` freezes the whole network. Layers of `model` that do
            not train stay so. The precision is the one that `model` was built with.

    Call arguments:
        images: `(B, H, W, 3)`, normalised as the network expects.
        training: bool; see `batch_norm`.

    Returns:
        Dict of `"C2"`..`"C5"`, `(B, H / s, W / s, C)` with strides s = 4, 8, 16, 32 if H and W are
        multiples of 32.

    Raises:
        TypeError: if `model` is not a `keras.Model`.
        ValueError: if it has a fixed input size, lacks a stride, or a layer named in `levels` has a
            different one.

    Example:

    >>> import keras
    >>> from libra_keras.backbones import BackboneAdapter
    >>> network = keras.applications.MobileNetV2(
    ...     include_top=False, weights=None, input_shape=(None, None, 3), alpha=0.35
    ... )
    >>> backbone = BackboneAdapter(network)
    >>> backbone.levels
    ['block_2_add', 'block_5_add', 'block_12_add', 'out_relu']
    >>> backbone.compute_output_shape((None, 64, 96, 3))["C4"]
    (None, 4, 6, 32)

    A detector with this backbone is saved with the graph of the network. Loading it requires the
    packages whose layers it uses: KerasHub and KerasCV are imported automatically, others must be
    imported first. `get_config` contains the graph in use, with `levels=None`. KerasHub's
    `MiTBackbone` is not supported, since it cannot be built for images of arbitrary size.
    """

    def __init__(
        self,
        model: keras.Model,
        levels: Sequence[str] | None = None,
        batch_norm: str = "frozen",
        frozen_stages: int = 0,
        **kwargs: Any,
    ) -> None:
        # The network's own input layer casts.
        super().__init__(autocast=False, **kwargs)
        if batch_norm not in BATCH_NORMS:
            raise ValueError(f"`batch_norm` must be one of {BATCH_NORMS}. Received: {batch_norm!r}")
        if frozen_stages not in (0, 1, 2, 3, 4):
            raise ValueError(f"`frozen_stages` must be 0 to 4. Received: {frozen_stages!r}")
        self.batch_norm = batch_norm
        self.frozen_stages = frozen_stages
        maps = _chosen_maps(_as_functional(model), levels)
        self.model = keras.Model(maps.pop("images"), maps, name=model.name)
        self._frozen_within: tuple[int, ...] = ()
        if self.trainable:  # else nobody knows what trained before
            self._frozen_within = tuple(
                id(layer) for layer in self._inner_layers() if not layer.trainable
            )
        else:
            self.model.trainable = False
        self._freeze_stages()
        self.built = True

    @property
    def levels(self) -> list[str]:
        """Names of the layers that C2 to C5 come from."""
        return [feature_maps.name_of(self.model.output[level]) for level in LEVELS]

    @property
    def rescales(self) -> bool:
        """Whether the network scales pixels 0..255 itself; if so, do not normalise them first."""
        layers = feature_maps.layers_before(self.model.output["C2"])
        return any(type(layer).__name__ in ("Rescaling", "Normalization") for layer in layers)

    @property
    def trainable(self) -> bool:
        """Whether the network trains. Frozen stages and layers that came frozen never do."""
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        keras.layers.Layer.trainable.fset(self, value)
        self._freeze_stages()

    def _inner_layers(self):
        return list(layers_in(self.model, include_self=False))

    def _freeze_stages(self):
        for layer in self._inner_layers():
            if id(layer) in self._frozen_within:
                layer.trainable = False
        if self.frozen_stages:
            last = self.model.output[f"C{self.frozen_stages + 1}"]
            for layer in feature_maps.layers_before(last):
                layer.trainable = False

    def call(self, images: Tensor, training: bool | None = None) -> dict[str, Tensor]:
        return self.model(images, training=False if self.batch_norm == "frozen" else training)

    def compute_output_shape(
        self, input_shape: Sequence[int | None]
    ) -> dict[str, tuple[int | None, ...]]:
        return self.model.compute_output_shape(tuple(input_shape))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "model": keras.saving.serialize_keras_object(self.model),
            "levels": None,  # the graph above has been cut already
            "batch_norm": self.batch_norm,
            "frozen_stages": self.frozen_stages,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        model = config["model"]
        if isinstance(model, dict):
            model = keras.saving.deserialize_keras_object(model)
        return cls(**{**config, "model": model})


def _as_functional(model):
    """The model itself, if its graph is known, or a graph of one node."""
    if not isinstance(model, keras.Model):
        raise TypeError(
            "`model` must be a keras.Model, such as one of keras.applications or a backbone of "
            f"KerasHub. Received: {type(model).__name__}"
        )
    if getattr(model, "inputs", None) is None:
        images = keras.Input((None, None, 3))
        return keras.Model(images, model(images))
    shapes = [tuple(tensor.shape) for tensor in model.inputs]
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][-1] != 3:
        raise ValueError(
            "The model must have one input of images (B, H, W, 3), channels last. "
            f"Received: '{model.name}' with inputs of shapes {shapes}"
        )
    if shapes[0][1:3] != (None, None):
        raise ValueError(
            f"Images of detectors differ in size, but '{model.name}' takes {shapes[0][1:3]} "
            f"only; {_ADVICE}."
        )
    return model


def _chosen_maps(model, levels):
    """The images' tensor and those of the four levels, all of the right strides."""
    if levels is not None:
        maps = _maps_by_name(model, levels)
    elif getattr(model, "pyramid_outputs", None):  # KerasHub
        maps = feature_maps.maps_by_stride(model, list(model.pyramid_outputs.values()))
    elif getattr(model, "pyramid_level_inputs", None):  # KerasCV
        names = model.pyramid_level_inputs.values()
        tensors = [feature_maps.named_map(model, name) for name in names]
        maps = feature_maps.maps_by_stride(model, tensors)
    elif len(model.outputs) > 1:
        maps = feature_maps.maps_by_stride(model, model.outputs)
    else:
        maps = feature_maps.last_maps(model)
    missing = [f"{level} (stride {LEVELS[level]})" for level in LEVELS if level not in maps]
    if missing:
        raise ValueError(
            f"A backbone needs feature maps of strides {tuple(LEVELS.values())} with sides that "
            f"are exactly that fraction of the images', but '{model.name}' has none for "
            f"{', '.join(missing)}. If the model computes them, name four layers in "
            "`levels`."
        )
    return {"images": model.inputs[0], **{level: maps[level] for level in LEVELS}}


def _maps_by_name(model, names):
    if isinstance(names, str) or len(names) != len(LEVELS):
        raise ValueError(f"`levels` must be four names of layers, C2 to C5. Received: {names!r}")
    tensors = [feature_maps.named_map(model, name) for name in names]
    strides = feature_maps.strides_of(model, tensors)
    for name, (level, wanted), stride in zip(names, LEVELS.items(), strides, strict=True):
        if stride != wanted:
            raise ValueError(
                f"{level} must have stride {wanted}, but layer '{name}' of '{model.name}' has "
                f"{stride if stride else 'a stride that is not a whole number'}."
            )
    return dict(zip(LEVELS, tensors, strict=True))


def check_feature_maps(backbone, shapes):
    """Raises a TypeError if a backbone has one output instead of several feature maps."""
    levels = list(shapes.values()) if isinstance(shapes, dict) else shapes
    if not all(isinstance(shape, (list, tuple)) for shape in levels):
        raise TypeError(
            "A backbone must return a dict or list of feature maps, but "
            f"{type(backbone).__name__} '{backbone.name}' returns a single one of shape "
            f"{tuple(shapes)}. Wrap models of keras.applications, KerasHub and KerasCV in "
            "`libra_keras.backbones.BackboneAdapter(model)`."
        )
