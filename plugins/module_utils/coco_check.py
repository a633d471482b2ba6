"""Checks a dataset in COCO's format as Detectron will read it, without Detectron and without a package.

Runs on servers: Python >= 3.9, standard library only.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from math import isfinite
from operator import itemgetter
from typing import Any

from ansible.module_utils.coco_findings import Findings
from ansible.module_utils.coco_json import JsonStream, Unreadable, name_of
from ansible.module_utils.coco_layout import Source
from ansible.module_utils.image_header import Header, read_header
from ansible.module_utils.stack_installs import digest

CHECKS = 3  # raised when a check is added or judges otherwise: what was checked before is checked again

SAMPLE = 100  # images whose headers are read
THREADS = 16  # which ask the file server for the sizes of images at the same time
FOLDERS = 2000  # of images, whose times are remembered
FIELDS = ("id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation")
COCO_BEGINNING = re.compile(r"COCO_(train|val|test)\d{4}_")

Report = dict[str, Any]


@dataclass
class Checked:
    """A dataset's report, and what is needed to compare it with others: bytes of each image by its name."""

    report: Report
    files: dict[str, int] = field(default_factory=dict)


def fingerprint(report: Report) -> str:
    """12 hex digits that tell a dataset's content: the annotation file's sum, number and bytes of its images."""
    return str(digest(report["fingerprint"]))


def fingerprints(names: Iterable[str], reports: Mapping[str, Report]) -> dict[str, str]:
    """The fingerprint of each dataset; "" for one that was not checked."""
    return {name: fingerprint(reports[name]) if reports.get(name, {}).get("fingerprint") else "" for name in names}


def key(source: Source, folders: Iterable[str] = ("",)) -> dict[str, Any]:
    """What must be as it was for a report to hold: of the annotation file and the images' folders, by stat."""

    def state(path: str) -> list[int]:
        try:
            info = os.stat(path)
        except (OSError, ValueError):
            return []
        return [info.st_mtime_ns, 0 if stat.S_ISDIR(info.st_mode) else info.st_size]

    return {
        "checks": CHECKS,
        "entry": source.entry(),
        "annotations": state(source.annotations),
        "folders": {folder: state(os.path.join(source.images, folder)) for folder in folders},
    }


def holds(report: Report, source: Source) -> bool:
    """Whether a report of an earlier run is still that of `source`."""
    known = report.get("key", {})
    return bool(known) and bool(known == key(source, known.get("folders", {})))


class Checker:
    """Reads one annotation file, element by element, and then looks at its images."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.findings = Findings()
        self.sizes: dict[Any, tuple[float, float]] = {}  # width and height by image id
        self.names: list[str] = []  # the images' files, in the file's order
        self.expected: list[tuple[float, float]] = []  # their sizes
        self.categories: list[dict[str, Any]] = []
        self.ids: set[Any] = set()  # of annotations
        self.used: set[Any] = set()  # images with an annotation that counts
        self.of_category: dict[Any, tuple[int, Any]] = {}  # number of annotations and the first of them
        self.of_keypoints: dict[int, tuple[int, Any]] = {}  # likewise by number of keypoints; -1: none
        self.waiting: list[tuple[Any, ...]] = []  # annotations that come before the images
        self.unmasked: list[Any] = []  # the first objects without a mask
        self.number = {"annotations": 0, "crowd": 0, "masks": 0, "unmasked": 0, "keypoints": 0}
        self.listed = 0  # images, also those without an id
        self.sha256 = ""

    def check(self) -> Checked:
        """The dataset's report."""
        began = time.monotonic()
        files: dict[str, int] = {}
        size = 0
        if self.read():
            size = os.stat(self.source.annotations).st_size
            self.judge_categories()
            self.judge_annotations()
            self.judge_name()
            files = self.look_at_images()
        elif not os.path.isdir(self.source.images):
            self.findings.add("images_folder", self.source.images)
        folders = sorted({os.path.dirname(self.source.prefix + name) for name in self.names} | {""})
        report = {
            "name": self.source.name,
            **self.source.entry(),
            "counts": {
                "images": self.listed,
                "annotations": self.number["annotations"],
                "categories": len(self.categories),
                "crowd": self.number["crowd"],
                "masks": self.number["masks"],
                "keypoints": self.number["keypoints"],
            },
            "classes": len(self.categories) + 1,
            "class_names": [str(category.get("name", "")) for category in self.categories],
            "bytes": {"annotations": size, "images": sum(files.values())},
            "fingerprint": {
                "annotations_sha256": self.sha256,
                "images": len(files),
                "images_bytes": sum(files.values()),
            },
            "seconds": round(time.monotonic() - began, 1),
            "key": key(self.source, folders[:FOLDERS]),
            "findings": self.findings.result(
                published=not self.source.own,
                name=self.source.name,
                images=self.source.images,
                annotations=self.source.annotations,
            ),
        }
        return Checked(report, files)

    # --- The annotation file -----------------------------------------------------------------------------------------

    def read(self) -> bool:
        """Read the annotation file; returns whether it is one of COCO's format."""
        readers = {"images": self.image, "annotations": self.annotation, "categories": self.categories.append}
        try:
            with open(self.source.annotations, "rb") as stream:
                members = JsonStream(stream, frozenset(readers))
                for name, element in members:
                    reader = readers.get(name)
                    if reader and members.kinds[name] == "a list":
                        if not isinstance(element, dict):
                            raise Unreadable("shape", f"{name} holds {name_of(element)}")
                        reader(element)
                self.sha256 = members.sha256
        except FileNotFoundError:
            self.findings.add("annotations_missing", self.source.annotations)
        except OSError as error:
            self.findings.add("annotations_unreadable", f"{self.source.annotations}: {error.strerror}")
        except Unreadable as error:
            self.findings.add(
                {"cut": "annotations_cut", "json": "annotations_not_json"}.get(error.kind, "annotations_shape"),
                f"{self.source.annotations}: {error.what}",
            )
        else:
            wanted = ["images", "categories"] + ([] if "test" in self.source.name else ["annotations"])
            for name in wanted:
                if members.kinds.get(name) != "a list":
                    self.findings.add("annotations_shape", f"{name} is {members.kinds.get(name, 'not there')}")
            return "annotations_shape" not in self.findings.counts
        return False

    def image(self, image: dict[str, Any]) -> None:
        """Take in one image."""
        self.listed += 1
        ident, name = image.get("id"), image.get("file_name")
        width: Any = image.get("width")
        height: Any = image.get("height")
        numbers = is_finite(width) and is_finite(height) and width > 0 and height > 0
        if not isinstance(ident, (int, str)) or not isinstance(name, str) or not name or not numbers:
            shown = ", ".join(f"{key}: {image.get(key)!r}" for key in ("id", "file_name", "width", "height"))
            self.findings.add("image_fields", shown)
        else:
            if ident in self.sizes:
                self.findings.add("image_id_twice", f"{ident} ({name})")
            self.sizes[ident] = (width, height)
            self.names.append(name)
            self.expected.append(self.sizes[ident])

    def annotation(self, annotation: dict[str, Any]) -> None:
        """Take in one annotation; there are hundreds of thousands of them."""
        self.number["annotations"] += 1
        try:
            ident, image, category, box, area, crowd, mask = itemgetter(*FIELDS)(annotation)
        except KeyError as error:
            self.findings.add("annotation_fields", f"annotation {annotation.get('id', '?')} has no {error.args[0]}")
            return
        sound = isinstance(image, (int, str)) and isinstance(category, (int, str)) and crowd in (0, 1)
        if not sound or not is_finite(area):
            self.findings.add(
                "annotation_fields",
                f"annotation {ident} has image_id {image!r:.40}, category_id {category!r:.40}, iscrowd {crowd!r:.40}, "
                f"area {area!r:.40}",
            )
            return
        if type(ident) is not int or not ident:
            self.findings.add("annotation_id", f"id {ident!r}")
        elif ident in self.ids:
            self.findings.add("annotation_id_twice", str(ident))
        else:
            self.ids.add(ident)
        count, example = self.of_category.get(category, (0, ident))
        self.of_category[category] = (count + 1, example)
        self.keypoints(annotation, ident)
        self.number["crowd"] += crowd
        rle_size = self.mask(mask, ident, crowd)
        try:
            x, y, width, height = box
            usable = isfinite(x + y + width + height)
        except (TypeError, ValueError, OverflowError):
            usable = False
        if not usable:
            self.findings.add("box_numbers", f"annotation {ident} has {box!r:.80}")
            return
        if area <= 0:
            self.findings.add("area_empty", f"annotation {ident} has {area}")
        place = (ident, image, x, y, width, height, area > 0, rle_size)
        if self.sizes:
            self.place(*place)
        else:
            self.waiting.append(place)

    def place(
        self, ident: Any, image: Any, x: float, y: float, width: float, height: float, some: bool, rle_size: Any
    ) -> None:
        """Compare one annotation with its image, as JsonDataset does when it cleans the boxes."""
        size = self.sizes.get(image)
        if size is None:
            self.findings.add("annotation_image", f"annotation {ident} has image_id {image!r}")
            return
        last_x, last_y = size[0] - 1, size[1] - 1
        left, right = min(max(x, 0), last_x), min(max(x + max(0, width - 1), 0), last_x)
        top, bottom = min(max(y, 0), last_y), min(max(y + max(0, height - 1), 0), last_y)
        if width <= 1 or height <= 1:
            self.findings.add("box_empty", f"annotation {ident} has {[x, y, width, height]}")
        elif right <= left or bottom <= top:
            self.findings.add("box_outside", self.beyond(ident, x, y, width, height, size))
        else:
            if x < -1 or y < -1 or x + width > size[0] + 1 or y + height > size[1] + 1:
                self.findings.add("box_beyond", self.beyond(ident, x, y, width, height, size))
            if some:
                self.used.add(image)
        if rle_size is not None and rle_size != [size[1], size[0]]:
            self.findings.add(
                "rle_shape", f"annotation {ident} has size {rle_size}, its image {[size[1], size[0]]} (height, width)"
            )

    @staticmethod
    def beyond(ident: Any, x: float, y: float, width: float, height: float, size: tuple[float, float]) -> str:
        return f"annotation {ident} has {[x, y, width, height]} in an image of {size[0]} x {size[1]}"

    def mask(self, mask: Any, ident: Any, crowd: int) -> Any:
        """Judge one segmentation; returns the size in an RLE mask, else None."""
        usable, size = False, None
        if type(mask) is list:
            for place, polygon in enumerate(mask):
                try:
                    # The sum of a list of finite numbers, and of nothing else, is a finite number.
                    sound = type(polygon) is list and isfinite(sum(polygon))
                except (TypeError, OverflowError):
                    sound = False
                if not sound:
                    self.findings.add("mask_shape", f"annotation {ident} has {mask!r:.60}")
                    usable = True
                    break
                if len(polygon) < 6:
                    check = "polygon_short" if place or len(polygon) != 4 else "polygon_two"
                    self.findings.add(check, f"annotation {ident} has {polygon}")
                    continue
                elif len(polygon) % 2:
                    self.findings.add("polygon_odd", f"annotation {ident} has {len(polygon)}")
                usable = True
        elif type(mask) is dict:
            usable, size = True, mask.get("size")
            wrong = rle_problem(mask)
            if wrong:
                self.findings.add("rle_shape", f"annotation {ident}: {wrong}")
                size = None
            elif not crowd:
                self.findings.add("mask_rle", f"annotation {ident}")
        else:
            self.findings.add("mask_shape", f"annotation {ident} has {mask!r:.60}")
            usable = True
        if usable:
            self.number["masks"] += 1
        elif not crowd:
            self.number["unmasked"] += 1
            if len(self.unmasked) < 3:
                self.unmasked.append(ident)
        return size

    def keypoints(self, annotation: dict[str, Any], ident: Any) -> None:
        """Count keypoints; whether they are wanted, the categories tell, which come last in COCO's files."""
        keypoints = annotation.get("keypoints")
        length = len(keypoints) if isinstance(keypoints, list) else -1
        if length > 0:
            self.number["keypoints"] += 1
        count, example = self.of_keypoints.get(length, (0, ident))
        self.of_keypoints[length] = (count + 1, example)

    # --- What only the whole file tells -------------------------------------------------------------------------------

    def judge_categories(self) -> None:
        """Categories, and annotations by category."""
        ids: list[Any] = []
        names: list[str] = []
        for category in self.categories:
            ident, name = category.get("id"), category.get("name")
            if not isinstance(ident, (int, str)) or not isinstance(name, str) or not name:
                self.findings.add("category_fields", f"id: {ident!r}, name: {name!r}")
                continue
            if ident in ids:
                self.findings.add("category_id_twice", f"{ident} ({name})")
            if name in names:
                self.findings.add("category_name_twice", name)
            ids.append(ident)
            names.append(name)
        if not self.categories:
            self.findings.add("category_fields", "the list is empty")
        for ident, (count, example) in self.of_category.items():
            if ident not in ids:
                self.findings.add(
                    "annotation_category", f"category_id {ident!r} of {count:,} annotations, first annotation {example}"
                )
        in_order = [ident for ident in ids if isinstance(ident, int)]
        numbers = sorted(set(in_order))
        for before, ident in zip(in_order, in_order[1:]):
            if ident < before:
                self.findings.add("category_order", f"{ident} comes after {before}")
        gaps = [number for before, number in zip(numbers, numbers[1:]) if number != before + 1]
        if gaps:
            self.findings.add("category_gaps", f"{len(numbers)} ids from {numbers[0]} to {numbers[-1]}")
        if self.number["annotations"]:
            for ident, name in zip(ids, names):
                if ident not in self.of_category:
                    self.findings.add("category_unused", name)
        for category in self.categories:
            points = category.get("keypoints")
            if category.get("name") == "person" and isinstance(points, list):
                self.judge_keypoints(3 * len(points))
                break
        else:
            if self.source.name.startswith("keypoints_") and "test" not in self.source.name:
                self.findings.add(
                    "keypoints_missing", f"{self.source.annotations} has no category person with keypoints"
                )

    def judge_keypoints(self, wanted: int) -> None:
        for length, (count, example) in self.of_keypoints.items():
            if length != wanted:
                has = "no keypoints" if length < 0 else f"{length} numbers"
                self.findings.add(
                    "keypoints_count", f"{has} instead of {wanted} in {count:,} annotations, first annotation {example}"
                )

    def judge_annotations(self) -> None:
        """What is to be compared with images that came later, and masks as a whole."""
        for waiting in self.waiting:
            self.place(*waiting)
        self.waiting.clear()
        if not self.number["annotations"]:
            if "test" not in self.source.name:
                self.findings.add("annotations_none", f"{self.listed:,} images")
            return
        without = len(self.sizes) - len(self.used)
        if not self.used and "test" not in self.source.name:
            self.findings.add("annotations_none", f"none of {self.number['annotations']:,} counts")
        elif without:
            self.findings.add("image_without", f"{without:,} of {len(self.sizes):,} images")
        if self.number["unmasked"]:
            shown = f"{self.number['unmasked']:,} annotations, first {', '.join(map(str, self.unmasked))}"
            self.findings.add("mask_missing" if self.number["masks"] else "mask_none", shown)

    def judge_name(self) -> None:
        """What Detectron makes of a name."""
        name = self.source.name
        if self.source.own and "coco_" not in name:
            self.findings.add("name_evaluator", name)
        if "test" in name and self.number["annotations"]:
            self.findings.add("name_test", f"{name} has {self.number['annotations']:,} annotations")

    # --- Images -------------------------------------------------------------------------------------------------------

    def look_at_images(self) -> dict[str, int]:
        """Bytes by file name of the images that are there."""
        names = [self.source.prefix + name for name in self.names]
        try:
            there = set(os.listdir(self.source.images))
        except OSError as error:
            self.findings.add("images_folder", f"{self.source.images}: {error.strerror}")
            return {}
        if not self.source.images.isascii():
            self.findings.add("image_ascii", self.source.images)
        seen: set[str] = set()
        for name in names:
            if not name.isascii():
                self.findings.add("image_ascii", name)
            if name in seen:
                self.findings.add("image_file_twice", name)
            seen.add(name)
        files: dict[str, int] = {}
        missing = []
        for name, info in zip(names, stats(self.source.images, names)):
            if info is None or not stat.S_ISREG(info.st_mode):
                missing.append(name)
                continue
            files[name] = info.st_size
            if not info.st_size:
                self.findings.add("image_empty", name)
            elif not readable(os.path.join(self.source.images, name), info):
                self.findings.add("image_unreadable", name)
        self.judge_missing(missing, there)
        self.look_into([(name, size) for name, size in zip(names, self.expected) if files.get(name)])
        return files

    def judge_missing(self, missing: list[str], there: set[str]) -> None:
        """Name what the missing images would be called, where that can be told."""
        other = renamed(missing, there, self.source) if missing else ""
        if other:
            self.findings.add("image_names", f"{len(missing):,} such as {missing[0]}: {other}")
        else:
            for name in missing:
                self.findings.add("image_missing", name)

    def look_into(self, images: list[tuple[str, tuple[float, float]]]) -> None:
        """Read the headers of some images, spread over all."""
        step = max(1, len(images) // SAMPLE)
        for name, size in images[::step][:SAMPLE]:
            try:
                header = read_header(os.path.join(self.source.images, name))
            except OSError:
                continue  # said before
            if header is None:
                self.findings.add("image_kind", name)
            else:
                self.judge_header(name, size, header)

    def judge_header(self, name: str, size: tuple[float, float], header: Header) -> None:
        if header.width and header.seen != size:
            turned = (header.width, header.height) == size
            shown = f"{name} is {header.seen[0]} x {header.seen[1]}, not {size[0]} x {size[1]}"
            self.findings.add("image_rotated" if turned else "image_size", shown)
        if not header.whole:
            self.findings.add("image_cut", name)


# --- Helpers ----------------------------------------------------------------------------------------------------------


def is_finite(value: Any) -> bool:
    """Whether a JSON value is a number that a computer's can be."""
    try:
        return isinstance(value, (int, float)) and isfinite(value)
    except OverflowError:
        return False


def rle_problem(mask: dict[str, Any]) -> str:
    """What is wrong with an RLE mask; "" when nothing is."""
    size, counts = mask.get("size"), mask.get("counts")
    if not (isinstance(size, list) and len(size) == 2 and all(type(edge) is int and edge > 0 for edge in size)):
        return f"size is {size!r:.40}, not [height, width]"
    if isinstance(counts, str):
        runs = rle_runs(counts)
    elif isinstance(counts, list) and all(type(run) is int for run in counts):
        runs = counts
    else:
        runs = None
    if not runs or min(runs) < 0:
        return f"counts is {counts!r:.40}"
    if sum(runs) != size[0] * size[1]:
        return f"counts add up to {sum(runs):,} pixels, {size[0]} x {size[1]} are {size[0] * size[1]:,}"
    return ""


def rle_runs(counts: str) -> list[int] | None:
    """The runs of a compressed RLE mask (cocoapi's rleFrString); None for a text that is none.

    Six bits per character: five of the number, lowest first, and one that says that it goes on; the last of the five
    is the sign. From the fourth run on, the difference to the run before the last is written.
    """
    runs: list[int] = []
    value = shift = 0
    for character in counts:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            return None
        value |= (bits & 0x1F) << shift
        shift += 5
        if not bits & 0x20:
            if bits & 0x10:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return None if shift else runs


def stats(folder: str, names: Sequence[str]) -> Iterator[os.stat_result | None]:
    """For each name its stat, or None where there is no such file. On NFS each may cost a question to the server."""

    def some(part: Sequence[str]) -> list[os.stat_result | None]:
        found: list[os.stat_result | None] = []
        for name in part:
            try:
                found.append(os.stat(os.path.join(folder, name)))
            except (OSError, ValueError):  # what no path can be, such as one with a null
                found.append(None)
        return found

    with ThreadPoolExecutor(THREADS) as pool:
        for part in pool.map(some, [names[start : start + 500] for start in range(0, len(names), 500)]):
            yield from part


def readable(path: str, info: os.stat_result) -> bool:
    """Whether this login may read a file. Its mode nearly always tells, which costs no further question."""
    return bool(info.st_mode & stat.S_IROTH) or os.access(path, os.R_OK)


def renamed(missing: Sequence[str], there: set[str], source: Source) -> str:
    """Under which other names most of the missing images are there; "" when they are not."""
    some = missing[:: max(1, len(missing) // 200)][:200]
    stems = {os.path.splitext(name)[0]: name for name in there}

    def most(rename: Callable[[str], str]) -> bool:
        return 2 * sum(rename(name) != name and rename(name) in there for name in some) > len(some)

    longer = next((name for name in there if name.endswith(some[0]) and name != some[0]), "")
    beginning = longer[: len(longer) - len(some[0])]
    if most(lambda name: beginning + name):
        return f"with the prefix {beginning} they are there"
    if most(lambda name: name[len(source.prefix) :]):
        return f"without the prefix {source.prefix} they are there"
    if most(os.path.basename):
        return f"without the folder {os.path.dirname(some[0])} they are there"
    if most(lambda name: COCO_BEGINNING.sub("", name)):
        return "without their beginning COCO_..._ they are there; image_prefix can only add one, not remove it"
    if most(lambda name: stems.get(os.path.splitext(name)[0], "")):
        ending = next(
            os.path.splitext(stems[stem])[1] for stem in (os.path.splitext(name)[0] for name in some) if stem in stems
        )
        return f"with the ending {ending} they are there"
    for below in sorted(there)[:50]:
        if os.path.exists(os.path.join(source.images, below, some[0])):
            return f"in the folder {os.path.join(source.images, below)} they are there"
    return ""
