"""Each finding about a dataset is made where it is true, with the thing that it is about, and nowhere else."""

from __future__ import annotations

import copy
import json
import os
import random
import re
import struct
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tiny_coco
from ansible.module_utils.coco_check import Checker, rle_runs
from ansible.module_utils.coco_datasets import check_all, listed, other_classes, unfit, usable
from ansible.module_utils.coco_findings import BY_ID, CATALOGUE, PUBLISHED, SHOWN
from ansible.module_utils.coco_layout import Source
from run_module import Running

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Dataset:
    """A tiny dataset, of which a case changes something. `data` is written to the annotation file afterwards."""

    folder: Path
    name: str
    images: Path
    file: Path
    data: dict[str, Any]
    prefix: str = ""
    written: bool = True  # by the test; else the case writes the file

    def findings(self) -> dict[str, dict[str, Any]]:
        if self.written:
            self.file.write_text(json.dumps(self.data))
        source = Source(self.name, str(self.images), str(self.file), self.prefix, own=True)
        return {finding["id"]: finding for finding in Checker(source).check().report["findings"]}


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    made = tiny_coco.make(tmp_path, images=4, categories=2)
    file = Path(made["annotation_file"])
    return Dataset(tmp_path, "coco_tiny", Path(made["image_directory"]), file, json.loads(file.read_text()))


Change = Callable[[Dataset], None]


def of(part: str, index: int = 0, **values: Any) -> Change:
    """Set keys of an image, an annotation or a category; None removes one."""

    def change(dataset: Dataset) -> None:
        element = dataset.data[part][index]
        element.update(values)
        for key in [key for key, value in values.items() if value is None]:
            del element[key]

    return change


def annotation(**values: Any) -> Change:
    return of("annotations", **values)


def every_annotation(**values: Any) -> Change:
    def change(dataset: Dataset) -> None:
        for element in dataset.data["annotations"]:
            element.update(values)

    return change


def top(**values: Any) -> Change:
    """Set members of the file itself; None removes one."""

    def change(dataset: Dataset) -> None:
        dataset.data.update(values)
        dataset.data = {key: value for key, value in dataset.data.items() if value is not None}

    return change


def text(content: str | bytes | Callable[[str], str]) -> Change:
    """Write something of one's own into the annotation file."""

    def change(dataset: Dataset) -> None:
        dataset.written = False
        given = content(json.dumps(dataset.data)) if callable(content) else content
        dataset.file.write_bytes(given if isinstance(given, bytes) else given.encode())

    return change


def first_image(action: Callable[[Path], object]) -> Change:
    """Do something to the first image on disk."""

    def change(dataset: Dataset) -> None:
        action(dataset.images / dataset.data["images"][0]["file_name"])

    return change


def every_image(rename: Callable[[str], str]) -> Change:
    def change(dataset: Dataset) -> None:
        for path in list(dataset.images.iterdir()):
            target = dataset.images / rename(path.name)
            target.parent.mkdir(exist_ok=True)
            path.rename(target)

    return change


def every_name(rename: Callable[[str], str]) -> Change:
    def change(dataset: Dataset) -> None:
        for image in dataset.data["images"]:
            image["file_name"] = rename(image["file_name"])

    return change


def attribute(**values: str) -> Change:
    def change(dataset: Dataset) -> None:
        for name, value in values.items():
            setattr(dataset, name, value)

    return change


def several(*changes: Change) -> Change:
    def change(dataset: Dataset) -> None:
        for each in changes:
            each(dataset)

    return change


def move_to(name: str) -> Change:
    def change(dataset: Dataset) -> None:
        dataset.images = dataset.images.rename(dataset.folder / name)

    return change


def lose_file(dataset: Dataset) -> None:
    dataset.written = False
    dataset.file.unlink()


def become_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def unlink_all(dataset: Dataset) -> None:
    for path in dataset.images.iterdir():
        path.unlink()
    dataset.images.rmdir()


def jpeg(width: int, height: int, orientation: int = 1, end: bytes = b"\xff\xd9") -> bytes:
    """The headers of a JPEG, with an EXIF orientation."""
    exif = b"Exif\0\0MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    frame = struct.pack(">BHHB", 8, height, width, 3) + bytes(9)
    segments = b"".join(
        b"\xff" + kind + struct.pack(">H", len(body) + 2) + body for kind, body in ((b"\xe1", exif), (b"\xc0", frame))
    )
    return b"\xff\xd8" + segments + bytes(40) + end


PEOPLE: Change = of("categories", name="person", keypoints=["nose", "left_eye"])
SQUARE = {"size": [160, 200], "counts": [0, 100, 31900]}
HALF_OUT = [150, 100, 90, 20]  # of an image of 200 x 160

# Finding, what makes it, and what it must name.
CASES: list[tuple[str, Change, str]] = [
    ("annotations_missing", lose_file, "instances_train.json"),
    ("annotations_cut", text(lambda whole: whole[:-1]), "a comma or } should be there"),
    ("annotations_cut", text(lambda whole: whole[: whole.index('"annotations"') + 200]), "character"),
    ("annotations_cut", text(lambda whole: whole[: whole.index("train_000002") + 5]), "Unterminated string"),
    ("annotations_cut", text(lambda whole: whole[: whole.index("}, {") + 1]), "a comma or ] should be there"),
    ("annotations_cut", text(lambda whole: whole[:-500] + "\0" * 500), "near"),
    ("annotations_not_json", text("<!DOCTYPE html><html>not found</html>"), "<!DOCTYPE html>"),
    ("annotations_not_json", text("version https://git-lfs.github.com/spec/v1\n"), "version https://git-lfs"),
    ("annotations_not_json", text(b"PK\3\4\xff\xfe"), "not UTF-8"),
    ("annotations_not_json", text(""), "it is empty"),
    ("annotations_not_json", text("\ufeff{}"), "ufeff"),
    ("annotations_not_json", text(lambda whole: whole.replace('"id": 3', '"id" 3', 1)), '{"id" 3'),
    ("annotations_not_json", text(lambda whole: whole + "{}"), "it goes on after its end"),
    ("annotations_not_json", text('{"images": ' + "[" * 100_000), "nested too deeply"),
    ("annotations_not_json", text('{"version": 1' + "0" * 5000 + "}"), "integer string conversion"),
    ("annotations_shape", top(images=None), "images is not there"),
    ("annotations_shape", top(categories={"1": "thing"}), "categories is an object"),
    ("annotations_shape", top(annotations=None), "annotations is not there"),
    ("annotations_shape", top(images=["1.jpg"]), "images holds a text"),
    ("images_folder", unlink_all, "train: No such file or directory"),
    ("image_fields", of("images", width=0), "width: 0"),
    ("image_fields", of("images", height="160"), "height: '160'"),
    ("image_fields", of("images", file_name=None), "file_name: None"),
    ("image_id_twice", of("images", id=2), "2 (train_000002.png)"),
    ("image_file_twice", of("images", file_name="train_000002.png"), "train_000002.png"),
    ("image_missing", first_image(lambda path: path.unlink()), "train_000001.png"),
    ("image_missing", first_image(become_a_folder), "train_000001.png"),
    ("image_names", every_image(lambda name: f"COCO_test2015_{name}"), "with the prefix COCO_test2015_ they are there"),
    ("image_names", every_name(lambda name: f"images/{name}"), "without the folder images they are there"),
    ("image_names", every_name(lambda name: f"COCO_train2014_{name}"), "without their beginning COCO_..._"),
    ("image_names", every_name(lambda name: name.replace("png", "jpg")), "with the ending .png they are there"),
    ("image_names", every_image(lambda name: f"train/{name}"), "train/train they are there"),
    ("image_names", attribute(prefix="COCO_"), "without the prefix COCO_ they are there"),
    ("image_empty", first_image(lambda path: path.write_bytes(b"")), "train_000001.png"),
    ("image_size", of("images", width=160, height=200), "train_000001.png is 200 x 160, not 160 x 200"),
    ("image_size", first_image(lambda path: path.write_bytes(jpeg(400, 320))), "is 400 x 320, not 200 x 160"),
    ("image_rotated", first_image(lambda path: path.write_bytes(jpeg(200, 160, 6))), "is 160 x 200, not 200 x 160"),
    (
        "image_ascii",
        several(every_image(lambda name: f"gr\u00f6\u00dfe_{name}"), attribute(prefix="gr\u00f6\u00dfe_")),
        "gr\u00f6\u00dfe_train_000001.png",
    ),
    ("image_ascii", move_to("B\u00fccher"), "B\u00fccher"),
    ("image_kind", first_image(lambda path: path.write_text("<html>")), "train_000001.png"),
    ("image_kind", first_image(lambda path: path.write_bytes(b"\xff\xd8\xff\xd9")), "train_000001.png"),
    ("image_cut", first_image(lambda path: path.write_bytes(path.read_bytes()[:-8])), "train_000001.png"),
    ("image_cut", first_image(lambda path: path.write_bytes(jpeg(200, 160, end=b""))), "train_000001.png"),
    ("category_fields", of("categories", name=None), "id: 1, name: None"),
    ("category_fields", top(categories=[]), "the list is empty"),
    ("category_id_twice", of("categories", 1, id=1), "1 (triangle2)"),
    ("category_name_twice", of("categories", 1, name="rectangle1"), "rectangle1"),
    ("category_order", lambda dataset: dataset.data["categories"].reverse(), "1 comes after 2"),
    ("category_gaps", several(of("categories", 1, id=9), every_annotation(category_id=9)), "2 ids from 1 to 9"),
    ("category_unused", every_annotation(category_id=2), "rectangle1"),
    ("annotations_none", top(annotations=[]), "4 images"),
    *[
        ("annotation_fields", annotation(**{key: None}), f"annotation {'?' if key == 'id' else 1} has no {key}")
        for key in ("id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation")
    ],
    ("annotation_fields", annotation(iscrowd="no"), "iscrowd 'no'"),
    ("annotation_fields", annotation(image_id=[1]), "image_id [1]"),
    ("annotation_fields", annotation(area="big"), "area 'big'"),
    ("annotation_fields", annotation(area=float("nan")), "area nan"),
    ("annotation_id_twice", annotation(id=2), "2"),
    ("annotation_id", annotation(id=0), "0"),
    ("annotation_id", annotation(id="one"), "'one'"),
    ("annotation_image", annotation(image_id=77), "annotation 1 has image_id 77"),
    ("annotation_category", annotation(category_id=0), "category_id 0 of 1 annotations, first annotation 1"),
    ("image_without", lambda dataset: dataset.data["annotations"].pop(2), "1 of 4 images"),
    ("annotations_none", every_annotation(area=0), "none of 6 counts"),
    ("box_numbers", annotation(bbox=[1, 2, 3]), "annotation 1 has [1, 2, 3]"),
    ("box_numbers", annotation(bbox=[1, 2, 3, float("nan")]), "nan"),
    ("box_numbers", annotation(bbox=[1, 2, "3", 4]), "'3'"),
    ("box_empty", annotation(bbox=[10, 10, 0, 5]), "annotation 1 has [10, 10, 0, 5]"),
    ("box_empty", annotation(bbox=[10, 10, 5, -5]), "annotation 1 has [10, 10, 5, -5]"),
    ("box_empty", annotation(bbox=[10, 10, 1, 5]), "annotation 1 has [10, 10, 1, 5]"),
    ("box_outside", annotation(bbox=[300, 10, 20, 20]), "[300, 10, 20, 20] in an image of 200 x 160"),
    ("box_beyond", annotation(bbox=HALF_OUT), f"{HALF_OUT} in an image of 200 x 160"),
    ("area_empty", annotation(area=0), "annotation 1 has 0"),
    ("area_empty", annotation(area=-1.5), "annotation 1 has -1.5"),
    ("mask_shape", annotation(segmentation=[1, 2, 3, 4, 5, 6]), "annotation 1 has [1, 2, 3, 4, 5, 6]"),
    ("mask_shape", annotation(segmentation=[[[1, 2], [3, 4], [5, 6]]]), "[[[1, 2], [3, 4], [5, 6]]]"),
    ("mask_shape", annotation(segmentation=[[1, 2, 3, 4, 5, float("inf")]]), "inf"),
    ("mask_shape", annotation(segmentation="polygon"), "'polygon'"),
    ("polygon_short", annotation(segmentation=[[1, 2, 9, 2, 9, 9], [1, 2, 3, 4]]), "annotation 1 has [1, 2, 3, 4]"),
    ("polygon_short", annotation(segmentation=[[1, 2, 3], [1, 2, 9, 2, 9, 9]]), "annotation 1 has [1, 2, 3]"),
    ("polygon_two", annotation(segmentation=[[1, 2, 3, 4], [1, 2, 9, 2, 9, 9]]), "annotation 1 has [1, 2, 3, 4]"),
    ("polygon_odd", annotation(segmentation=[[1, 2, 9, 2, 9, 9, 5]]), "annotation 1 has 7"),
    ("rle_shape", annotation(segmentation=SQUARE | {"counts": [0, 100, 100]}), "counts add up to 200 pixels"),
    ("rle_shape", annotation(segmentation=SQUARE | {"counts": "not RLE"}), "counts is 'not RLE'"),
    ("rle_shape", annotation(segmentation=SQUARE | {"size": 200}), "size is 200"),
    ("rle_shape", annotation(segmentation=SQUARE | {"size": [200, 160]}), "has size [200, 160], its image [160, 200]"),
    ("mask_rle", annotation(segmentation=SQUARE), "annotation 1"),
    ("mask_missing", annotation(segmentation=[]), "1 annotations, first 1"),
    ("mask_missing", annotation(segmentation=[[1, 2]]), "1 annotations, first 1"),
    ("mask_none", every_annotation(segmentation=[]), "6 annotations, first 1, 2, 3"),
    ("keypoints_missing", attribute(name="keypoints_coco_tiny"), "no category person with keypoints"),
    ("keypoints_count", PEOPLE, "no keypoints instead of 6 in 6 annotations, first annotation 1"),
    (
        "keypoints_count",
        several(PEOPLE, every_annotation(keypoints=[1, 1, 2, 2, 2, 2]), annotation(keypoints=[1, 1, 2])),
        "3 numbers instead of 6 in 1 annotations, first annotation 1",
    ),
    ("name_evaluator", attribute(name="tiny"), "tiny"),
    ("name_test", attribute(name="coco_tiny_test"), "coco_tiny_test has 6 annotations"),
]
# What is true as well where the first is.
BESIDE = {
    "image_id_twice": {"image_without", "annotation_image"},
    "image_size": {"box_beyond", "box_outside"},
    "rle_shape": {"mask_rle"},
    "annotation_image": {"image_without"},
    "annotation_category": {"category_gaps"},
    "annotation_fields": {"image_without"},
    "box_numbers": {"image_without"},
    "box_empty": {"image_without"},
    "box_outside": {"image_without"},
    "area_empty": {"image_without"},
    "image_fields": {"annotation_image"},
    "annotations_none": {"area_empty"},
    "mask_missing": {"polygon_short"},
    "category_fields": {"annotation_category"},
    "category_id_twice": {"annotation_category"},
    "category_gaps": {"category_unused"},
}


def test_a_sound_dataset_has_no_finding(dataset: Dataset) -> None:
    assert dataset.findings() == {}


@pytest.mark.parametrize(
    ("check", "change", "named"), CASES, ids=[f"{place} {case[0]}" for place, case in enumerate(CASES)]
)
def test_what_is_wrong_is_found_and_named(check: str, change: Change, named: str, dataset: Dataset) -> None:
    change(dataset)
    found = dataset.findings()
    assert check in found
    assert found[check]["severity"] == BY_ID[check].severity
    assert named in found[check]["what"]
    assert found.keys() <= {check} | BESIDE.get(check, set())


@pytest.mark.parametrize(
    ("check", "what"),
    [("annotations_unreadable", "file"), ("image_unreadable", "image"), ("images_folder", "images")],
)
def test_what_may_not_be_read_is_found(check: str, what: str) -> None:
    """In a folder that any login may enter; looked at as another one where this is root, who may read everything."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        folder.chmod(0o755)
        tiny = tiny_coco.make(folder)
        images, file = Path(tiny["image_directory"]), Path(tiny["annotation_file"])
        closed = {"file": file, "images": images, "image": images / "train_000001.png"}[what]
        closed.chmod(0)
        try:
            given = [{"name": "coco_tiny", "images": str(images), "annotations": str(file)}]
            user = 12345 if os.geteuid() == 0 else None
            looking = Running(
                "coco_datasets", check=True, user=user, prefix=str(folder / "none"), stack="s", datasets=given
            )
            assert [finding["id"] for finding in looking.result()["findings"]] == [check]
        finally:
            closed.chmod(0o755)


@pytest.mark.parametrize(
    "change",
    [
        several(every_image(lambda name: f"COCO_{name}"), attribute(prefix="COCO_")),
        several(every_image(lambda name: f"sub/{name}"), every_name(lambda name: f"sub/{name}")),
        first_image(lambda path: path.write_bytes(jpeg(200, 160))),
        first_image(lambda path: path.write_bytes(jpeg(200, 160) + bytes(100_000))),  # a camera's own data behind it
        first_image(lambda path: path.write_bytes(jpeg(160, 200, 8))),  # annotated as OpenCV turns it
        first_image(lambda path: path.write_bytes(b"BM" + bytes(60))),
        several(of("images", id="a"), *[of("annotations", place, image_id="a") for place in (0, 1)]),
        annotation(iscrowd=1, segmentation=SQUARE),
        annotation(iscrowd=1, segmentation=[]),
        annotation(iscrowd=True),
        annotation(bbox=[-0.5, 0, 200.9, 160.5]),
        several(top(annotations=None), attribute(name="coco_tiny_test")),
        several(PEOPLE, every_annotation(keypoints=[1, 1, 2, 2, 2, 2])),
    ],
)
def test_what_detectron_takes_is_no_finding(change: Change, dataset: Dataset) -> None:
    change(dataset)
    assert dataset.findings() == {}


def test_the_order_of_the_lists_in_the_file_does_not_matter(dataset: Dataset) -> None:
    annotation(bbox=HALF_OUT)(dataset)
    before = dataset.findings()
    dataset.data = {key: dataset.data[key] for key in ("annotations", "categories", "images")}
    assert dataset.findings() == before


def test_a_file_is_read_whole_wherever_its_parts_end(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    annotation(bbox=HALF_OUT)(dataset)
    of("categories", name="Gr\u00f6\u00dfe")(dataset)
    dataset.data["version"] = 12345
    before = dataset.findings()
    for size in (1, 7, 64, 1000):
        monkeypatch.setattr("ansible.module_utils.coco_json.CHUNK", size)
        assert dataset.findings() == before


# What a converter, a broken disk or a person may leave in an annotation file in place of something else.
JUNK: tuple[Any, ...] = (
    *(
        None,
        [],
        {},
        "x",
        "",
        True,
        -1,
        0,
        1e308,
        float("nan"),
        float("inf"),
        10**400,
        [[]],
        [None],
        {"a": 1},
        "a" * 5000,
    ),
    *("\0", "a\0b", "\ud800", "../..", "/etc/passwd", "gr\u00f6\u00dfe", [1, 2, 3, 4], [True] * 4),
    *([10**400] * 6, [[10**400] * 6], [[1e308] * 6], {"size": [160, 200], "counts": [32000]}),
)


def places(data: Any) -> Iterator[tuple[Any, Any]]:
    """(list or object, index or key) of everything in `data`."""
    for key, value in list(
        data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    ):
        yield data, key
        yield from places(value)


@pytest.mark.parametrize("seed", range(4))
def test_whatever_stands_in_the_file_ends_in_a_report(seed: int, dataset: Dataset) -> None:
    chance = random.Random(seed)
    dataset.data["categories"].append({"id": 5, "name": "person", "keypoints": ["nose"]})
    whole = json.dumps(dataset.data)
    dataset.written = False
    for _ in range(100):
        data = json.loads(whole)
        for _ in range(chance.choice((1, 1, 3))):
            holder, key = chance.choice(list(places(data)))
            holder[key] = copy.deepcopy(chance.choice(JUNK))
        content = bytearray(json.dumps(data).encode())
        if chance.random() < 0.3:
            place = chance.randrange(len(content))
            content[place : place + chance.randrange(20)] = chance.randbytes(chance.randrange(3))
        dataset.file.write_bytes(content)
        found = dataset.findings()
        json.dumps(found, ensure_ascii=False).encode()
        for finding in found.values():
            assert len(finding["what"]) < 1000


def test_every_entry_of_the_catalogue_is_tried_here() -> None:
    text = Path(__file__).read_text()
    for check in CATALOGUE:
        assert f'"{check.id}"' in text, check.id


def test_a_finding_shows_its_first_examples_and_counts_the_others(dataset: Dataset) -> None:
    every_annotation(bbox=HALF_OUT)(dataset)
    found = dataset.findings()["box_beyond"]
    assert (found["count"], len(found["examples"])) == (6, SHOWN)
    assert found["what"].endswith("; and 3 more")


@pytest.mark.parametrize("check", CATALOGUE, ids=lambda check: check.id)
def test_a_finding_names_cause_and_remedy_in_sentences(check: Any) -> None:
    assert check.severity in ("stop", "warn", "info")
    assert check.breaks in ("", "masks", "mask_evaluation", "keypoints")
    assert check.cause[0].isupper() or check.cause.startswith(("cv2", "coco", "counts"))
    assert check.remedy.format(name="N", images="I", annotations="A")


# --- RLE, as cocoapi writes it ----------------------------------------------------------------------------------------


def encode(runs: list[int]) -> str:
    """cocoapi's rleToString."""
    text = ""
    for place, run in enumerate(runs):
        value = run - runs[place - 2] if place > 2 else run
        more = True
        while more:
            bits = value & 0x1F
            value >>= 5
            more = value != -1 if bits & 0x10 else value != 0
            text += chr(48 + (bits | (0x20 if more else 0)))
    return text


@pytest.mark.parametrize(
    "runs", [[32000], [0, 32000], [10, 5, 3, 900, 2, 31080], [1, 1, 1, 1, 31996], [500, 3, 31000, 497]]
)
def test_compressed_masks_are_read_as_cocoapi_writes_them(runs: list[int], dataset: Dataset) -> None:
    assert rle_runs(encode(runs)) == runs
    annotation(iscrowd=1, segmentation={"size": [160, 200], "counts": encode(runs)})(dataset)
    assert ("rle_shape" in dataset.findings()) == (sum(runs) != 32000)


# --- Folders ----------------------------------------------------------------------------------------------------------


def make_coco(path: Path, images: str, annotations: str, splits: tuple[str, ...] = ("train2014", "val2014")) -> None:
    """COCO with its images and annotations in folders of those names."""
    for seed, split in enumerate(splits):
        made = tiny_coco.make(path / "made", images=2, name=split, seed=seed)
        for source, target in (
            (Path(made["image_directory"]), path / images.format(split)),
            (Path(made["annotation_file"]), path / annotations / f"instances_{split}.json"),
        ):
            target.parent.mkdir(parents=True, exist_ok=True)
            source.rename(target)
    (path / "made/annotations").rmdir()
    (path / "made").rmdir()


def looked_up(path: Path | None, *datasets: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(usable datasets, findings of all kinds by their ids)."""
    result = check_all(str(path) if path else "", list(datasets), {}, deep=False)
    findings = listed(result, [])
    return usable(result, findings), {finding["id"]: finding for finding in findings}


@pytest.mark.parametrize(
    "annotations", ["annotations", ".", "annotations/annotations", "annotations_trainval2014/annotations"]
)
@pytest.mark.parametrize("images", ["{0}", "coco_{0}", "images/{0}", "images/coco_{0}", "{0}/{0}"])
def test_coco_is_found_however_people_keep_it(images: str, annotations: str, tmp_path: Path) -> None:
    make_coco(tmp_path, images, annotations)
    found, findings = looked_up(tmp_path)
    assert found.keys() == {"coco_2014_train", "coco_2014_val"}
    assert findings.keys() == {"minival_missing"}
    for name, entry in found.items():
        split = name.removeprefix("coco_2014_") + "2014"
        assert entry["image_directory"] == str(tmp_path / images.format(split))
        assert Path(entry["annotation_file"]) == tmp_path / annotations / f"instances_{split}.json"
        assert entry["image_prefix"] == ""


def test_detectrons_own_naming_comes_first(tmp_path: Path) -> None:
    make_coco(tmp_path, "coco_{0}", "annotations")
    (tmp_path / "train2014").mkdir()
    found, _ = looked_up(tmp_path)
    assert found["coco_2014_train"]["image_directory"] == str(tmp_path / "coco_train2014")


def test_the_test_images_of_2017_are_those_of_2015(tmp_path: Path) -> None:
    made = tiny_coco.make(tmp_path, images=2, name="test2015")
    data = json.loads(Path(made["annotation_file"]).read_text())
    del data["annotations"]
    for image in data["images"]:
        (tmp_path / "test2015" / image["file_name"]).rename(
            tmp_path / "test2015" / f"COCO_test2015_{image['file_name']}"
        )
    (tmp_path / "annotations/image_info_test-dev2017.json").write_text(json.dumps(data))
    found, findings = looked_up(tmp_path)
    assert findings == {}
    entry = found["coco_2017_test-dev"]
    assert (entry["image_directory"], entry["image_prefix"]) == (str(tmp_path / "test2015"), "COCO_test2015_")


@pytest.mark.parametrize(
    ("check", "named"),
    [
        ("folder_missing", "nowhere: No such file or directory"),
        ("nothing_found", "holds notes.txt"),
        ("not_unpacked", "train2014.zip"),
        ("half_there", "train2014 without its annotation file"),
        ("half_there", "instances_val2014.json without the images val2014"),
        ("minival_missing", "instances_minival2014.json"),
    ],
)
def test_what_is_wrong_with_the_folder_is_found_and_named(check: str, named: str, tmp_path: Path) -> None:
    path = tmp_path
    if check == "folder_missing":
        path = tmp_path / "nowhere"
    elif check == "nothing_found":
        (tmp_path / "notes.txt").touch()
    elif check == "not_unpacked":
        (tmp_path / "train2014.zip").touch()
    else:
        make_coco(tmp_path, "{0}", "annotations")
        if named.startswith("train2014"):
            (tmp_path / "annotations/instances_train2014.json").unlink()
        elif check == "half_there":
            (tmp_path / "val2014").rename(tmp_path / "elsewhere")
    _, findings = looked_up(path)
    assert named in findings[check]["what"]


def test_what_coco_itself_published_worries_nobody(tmp_path: Path) -> None:
    make_coco(tmp_path, "{0}", "annotations", ("train2014",))
    file = tmp_path / "annotations/instances_train2014.json"
    data = json.loads(file.read_text())
    data["annotations"][0]["bbox"][2] = 0
    file.write_text(json.dumps(data))
    found, findings = looked_up(tmp_path)
    assert "coco_2014_train" in found
    assert findings["box_empty"]["severity"] == "info"
    own = entry("coco_my_train", found["coco_2014_train"] | {})
    assert looked_up(None, own)[1]["box_empty"]["severity"] == "warn"
    assert BY_ID.keys() > PUBLISHED


# --- Side by side -----------------------------------------------------------------------------------------------------


def entry(name: str, made: dict[str, str]) -> dict[str, str]:
    return {"name": name, "images": made["image_directory"], "annotations": made["annotation_file"]}


def test_the_same_images_in_train_and_val_are_found(tmp_path: Path) -> None:
    train = tiny_coco.make(tmp_path / "a", name="part", seed=1)
    val = tiny_coco.make(tmp_path / "b", name="part", seed=1, images=4)
    _, findings = looked_up(None, entry("coco_my_train", train), entry("coco_my_val", val))
    assert findings["overlap"]["count"] == 4
    assert findings["overlap"]["dataset"] == "coco_my_train coco_my_val"
    other = tiny_coco.make(tmp_path / "c", name="part", seed=2)
    for names, second in ((("coco_my_train", "coco_my_val"), other), (("coco_my_train", "coco_my_train2"), val)):
        _, findings = looked_up(None, entry(names[0], train), entry(names[1], second))
        assert findings == {}


def test_the_same_categories_in_another_order_are_found(tmp_path: Path) -> None:
    train, val = (tiny_coco.make(tmp_path, name=name) for name in ("train", "val"))
    data = json.loads(Path(val["annotation_file"]).read_text())
    data["categories"].reverse()
    Path(val["annotation_file"]).write_text(json.dumps(data))
    found, findings = looked_up(None, entry("coco_my_train", train), entry("coco_my_val", val))
    assert findings["classes_differ"]["what"] == "class 1 is rectangle1 in coco_my_train, triangle2 in coco_my_val"
    assert found == {}


# --- For a model ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "model", "why"),
    [
        (lambda dataset: None, {"masks": True, "tested": True}, ""),
        (annotation(category_id=99), {}, "annotations belong to no category (annotation_category): category_id 99"),
        (every_annotation(segmentation=[]), {}, ""),
        (every_annotation(segmentation=[]), {"masks": True}, "no object has a mask (mask_none): 6 annotations"),
        (annotation(segmentation=SQUARE), {"masks": True}, "single objects have RLE masks (mask_rle): annotation 1."),
        (annotation(segmentation=[]), {"masks": True}, "some objects have no mask, others do (mask_missing)"),
        (annotation(segmentation=[[1, 2, 3, 4], [1, 2, 9, 2, 9, 9]]), {"masks": True}, ""),
        (
            annotation(segmentation=[[1, 2, 3, 4], [1, 2, 9, 2, 9, 9]]),
            {"masks": True, "tested": True},
            "masks begin with a polygon of two points (polygon_two)",
        ),
        (lambda dataset: None, {"keypoints": True}, "none of its annotations has keypoints."),
    ],
)
def test_a_model_is_told_why_it_cannot_use_a_dataset(
    change: Change, model: dict[str, bool], why: str, dataset: Dataset
) -> None:
    change(dataset)
    dataset.findings()
    made = {"name": "coco_tiny", "images": str(dataset.images), "annotations": str(dataset.file)}
    result = check_all("", [made], {}, deep=False)
    known = {"datasets": usable(result, listed(result, [])), **result}
    said = unfit("coco_tiny", known, **({"masks": False, "keypoints": False, "tested": False} | model))
    assert said.startswith(why) if why else said == ""
    accepted = {"datasets": usable(result, listed(result, ["annotation_category"])), **result}
    if "annotation_category" in why:
        assert unfit("coco_tiny", accepted, False, False, False) == ""
    assert unfit("coco_other", known, True, True, True) == ""


def test_datasets_of_other_categories_are_told_apart() -> None:
    names = {"a": ["cat", "dog"], "b": ["dog", "cat"], "c": ["cat"], "d": ["cat", "dog"]}
    known = {"reports": {name: {"class_names": classes} for name, classes in names.items()}}
    assert other_classes(["a", "d", "unknown"], known) == ""
    assert other_classes(["a", "d", "b"], known) == "class 1 is cat in a, and dog in b"
    assert other_classes(["a", "c"], known) == "a has 2 categories, c has 1"


def test_the_documentation_lists_the_catalogue() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.+) \|$", (ROOT / "docs/datasets.md").read_text(), re.MULTILINE)
    assert rows == [(check.id, check.severity, check.title) for check in CATALOGUE]
