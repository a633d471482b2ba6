"""The images of a file or folder that Detectron can draw in, and which server takes which.

Runs on servers and on the controller: Python >= 3.9, standard library only.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ansible.module_utils.image_header import read_header
from ansible.module_utils.stack_installs import StackError

# Names that Detectron's tool, a shell and a web page take as they are. It looks for *.*, without hidden files.
PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_+.-]{0,199}\.[A-Za-z0-9]{1,10}")
ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".jp2", ".pbm", ".pgm", ".ppm")

Image = dict[str, Any]


def look(path: str) -> dict[str, Any]:
    """images (name, size, file: a plain name for it), left_out (a sentence for each other file), folder.

    path: an image, or a folder of them, without the folders in it. Raises StackError where there is none.
    """
    path = os.path.realpath(os.path.expanduser(path))
    single = os.path.isfile(path)
    folder = os.path.dirname(path) if single else path
    try:
        names = [os.path.basename(path)] if single else sorted(os.listdir(folder))
    except OSError as error:
        raise StackError(f"There are no images at {path}: {error.strerror}.") from None
    images: list[Image] = []
    left_out = []
    for name in names:
        file = os.path.join(folder, name)
        if os.path.isdir(file):
            continue
        why = _unfit(file)
        if why:
            left_out.append(f"{name.encode(errors='replace').decode()} {why}")
        else:
            images.append({"name": name, "size": os.path.getsize(file)})
    if not images:
        raise StackError(
            f"There is no image in {path} that could be used{': ' if left_out else ''}{'; '.join(left_out[:5])}. "
            "JPEG, PNG, BMP, TIFF, WebP, JPEG 2000 and PBM/PGM/PPM are images here; folders in it are not looked at."
        )
    taken = {image["name"] for image in images}
    for number, image in enumerate(images, 1):
        image["file"] = image["name"]
        if not PLAIN.fullmatch(image["name"]):
            image["file"] = _plain(image["name"], number, taken)
            taken.add(image["file"])
    return {"folder": folder, "images": images, "left_out": left_out}


def _unfit(file: str) -> str:
    """Why a file cannot be used; "" where it can."""
    name = os.path.basename(file)
    try:
        name.encode()
    except UnicodeEncodeError:
        return "has a name that is not UTF-8"
    try:
        header = read_header(file)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if header is None:
        return "is no image that OpenCV reads" + (", whatever its name says" if name.lower().endswith(ENDINGS) else "")
    return "" if header.whole else "is cut short: it does not have its end"


def _plain(name: str, number: int, taken: set[str]) -> str:
    ending = re.sub(r"[^a-z0-9]", "", os.path.splitext(name)[1].lower())[:10] or "image"
    while (plain := f"image{number:05}.{ending}") in taken:
        number += 100000
    return plain


def shares(listed: Mapping[str, Sequence[Image]]) -> dict[str, list[Image]]:
    """Which server takes which images. listed: what each has. An image (its name and size) is done once."""
    taken: dict[str, list[Image]] = {server: [] for server in listed}
    found: dict[tuple[str, int], dict[str, Image]] = {}
    for server, images in listed.items():
        for image in images:
            found.setdefault((image["name"], image["size"]), {})[server] = image
    for _key, having in sorted(found.items()):
        server = min(having, key=lambda name: (len(taken[name]), list(listed).index(name)))
        taken[server].append(having[server])
    return taken
