"""Damaged TFRecord files, and what stands in the place of one."""

import struct

import pytest
from hostile_data import NO_FILES, stand_in
from hypothesis import given
from hypothesis import strategies as st
from mutations import FAST, WRONG, cases, damaged_bytes

from libra_keras.data.tfds import TFRecords

RECORDS = b"first", b"", b"third" * 9
FILE = "validation.tfrecord-00000-of-00001"


def chain(lengths):
    pairs = zip(lengths, RECORDS, strict=True)
    return b"".join(struct.pack("<QI", n, 0) + record + bytes(4) for n, record in pairs)


LENGTHS = [n % 2**64 for n in WRONG if isinstance(n, int)]
CHAINS = st.lists(st.sampled_from(LENGTHS), min_size=3, max_size=3).map(chain)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / FILE).write_bytes(chain(map(len, RECORDS)))
    return tmp_path


def check(folder, guarded, content):
    (folder / FILE).write_bytes(content)
    guarded.forget()
    records, start = TFRecords(folder), 0
    for number in range(4):
        try:
            found = records.read(FILE, number)
        except OSError as error:
            assert FILE in str(error)
            start = None
            continue
        assert start is not None  # what follows a record that is not whole cannot be found
        (length,) = struct.unpack_from("<Q", content, start)
        assert found == content[start + 12 : start + 12 + length] and len(found) == length
        start += 16 + length
    guarded()


@pytest.mark.parametrize("kind", NO_FILES)
def test_no_files(folder, kind):
    stand_in(folder / FILE, kind)
    with pytest.raises(OSError, match=f"{FILE} is a {kind}, where a file is expected"):
        TFRecords(folder).read(FILE, 0)


@cases(FAST)
@given(damaged_bytes(chain(map(len, RECORDS))) | CHAINS)
def test_damage(folder, guarded, content):
    check(folder, guarded, content)
