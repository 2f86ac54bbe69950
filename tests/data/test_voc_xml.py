"""What the corners in Pascal VOC's form are: pixels, or edges."""

import pytest

from libra_keras import data

BOX = [("cat", 0, (10, 10, 20, 20))]
POINTS = [("cat", 0, ("10.0", "10.0", "20.0", "20.0"))]
LABELIMG = "<path>/a/0.png</path><source><database>Unknown</database></source>"
OFFICIAL = "<source><database>The VOC2007 Database</database></source>"
HEADS = {
    "Pascal VOC": OFFICIAL + "<path/><segmented>0</segmented>",
    "LabelImg": LABELIMG,
    "CVAT": "<source><database>Unknown</database><annotation>Unknown</annotation></source>",
    "Roboflow": "<folder/><path>0.png</path><source><database>roboflow.com</database></source>",
    "labelme": "<source><database/><annotation/><image/></source><segmented/>",
    "Label Studio": "<source><database>MyDatabase</database></source><owner>"
    "<name>Label Studio</name></owner>",
    "makesense.ai": "<path>/a/0.png</path><source><database>Unspecified</database></source>",
}


def boxes(read):
    return [example.boxes[0].tolist() for example in read.examples]


@pytest.mark.parametrize("origin", HEADS)
def test_who_wrote_the_file_tells(write_voc, origin):
    read = data.voc(write_voc([BOX], heads=HEADS[origin]), "val")
    corners = "pixels" if origin == "Pascal VOC" else "edges"
    assert boxes(read) == [{"pixels": [9, 9, 20, 20], "edges": [10, 10, 20, 20]}[corners]]
    assert read.summary() == (
        f"{read.name}: 1 images, 1 boxes, 1 classes (corners: {corners} ({origin}))"
    )


@pytest.mark.parametrize(
    ("objects", "head"),
    [
        (BOX, ""),
        (POINTS, ""),  # VOC2012 has fractions too
        (BOX, "<folder/>"),
        (BOX, "<source><database>mine</database></source>"),
    ],
)
def test_where_nothing_tells_they_are_vocs(write_voc, objects, head):
    read = data.voc(write_voc([objects], heads=head), "val")
    assert boxes(read) == [[9, 9, 20, 20]] and read.notes == ()


def test_points_without_a_folder_are_cvats(write_voc):
    assert boxes(data.voc(write_voc([POINTS], heads="<folder/>"), "val")) == [[10, 10, 20, 20]]


@pytest.mark.parametrize(
    ("heads", "note"),
    [
        ([LABELIMG, LABELIMG, OFFICIAL], ("corners: edges (LabelImg)",)),
        ([LABELIMG, OFFICIAL, ""], ("corners: pixels (Pascal VOC)",)),
        ([LABELIMG, "", ""], ()),  # one file that somebody has mended
    ],
)
def test_all_files_of_a_folder_are_read_alike(write_voc, heads, note):
    folder = write_voc([BOX] * 3, heads=heads)
    for i in range(3):
        (folder / f"ImageSets/Main/{i}.txt").write_text(str(i))
    splits = [data.voc(folder, str(i), class_names=["cat"]) for i in range(3)]
    first = 10 if "edges" in str(note) else 9
    for read in (*splits, data.voc(folder, "val")):
        assert read.notes == note
        assert boxes(read) == [[first, first, 20, 20]] * len(read)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"corners": "pixels"}, [9, 9, 20, 20]),
        ({"corners": "pixels", "first_pixel": 0}, [10, 10, 21, 21]),
        ({"first_pixel": 0}, [10, 10, 21, 21]),
        ({"first_pixel": 1}, [9, 9, 20, 20]),
        ({"corners": "edges"}, [10, 10, 20, 20]),
    ],
)
def test_what_is_said_holds(write_voc, options, expected):
    read = data.voc(write_voc([BOX], heads=LABELIMG), "val", **options)
    assert boxes(read) == [expected] and read.notes == ()


def test_an_edge_may_be_the_border(write_voc):
    read = data.voc(write_voc([[("cat", 0, (0, 0, 60, 40))]]), "val", corners="edges")
    assert boxes(read) == [[0, 0, 60, 40]] and read.counts == {}


def test_other_choices_are_refused(write_voc):
    folder = write_voc([BOX])
    with pytest.raises(ValueError, match="auto, pixels, edges. Received: 'points'"):
        data.voc(folder, "val", corners="points")
    with pytest.raises(ValueError, match="`first_pixel` is for corners that are pixels"):
        data.voc(folder, "val", corners="edges", first_pixel=1)
