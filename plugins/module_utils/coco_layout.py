"""Where people keep COCO, and under which names Detectron knows it.

Runs on servers: Python >= 3.9, standard library only.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ansible.module_utils.coco_findings import Findings
from ansible.module_utils.stack_installs import StackError

# By the name of Detectron's catalogue (detectron/datasets/dataset_catalog.py): images, annotation file. The two sets of
# 2017 that it lacks have the names that it would give them.
KNOWN = {
    "coco_2014_train": ("train2014", "instances_train2014.json"),
    "coco_2014_val": ("val2014", "instances_val2014.json"),
    "coco_2014_minival": ("val2014", "instances_minival2014.json"),
    "coco_2014_valminusminival": ("val2014", "instances_valminusminival2014.json"),
    "coco_2015_test": ("test2015", "image_info_test2015.json"),
    "coco_2015_test-dev": ("test2015", "image_info_test-dev2015.json"),
    "coco_2017_train": ("train2017", "instances_train2017.json"),
    "coco_2017_val": ("val2017", "instances_val2017.json"),
    "coco_2017_test": ("test2017", "image_info_test2017.json"),
    "coco_2017_test-dev": ("test2017", "image_info_test-dev2017.json"),
    "coco_stuff_train": ("train2014", "coco_stuff_train.json"),
    "coco_stuff_val": ("val2014", "coco_stuff_val.json"),
    "keypoints_coco_2014_train": ("train2014", "person_keypoints_train2014.json"),
    "keypoints_coco_2014_val": ("val2014", "person_keypoints_val2014.json"),
    "keypoints_coco_2014_minival": ("val2014", "person_keypoints_minival2014.json"),
    "keypoints_coco_2014_valminusminival": ("val2014", "person_keypoints_valminusminival2014.json"),
    "keypoints_coco_2015_test": ("test2015", "image_info_test2015.json"),
    "keypoints_coco_2015_test-dev": ("test2015", "image_info_test-dev2015.json"),
    "keypoints_coco_2017_train": ("train2017", "person_keypoints_train2017.json"),
    "keypoints_coco_2017_val": ("val2017", "person_keypoints_val2017.json"),
}
# Detectron's own naming first; the second is what `unzip -d train2014 train2014.zip` leaves.
IMAGES = ("coco_{0}", "{0}/{0}", "{0}", "images/coco_{0}", "images/{0}")
ANNOTATIONS = ("annotations/{0}", "{0}", "annotations/*/{0}", "*/{0}", "*/annotations/{0}")
# The images of 2017's test sets are those of 2015, which have another beginning.
TEST_2017 = ("test2017", "test2015", "COCO_test2015_")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")


@dataclass(frozen=True)
class Source:
    """A dataset to be checked; paths are absolute."""

    name: str
    images: str
    annotations: str
    prefix: str
    own: bool  # a person's own, from the inventory

    def entry(self) -> dict[str, str]:
        """As Detectron's catalogue has it."""
        return {
            "image_directory": self.images,
            "annotation_file": self.annotations,
            "image_prefix": self.prefix,
        }


def first(path: str, patterns: tuple[str, ...], name: str, folder: bool) -> str:
    """The first of `patterns` below `path` that exists; "" where none does."""
    for pattern in patterns:
        for found in sorted(glob.glob(os.path.join(glob.escape(path), pattern.format(glob.escape(name))))):
            if os.path.isdir(found) == folder:
                return found
    return ""


def find(path: str) -> tuple[list[Source], Findings]:
    """The datasets of Detectron's catalogue below `path`, and what is wrong with the folder itself."""
    findings = Findings()
    try:
        names = os.listdir(path)
    except OSError as error:
        findings.add("folder_missing", f"{path}: {error.strerror}")
        return [], findings
    splits = {split: first(path, IMAGES, split, True) for split in dict(KNOWN.values())}
    sources = []
    lonely: dict[str, str] = {}  # annotation files without images, by the images' name
    for name, (split, file) in KNOWN.items():
        annotations, images, prefix = first(path, ANNOTATIONS, file, False), splits[split], ""
        if split == TEST_2017[0] and not images:
            images, prefix = splits[TEST_2017[1]], TEST_2017[2]
        if images and annotations:
            sources.append(Source(name, images, annotations, prefix, own=False))
        elif annotations:
            lonely.setdefault(split, annotations)
    archives = sorted(
        name for name in [*names, *_listed(path, "images"), *_listed(path, "annotations")] if _archive(name)
    )
    for archive in archives:
        split = os.path.basename(archive).partition(".")[0]
        if not splits.get(split) and not (split.startswith("annotations") and sources):
            findings.add("not_unpacked", os.path.join(path, archive))
    used = {source.images for source in sources}
    for split, images in splits.items():
        if images and images not in used:
            findings.add("half_there", f"{images} without its annotation file")
        elif not images and split in lonely and f"{split}.zip" not in archives:
            findings.add("half_there", f"{lonely[split]} without the images {split}")
    found = {source.name for source in sources}
    if "coco_2014_val" in found and "coco_2014_minival" not in found:
        findings.add("minival_missing", f"instances_minival2014.json is not below {path}")
    if not sources:
        seen = ", ".join(sorted(names)[:8]) + (", ..." if len(names) > 8 else "")
        findings.add("nothing_found", f"{path} holds {seen or 'nothing'}")
    return sources, findings


def _listed(path: str, folder: str) -> list[str]:
    try:
        return [f"{folder}/{name}" for name in os.listdir(os.path.join(path, folder))]
    except OSError:
        return []


def _archive(name: str) -> bool:
    return (
        re.fullmatch(
            r"((train|val|test)20\d\d|(coco_)?annotations\w*|\w*minival\w*)\.(zip|tgz|tar\.gz)", os.path.basename(name)
        )
        is not None
    )


def own(datasets: list[Mapping[str, Any]]) -> list[Source]:
    """A person's own datasets: [{name, images, annotations, prefix}]. Raises StackError for what cannot be one."""
    sources = {}
    for given in datasets:
        unknown = given.keys() - {"name", "images", "annotations", "prefix"}
        missing = {"name", "images", "annotations"} - {
            key for key, value in given.items() if isinstance(value, str) and value
        }
        if unknown or missing:
            wrong = f"lacks {' and '.join(sorted(missing))}" if missing else f"has {' and '.join(sorted(unknown))}"
            raise StackError(
                f"An entry of coco_datasets {wrong}: {dict(given)}. Each has name, images and annotations (full paths "
                "on the server), and perhaps prefix."
            )
        name = given["name"]
        if not NAME.fullmatch(name):
            raise StackError(
                f"{name!r} in coco_datasets cannot name a dataset: Detectron makes folders of it, and joins several by "
                "colons. Use letters, digits, and _ . + -"
            )
        if name in sources:
            raise StackError(f"coco_datasets has two entries named {name}. Give each a name of its own.")
        paths = {key: os.path.expanduser(os.path.expandvars(given[key])) for key in ("images", "annotations")}
        for key, path in paths.items():
            if not os.path.isabs(path):
                raise StackError(f"{key} of {name} in coco_datasets is {path!r}: write the full path on the server.")
        sources[name] = Source(
            name,
            os.path.normpath(paths["images"]),
            os.path.normpath(paths["annotations"]),
            str(given.get("prefix") or ""),
            own=True,
        )
    return list(sources.values())
