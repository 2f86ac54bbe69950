"""Pickles as data: plain values and arrays of NumPy; nothing that a file names is called.

A pickle is a program: its instructions look names up, call them and set attributes. The standard
library's reader in Python takes it apart, with all such instructions replaced here. Every name
becomes a `Stub`, which does nothing; the few in `KNOWN` are carried out by functions of this file,
which check what they get.
"""

import contextlib
import dataclasses
import pickle
import struct
from pickle import UnpicklingError
from typing import Any, ClassVar

import numpy as np

# The most bytes of instructions and small values; published files have 0.1 MB. Large values, such
# as arrays of detectron2 and logs of training runs, are bounded by the size of the file alone.
LIMIT, LARGE = 2**24, 4096
COPIES = 8  # of the size of a pickle: how much its calls may read
LONGEST_NAME, MOST_AXES = 1000, 32
NUMBERS = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"}


class Reader:
    """Gives the bytes of pickles: no more than there are, and of instructions `LIMIT` at most."""

    def __init__(self, file, size):
        self._file = file
        self.left = size
        self._instructions_left = LIMIT

    def read(self, count):
        """Returns `count` bytes; asks for no memory if there are fewer."""
        if not 0 <= count <= self.left:
            raise EOFError("it ends early")
        self.left -= count
        if count < LARGE:
            self._spend(count)
        return self._file.read(count)

    def readline(self):
        """Returns the bytes up to the end of the line."""
        line = self._file.readline(min(self.left, LIMIT))
        self.left -= len(line)
        self._spend(len(line))
        return line

    def _spend(self, count):
        self._instructions_left -= count
        if self._instructions_left < 0:
            raise UnpicklingError(f"it has more than {LIMIT} bytes of instructions")


class Stub:
    """A name in a pickle, or an object of unknown kind: items set on it are kept, nothing else."""

    __slots__ = ("entries", "function", "name")

    def __init__(self, name, function=None):
        self.name = name
        self.function = function  # which carries calls out, of known names
        self.entries = {}

    def append(self, _):
        """Drops an element, as `extend` does with some."""

    extend = append


class Unpickler(pickle._Unpickler):
    """Reads one pickle from a `Reader`; strings of Python 2 are taken to be Latin-1."""

    def __init__(self, reader, known=None):
        super().__init__(reader, encoding="latin1")
        self._known = KNOWN if known is None else known
        self._copies_left = COPIES * reader.left

    def load(self):
        """Returns what the pickle holds; whatever goes wrong is an `UnpicklingError`."""
        try:
            return super().load()
        except Exception as error:
            raise UnpicklingError(reason(error)) from error

    def find_class(self, module, name):
        """Returns what stands for a name, without looking it up."""
        if len(module) + len(name) > LONGEST_NAME:
            raise UnpicklingError(f"a name has more than {LONGEST_NAME} characters")
        return Stub(f"{module}.{name}", self._known.get((module, name)))

    def get_extension(self, code):
        """Does as `find_class`; the stock one keeps what it finds for the whole process."""
        self.append(Stub(f"copyreg extension {code}"))

    def persistent_load(self, pid):
        """Returns what stands for an object that is not in the pickle."""
        return Stub("persistent id")

    def made(self, function, arguments):
        """Returns what a call stands for: that of a known name is carried out, if it fits."""
        if type(function) is not Stub:
            return Stub(type(function).__name__)
        if function.function and type(arguments) is tuple:
            self._count(arguments)
            with contextlib.suppress(TypeError, ValueError):
                return function.function(*arguments)
        return Stub(function.name)

    def _count(self, arguments):
        """A few bytes can name a long value again and again, to be read each time."""
        sized = str, bytes, bytearray, list, tuple, dict
        self._copies_left -= len(arguments)  # the tuple itself is one of these
        self._copies_left -= sum(len(value) for value in arguments if type(value) in sized)
        if self._copies_left < 0:
            raise UnpicklingError("its calls read more than the file contains")

    def _instantiate(self, klass, args):
        """What INST and OBJ do."""
        self.append(self.made(klass, tuple(args)))

    def _reduce(self):
        arguments, function = self.stack.pop(), self.stack.pop()
        self.append(self.made(function, arguments))

    def _new_with_names(self):
        self.stack.pop()
        self._reduce()

    def _build(self):
        """Sets no state, but a number's byte order and an array's values."""
        state, target = self.stack.pop(), self.stack[-1]
        if type(target) is NumberType:
            target.order = state[1] if state[1] in ("<", ">") else "="
        if type(target) is Array and type(state) is tuple:
            self._count(state)
            target.fill(*state)

    def _put(self):
        """Keeps a value by a number; of large ones many could have one hash."""
        place = int(self.readline())
        if not 0 <= place < 2**32:
            raise UnpicklingError("a value is stored where none can be")
        self.memo[place] = self.stack[-1]

    def _add(self):
        values, target = self.pop_mark(), self.stack[-1]
        if type(target) is not Stub:
            set.update(target, filter(is_key, values))

    def _frozen_set(self):
        values = self.pop_mark()  # what `append` is changes with it
        self.append(frozenset(filter(is_key, values)))

    def _dict(self):
        values = self.pop_mark()
        self.append(_set_items(values, {}))

    def _set_item(self):
        value, key = self.stack.pop(), self.stack.pop()
        _set_items([key, value], self.stack[-1])

    def _set_many(self):
        values = self.pop_mark()
        _set_items(values, self.stack[-1])

    def _byte_array(self):
        """Reads before it asks for memory, unlike the stock one."""
        self.append(bytearray(self.read(*struct.unpack("<Q", self.read(8)))))

    def _frame(self):
        """Passes over a frame's length: instructions are read and counted one by one."""
        self.read(8)

    dispatch: ClassVar[Any] = {
        **pickle._Unpickler.dispatch,
        pickle.REDUCE[0]: _reduce,
        pickle.NEWOBJ[0]: _reduce,
        pickle.NEWOBJ_EX[0]: _new_with_names,
        pickle.BUILD[0]: _build,
        pickle.PUT[0]: _put,
        pickle.ADDITEMS[0]: _add,
        pickle.FROZENSET[0]: _frozen_set,
        pickle.DICT[0]: _dict,
        pickle.SETITEM[0]: _set_item,
        pickle.SETITEMS[0]: _set_many,
        pickle.BYTEARRAY8[0]: _byte_array,
        pickle.FRAME[0]: _frame,
    }
    del dispatch[pickle.NEXT_BUFFER[0]], dispatch[pickle.READONLY_BUFFER[0]]


def reason(error):
    """Returns what an error says, in one line."""
    kind = "" if isinstance(error, UnpicklingError) else f"{type(error).__name__}: "
    return f"{kind}{error}".partition("\n")[0].rstrip(": ")[:300]


def is_key(value):
    """Whether a value is a key; hashing tuples and large numbers could be made to take for ever."""
    if type(value) in (list, dict, set, bytearray):
        raise TypeError(f"a {type(value).__name__} cannot be a key")
    if type(value) is int:
        return -(2**31) <= value < 2**32
    return value is None or type(value) in (str, bytes, bool)


def _set_items(values, target):
    entries = target.entries if type(target) is Stub else target
    if type(entries) is not dict:
        raise TypeError(f"a {type(target).__name__} takes no items")
    pairs = zip(values[::2], values[1::2], strict=True)
    entries.update((key, value) for key, value in pairs if is_key(key))
    return target


def are(values, *kinds):
    """Whether a tuple has values of these types; numbers count something or are places."""
    is_tuple = type(values) is tuple and len(values) == len(kinds)
    return is_tuple and all(
        type(value) is kind and not (kind is int and not 0 <= value < 2**63)
        for value, kind in zip(values, kinds, strict=True)
    )


def is_shape(values):
    """Whether a value is a shape, or offsets for one."""
    return type(values) is tuple and len(values) <= MOST_AXES and are(values, *[int] * len(values))


@dataclasses.dataclass(slots=True, eq=False)
class NumberType:
    """A NumPy dtype of `NUMBERS`."""

    code: str
    order: str = "="

    def values(self, content):
        """Returns numbers from bytes, which Python 2 wrote as text."""
        content = content.encode("latin-1") if type(content) is str else content
        if type(content) not in (bytes, bytearray):
            raise TypeError("no bytes")
        return np.frombuffer(content, np.dtype(self.code).newbyteorder(self.order))


@dataclasses.dataclass(slots=True, eq=False)
class Array:
    """An array of NumPy, of one of `NUMBERS`; `values` stays `None` if it holds anything else."""

    values: np.ndarray | None = None

    def fill(self, *state):
        """Takes what a pickle sets on a new array: version, shape, dtype, order and content."""
        with contextlib.suppress(TypeError, ValueError):
            *_, shape, kind, is_fortran, content = state
            self.values = _array(content, kind, shape, "F" if is_fortran is True else "C").values


def _array(content, kind, shape, order):
    if type(kind) is not NumberType or not is_shape(shape) or order not in ("C", "F"):
        raise TypeError("not an array of numbers")
    return Array(kind.values(content).reshape(shape, order=order))


def _empty_array(kind, shape, code):
    if type(kind) is not Stub or kind.name != "numpy.ndarray":
        raise TypeError("no array")
    return Array()


def _number_type(code, align=False, copy=True):
    if type(code) is not str or code not in NUMBERS:
        raise ValueError("no number")
    return NumberType(code)


def _number(kind, content):
    if type(kind) is not NumberType:
        raise TypeError("no number")
    (value,) = kind.values(content)
    return value.item()


def _encoded(text, encoding):
    """Does what protocols below 3 write bytes as."""
    if type(text) is not str or encoding != "latin1":
        raise TypeError("no bytes")
    return text.encode("latin-1")


def _counted(items=()):
    """Makes a plain dict of an ordered one, or of one that counts."""
    if type(items) is dict:
        return items.copy()
    if type(items) not in (list, tuple) or any(len(pair) != 2 for pair in items):
        raise TypeError("no items")
    return {key: value for key, value in items if is_key(key)}


KNOWN = {
    ("_codecs", "encode"): _encoded,
    ("collections", "Counter"): _counted,
    ("collections", "OrderedDict"): _counted,
    ("numpy", "dtype"): _number_type,
    **{
        (f"numpy.{core}.{module}", name): function
        for core in ("core", "_core")
        for module, name, function in (
            ("multiarray", "scalar", _number),
            ("multiarray", "_reconstruct", _empty_array),
            ("numeric", "_frombuffer", _array),
        )
    },
}
