"""Random access to TFRecord files, without TensorFlow Datasets."""

import struct

import pytest

from libra_keras.data.tfds import TFRecords


def test_records_by_number(tmp_path):
    chain = [struct.pack("<QI", len(r), 0) + r + bytes(4) for r in (b"first", b"second")]
    (tmp_path / "two").write_bytes(b"".join(chain))
    records = TFRecords(str(tmp_path))
    assert [records.read("two", i) for i in (1, 0)] == [b"second", b"first"]
    with pytest.raises(OSError, match="two has 2 records, none of number 2"):
        records.read("two", 2)
    (tmp_path / "half").write_bytes(b"".join(chain)[:-7])
    with pytest.raises(OSError, match="half ends in the middle of record 1"):
        records.read("half", 1)
