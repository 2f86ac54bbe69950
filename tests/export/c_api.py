"""Runs a SavedModel through TensorFlow's C API: no Python of TensorFlow, Keras or this package.

    python c_api.py FOLDER_OF_VERSION FOUND.npz IMAGE...

It loads the C library that lies in TensorFlow's wheel, as a program in C++ would link it, and gives
the signature `serving_default` the bytes of all files as one batch. The outputs are written to
FOUND.npz.
"""

import ctypes
import importlib.util
import sys
from pathlib import Path

import numpy as np

STRING = 7  # TF_STRING of tf_datatype.h
DTYPES = {1: "float32", 3: "int32", 4: "uint8", 9: "int64"}
TSTRING_BYTES = 24  # sizeof(TF_TString)
POINTER, SIZE, INT = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
# Functions that return something else than an int, by what they return.
RETURNS = {
    POINTER: """TF_NewStatus TF_NewGraph TF_NewSessionOptions TF_NewBuffer TF_AllocateTensor
        TF_LoadSessionFromSavedModel TF_GraphOperationByName TF_TensorData
        TF_StringGetDataPointer""",
    SIZE: "TF_TensorByteSize TF_StringGetSize",
    ctypes.c_int64: "TF_Dim",
    ctypes.c_char_p: "TF_Message TF_Version",
}


class Output(ctypes.Structure):
    """TF_Output: one output of an operation."""

    _fields_ = [("operation", POINTER), ("index", INT)]


class Buffer(ctypes.Structure):
    """TF_Buffer; what frees it is left to the library."""

    _fields_ = [("data", POINTER), ("length", SIZE), ("deallocator", POINTER)]


def library():
    """The C API of the TensorFlow that is installed, which is not imported."""
    folder = Path(importlib.util.find_spec("tensorflow").origin).parent
    ctypes.CDLL(str(folder / "libtensorflow_framework.so.2"))  # which the other needs
    api = ctypes.CDLL(str(folder / "libtensorflow_cc.so.2"))
    for returned, names in RETURNS.items():
        for name in names.split():
            getattr(api, name).restype = returned
    return api


def message_fields(data):
    """Yields (number, value) of a serialised protocol buffer: an int, or the bytes of a field."""
    position = 0

    def varint():
        nonlocal position
        value = shift = 0
        while True:
            byte = data[position]
            position += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7

    while position < len(data):
        number, kind = divmod(varint(), 8)
        length = varint() if kind in (0, 2) else {1: 8, 5: 4}[kind]
        if kind == 0:
            yield number, length
            continue
        yield number, data[position : position + length]
        position += length


def entries(fields, number):
    """A map field as a dict: each entry is a message of a key, 1, and a value, 2."""
    pairs = (dict(message_fields(value)) for key, value in fields if key == number)
    return {pair[1].decode(): pair[2] for pair in pairs}


def signature(meta_graph, name):
    """The tensors' names of a signature's inputs and outputs, from a MetaGraphDef's bytes."""
    signatures = entries(message_fields(meta_graph), 5)  # MetaGraphDef.signature_def
    fields = list(message_fields(signatures[name]))
    inputs, outputs = entries(fields, 1), entries(fields, 2)
    return [
        {key: dict(message_fields(info))[1].decode() for key, info in tensors.items()}
        for tensors in (inputs, outputs)
    ]


class SavedModel:
    """A SavedModel in a session of the C API."""

    def __init__(self, folder):
        self.api = api = library()
        self.status = POINTER(api.TF_NewStatus())
        self.graph = POINTER(api.TF_NewGraph())
        options = POINTER(api.TF_NewSessionOptions())
        meta_graph = POINTER(api.TF_NewBuffer())
        self.session = POINTER(
            api.TF_LoadSessionFromSavedModel(
                options,
                None,
                str(folder).encode(),
                (ctypes.c_char_p * 1)(b"serve"),
                1,
                self.graph,
                meta_graph,
                self.status,
            )
        )
        self.check()
        buffer = Buffer.from_address(meta_graph.value)
        self.meta_graph = ctypes.string_at(buffer.data, buffer.length)
        api.TF_DeleteBuffer(meta_graph)
        api.TF_DeleteSessionOptions(options)

    def check(self):
        """Raises the message of the last call if it failed."""
        if self.api.TF_GetCode(self.status):
            raise RuntimeError(self.api.TF_Message(self.status).decode())

    def run(self, name, **given):
        """The outputs of a signature, by name."""
        inputs, outputs = signature(self.meta_graph, name)
        tensors = [self.strings(values) for values in given.values()]
        results = (POINTER * len(outputs))()
        self.api.TF_SessionRun(
            self.session,
            None,
            self.places([inputs[key] for key in given]),
            (POINTER * len(tensors))(*(tensor.value for tensor in tensors)),
            len(tensors),
            self.places(outputs.values()),
            results,
            len(outputs),
            None,
            0,
            None,
            self.status,
        )
        self.check()
        for tensor in tensors:
            self.api.TF_DeleteTensor(tensor)
        return {key: self.array(POINTER(each)) for key, each in zip(outputs, results, strict=True)}

    def places(self, names):
        """Tensors' names, such as "operation:0", as an array of TF_Output."""
        places = [name.rsplit(":", 1) for name in names]
        found = [
            Output(self.api.TF_GraphOperationByName(self.graph, operation.encode()), int(index))
            for operation, index in places
        ]
        return (Output * len(found))(*found)

    def strings(self, values):
        """A vector of strings: a TF_TString each, which owns a copy of the bytes."""
        shape = (ctypes.c_int64 * 1)(len(values))
        size = SIZE(TSTRING_BYTES * len(values))
        tensor = POINTER(self.api.TF_AllocateTensor(STRING, shape, 1, size))
        start = self.api.TF_TensorData(tensor)
        for i, value in enumerate(values):
            place = POINTER(start + i * TSTRING_BYTES)
            self.api.TF_StringInit(place)
            self.api.TF_StringCopy(place, value, SIZE(len(value)))
        return tensor

    def array(self, tensor):
        """A tensor's values; deletes the tensor."""
        api = self.api
        shape = [api.TF_Dim(tensor, axis) for axis in range(api.TF_NumDims(tensor))]
        kind, start = api.TF_TensorType(tensor), api.TF_TensorData(tensor)
        if kind == STRING:
            places = (POINTER(start + i * TSTRING_BYTES) for i in range(int(np.prod(shape))))
            values = [
                ctypes.string_at(api.TF_StringGetDataPointer(place), api.TF_StringGetSize(place))
                for place in places
            ]
            array = np.array(values, "S").reshape(shape)
        else:
            data = ctypes.string_at(start, api.TF_TensorByteSize(tensor))
            array = np.frombuffer(data, DTYPES[kind]).reshape(shape)
        api.TF_DeleteTensor(tensor)
        return array

    def close(self):
        """Frees the session and what belongs to it."""
        self.api.TF_CloseSession(self.session, self.status)
        self.api.TF_DeleteSession(self.session, self.status)
        self.api.TF_DeleteGraph(self.graph)
        self.api.TF_DeleteStatus(self.status)


def main(folder, found, *files):
    model = SavedModel(folder)
    images = [Path(file).read_bytes() for file in files]
    np.savez(found, **model.run("serving_default", image_bytes=images))
    version = model.api.TF_Version().decode()
    model.close()
    foreign = {"tensorflow", "keras", "libra_keras"} & {name.split(".")[0] for name in sys.modules}
    if foreign:
        raise SystemExit(f"imported besides NumPy: {', '.join(sorted(foreign))}")
    print(f"TensorFlow {version} by its C API")


if __name__ == "__main__":
    main(*sys.argv[1:])
