"""The reader of CSVs with a box per row."""

import pytest
from PIL import Image

from libra_keras import data
from libra_keras.data.csv_table import find

HEADER = "image,x1,y1,x2,y2,class"


@pytest.fixture
def write(tmp_path):
    """Returns a function that writes a CSV, and 60 x 40 images."""

    def write(rows, name="train.csv", header=HEADER, images=("a.png", "b.png")):
        for file in (tmp_path / each for each in images):
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (60, 40)).save(file)
        text = "\n".join([header, *rows])
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("header", "row"),
    [
        (HEADER, "a.png,2,4.5,12,30,cat"),
        ("class;y2;x2;y1;x1;note;Image", "cat;30;12;4.5;2;;a.png"),
        ("filename,width,height,class,xmin,ymin,xmax,ymax", "a.png,60,40,cat,2,4.5,12,30"),
        ("\ufeff label\tfile_name\tx_min\ty_min\tx_max\ty_max", '"cat"\ta.png\t2\t4.5\t12\t30'),
        (f"{HEADER}\r", 'a.png,2,4.5,12,30,"cat"\r'),
        (f"{HEADER}\ra.png,2,4.5,12,30,cat", ""),
    ],
)
def test_columns_may_have_other_names_and_places(write, header, row):
    read = data.csv(write([row], header=header))
    assert read.examples[0].boxes.tolist() == [[2, 4.5, 12, 30]]  # edges in pixels
    assert read.class_names == ("cat",) and read.name.endswith("/train")
    assert read.annotations["annotations"][0]["bbox"] == [2, 4.5, 10, 25.5]


def test_rows_of_an_image_come_together(write):
    rows = ["b.png,1,1,9,9,dog", "a.png,,,,,", "", ",,,,,", "b.png,2,2,9,9,cat", "b.png"]
    read = data.csv(write(rows))
    assert [(e.file.name, e.image_id, e.num_boxes) for e in read.examples] == [
        ("b.png", 1, 2),
        ("a.png", 2, 0),
    ]
    assert read.examples[0].labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("a.png,1,1,9,x,cat", "images/a.png, train.csv line 3: not a number: its y2 is 'x'"),
        ("a.png,1,1,9", "images/a.png, train.csv line 3: not a number: its y2 is ''"),
        ("a.png,1,1,nan,9,cat", "images/a.png, train.csv line 3: not a number: its x2 is 'nan'"),
        ("a.png,1,1,9,9,", "images/a.png, train.csv line 3: class: '' is not one of cat"),
        ("a.png,9,1,1,9,cat", "a.png, train.csv line 3: degenerate box: .9, 1, 1, 9. has a neg"),
        ("a.png,70,1,80,9,cat", "a.png, train.csv line 3: box outside: .70, 1, 80, 9. lies outs"),
        ("a.png,1,1,9,9,cat,dog", "train.csv, line 3: entry: 7 fields, but the header has 6"),
        (",1,1,9,9,cat", "train.csv, line 3: entry: it does not name an image"),
    ],
)
def test_a_bad_row_is_named_or_dropped(write, row, problem):
    folder = write(["a.png,1,1,9,9,cat", row], images=["images/a.png"])
    with pytest.raises(ValueError, match=rf"1 thing\(s\)[\s\S]*{problem}"):
        data.csv(folder, class_names=["cat"])
    read = data.csv(folder, class_names=["cat"], skip_bad=True)
    assert read.counts == {"dropped_boxes": 1} and read.examples[0].num_boxes == 1


def test_images_that_cannot_be_read(write):
    rows = ["../z.png,1,1,9,9,cat", "a.png,1,1,9,9,cat", "c.png,1,1,9,9,cat"]
    with pytest.raises(ValueError, match=r"2 thing\(s\)") as error:
        data.csv(write(rows))
    assert "train.csv: file outside: line 2: '../z.png' leads out" in str(error.value)
    assert "c.png: missing file" in str(error.value)
    with pytest.raises(ValueError, match="aaa: missing file: .*File name too long"):
        data.csv(write([f"{'a' * 999},,,,,"]))
    assert len(data.csv(write(rows), skip_bad=True)) == 1
    header = f"{HEADER},width,height"
    rows = ["a.png,1,1,9,9,cat,60,40", "a.png,1,1,9,9,cat,80,40", "b.png,1,1,9,9,cat,60.5,40"]
    with pytest.raises(ValueError) as error:
        data.csv(write(rows, header=header))
    assert "train.csv: image size: line 2: 'a.png': its rows have 2 sizes" in str(error.value)
    assert "line 4: 'b.png': its width is '60.5', not a number of pixels" in str(error.value)
    with pytest.raises(ValueError, match="the file is 60x40 .* annotation has 70x40"):
        data.csv(write(["a.png,1,1,9,9,cat,70.0,40"], header=header))


def test_fractions_are_told(write):
    read = data.csv(write(["a.png,.1,.1,.9,.9,cat"]))
    assert "All coordinates are in 0..1: fractions of the image?" in read.findings[0].message


def test_files_that_are_no_table(write):
    folder = write(["a.png,1,1,9,9"], header="image,x1,y1,x2,y2,score")
    with pytest.raises(ValueError, match="train.csv has no column class; it has image, x1, y1, x2"):
        data.csv(folder)
    with pytest.raises(FileNotFoundError, match="the columns image, x1, y1, x2, y2, class in"):
        data.csv(write([], header="name,age"))
    file = folder / "train.csv"
    file.write_bytes(f"{HEADER}\na.png,1,1,9,9,K\xe4fer".encode("latin-1"))
    with pytest.raises(ValueError, match=r"csv, line 2: entry: b'.*K\\xe4fer' is not UTF-8 text"):
        data.csv(folder)
    file.write_text(f'{HEADER}\na.png,,,,,\na.png,1,1,9,9,"{"x" * 200_000}')
    with pytest.raises(ValueError, match="train.csv, line 3: entry: field larger"):
        data.csv(folder)


def test_images_that_are_found_under_two_names(write):
    """Folders of another machine are left out where that finds images, and must not join two."""
    rows = [f"/home/me/{pet}s/a.png,1,1,9,9,{pet}" for pet in ("cat", "dog")]
    folder = write([*rows, "/home/me/cats/b.png,1,1,9,9,cat"])
    with pytest.raises(ValueError, match=r"a.png: duplicate image: line 2: it is what .*/dogs/a"):
        data.csv(folder)
    assert [e.file.name for e in data.csv(folder, skip_bad=True).examples] == ["b.png"]


def test_names_that_start_from_the_folder_of_the_table(write):
    rows = [f"images/{pet}s/a.png,1,1,9,9,{pet}" for pet in ("cat", "dog")]
    folder = write(rows, images=["images/cats/a.png", "images/dogs/a.png"])
    assert [e.file.parent.name for e in data.csv(folder).examples] == ["cats", "dogs"]


def test_splits(write):
    folder = write(["a.png,1,1,9,9,dog"], "val.csv")
    write(["a.png,1,1,9,9,cat"], "train.csv")
    write([], "results.csv", header="epoch,loss")
    assert list(find(folder).splits) == ["train", "val"]
    with pytest.raises(ValueError, match="no split None. It is CSV: train, val"):
        data.csv(folder)
    read = data.csv(folder, "val")  # both have the same classes
    assert read.class_names == ("cat", "dog") and read.examples[0].labels.tolist() == [1]
    (folder / "train.csv").write_bytes(b"\xff")
    assert data.csv(folder / "val.csv").class_names == ("dog",)


def test_roboflow_gives_images_without_objects_no_row(write):
    header = "filename,width,height,class,xmin,ymin,xmax,ymax"
    images = [f"train/{name}.png" for name in "abc"]
    rows = ["c.png,60,40,cat,1,1,9,9", "b.png,6o,40,cat,1,1,9,9"]
    folder = write(rows, "train/_annotations.csv", header, images)
    assert str(find(folder)) == "Roboflow CSV: train"
    read = data.csv(folder, skip_bad=True)
    # b.png is dropped, not one without objects
    assert [(e.file.name, e.image_id, e.num_boxes) for e in read.examples] == [
        ("c.png", 1, 1),
        ("a.png", 3, 0),
    ]
    assert read.counts == {"dropped_images": 1, "images_without_a_row": 1}
