"""What the first bytes of an image tell: its kind, its size, and how OpenCV turns it.

Runs on servers: Python >= 3.9, standard library only.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import BinaryIO

# First bytes of what OpenCV reads beside JPEG and PNG: BMP, TIFF, WebP, JPEG 2000, PBM/PGM/PPM.
OTHER_KINDS = (b"BM", b"II*\0", b"MM\0*", b"RIFF", b"\0\0\0\x0cjP", b"P1", b"P2", b"P3", b"P4", b"P5", b"P6")
# Markers of a JPEG's frame, which tell its size: C0 to CF without C4 (tables), C8 (reserved) and CC (arithmetic).
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
ALONE = frozenset({0x01, *range(0xD0, 0xD8)})  # markers that nothing follows
ENDS = frozenset({0xD9, 0xDA})  # end of image, and start of what follows the frame
SIDEWAYS = frozenset({5, 6, 7, 8})  # EXIF orientations that exchange width and height


@dataclass(frozen=True)
class Header:
    """Of one image. A `width` of 0 is not known: a kind whose headers are not read here."""

    width: int
    height: int
    orientation: int  # EXIF's: 1 is upright
    whole: bool  # its end is there

    @property
    def seen(self) -> tuple[int, int]:
        """Width and height after cv2.imread, which since OpenCV 3.1 turns an image as its EXIF data say."""
        return (self.height, self.width) if self.orientation in SIDEWAYS else (self.width, self.height)


def read_header(path: str) -> Header | None:
    """The header of an image; None where the file is no image that OpenCV reads. Raises OSError."""
    with open(path, "rb") as stream:
        start = stream.read(26)
        if start.startswith(b"\x89PNG\r\n\x1a\n") and start[12:16] == b"IHDR" and len(start) >= 24:
            width, height = struct.unpack(">II", start[16:24])
            return Header(width, height, 1, _ends_with(stream, b"IEND"))
        if start.startswith(b"\xff\xd8\xff"):
            stream.seek(2)
            return _jpeg(stream)
    return Header(0, 0, 1, True) if start.startswith(OTHER_KINDS) else None


def _ends_with(stream: BinaryIO, mark: bytes) -> bool:
    """Whether the last mebibyte of what is left holds the mark of an end: cameras write data of their own behind it."""
    here = stream.tell()
    left = stream.seek(0, os.SEEK_END) - here
    for size in (64, 1 << 20):
        stream.seek(here + max(0, left - size))
        if mark in stream.read():
            return True
    return False


def _jpeg(stream: BinaryIO) -> Header | None:
    orientation = 1
    while (marker := stream.read(2)) and marker[0] == 0xFF and len(marker) == 2:
        kind = marker[1]
        if kind == 0xFF:  # a fill byte
            stream.seek(-1, os.SEEK_CUR)
        elif kind not in ALONE:
            length = int.from_bytes(stream.read(2), "big") - 2
            if length < 0 or kind in ENDS:
                return None
            if kind in FRAMES:
                height, width = struct.unpack(">HH", stream.read(5)[1:].ljust(4, b"\0"))
                # Behind the frame, the mark means the end and no thumbnail's.
                whole = _ends_with(stream, b"\xff\xd9")
                return Header(width, height, orientation, whole) if width and height else None
            body = stream.read(length) if kind == 0xE1 else b""
            stream.seek(length - len(body), os.SEEK_CUR)
            if body.startswith(b"Exif\0\0"):
                orientation = exif_orientation(body[6:])
    return None


def exif_orientation(tiff: bytes) -> int:
    """The orientation (tag 0x0112) in EXIF data; 1, upright, where there is none."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None or len(tiff) < 8:
        return 1
    try:
        [place] = struct.unpack_from(order + "I", tiff, 4)
        [entries] = struct.unpack_from(order + "H", tiff, place)
        for entry in range(entries):
            tag, _kind, _count, value = struct.unpack_from(order + "HHIH", tiff, place + 2 + 12 * entry)
            if tag == 0x0112:
                return int(value) if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1
