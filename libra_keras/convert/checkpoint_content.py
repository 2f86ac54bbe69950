"""Finds, in what a checkpoint file holds, the tensors by name and what is said beside them."""

from libra_keras.convert.pickled_values import Foreign, StoredArray, StoredTensor

# Where training programs put the weights, the averaged ones last. Or they are at the top.
ENTRIES = (
    "state_dict", "model", "model_state_dict", "model_ema", "state_dict_ema", "ema_state_dict",
)  # fmt: skip
_DROPPED = object()  # stands for a value that is not plain


def find_tensors(content, path):
    """Returns the tensors by name, of the first of `ENTRIES` that has any, or else of the top.

    Args:
        content: what was given to `torch.save`, as it was read.
        path: path of the file, for errors.

    Returns:
        The name of the entry (`""` for the top), and a dict of tensors or `StoredTensor`s.

    Raises:
        ValueError: if there are none, or what should be one is something else.
    """
    entries = _entries(content)
    if not isinstance(entries, dict) or not entries:
        raise ValueError(f"{path} holds {_object(content)}")
    for name in ENTRIES:
        found = _entries(entries.get(name))
        if isinstance(found, dict) and any(map(_is_tensor, found.values())):
            return name, _only_tensors(found, path)
    if any(map(_is_tensor, entries.values())):
        plain = (str, int, float, bool, list, tuple, dict, type(None))
        found = {name: value for name, value in entries.items() if not isinstance(value, plain)}
        return "", _only_tensors(found, path)
    for name in ENTRIES:
        if type(entries.get(name)) is Foreign:
            raise ValueError(f"{path} holds, as {name!r}, {_object(entries[name])}")
    raise ValueError(f"{path} holds no weights; its entries are {list(entries)[:10]}")


def _object(value):
    if type(value) is not Foreign:
        return f"no tensors by name, but a single {type(value).__name__}"
    return f"an object of {value.name}, not weights: save the model's state_dict() instead"


def _only_tensors(found, path):
    for name, value in found.items():
        if type(name) is not str:
            raise ValueError(f"{path} has a tensor whose name is no string: {name!r:.100}")
        if not _is_tensor(value):
            kind = value.name if type(value) is Foreign else type(value).__name__
            raise ValueError(f"{path}: {name} should be a tensor. Received: {kind}")
    return found


def find_meta(content, entry):
    """Returns what a file says beside its tensors: its `meta`, and plain values at its top.

    Args:
        content: dict that was given to `torch.save`, as it was read.
        entry: str, where `find_tensors` found the tensors.

    Returns:
        dict of strings, numbers, bools, `None`, and lists and dicts of them.
    """
    content = _entries(content)
    scalars = (str, int, float, bool)
    top = {name: value for name, value in content.items() if isinstance(value, scalars)}
    meta = _entries(content.get("meta")) if entry else {}
    try:
        return _plain({**top, **(meta if isinstance(meta, dict) else {})}, {})
    except RecursionError:  # what no program nests
        return _plain(top, {})


def _plain(value, done):
    """Returns a copy with plain values only; `done` holds by `id` what was met before.

    Of a dict, the entries that are not plain are dropped. A list with such elements is dropped as
    a whole: its elements have places.
    """
    value = _entries(value)
    if value is None or type(value) in (str, int, float, bool):
        return value
    if id(value) in done:
        return done[id(value)]
    if isinstance(value, dict):
        done[id(value)] = result = {}
        items = {name: _plain(item, done) for name, item in value.items() if type(name) is str}
        result.update({name: item for name, item in items.items() if item is not _DROPPED})
        return result
    if isinstance(value, (list, tuple)):
        done[id(value)] = _DROPPED  # if it contains itself
        items = [_plain(item, done) for item in value]
        done[id(value)] = _DROPPED if _DROPPED in items else items
        return done[id(value)]
    return _DROPPED


def _entries(value):
    """The items of a foreign object that was a dictionary; anything else as it is."""
    return value.entries if type(value) is Foreign and value.entries else value


def _is_tensor(value):
    if type(value) is StoredTensor or (type(value) is StoredArray and value.values is not None):
        return True
    return type(value).__module__.partition(".")[0] == "torch" and hasattr(value, "numpy")
