"""Pickles as data: an interpreter of the format that has no instruction to call or to change.

`torch.load` takes this module as its `pickle_module`. A pickle is a program whose instructions
import names, call them and set attributes. Here names are never imported: a few that stand for
tensors and plain values are carried out by functions of `pickled_values`, which check what they
get; whatever is made of the others is a `Foreign`, which holds a name and does nothing.

The standard library takes the bytes apart (`pickletools.genops`); what each instruction does is
written below. It covers protocols 0 to 5, except for buffers outside of the pickle. Time and
memory are not limited beyond what the length of the pickle allows.
"""

import io
import pickletools
from pickle import UnpicklingError

from libra_keras.convert.pickled_values import (
    KNOWN,
    Foreign,
    NumberType,
    Storage,
    StoredArray,
    is_storage,
    made,
    name_of,
)

__all__ = ["Unpickler", "UnpicklingError", "load", "loads"]

# What a damaged or hostile stream makes of the operations below.
DAMAGE = (
    ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, RecursionError, TypeError,
    ValueError,
)  # fmt: skip


class Unpickler:
    """Reads one pickle from a file, as `pickle.Unpickler` does, but calls nothing.

    Args:
        file: binary file object with `read` and `readline`. It ends up behind the pickle.
        **options: those of `pickle.Unpickler`, which `torch.load` gives. They are not used:
            strings of Python 2 are read as Latin-1.

    Example:

    >>> import os, pickle
    >>> from libra_keras.convert import unpickling
    >>> unpickling.loads(pickle.dumps({"numbers": (1, 2.5), "call": os.getcwd}))["numbers"]
    (1, 2.5)
    """

    persistent_load = None  # `torch.load` sets it: makes a storage of what stands for it

    def __init__(self, file, **options):
        self._file = file

    def find_class(self, module, name):
        """Returns what stands for a name. `torch.load` overrides it for types of storages."""
        return KNOWN.get((module, name)) or Foreign(f"{module}.{name}")

    def load(self):
        """Returns what the pickle holds.

        Raises:
            UnpicklingError: if the stream ends early, or is no pickle.
        """
        self._stack, self._below_marks, self._memo = [], [], {}
        try:
            for instruction, argument, _ in pickletools.genops(self._file):
                if instruction.name == "STOP":
                    return self._stack.pop()
                if instruction.name in LITERALS:
                    self._stack.append(argument)
                elif instruction.name in VALUES:
                    value = VALUES[instruction.name](self, argument)  # may change the stack
                    self._stack.append(value)
                else:
                    ACTIONS[instruction.name](self, argument)
        except DAMAGE as error:
            raise UnpicklingError(f"{type(error).__name__}: {error}") from error
        raise UnpicklingError("the pickle has no end")

    def _take(self, count):
        """Takes `count` values from the stack, the oldest first."""
        return [self._stack.pop() for _ in range(count)][::-1]

    def _set_mark(self, _):
        self._below_marks.append(self._stack)
        self._stack = []

    def _to_mark(self, _=None):
        """Takes all values since the last mark."""
        values, self._stack = self._stack, self._below_marks.pop()
        return values

    def _pop(self, _):
        if self._stack:
            self._stack.pop()
        else:
            self._to_mark()

    def _remember(self, place):
        self._memo[len(self._memo) if place is None else place] = self._stack[-1]

    def _append(self, _):
        _extend(self._take(1), self._stack[-1])

    def _append_many(self, _):
        _extend(self._to_mark(), self._stack[-1])

    def _add(self, _):
        values, target = self._to_mark(), self._stack[-1]
        if type(target) is set:
            target.update(values)
        elif type(target) is not Foreign:
            raise TypeError(f"a {type(target).__name__} takes no elements")

    def _set_item(self, _):
        _set_items(self._take(2), self._stack[-1])

    def _set_many(self, _):
        _set_items(self._to_mark(), self._stack[-1])

    def _dict(self, _):
        values = self._to_mark()
        return dict(zip(values[::2], values[1::2], strict=True))

    def _global(self, names):
        module, _, name = names.partition(" ")
        return self.find_class(module, name)

    def _stack_global(self, _):
        names = self._take(2)
        if [type(name) for name in names] != [str, str]:
            raise TypeError("a name must be a string")
        return self.find_class(*names)

    def _reduce(self, _):
        return made(*self._take(2))

    def _new_with_names(self, _):
        function, _, _ = self._take(3)
        return Foreign(name_of(function))

    def _instance(self, names):
        return made(self._global(names), tuple(self._to_mark()))

    def _object(self, _):
        function, *arguments = self._to_mark()
        return made(function, tuple(arguments))

    def _build(self, _):
        """State is not set, but for what a number's byte order and an array's values are in."""
        state = self._stack.pop()
        if type(self._stack[-1]) is StoredArray:
            self._stack[-1].fill(state)
        if type(self._stack[-1]) is NumberType:
            self._stack[-1].order = {"<": "<", ">": ">"}.get(state[1], "=")

    def _persistent(self, identity):
        """Asks for storages only: for a class, PyTorch would read and write source files."""
        if type(identity) is tuple and len(identity) > 1 and identity[0] == "module":
            return identity[1]
        if self.persistent_load is None or not is_storage(identity):
            return Foreign("persistent id")
        return Storage(self.persistent_load(identity))


def load(file, **options):
    """Reads one pickle from a file object; see `Unpickler`."""
    return Unpickler(file, **options).load()


def loads(content, **options):
    """Reads a pickle from bytes; see `Unpickler`."""
    return load(io.BytesIO(content), **options)


def _extend(values, target):
    if type(target) is list:
        target.extend(values)
    elif type(target) is not Foreign:
        raise TypeError(f"a {type(target).__name__} takes no elements")


def _set_items(values, target):
    entries = target.entries if type(target) is Foreign else target
    if type(entries) is not dict:
        raise TypeError(f"a {type(target).__name__} takes no items")
    entries.update(zip(values[::2], values[1::2], strict=True))


# Instructions that push what is written behind them.
LITERALS = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE",
    "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
}  # fmt: skip
# Instructions that push what these return.
VALUES = {
    "NONE": lambda self, _: None,
    "NEWTRUE": lambda self, _: True,
    "NEWFALSE": lambda self, _: False,
    "EMPTY_TUPLE": lambda self, _: (),
    "EMPTY_LIST": lambda self, _: [],
    "EMPTY_DICT": lambda self, _: {},
    "EMPTY_SET": lambda self, _: set(),
    "TUPLE1": lambda self, _: tuple(self._take(1)),
    "TUPLE2": lambda self, _: tuple(self._take(2)),
    "TUPLE3": lambda self, _: tuple(self._take(3)),
    "TUPLE": lambda self, _: tuple(self._to_mark()),
    "LIST": Unpickler._to_mark,
    "DICT": Unpickler._dict,
    "FROZENSET": lambda self, _: frozenset(self._to_mark()),
    "DUP": lambda self, _: self._stack[-1],
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda self, place: self._memo[place]),
    "GLOBAL": Unpickler._global,
    "STACK_GLOBAL": Unpickler._stack_global,
    **dict.fromkeys(
        ("EXT1", "EXT2", "EXT4"), lambda self, code: Foreign(f"copyreg extension {code}")
    ),
    "REDUCE": Unpickler._reduce,
    "NEWOBJ": Unpickler._reduce,
    "NEWOBJ_EX": Unpickler._new_with_names,
    "INST": Unpickler._instance,
    "OBJ": Unpickler._object,
    "PERSID": Unpickler._persistent,
    "BINPERSID": lambda self, _: self._persistent(self._stack.pop()),
}
# Instructions that push nothing. What is missing (buffers outside of the pickle) is a KeyError.
ACTIONS = {
    "PROTO": lambda self, _: None,
    "FRAME": lambda self, _: None,
    "MARK": Unpickler._set_mark,
    "POP": Unpickler._pop,
    "POP_MARK": Unpickler._to_mark,
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), Unpickler._remember),
    "APPEND": Unpickler._append,
    "APPENDS": Unpickler._append_many,
    "ADDITEMS": Unpickler._add,
    "SETITEM": Unpickler._set_item,
    "SETITEMS": Unpickler._set_many,
    "BUILD": Unpickler._build,
}
