"""NMS and RoIAlign as the operations that ONNX has for them, in a graph of TensorFlow."""

import numpy as np

from libra_keras.functional.control_flow import Operations


class Placeholders:
    """Stand for operations of ONNX while TensorFlow traces a graph, and become them afterwards."""

    def __init__(self):
        self._made = {}  # token of the placeholder -> operation and attributes

    @property
    def operations(self):
        """What `control_flow.straight_line` takes."""
        return Operations(self.suppress, self.pool)

    @property
    def handlers(self):
        """What `tf2onnx` takes as `custom_op_handlers`."""
        return {"PyFunc": (self._convert, []), "SelectV2": (_where, [])}

    def _operation(self, kind, inputs, shape, dtype, **attributes):
        import tensorflow as tf

        result = tf.numpy_function(_never_run, inputs, dtype)
        self._made[result.op.get_attr("token").decode()] = kind, attributes
        return tf.ensure_shape(result, shape)  # a converter forgets what `set_shape` says

    def _convert(self, graph, node, name, arguments):
        del arguments
        kind, attributes = self._made[node.get_attr_str("token")]
        dtypes = [graph.get_dtype(output) for output in node.output]
        inputs, outputs = list(node.input), list(node.output)
        graph.remove_node(name)
        graph.make_node(kind, inputs, attributes, name=name, outputs=outputs, dtypes=dtypes)

    # Exact: ranks as scores keep the order of equal scores, and a row of scores for each group
    # keeps groups apart without moving boxes, which would cost float32 precision.
    def suppress(self, boxes, groups, valid, iou_threshold, max_output, num_groups):
        """`Operations.suppress` as NonMaxSuppression."""
        import tensorflow as tf

        count = boxes.shape[1]
        ranks = tf.where(valid, tf.range(count, 0, -1, dtype="float32"), 0.0)[:, None]
        if groups is not None:
            ranks = tf.where(groups[:, None] == tf.range(num_groups)[:, None], ranks, 0.0)
        # An inverted box has no area, and its corners are not to be swapped.
        boxes = tf.concat([boxes[..., :2], tf.maximum(boxes[..., :2], boxes[..., 2:])], axis=-1)
        limits = np.int64(min(max_output, count)), iou_threshold, np.float32(0.5)  # of ranks
        shape, dtype = (None, 3), "int64"  # image, group, box
        found = self._operation("NonMaxSuppression", [boxes, ranks, *limits], shape, dtype)
        places = tf.cast(tf.gather(found, (0, 2), axis=1), "int32")
        ones = tf.ones_like(places[:, 0])
        return tf.scatter_nd(places, ones, tf.shape(valid)) > 0

    # Differs from ours for `sampling_ratio=0` alone: there the limit of samples is not ONNX's.
    def pool(
        self, features, boxes, levels, strides, size, sampling_ratio, aligned, max_sampling_ratio
    ):
        """`Operations.pool` as a RoiAlign of each level."""
        import tensorflow as tf

        batch, count = tf.unstack(tf.shape(boxes)[:2])
        images = tf.repeat(tf.range(batch, dtype="int64"), count)
        finite = tf.reduce_all(tf.abs(boxes) < 1e7, axis=-1, keepdims=True)
        boxes = tf.reshape(tf.where(finite, boxes, -1e7), (-1, 4))  # outside: all samples give 0
        levels = tf.reshape(levels, [-1])
        longest = size * max_sampling_ratio  # in cells
        attributes = {
            "output_height": size,
            "output_width": size,
            "sampling_ratio": sampling_ratio,
            "coordinate_transformation_mode": "half_pixel" if aligned else "output_half_pixel",
        }
        parts, places = [], []
        for level, (x, stride) in enumerate(zip(features, strides, strict=True)):
            own = tf.where(levels == level)[:, 0]
            rows = tf.gather(boxes, own)
            if sampling_ratio == 0:
                rows = _bounded(rows, tf.shape(x)[1:3], longest, stride, aligned)
            inputs = tf.transpose(x, (0, 3, 1, 2)), rows, tf.gather(images, own)
            shape, scale = (None, x.shape[-1], size, size), 1.0 / stride
            pooled = self._operation(
                "RoiAlign", inputs, shape, "float32", spatial_scale=scale, **attributes
            )
            parts.append(pooled)
            places.append(own)
        places = tf.concat(places, 0)
        total = tf.size(places, "int64")
        order = tf.scatter_nd(places[:, None], tf.range(total), total[None])
        pooled = tf.transpose(tf.gather(tf.concat(parts, 0), order), (0, 2, 3, 1))
        return tf.reshape(pooled, (batch, count, size, size, features[0].shape[-1]))


def _where(graph, node, name, arguments):
    """What `tf2onnx` makes of it multiplies by 0 and 1, and lets NaN through."""
    del graph, name, arguments
    node.type = "Where"


# Some runtimes keep all samples of a box in memory, and divide by their number, be it 0.
def _bounded(boxes, cells, longest, stride, aligned):
    """Boxes `(R, 4)` that end near the map of a level and, if `aligned`, have samples."""
    import tensorflow as tf

    reach = float((longest + 2) * stride)  # what is cut off is more than `longest` cells
    ends = tf.cast(cells[::-1], "float32") * stride + reach
    low = tf.clip_by_value(boxes[:, :2], -reach, ends)
    boxes = tf.concat([low, tf.clip_by_value(boxes[:, 2:], low, ends)], axis=-1)
    if not aligned:
        return boxes
    scaled = boxes * (1.0 / stride) - 0.5  # as it is computed by runtimes
    empty = tf.reduce_any(scaled[:, 2:] - scaled[:, :2] <= 0, axis=-1, keepdims=True)
    outside = tf.constant([-reach, -reach, stride - reach, stride - reach])
    return tf.where(empty, outside, boxes)


def _never_run(*_):
    raise NotImplementedError("This graph must be converted, not run")
