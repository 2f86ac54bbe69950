"""Small data sets in the layouts of annotation tools, written as the tools write them.

"Ran" names an exporter that wrote the same scenes, and whose folder was compared with this one.
"""

import dataclasses
import json
from functools import partial
from pathlib import Path

from annotation_files import POSE, categories, draw, write, write_coco, write_voc, write_yolo

CAT_DOG, DOG_CAT = ("cat", "dog"), ("dog", "cat")
ROBOFLOW = {split: split + "{}_jpg.rf.0f1e.jpg" for split in ("train", "valid", "test")}


@dataclasses.dataclass(frozen=True)
class Expected:
    """What is to be read: splits of three images; `image` ends the name of the first scene's."""

    splits: tuple[str, ...]
    image: str
    class_names: tuple[str, ...] = CAT_DOG


# COCO's own files: images beside `annotations/`, or in `images/`, as Ultralytics unpacks them.
def coco(folder, images=""):
    named = [{"supercategory": "animal", "id": 17 + i, "name": n} for i, n in enumerate(CAT_DOG)]
    for first, split in ((0, "train2017"), (3, "val2017")):
        scenes = draw(folder / images / split, "{:012d}.jpg", first)
        write_coco(folder / f"annotations/instances_{split}.json", scenes, named)
    return Expected(("train2017", "val2017"), "000000000000.jpg")


def _roboflow(folder, splits=tuple(ROBOFLOW)):
    """Adds what all exports of Roboflow have."""
    for name in ("README.dataset.txt", "README.roboflow.txt"):
        write(folder / name, "pets")
    return Expected(splits, "train0_jpg.rf.0f1e.jpg")


# Category 0 is the project (roboflow-100-benchmark, issue 45); numbers start at 0.
def roboflow_coco(folder):
    named = categories(["pets-x1"], 0, supercategory="none")
    named += categories(CAT_DOG, supercategory="pets-x1")
    for split, names in ROBOFLOW.items():
        scenes = draw(folder / split, names)
        write_coco(folder / split / "_annotations.coco.json", scenes, named, 0, {"license": 1})
    return _roboflow(folder)


# cvat-ai/datumaro, coco_format/converter.py; ran: datumaro 1.13. A task's subset is "default", a
# project's are named by its tasks; names of images keep their folders. Once, images/ was flat.
def cvat_coco(folder, subsets=("default",), flat=False):
    for subset in subsets:
        scenes = draw(folder / "images" / ("" if flat else subset), "day 1/{}.jpg")
        more = {"license": 0, "flickr_url": "", "coco_url": "", "date_captured": 0}
        rows = {"attributes": {"occluded": False}}
        file = folder / f"annotations/instances_{subset}.json"
        named = categories(DOG_CAT, supercategory="")
        write_coco(file, scenes, named, of_image=more, of_box=rows)
    return Expected(subsets, "0.jpg", DOG_CAT)


# Ran: fiftyone 1.22.
def fiftyone_coco(folder, splits=("all",)):
    for split in splits:
        place = folder if splits == ("all",) else folder / split
        scenes = draw(place / "data", "{}.png")
        named = categories(CAT_DOG, supercategory=None)
        more = {"license": None, "coco_url": None}
        write_coco(place / "labels.json", scenes, named, of_image=more, segmented=False)
    return Expected(splits, "0.png")


# label-studio-converter 0.0.59: all numbers start at 0; Windows writes backslashes. Ran:
# label-studio-sdk 2.1, which says where the image lay on the server (label-studio, issue 7294).
def label_studio_coco(folder, prefix="images/"):
    scenes = draw(folder / "images", "ab12cd{}-street.jpg")
    scenes = [(prefix + name, *scene) for name, *scene in scenes]
    named = categories(CAT_DOG, 0)
    write_coco(folder / "result.json", scenes, named, 0, of_box={"ignore": 0})
    return Expected(("all",), "ab12cd0-street.jpg")


# The devkit: corners are the first and last pixel from 1; a list per class lies beside the splits.
def voc(folder):
    head = "<folder>VOC2007</folder><filename>{}</filename><source><database>The VOC2007 Database"
    head += "</database><annotation>PASCAL VOC2007</annotation><image>flickr</image></source>"
    for first, split in ((0, "trainval"), (3, "test")):
        scenes = draw(folder / "JPEGImages", "{:06d}.jpg", first)
        for scene in scenes:
            write_voc(folder / "Annotations", scene, head, first=1)
        stems = [Path(name).stem for name, *_ in scenes]
        write(folder / f"ImageSets/Main/{split}.txt", *stems)
        signs = [f"{stem} {sign:2d}" for stem, sign in zip(stems, (1, -1, -1), strict=True)]
        write(folder / f"ImageSets/Main/dog_{split}.txt", *signs)
    return Expected(("trainval", "test"), "000000.jpg")


# Public exports; openvinotoolkit/datumaro, tests/assets/roboflow_dataset: xmin, xmax, ymin, ymax.
def roboflow_voc(folder):
    head = "<folder></folder><filename>{0}</filename><path>{0}</path>"
    head += "<source><database>roboflow.com</database></source>"
    inside, order = POSE + "<occluded>0</occluded>", "xmin xmax ymin ymax"
    for split, names in ROBOFLOW.items():
        for scene in draw(folder / split, names):
            write_voc(folder / split, scene, head, inside, order)
    return _roboflow(folder)


# Ran: labelImg 1.8.6. The path is that of the annotator's machine.
def labelimg(folder):
    head = r"<folder>photos</folder><filename>{0}</filename><path>C:\Users\ann\photos\{0}</path>"
    head += "<source><database>Unknown</database></source>"
    for scene in draw(folder, "IMG_{}.jpg"):
        write_voc(folder, scene, head)
    return Expected(("all",), "IMG_0.jpg")


# cvat-ai/datumaro, voc_format/converter.py: corners with fractions, an empty folder, another list
# of the images without objects. Ran: datumaro 1.13, which leaves out the XML of these.
def cvat_voc(folder, subsets=("default",)):
    head = "<folder></folder><filename>{}</filename><source><database>Unknown</database>"
    head += "<annotation>Unknown</annotation><image>Unknown</image></source>"
    inside = "<truncated>0</truncated><occluded>0</occluded><difficult>0</difficult>"
    for subset in subsets:
        scenes = draw(folder / "JPEGImages", f"day 1/{subset}{{}}.jpg")
        for scene in scenes:
            write_voc(folder / "Annotations", scene, head, inside, number=float)
        names = [name.removesuffix(".jpg") for name, *_ in scenes]
        write(folder / f"ImageSets/Main/{subset}.txt", *names)
        write(folder / f"ImageSets/Action/{subset}.txt", names[2])
    labels = "background:0,0,0::", "dog:128,0,0::", "cat:0,128,0::"
    write(folder / "labelmap.txt", "# label:color_rgb:parts:actions", *labels)
    return Expected(subsets, f"{subsets[0]}0.jpg")


# Ran: fiftyone 1.22, whose corners are edges (fiftyone/utils/voc.py).
def fiftyone_voc(folder):
    head = "<folder></folder><filename>{0}</filename><path>/home/ann/{0}</path>"
    for scene in draw(folder / "data", "{}.jpg"):
        if scene[-1]:
            write_voc(folder / "labels", scene, head)
    return Expected(("all",), "0.jpg")


# Ran: supervision 0.31, which names another tool's data base, and counts pixels from 1.
def supervision_voc(folder):
    head = "<folder>VOC</folder><filename>{}</filename>"
    head += "<source><database>roboflow.ai</database></source>"
    for scene in draw(folder / "images", "{}.jpg"):
        if scene[-1]:
            write_voc(folder / "labels", scene, head, first=1)
    return Expected(("all",), "0.jpg")


# Ran: label-studio-sdk 2.1. A task without objects gets no file. In label-studio-converter 0.0.36
# and before, the name is without its suffix.
def label_studio_voc(folder, filename="{}.jpg"):
    head = f"<folder>images</folder><filename>{filename}</filename><source><database>MyDatabase"
    head += "</database><annotation>COCO2017</annotation><image>flickr</image></source>"
    head += "<owner><flickrid>NULL</flickrid><name>Label Studio</name></owner>"
    for name, size, objects in draw(folder / "images", "ab12cd{}-street.jpg"):
        if objects:
            write_voc(folder / "Annotations", (Path(name).stem, size, objects), head)
    return Expected(("all",), "ab12cd0-street.jpg")


# Kaggle's andrewmvd/face-mask-detection and road-sign-detection. No mark says what corners are.
def kaggle_voc(folder):
    head = "<folder>images</folder><filename>{}</filename>"
    for scene in draw(folder / "images", "road{}.png"):
        write_voc(folder / "annotations", scene, head, first=1)
    return Expected(("all",), "road0.png")


# ultralytics' coco8.yaml: `path` starts from another folder, and `test` is left open.
ULTRALYTICS = """path: ../datasets/pets # dataset root dir
train: images/train # train images (relative to 'path')
val: images/val
test: # test images (optional)

names:
  0: dog
  1: cat"""
# Ran: fiftyone 1.22. The path is that of the machine it ran on.
FIFTYONE = """names:
  0: dog
  1: cat
path: /home/ann/pets
train: ./images/train/
val: ./images/val/"""


# Both: images without objects have no file.
def ultralytics(folder, yaml="data.yaml", text=ULTRALYTICS):
    for split in ("train", "val"):
        scenes = draw(folder / "images" / split, split + "{}.jpg")
        write_yolo(folder / "labels" / split, scenes, DOG_CAT, empty=False)
    write(folder / yaml, text)
    return Expected(("train", "val"), "train0.jpg", DOG_CAT)


# Public exports: paths go up once too often, and the key of the folder valid/ is val.
def roboflow_yolo(folder):
    for split, names in ROBOFLOW.items():
        scenes = draw(folder / split / "images", names)
        write_yolo(folder / split / "labels", scenes, CAT_DOG, "{}")
    paths = "train: ../train/images", "val: ../valid/images", "test: ../test/images"
    project = "roboflow:", "  workspace: pets", "  project: pets-x1", "  version: 3"
    write(folder / "data.yaml", *paths, "", "nc: 2", "names: ['cat', 'dog']", "", *project)
    return _roboflow(folder, ("train", "val", "test"))


# cvat-ai/datumaro, data_formats/yolo/exporter.py; ran: datumaro 1.13. There is no folder data/.
def cvat_yolo(folder, subsets=("train",)):
    for subset in subsets:
        place = f"obj_{subset}_data"
        scenes = draw(folder / place, "day 1/{}.jpg")
        write_yolo(folder / place, scenes, DOG_CAT)
        write(folder / f"{subset}.txt", *(f"data/{place}/{name}" for name, *_ in scenes))
    write(folder / "obj.names", *DOG_CAT)
    lists = (f"{subset} = data/{subset}.txt" for subset in subsets)
    names = "names = data/obj.names", "backup = backup/"
    write(folder / "obj.data", "classes = 2", *lists, *names)
    return Expected(subsets, "0.jpg", DOG_CAT)


# The same file of cvat-ai/datumaro: keys sorted, and data/ again, which CVAT's manual leaves out.
def cvat_ultralytics(folder, subsets=("train",), prefix="data/"):
    for subset in subsets:
        scenes = draw(folder / "images" / subset, "day 1/{}.jpg")
        write_yolo(folder / "labels" / subset, scenes, DOG_CAT, empty=False)
        lines = [f"{prefix}images/{subset}/{name}" for name, *_ in scenes]
        write(folder / f"{subset}.txt", *lines)
    entries = ["names:\n  0: dog\n  1: cat", "path: ."]
    entries += [f"{subset}: {subset}.txt" for subset in subsets]
    write(folder / "data.yaml", *sorted(entries))
    return Expected(subsets, "0.jpg", DOG_CAT)


# Ran: label-studio-sdk 2.1.
def label_studio_yolo(folder):
    scenes = draw(folder / "images", "ab12cd{}-street.jpg")
    write_yolo(folder / "labels", scenes, CAT_DOG, "{}")
    write(folder / "classes.txt", *CAT_DOG)
    notes = {"categories": categories(CAT_DOG, 0), "info": {"contributor": "Label Studio"}}
    write(folder / "notes.json", json.dumps(notes))
    return Expected(("all",), "ab12cd0-street.jpg")


# cvat-ai/cvat, dataset_manager/formats/cvat.py: a project says the subset of each image, which is
# a folder below images/ but no part of its name.
def cvat_images(folder, subsets=("all",)):
    kind = "task" if subsets == ("all",) else "project"
    labels = "".join(f"<label><name>{name}</name></label>" for name in DOG_CAT)
    lines = ['<?xml version="1.0" encoding="utf-8"?>', "<annotations><version>1.1</version><meta>"]
    lines += [f"<{kind}><name>pets</name><labels>{labels}</labels></{kind}></meta>"]
    for subset in subsets:
        of = f'subset="{subset}" task_id="7" ' if kind == "project" else ""
        scenes = draw(folder / "images" / (subset if of else ""), "day 1/{}.jpg")
        for i, (name, (width, height), objects) in enumerate(scenes):
            lines += [f'<image id="{i}" name="{name}" {of}width="{width}" height="{height}">']
            for label, corners in objects:
                box = '<box label="{}" source="manual" occluded="0" xtl="{:.2f}" ytl="{:.2f}" '
                box += 'xbr="{:.2f}" ybr="{:.2f}" z_order="0"></box>'
                lines += [box.format(label, *corners)]
            lines += ["</image>"]
    write(folder / "annotations.xml", *lines, "</annotations>")
    return Expected(subsets, "0.jpg", DOG_CAT)


# keras-retinanet's columns with a header; an image without objects has empty fields there.
def csv(folder):
    lines = ["image,x1,y1,x2,y2,class"]
    for name, _, objects in draw(folder / "images", "{}.jpg"):
        lines += [",".join([name, *map(str, box), label]) for label, box in objects]
        lines += [] if objects else [f"{name},,,,,"]
    write(folder / "annotations.csv", *lines)
    return Expected(("all",), "0.jpg")


# datitran/raccoon_dataset, whose columns have been copied since.
def tensorflow_csv(folder):
    for split in ("train", "test"):
        lines = ["filename,width,height,class,xmin,ymin,xmax,ymax"]
        for name, size, objects in draw(folder / "images" / split, "raccoon-{}.jpg"):
            lines += [",".join(map(str, [name, *size, label, *box])) for label, box in objects]
            lines += [] if objects else [f"{name},{size[0]},{size[1]},,,,,"]
        write(folder / f"{split}_labels.csv", *lines)
    return Expected(("train", "test"), "raccoon-0.jpg")


# roboflow.com/formats, "Tensorflow Object Detection CSV": an image without objects has no row.
def roboflow_csv(folder):
    for split, names in ROBOFLOW.items():
        lines = ["filename,width,height,class,xmin,ymin,xmax,ymax"]
        for name, size, objects in draw(folder / split, names):
            lines += [",".join(map(str, [name, *size, label, *box])) for label, box in objects]
        write(folder / split / "_annotations.csv", *lines)
    return _roboflow(folder)


PROJECT = ("Train", "Validation")
LAYOUTS = {
    "COCO": coco,
    "COCO, images/<split>": partial(coco, images="images"),
    "Roboflow COCO": roboflow_coco,
    "CVAT COCO": cvat_coco,
    "CVAT COCO, project": partial(cvat_coco, subsets=PROJECT),
    "CVAT COCO, images/ flat": partial(cvat_coco, flat=True),
    "FiftyOne COCO": fiftyone_coco,
    "FiftyOne COCO, a folder per split": partial(fiftyone_coco, splits=("train", "val")),
    "Label Studio COCO": label_studio_coco,
    "Label Studio COCO, Windows": partial(label_studio_coco, prefix="images\\"),
    "Label Studio COCO, server's names": partial(label_studio_coco, prefix="../../media/upload/4/"),
    "VOC": voc,
    "Roboflow VOC": roboflow_voc,
    "LabelImg": labelimg,
    "CVAT VOC": cvat_voc,
    "CVAT VOC, project": partial(cvat_voc, subsets=PROJECT),
    "Label Studio VOC": label_studio_voc,
    "Label Studio VOC, names without suffix": partial(label_studio_voc, filename="{}"),
    "FiftyOne VOC": fiftyone_voc,
    "supervision VOC": supervision_voc,
    "Kaggle VOC": kaggle_voc,
    "Ultralytics": ultralytics,
    "FiftyOne YOLO": partial(ultralytics, yaml="dataset.yaml", text=FIFTYONE),
    "Roboflow YOLO": roboflow_yolo,
    "CVAT YOLO": cvat_yolo,
    "CVAT YOLO, project": partial(cvat_yolo, subsets=PROJECT),
    "CVAT Ultralytics": cvat_ultralytics,
    "CVAT Ultralytics, project": partial(cvat_ultralytics, subsets=PROJECT, prefix=""),
    "Label Studio YOLO": label_studio_yolo,
    "CVAT images": cvat_images,
    "CVAT images, project": partial(cvat_images, subsets=PROJECT),
    "CSV": csv,
    "TensorFlow CSV": tensorflow_csv,
    "Roboflow CSV": roboflow_csv,
}
