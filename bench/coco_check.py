#!/usr/bin/env python3
"""Check a dataset of the size of COCO's train2014, and print how long it takes and how much memory.

    .venv/bin/python bench/coco_check.py [--folder FOLDER] [--images 82783] [--annotations 604907]

Writes an annotation file of 450 MB and as many images (links to one file) into FOLDER, by default a temporary one that
is removed, and runs the module coco_datasets on it twice, each time in a process of its own: the second run reads
nothing anew. No network, no server.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests/fleet"), str(ROOT / "tests/unit")]

import tiny_coco  # noqa: E402
from run_module import run_module  # noqa: E402

WIDTH, HEIGHT, CATEGORIES = 640, 480, 80
POINTS = 38  # of a polygon, on average: train2014's file has 740 bytes per annotation
LINKS = 30_000  # to one file: some filesystems allow no more than 65,000


def write_annotations(file: Path, images: int, annotations: int) -> None:
    """An annotation file, written piece by piece."""
    chance = random.Random(1)
    with file.open("w") as stream:
        stream.write('{"info": {}, "images": [')
        for number in range(1, images + 1):
            image = {
                "license": 5,
                "file_name": f"COCO_train2014_{number:012}.jpg",
                "coco_url": f"http://images.example.org/train2014/COCO_train2014_{number:012}.jpg",
                "height": HEIGHT,
                "width": WIDTH,
                "date_captured": "2013-11-14 16:28:13",
                "id": number,
            }
            stream.write((", " if number > 1 else "") + json.dumps(image))
        stream.write('], "licenses": [], "annotations": [')
        for number in range(1, annotations + 1):
            x, y = chance.randrange(WIDTH - 120), chance.randrange(HEIGHT - 120)
            polygon = [
                round(start + 100 * chance.random(), 2)
                for _ in range(chance.randrange(3, 2 * POINTS - 2))
                for start in (x, y)
            ]
            annotation = {
                "segmentation": [polygon],
                "area": 5000.123,
                "iscrowd": 0,
                "image_id": 1 + number % images,
                "bbox": [x, y, 100.5, 100.25],
                "category_id": 1 + number % CATEGORIES,
                "id": number,
            }
            stream.write((", " if number > 1 else "") + json.dumps(annotation))
        categories = [{"supercategory": "s", "id": number, "name": f"c{number}"} for number in range(1, CATEGORIES + 1)]
        stream.write(f'], "categories": {json.dumps(categories)}}}')


def write_images(folder: Path, images: int) -> None:
    """Files with the names of the images: links to a few that are one grey picture."""
    picture = tiny_coco.png([bytearray(3 * WIDTH)] * HEIGHT, WIDTH)
    for number in range(1, images + 1):
        file = folder / f"COCO_train2014_{number:012}.jpg"
        if number % LINKS == 1:
            first = file
            first.write_bytes(picture)
        else:
            os.link(first, file)


def measure(folder: Path, images: int, annotations: int) -> None:
    file = folder / "coco/annotations/instances_train2014.json"
    if not file.exists():
        (folder / "coco/train2014").mkdir(parents=True)
        file.parent.mkdir()
        write_annotations(file, images, annotations)
        write_images(folder / "coco/train2014", images)
    print(f"{images:,} images, {annotations:,} annotations, {file.stat().st_size / 1e6:.0f} MB")
    for run in ("first run", "second run"):
        began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        result = run_module("coco_datasets", prefix=str(folder / "prefix"), stack="bench", path=str(folder / "coco"))
        took = time.monotonic() - began
        # Of the largest child until now, in KiB: the first run's.
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        memory = after.ru_maxrss / 1024
        processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        found = ", ".join(finding["id"] for finding in result["findings"]) or "nothing found"
        print(
            f"{run}: {took:.1f} s, {processor:.1f} s of processor, at most {memory:.0f} MB of memory, "
            f"changed: {result['changed']}, {found}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--images", type=int, default=82_783)
    parser.add_argument("--annotations", type=int, default=604_907)
    given = parser.parse_args()
    if given.folder:
        measure(given.folder, given.images, given.annotations)
    else:
        with tempfile.TemporaryDirectory() as folder:
            measure(Path(folder), given.images, given.annotations)


if __name__ == "__main__":
    main()
