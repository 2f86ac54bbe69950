"""Feature maps inside a functional Keras model: which there are, their strides, which to use."""

import difflib
import math

import keras

from libra_keras.keras_private import call_that_made

LEVELS = {"C2": 4, "C3": 8, "C4": 16, "C5": 32}  # what a detector reads, and the strides
_PROBE = (256, 384)  # height and width differ, so that a mixed-up pair shows
_MERGES = ("Add", "Concatenate")  # layers and `keras.ops` are called alike


def named_map(model, name):
    """The output of the layer `name` of a functional model; a ValueError names similar ones."""
    found = [node for node in _nodes(model.outputs) if node.operation.name == name]
    if len(found) != 1 or len(found[0].outputs) != 1:
        names = [node.operation.name for node in _nodes(model.outputs)]
        close = difflib.get_close_matches(name, names, 5) or names[-5:]
        raise ValueError(
            f"'{name}' must be a layer of model '{model.name}' that is called once and has one "
            f"output. Layers with a similar name, or the last ones: {close}"
        )
    return found[0].outputs[0]


def last_maps(model):
    """Finds `{"C2": tensor, ...}`, the last feature map of each stride; some may be missing."""
    # Only tensors count that everything passes through on its way to the output: what lies beside a
    # shortcut is no feature map. The next stage may begin with layers that still have the old
    # stride (the expansion of an inverted bottleneck), so the last sum or concatenation is taken
    # where there is one, with the activation that follows it. C5 is the output of the network.
    tensors = _passed_by_all(model.outputs[0])
    strides = strides_of(model, tensors)
    maps = {}
    for level, stride in LEVELS.items():
        same = [t for t, own in zip(tensors, strides, strict=True) if own == stride]
        if same:
            maps[level] = same[-1] if level == "C5" else _end_of_stage(same)
    return maps


def maps_by_stride(model, tensors):
    """Returns `{"C2": tensor, ...}`, the last tensor of each stride; some may be missing."""
    strides = strides_of(model, tensors)
    by_stride = dict(zip(strides, tensors, strict=True))
    return {level: by_stride[s] for level, s in LEVELS.items() if s in by_stride}


def strides_of(model, tensors):
    """The stride of each tensor by inferred shapes, or `None` if a side is no whole part."""
    if not tensors:
        return []
    probe = keras.Model(model.inputs[0], list(tensors))
    shapes = probe.compute_output_shape((1, *_PROBE, 3))
    return [_stride(shape) for shape in shapes]


def layers_before(tensor):
    """Returns the layers that the tensor is computed by."""
    operations = [node.operation for node in _nodes([tensor])]
    return [operation for operation in operations if isinstance(operation, keras.Layer)]


def name_of(tensor):
    """Returns the name of the layer that a symbolic tensor comes from."""
    return call_that_made(tensor).operation.name


def _stride(shape):
    if len(shape) != 4 or 0 in shape[1:3]:
        return None
    (rows, row_rest), (columns, column_rest) = (
        divmod(whole, part) for whole, part in zip(_PROBE, shape[1:3], strict=True)
    )
    return rows if rows == columns and row_rest == column_rest == 0 else None


def _end_of_stage(tensors):
    """The last merged of some tensors of equal stride, and what merely activates it."""
    merged = [
        i for i, t in enumerate(tensors) if type(call_that_made(t).operation).__name__ in _MERGES
    ]
    if not merged:
        return tensors[-1]
    end = tensors[merged[-1]]
    for tensor in tensors[merged[-1] + 1 :]:
        node = call_that_made(tensor)
        reads_it_alone = [id(t) for t in node.input_tensors] == [id(end)]
        if not reads_it_alone or getattr(node.operation, "weights", ()):
            break
        end = tensor
    return end


def _passed_by_all(output):
    """Tensors that lie on every path to `output`, in order: no earlier one is read after them."""
    nodes = _nodes([output])
    last_read = {}
    for i, node in enumerate(nodes):
        for tensor in node.input_tensors:
            last_read[id(tensor)] = i
    last_read[id(output)] = math.inf
    passed, open_until = [], 0
    for i, node in enumerate(nodes):
        if open_until <= i and len(node.outputs) == 1:
            passed.append(node.outputs[0])
        open_until = max([open_until, *(last_read.get(id(t), 0) for t in node.outputs)])
    return passed


def _nodes(outputs):
    """Calls of layers that lead to the outputs, each after those whose results it reads."""
    ordered, seen = [], set()
    stack = [(call_that_made(tensor), False) for tensor in reversed(outputs)]
    while stack:  # a network is too deep for recursion
        node, ready = stack.pop()
        if ready:
            ordered.append(node)
        elif id(node) not in seen:
            seen.add(id(node))
            stack.append((node, True))
            stack.extend((call_that_made(tensor), False) for tensor in node.input_tensors)
    return ordered
