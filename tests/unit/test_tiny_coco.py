"""The tests' own dataset is what it says: whole PNGs, and shapes where its boxes and polygons are."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import tiny_coco


def pixels(image: bytes) -> list[bytes]:
    """The rows of one of tiny_coco's PNGs, three bytes per pixel; its check sums are compared."""
    assert image.startswith(b"\x89PNG\r\n\x1a\n")
    chunks, place = {}, 8
    while place < len(image):
        [length] = struct.unpack(">I", image[place : place + 4])
        kind, data = image[place + 4 : place + 8], image[place + 8 : place + 8 + length]
        assert struct.unpack(">I", image[place + 8 + length : place + 12 + length]) == (zlib.crc32(kind + data),)
        chunks[kind] = data
        place += 12 + length
    assert list(chunks) == [b"IHDR", b"IDAT", b"IEND"]
    width, height = struct.unpack(">II", chunks[b"IHDR"][:8])
    raw = zlib.decompress(chunks[b"IDAT"])
    assert len(raw) == height * (1 + 3 * width)
    return [raw[row * (1 + 3 * width) + 1 : (row + 1) * (1 + 3 * width)] for row in range(height)]


def test_boxes_hold_what_is_painted_in_the_colour_of_their_category(tmp_path: Path) -> None:
    made = tiny_coco.make(tmp_path, images=4, categories=3)
    dataset = json.loads(Path(made["annotation_file"]).read_text())
    assert {annotation["category_id"] for annotation in dataset["annotations"]} == {1, 2, 3}
    for image in dataset["images"]:
        rows = pixels((Path(made["image_directory"]) / image["file_name"]).read_bytes())
        assert (image["height"], 3 * image["width"]) == (len(rows), len(rows[0]))
        for annotation in dataset["annotations"]:
            if annotation["image_id"] == image["id"]:
                x, y, width, height = annotation["bbox"]
                colour = bytes(tiny_coco.COLOURS[annotation["category_id"] - 1])
                painted = [
                    (column, line)
                    for line in range(y, y + height)
                    for column in range(x, x + width)
                    if rows[line][3 * column : 3 * column + 3] == colour
                ]
                columns, lines = {column for column, _ in painted}, {line for _, line in painted}
                # A triangle's tip may be less than a pixel wide.
                assert (min(columns), max(columns), max(lines)) == (x, x + width - 1, y + height - 1)
                assert min(lines) - y <= 2
                assert abs(len(painted) / annotation["area"] - 1) < 0.05
                assert x >= 0 and x + width <= image["width"]
                assert y >= 0 and y + height <= image["height"]


def test_the_same_arguments_give_the_same_dataset(tmp_path: Path) -> None:
    def contents(folder: Path, seed: int) -> dict[str, bytes]:
        tiny_coco.make(folder, images=2, seed=seed)
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    first = contents(tmp_path / "first", seed=1)
    assert first == contents(tmp_path / "again", seed=1)
    assert first.keys() == contents(tmp_path / "other", seed=2).keys()
    assert first != contents(tmp_path / "other", seed=2)
