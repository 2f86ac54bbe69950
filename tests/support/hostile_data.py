"""What fuzzers of the readers of data share: XML as values, and how a damaged data set is read."""

import os
import re
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from mutations import FAST, cases, damaged_bytes, damaged_values
from PIL import Image

NO_FILES = "FIFO", "folder", "device"
SIZE = WIDTH, HEIGHT = 60, 40
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
LAUGHS = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 10))
CHAIN = "".join(f'<!ENTITY a{i} "&a{i - 1};">' for i in range(5000, 0, -1))
PROLOGS = [
    f'<!DOCTYPE a [<!ENTITY a0 "lol">{LAUGHS}]>',
    f'<!DOCTYPE a [<!ENTITY a9 "{"x" * 100_000}">]>',
    '<!DOCTYPE a [<!ENTITY a9 SYSTEM "file:///etc/passwd">]>',
    '<!DOCTYPE a [<!ENTITY % p SYSTEM "/dev/zero"> %p; <!ENTITY a9 "x">]>',
    '<!DOCTYPE a SYSTEM "../../outside.dtd">',
    f'<!DOCTYPE a [<!ENTITY a0 "x">{CHAIN}]>',
    *(
        f'<?xml version="1.0" encoding="{name}"?>'
        for name in ("latin-1", "utf-16", "ascii", "gb2312", "zip", "idna", "undefined", "no-such")
    ),
]


def draw_images(folder, names, size=SIZE):
    """Writes images of one colour, 60 x 40 if no other size is given."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size).save(folder / name)


def stand_in(file, kind):
    """Puts something that is no file where a file is."""
    file.unlink()
    if kind == "FIFO":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    else:
        file.symlink_to("/dev/zero")


def as_xml(node):
    """XML of `[tag, attributes, body]`, whatever has become of it."""
    match node:
        case [tag, dict(attributes), body]:
            has = "".join(f" {name}={quoteattr(str(v))}" for name, v in attributes.items())
            return f"<{tag}{has}>{as_xml(body)}</{tag}>"
        case list(nodes):
            return "".join(map(as_xml, nodes))
    return escape(str(node))


def damaged_xml(node):
    """Bytes of XML: values damaged, or bytes, or nested deeply, or with a prolog that is a trap."""
    text = as_xml(node)
    values = damaged_values(node).map(lambda pair: _encoded(as_xml(pair[0])))
    deep = st.integers(1, 20_000).map(lambda n: _encoded(text.replace("><", f">{'<a>' * n}<", 1)))
    traps = st.builds(
        lambda prolog, old, times, codec: (
            prolog + text.replace(old, "&a9;" * times, 1)
        ).encode(codec),
        st.sampled_from(PROLOGS), st.sampled_from(["cat", "60", "no such"]),
        st.sampled_from([1, 1000]), st.sampled_from(["utf-8", "utf-16", "utf-16-be", "cp037"]),
    )  # fmt: skip
    return st.one_of(values, values, values, damaged_bytes(_encoded(text)), deep, traps)


def damaged_lines(lines, content):
    """Bytes of a text of some of the lines, or of a sound one that is damaged."""
    some = st.lists(st.sampled_from(lines)).map(lambda chosen: _encoded("\n".join(chosen)))
    return st.one_of(some, damaged_bytes(content))


def _encoded(text):
    return text.encode("utf-8", "surrogatepass")


def number(text):
    """A number as tools write it, or `None`."""
    text = None if text is None else text.strip()  # which takes more than `float` does
    if text is None or not NUMBER.fullmatch(text) or abs(float(text)) >= 2**31:
        return None
    return float(text)


def kept(boxes):
    """Those of `(name, x1, y1, x2, y2)` that lie on the image, clipped, and how many are bad."""
    found, bad = [], 0
    for name, x1, y1, x2, y2 in boxes:
        outside = x2 < 0 or y2 < 0 or x1 > WIDTH or y1 > HEIGHT
        if (x2 > x1 and y2 > y1) and (x2 <= 0 or y2 <= 0 or x1 >= WIDTH or y1 >= HEIGHT):
            outside = True
        if x2 < x1 or y2 < y1 or outside:
            bad += 1
            continue
        x1, x2 = (min(max(x, 0), WIDTH) for x in (x1, x2))
        y1, y2 = (min(max(y, 0), HEIGHT) for y in (y1, y2))
        if x2 - x1 > 1 and y2 - y1 > 1:
            found.append((name, x1, y1, x2, y2))
    return found, bad


def boxes_of(data, name):
    """`(name, x1, y1, x2, y2)` of the boxes of the image of a name; `None` if it has gone."""
    for example in data.examples:
        if example.file.name == name:
            names = [data.class_names[label] for label in example.labels]
            return [(n, *box) for n, box in zip(names, example.boxes.tolist(), strict=True)]
    return None


def same(found, right):
    """Asserts that boxes and their names are equal, as far as float32 tells them apart."""
    assert [name for name, *_ in found] == [name for name, *_ in right]
    np.testing.assert_allclose([b for _, *b in found], [b for _, *b in right], 1e-5, 1e-3)


def damages(kinds):
    """A strategy of `(kind, content)`; each kind has a file, a check, and a strategy of bytes."""
    pairs = (st.tuples(st.just(kind), damaged) for kind, (_, _, damaged) in kinds.items())
    return st.one_of(*pairs)


def check_damage(kinds, damage, folder, guarded):
    """Damages a file of a folder for the time of its check."""
    kind, content = damage
    name, check, _ = kinds[kind]
    sound = (folder / name).read_bytes()
    (folder / name).write_bytes(content)
    guarded.forget()
    try:
        check(folder, guarded, content)
    finally:
        (folder / name).write_bytes(sound)


def fuzzer_of(kinds):
    """A test of a reader, whose files are damaged one by one."""

    @cases(FAST)
    @given(damages(kinds))
    def damaged(folder, guarded, damage):
        check_damage(kinds, damage, folder, guarded)

    return damaged


def read_twice(read, named, whole=None):
    """Reads damaged data with and without `skip_bad`: what is left, or `None`.

    Without it, an error must say one of the names if anything is found, and only then; with it,
    nothing may be raised, but of the file of the `whole` data set. All that is dropped must be
    counted.
    """
    try:
        left = read(skip_bad=True)
    except (ValueError, OSError) as error:
        assert whole and whole in str(error), repr(error)
        left = None
    try:
        strict = read(skip_bad=False)
    except (ValueError, OSError) as error:
        assert any(name in str(error) for name in named), repr(error)
        strict = None
    assert left is not None or strict is None
    if left is not None:
        nothing = "no images", "no boxes"
        bad = [f for f in left.findings if not f.is_warning and f.kind not in nothing]
        counts = (left.counts.get(f"dropped_{what}", 0) for what in ("images", "boxes"))
        lost = [finding for finding in bad if finding.kind != "category"]  # which no image is
        assert sum(counts) == len(lost), (left.counts, bad)
        assert (strict is None) == bool(bad)
    return left
