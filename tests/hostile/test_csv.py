"""Damaged CSVs."""

import csv as standard
import functools
import io

import pytest
from hostile_data import (
    NO_FILES,
    boxes_of,
    damaged_lines,
    draw_images,
    fuzzer_of,
    kept,
    number,
    read_twice,
    same,
    stand_in,
)
from mutations import damaged_bytes, damaged_values

from libra_keras.data import csv

HEADER = "image,x1,y1,x2,y2,class,width,height"
ROWS = [
    [f"{name}.png", 2 + i, 4.5, 40, 30, label, 60, 40]
    for name in "abc"
    for i, label in enumerate(("cat", "dog"))
]
TEXT = "\n".join([HEADER, *(",".join(map(str, row)) for row in ROWS)]).encode()


def table(rows):
    """A CSV as another program writes it."""
    stream = io.StringIO()
    writer = standard.writer(stream)
    writer.writerow(HEADER.split(","))
    writer.writerows(row if isinstance(row, list) else [row] for row in rows)
    return stream.getvalue().encode("utf-8", "surrogatepass")


@pytest.fixture
def folder(tmp_path):
    draw_images(tmp_path, ["a.png", "b.png", "c.png"])
    (tmp_path / "train.csv").write_bytes(TEXT)
    csv(tmp_path)  # imports what is imported late
    return tmp_path


def expected(content, name):
    """The boxes of an image by the definition of the form, where all of its lines are sound."""
    rows = list(standard.reader(io.StringIO(content.decode(), newline="")))[1:]
    own = [row for row in rows if row and row[0].strip() == name]
    if any(len(row) != 8 or not row[5].strip() for row in own):
        return None
    if any(number(text) != side for row in own for text, side in zip(row[6:], (60, 40))):  # noqa: B905
        return None
    corners = [[number(text) for text in row[1:5]] for row in own]
    boxes = [(r[5].strip(), *c) for r, c in zip(own, corners, strict=True) if None not in c]
    return kept(boxes)[0]


def check(folder, guarded, content):
    read = read_twice(functools.partial(csv, folder / "train.csv", "train"), (str(folder),), "csv")
    guarded()
    is_sound = content.startswith(HEADER.encode()) and b"\0" not in content
    if read is None or not is_sound:
        return
    try:
        names = {name: expected(content, name) for name in ("a.png", "b.png", "c.png")}
    except (UnicodeDecodeError, standard.Error):
        return
    for name, right in names.items():
        found = boxes_of(read, name)
        if right is not None and found is not None and b'"' not in content:
            same(found, right)


LINES = [
    *TEXT.decode().splitlines(), HEADER, HEADER.upper(), HEADER.replace(",", ";"), '"', '"""',
    '""x', 'a.png,"1,1,9,9,cat', ",,,,,,,", "x" * 200_000, "/etc/passwd,1,1,9,9,cat", "\ud800",
    "\0,1,1,1,1", "../../outside.jpg,1,1,9,9,cat", "\r", "a.png", "image",
    "a.png,1_0,１,9,0x10,cat",
]  # fmt: skip
KINDS = {
    "rows": ("train.csv", check, damaged_values(ROWS, most=4).map(lambda pair: table(pair[0]))),
    "lines": ("train.csv", check, damaged_lines(LINES, TEXT)),
    "bytes": ("train.csv", check, damaged_bytes(TEXT)),
}


@pytest.mark.parametrize("kind", NO_FILES)
def test_no_files(folder, kind):
    stand_in(folder / "train.csv", kind)
    with pytest.raises(OSError, match="Expected a CSV"):
        csv(folder)


def test_a_quote_costs_its_row_alone(folder):
    rows = TEXT.decode().splitlines()
    rows[2] = '"' + rows[2]
    (folder / "train.csv").write_text("\n".join(rows))
    with pytest.raises(ValueError, match=r"train.csv, line 3: entry: unexpected end of data"):
        csv(folder)
    read = csv(folder, skip_bad=True)
    assert [e.num_boxes for e in read.examples] == [1, 2, 2]
    assert read.counts == {"dropped_boxes": 1}


test_damage = fuzzer_of(KINDS)
