#!/usr/bin/env python3
"""Makes a tiny dataset in COCO's format: images of coloured shapes on noise, which a detector can learn in minutes."""

from __future__ import annotations

import argparse
import json
import random
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# What a category is recognized by, beside its shape.
COLOURS = ((200, 50, 50), (50, 80, 200), (50, 170, 60), (210, 180, 40), (160, 60, 170), (60, 180, 180))
NOISE = 40  # the background's grey levels lie below this

Polygon = list[int]  # x1, y1, x2, y2, ... as COCO writes it


def png(rows: list[bytearray], width: int) -> bytes:
    """An RGB image as PNG; each of `rows` has three bytes per pixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, len(rows), 8, 2, 0, 0, 0)  # 8 bits of red, green and blue
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows), 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def outline(category: int, x: int, y: int, width: int, height: int) -> Polygon:
    """The outline in a box: a rectangle for odd categories, a triangle that stands on its base for even ones."""
    if category % 2:
        return [x, y, x + width, y, x + width, y + height, x, y + height]
    return [x + width // 2, y, x + width, y + height, x, y + height]


def area(polygon: Polygon) -> float:
    """Area of a polygon, by the shoelace formula."""
    points = list(zip(polygon[::2], polygon[1::2], strict=True))
    turned = points[1:] + points[:1]
    return abs(sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in zip(points, turned, strict=True))) / 2


def spans(polygon: Polygon) -> Iterator[tuple[int, int, int]]:
    """Row by row (y, first x, last x) of what `outline` gives."""
    xs, ys = polygon[::2], polygon[1::2]
    left, right, top, bottom = min(xs), max(xs), min(ys), max(ys)
    for y in range(top, bottom):
        inset = 0 if len(xs) == 4 else (right - left) * (bottom - y) // (2 * (bottom - top))
        yield y, left + inset, right - inset


def make(
    folder: Path,
    images: int = 8,
    name: str = "train",
    categories: int = 2,
    seed: int = 0,
    size: tuple[int, int] = (200, 160),
) -> dict[str, str]:
    """Write `folder`/`name`/*.png and `folder`/annotations/instances_`name`.json, the same for the same arguments.

    `size` is width and height in pixels. Each image holds one object, or two beside each other, each with a box and a
    polygon. A category's ids are 1, 2, ...; its colour and shape tell it. Returns the dataset's entry in Detectron's
    catalogue: image_directory and annotation_file. For another part of the same dataset (validation), another `name`
    and `seed`.
    """
    width, height = size
    chance = random.Random(f"{name} {seed}")
    pictures = folder / name
    pictures.mkdir(parents=True, exist_ok=True)
    listed: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(1, images + 1):
        rows = [bytearray(level * NOISE >> 8 for level in chance.randbytes(3 * width)) for _ in range(height)]
        objects = 1 + number % 2
        for place in range(objects):
            room = width // objects
            across, down = chance.randint(room // 3, room * 2 // 3), chance.randint(height // 3, height * 2 // 3)
            x, y = place * room + chance.randrange(room - across), chance.randrange(height - down)
            category = 1 + len(annotations) % categories
            polygon = outline(category, x, y, across, down)
            for row, first, last in spans(polygon):
                rows[row][3 * first : 3 * last] = bytes(COLOURS[(category - 1) % len(COLOURS)]) * (last - first)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": category,
                    "bbox": [x, y, across, down],
                    "area": area(polygon),
                    "segmentation": [polygon],
                    "iscrowd": 0,
                }
            )
        file_name = f"{name}_{number:06}.png"
        (pictures / file_name).write_bytes(png(rows, width))
        listed.append({"id": number, "file_name": file_name, "width": width, "height": height})
    named = [
        {"id": category, "name": f"{'rectangle' if category % 2 else 'triangle'}{category}", "supercategory": "shape"}
        for category in range(1, categories + 1)
    ]
    dataset = {
        "info": {"description": f"{images} images of coloured shapes, made for tests"},
        "licenses": [],
        "images": listed,
        "annotations": annotations,
        "categories": named,
    }
    written = folder / "annotations" / f"instances_{name}.json"
    written.parent.mkdir(exist_ok=True)
    written.write_text(json.dumps(dataset) + "\n")
    return {"image_directory": str(pictures), "annotation_file": str(written)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--name", default="train")
    parser.add_argument("--categories", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    print(json.dumps(make(**vars(parser.parse_args())), indent=2))


if __name__ == "__main__":
    main()
