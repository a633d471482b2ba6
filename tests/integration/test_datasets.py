"""Datasets on servers that share a home and a prefix, each with data of its own, over SSH."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_coco
from fleet import Fleet
from sandbox import Server

from scripts.recap import complaint
from tests.integration.tiny_run import PATIENCE, started

SERVERS = ("server1", "server2")
PREFIX = "detectron/cuda90_wheel"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Two servers of one home. In it, COCO, and two versions of a dataset, of which each server knows one."""
    fleet = Fleet(tmp_path_factory.mktemp("datasets"))
    try:
        fleet.up([Server(name, shared_home="lab", network=False) for name in SERVERS])
        home = fleet.state / "homes" / fleet.servers["server1"].home_folder
        tiny_coco.make(home / "coco", images=3, name="train2014")
        inventory = fleet.inventory({"stack_cuda90_wheel": []})
        for seed, name in enumerate(SERVERS):
            tiny_coco.make(home / name, images=2, seed=seed)
            inventory["all"]["hosts"][name]["coco_datasets"] = [
                {
                    "name": "coco_mine",
                    "images": f"~/{name}/train",
                    "annotations": f"~/{name}/annotations/instances_train.json",
                }
            ]
        (fleet.state / "inventory.yml").write_text(json.dumps(inventory))
        yield fleet
    finally:
        fleet.down()


def site(fleet: Fleet, *arguments: str) -> tuple[int, str]:
    """(exit status, output) of role coco's part of site.yml."""
    run = started(fleet, "site.yml", "--tags", "coco", "--extra-vars", "coco_path=~/coco", *arguments)
    said, _ = run.communicate(timeout=PATIENCE)
    return run.returncode, said


def written(fleet: Fleet) -> dict[str, dict[str, Any]]:
    """What stands in each server's file, by the server's own name for itself."""
    home = fleet.state / "homes" / fleet.servers["server1"].home_folder
    return {
        path.parent.name: json.loads(path.read_text()) for path in (home / PREFIX / "checks").glob("*/datasets.json")
    }


def test_each_server_is_told_of_its_own_data_and_a_second_run_changes_nothing(lab: Fleet) -> None:
    status, said = site(lab, "--check", "--diff")
    assert status == 0, said
    assert "+coco_mine: 2 images, 3 annotations, nothing found" in said
    assert written(lab) == {}
    status, said = site(lab)
    assert status == 0, said
    found = written(lab)
    assert len(found) == len(SERVERS)
    sums = set()
    for content in found.values():
        assert content["datasets"].keys() == {"coco_2014_train", "coco_mine"}
        for entry in content["datasets"].values():
            assert Path(entry["annotation_file"]).is_absolute()
        sums.add(json.dumps(content["reports"]["coco_mine"]["fingerprint"]))
    assert len(sums) == len(SERVERS)
    assert {Path(content["datasets"]["coco_mine"]["image_directory"]).parent.name for content in found.values()} == set(
        SERVERS
    )
    status, said = site(lab)
    assert status == 0 and complaint(said) == "", said


def test_a_dataset_that_breaks_stops_its_server_alone(lab: Fleet) -> None:
    home = lab.state / "homes" / lab.servers["server1"].home_folder
    next((home / "server2/train").iterdir()).unlink()
    status, said = site(lab)
    assert status != 0
    assert "Detectron cannot use all datasets of server2; it is told of the others alone." in said
    assert "STOP  coco_mine image_missing: images are not on disk" in said
    assert "cannot use all datasets of server1" not in said
    assert sorted("coco_mine" in content["datasets"] for content in written(lab).values()) == [False, True]
