"""coco_datasets: what it writes, when it reads a dataset again, and what it refuses."""

from __future__ import annotations

import json
import os
import re
import socket
from pathlib import Path
from typing import Any

import pytest
import tiny_coco
from ansible.module_utils.coco_check import fingerprint
from coco import coco_findings, coco_table, size
from run_module import run_module


class Lab:
    """A prefix, and two datasets: one of COCO's, one of one's own."""

    def __init__(self, folder: Path) -> None:
        self.prefix, self.coco = folder / "prefix", folder / "coco"
        tiny_coco.make(self.coco, name="train2014", images=3)
        self.mine = tiny_coco.make(folder / "mine", images=2, seed=7)
        self.file = self.prefix / "checks" / socket.gethostname() / "datasets.json"

    @property
    def own(self) -> dict[str, str]:
        return {
            "name": "coco_mine",
            "images": self.mine["image_directory"],
            "annotations": self.mine["annotation_file"],
        }

    def run(self, check: bool = False, **arguments: Any) -> dict[str, Any]:
        given = {"path": str(self.coco), "datasets": [self.own]} | arguments
        return run_module("coco_datasets", check, prefix=str(self.prefix), stack="mine", **given)

    def written(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.file.read_text())
        return content

    def edit(self, key: str, values: dict[str, Any]) -> None:
        """Change the first element of a list of the own dataset's annotation file."""
        file = Path(self.mine["annotation_file"])
        data = json.loads(file.read_text())
        data[key][0].update(values)
        file.write_text(json.dumps(data))


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def test_what_detectron_needs_of_each_dataset_is_written(lab: Lab) -> None:
    result = lab.run()
    assert result["changed"]
    assert result["file"] == str(lab.file)
    assert lab.written()["datasets"] == result["datasets"]
    assert result["datasets"] == {
        "coco_2014_train": {
            "image_directory": f"{lab.coco}/train2014",
            "annotation_file": f"{lab.coco}/annotations/instances_train2014.json",
            "image_prefix": "",
        },
        "coco_mine": {**lab.mine, "image_prefix": ""},
    }
    report = lab.written()["reports"]["coco_mine"]
    assert report["counts"] == {
        "images": 2, "annotations": 3, "categories": 2, "crowd": 0, "masks": 3, "keypoints": 0,
    }  # fmt: skip
    assert (report["classes"], report["class_names"]) == (3, ["rectangle1", "triangle2"])
    images = list(Path(lab.mine["image_directory"]).iterdir())
    assert report["fingerprint"]["images"] == 2
    assert report["fingerprint"]["images_bytes"] == sum(path.stat().st_size for path in images)
    assert (lab.prefix / ".stack.json").exists()


def test_second_run_changes_nothing_and_reads_nothing(lab: Lab) -> None:
    lab.run()
    before = lab.file.stat().st_mtime_ns
    file = Path(lab.mine["annotation_file"])
    times = file.stat()
    # Other bytes, but neither another size nor another time: seen only by one who reads them.
    file.write_bytes(b"x" * times.st_size)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert not lab.run()["changed"]
    assert lab.file.stat().st_mtime_ns == before
    deep = lab.run(deep=True)
    assert deep["changed"]
    assert [finding["id"] for finding in deep["findings"]] == ["annotations_not_json"]


def test_reading_all_again_changes_nothing_where_nothing_has_changed(lab: Lab) -> None:
    lab.run()
    content = lab.written()
    content["reports"]["coco_mine"]["seconds"] = 99.9  # as on a busy server
    lab.file.write_text(json.dumps(content))
    assert not lab.run(deep=True)["changed"]


@pytest.mark.parametrize("what", ["annotations", "images", "entry"])
def test_a_changed_dataset_is_read_again(lab: Lab, what: str) -> None:
    lab.run()
    if what == "annotations":
        lab.edit("annotations", {"bbox": [0, 0, 0, 0]})
    elif what == "images":
        next(Path(lab.mine["image_directory"]).iterdir()).unlink()
    expected = {"annotations": "box_empty", "images": "image_missing", "entry": "image_names"}[what]
    result = lab.run(datasets=[lab.own | ({"prefix": "p_"} if what == "entry" else {})])
    assert result["changed"]
    assert expected in [finding["id"] for finding in result["findings"]]


def test_check_mode_says_what_would_be_written_and_writes_nothing(lab: Lab) -> None:
    planned = lab.run(check=True)
    assert planned["changed"]
    assert not lab.prefix.exists()
    assert planned["diff"]["before"] == ""
    assert "coco_mine: 2 images, 3 annotations, nothing found" in planned["diff"]["after"]
    assert lab.run()["diff"] == planned["diff"]
    assert not lab.run(check=True)["changed"]


def test_a_dataset_that_cannot_be_used_is_left_out_until_that_is_accepted(lab: Lab) -> None:
    lab.edit("annotations", {"category_id": 99})
    result = lab.run()
    assert next(finding["severity"] for finding in result["findings"] if finding["dataset"] == "coco_mine") == "stop"
    assert result["datasets"].keys() == {"coco_2014_train"}
    accepted = lab.run(accepted=["annotation_category"])
    assert accepted["datasets"].keys() == {"coco_2014_train", "coco_mine"}
    assert "annotation_category" not in [finding["id"] for finding in accepted["findings"]]


def test_ones_own_takes_the_place_of_coco_s(lab: Lab) -> None:
    result = lab.run(datasets=[lab.own | {"name": "coco_2014_train"}])
    assert result["datasets"] == {"coco_2014_train": {**lab.mine, "image_prefix": ""}}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"name": "a/b"}, "'a/b' in coco_datasets cannot name a dataset"),
        ({"name": "a:b"}, "cannot name a dataset"),
        ({"name": ""}, "lacks name"),
        ({"images": "data/images"}, "images of coco_mine in coco_datasets is 'data/images': write the full path"),
        ({"annotation": "x"}, "has annotation"),
    ],
)
def test_what_cannot_be_a_dataset_is_refused_and_nothing_written(lab: Lab, wrong: dict[str, str], message: str) -> None:
    result = lab.run(datasets=[lab.own | wrong])
    assert message in result["msg"]
    assert not lab.prefix.exists()


def test_two_datasets_of_one_name_and_unknown_findings_are_refused(lab: Lab) -> None:
    assert "two entries named coco_mine" in lab.run(datasets=[lab.own, lab.own])["msg"]
    assert (
        "There is no finding box_emtpy to accept. There are: folder_missing," in lab.run(accepted=["box_emtpy"])["msg"]
    )


def test_a_prefix_of_somebody_else_is_refused(lab: Lab) -> None:
    lab.prefix.mkdir()
    (lab.prefix / "thesis.tex").touch()
    assert "is not empty and was not made by this project" in lab.run()["msg"]
    assert [path.name for path in lab.prefix.iterdir()] == ["thesis.tex"]


def test_the_same_data_has_the_same_fingerprint_wherever_it_lies(tmp_path: Path) -> None:
    def fingerprints(folder: Path, seed: int) -> str:
        made = tiny_coco.make(folder, seed=seed)
        own = {"name": "coco_a", "images": made["image_directory"], "annotations": made["annotation_file"]}
        result = run_module("coco_datasets", prefix=str(folder / "prefix"), stack="s", datasets=[own])
        return str(fingerprint(result["reports"]["coco_a"]))

    first = fingerprints(tmp_path / "a", 1)
    assert re.fullmatch("[0-9a-f]{12}", first)
    assert first == fingerprints(tmp_path / "b", 1)
    assert first != fingerprints(tmp_path / "c", 2)


# --- What is shown ----------------------------------------------------------------------------------------------------


def test_the_table_has_a_line_per_dataset(lab: Lab) -> None:
    lab.edit("annotations", {"category_id": 99})
    result = lab.run()
    lines = coco_table(result).splitlines()
    assert lines[0].split() == ["dataset", "images", "annotations", "classes", "size", "fingerprint", "usable"]
    assert [line.split()[:4] + line.split()[-1:] for line in lines[1:]] == [
        ["coco_2014_train", "3", "5", "3", "yes"],
        ["coco_mine", "2", "3", "3", "no"],
    ]
    assert [finding["id"] for finding in coco_findings(result, ["stop"])] == ["coco_mine annotation_category"]


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (13_500_000_000, "13.5 GB"), (2 * 10**12, "2.0 TB")],
)
def test_sizes_are_in_decimal_units(count: int, text: str) -> None:
    assert size(count) == text
