"""What `keras.Model` offers and detectors do in another place: `export`; and what they refuse."""

QUANTIZED = (
    "A detector is not quantized in place: the file that it would be saved to could not be loaded "
    "again. Export it: `model.export(path, options=libra_keras.export.ExportOptions(precision="
    "'bfloat16'))` halves the weights, and the tools of ONNX, OpenVINO and LiteRT quantize what "
    "`format='onnx'`, `'openvino'` and `'litert'` write. Received: {}"
)


class Shortcuts:
    """Mixin, before `keras.Model`, of detectors."""

    def export(
        self, filepath, format="tf_saved_model", verbose=None, input_signature=None, **kwargs
    ):
        """Writes the detector for programs without Keras, as `keras.Model.export` does.

        What is written takes what `predict` takes and gives what it gives: boxes in pixels of the
        padded images. `libra_keras.export` and `libra-keras export` write more: a SavedModel that
        also reads JPEG and PNG files of any size, and a note of classes and input policy.

        Args:
            filepath: where the SavedModel's folder or the file is written; that of OpenVINO ends
                in `.xml`, that of LiteRT in `.tflite`.
            format: `"tf_saved_model"`, with `serve` for `tf.saved_model.load(filepath).serve(x)`
                and `keras.layers.TFSMLayer(filepath)`, and the signatures `serve` and
                `serving_default`; `"onnx"`, `"openvino"` or `"litert"`.
            verbose: bool, whether a line says what was written. Defaults to `True`.
            input_signature: `keras.InputSpec` or `tf.TensorSpec` of the images, or a dict of them
                by the names in `INPUTS`, if their types or sizes are to be others than uint8 and
                free (of LiteRT: those of `input_policy`). Without `"image_sizes"`, images count as
                unpadded.
            **kwargs: `overwrite` (an earlier export is replaced unless it is `False`), `options`
                (`ExportOptions`); of OpenVINO `rounds`; of LiteRT `batch_size` and
                `num_proposals`.

        Raises:
            ValueError: if the backend is not TensorFlow, the format or an argument is not known,
                or there is something else at `filepath`.
            ImportError: if a package is missing. The message says how to install it.

        Example:

        ```python
        model.export("exported")
        found = tf.saved_model.load("exported").serve(images)  # or {"images": …, "image_sizes": …}
        ```
        """
        from libra_keras.export.shortcut import export  # it imports models

        return export(self, filepath, format, verbose, input_signature, **kwargs)

    def quantize(self, mode=None, config=None, **kwargs):
        """Refuses: Keras would save a quantized detector to a file that cannot be loaded.

        Raises:
            ValueError: always. The message says what to do instead.
        """
        received = f"config={config!r}" if mode is None else f"mode={mode!r}"
        raise ValueError(QUANTIZED.format(received))
