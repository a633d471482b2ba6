"""The catalogue of what can be wrong with a dataset in COCO's format, each with cause and remedy.

A finding is `stop` when Detectron would break off, often after hours, or learn and measure something else than the
annotation file says; `warn` when it leaves something out, or a person should decide; `info` when it is harmless and
looks as if it were not. What stops only a kind of model says so by `breaks`: "masks" (Mask R-CNN), "mask_evaluation"
(where it is tested on), or "keypoints".
bench/coco_detectron.py shows what Detectron itself does at each.

Runs on servers: Python >= 3.9, standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

SHOWN = 3  # examples that a finding shows
LENGTH = 300  # characters of one, at most


@dataclass(frozen=True)
class Check:
    """One entry of the catalogue. `remedy` is a template over the dataset's `name`, `images` and `annotations`."""

    id: str
    severity: str
    title: str
    cause: str
    remedy: str
    breaks: str = ""


CATALOGUE = (
    # --- The folder that coco_path names -----------------------------------------------------------------------------
    Check(
        "folder_missing",
        "stop",
        "there is no such folder",
        "coco_path names a folder on the server that does not exist there, or may not be read.",
        "Correct coco_path for this server (docs/datasets.md).",
    ),
    Check(
        "nothing_found",
        "stop",
        "no dataset of Detectron's catalogue was found",
        "A dataset needs its folder of images and its annotation file, both below coco_path.",
        "Let coco_path name the folder that holds annotations/ and train2014/ (or coco_train2014/, images/train2014/).",
    ),
    Check(
        "not_unpacked",
        "warn",
        "archives are there that nobody unpacked",
        "COCO comes as zip files; Detectron reads images and annotations from folders.",
        "Unpack them in that folder: unzip -n NAME.zip",
    ),
    Check(
        "half_there",
        "warn",
        "one half of a dataset is there, the other is not",
        "An annotation file without its images is of no use, nor are images without it.",
        "Put the missing half beside it, or ignore this when you do not need that dataset.",
    ),
    Check(
        "minival_missing",
        "warn",
        "the annotation files of minival are not there",
        "Detectron's own configs test on coco_2014_minival and train on coco_2014_valminusminival as well; COCO does "
        "not come with these.",
        "Unpack https://dl.fbaipublicfiles.com/detectron/coco/coco_annotations_minival.tgz into annotations/, or name "
        "coco_2014_val for the test.",
    ),
    # --- The annotation file -----------------------------------------------------------------------------------------
    Check(
        "annotations_missing",
        "stop",
        "the annotation file is not there",
        "Detectron stops at once: Ann fn '...' not found.",
        "Correct the path of {name}, or put the file there: {annotations}",
    ),
    Check(
        "annotations_unreadable",
        "stop",
        "the annotation file may not be read",
        "Its permissions, or those of a folder above it, do not let this login in.",
        "Ask its owner for read permission: chmod a+r {annotations}",
    ),
    Check(
        "annotations_cut",
        "stop",
        "the annotation file was cut short",
        "Its end is missing: a download or a copy broke off, or the disk was full.",
        "Fetch {annotations} again, and compare its size or sum with the source's.",
    ),
    Check(
        "annotations_not_json",
        "stop",
        "the annotation file is not JSON",
        "It may be an archive, an error page that was saved under that name, or edited by hand.",
        "Fetch or write {annotations} again; python3 -m json.tool FILE names the first error.",
    ),
    Check(
        "annotations_shape",
        "stop",
        "the annotation file is not in COCO's format",
        "Detectron reads an object with the lists images, annotations and categories, whose elements are objects.",
        "Convert it: https://cocodataset.org/#format-data describes the format.",
    ),
    # --- Images ------------------------------------------------------------------------------------------------------
    Check(
        "images_folder",
        "stop",
        "the folder of images is not there or may not be read",
        "Detectron stops at once: Im dir '...' not found.",
        "Correct the path of {name}, or its permissions: chmod a+rX {images}",
    ),
    Check(
        "image_fields",
        "stop",
        "images lack what Detectron reads",
        "Each needs an id, a file_name, and its width and height in pixels, positive numbers.",
        "Add them to the images of {annotations}.",
    ),
    Check(
        "image_id_twice",
        "stop",
        "several images have the same id",
        "The last one replaces the others, and gets the annotations of all.",
        "Give each image of {annotations} an id of its own, and its annotations that image_id. Files that were joined "
        "need other ids in the second.",
    ),
    Check(
        "image_file_twice",
        "warn",
        "several images are the same file",
        "It is trained on twice, once with each image's annotations, and as background where the other's objects are.",
        "Keep one of them in {annotations}, with the annotations of both.",
    ),
    Check(
        "image_missing",
        "stop",
        "images are not on disk",
        "Detectron stops, minutes after its start, at the first one: Image '...' not found.",
        "Copy them into {images}, or remove them from {annotations}.",
    ),
    Check(
        "image_names",
        "stop",
        "the files have other names than the annotation file says",
        "The images are there, but under names with another beginning, folder, or ending.",
        "See what would fit, above. The beginning that all names lack is image_prefix, in the entry of {name}.",
    ),
    Check(
        "image_empty",
        "stop",
        "images are empty files",
        "A copy broke off, or the disk was full. cv2.imread returns nothing, and training breaks off at that image.",
        "Copy them again into {images}.",
    ),
    Check(
        "image_unreadable",
        "stop",
        "images may not be read",
        "Their permissions do not let this login in; training breaks off at the first of them.",
        "Ask their owner: chmod -R a+rX {images}",
    ),
    Check(
        "image_size",
        "stop",
        "images have another size than the annotation file says",
        "Boxes and masks are in pixels of the size that the file says: here they lie elsewhere.",
        "Use the images that were annotated, or scale width, height, boxes and polygons in {annotations}.",
    ),
    Check(
        "image_rotated",
        "stop",
        "images are turned by their EXIF data",
        "cv2.imread turns them, so that they lie across the size for which they were annotated.",
        "Remove the orientation without turning the pixels: exiftool -Orientation= -overwrite_original FILES",
    ),
    Check(
        "image_kind",
        "stop",
        "files are no images that OpenCV reads",
        "Their first bytes are those of no image; cv2.imread returns nothing, and training breaks off at that image.",
        "Convert them to JPEG or PNG, or copy them again into {images}.",
    ),
    Check(
        "image_ascii",
        "stop",
        "paths of images have other characters than ASCII",
        "In Python 2.7, cv2.imread stops at them: UnicodeEncodeError: 'ascii' codec can't encode characters.",
        "Rename folders and files, and the file_name in {annotations}; categories may have any name.",
    ),
    Check(
        "image_cut",
        "stop",
        "images were cut short",
        "Their last bytes are missing. OpenCV fills the rest of a JPEG with grey; of a PNG it returns nothing, and "
        "training breaks off at that image.",
        "Copy them again into {images}.",
    ),
    # --- Categories --------------------------------------------------------------------------------------------------
    Check(
        "category_fields",
        "stop",
        "categories lack what Detectron reads",
        "Each needs an id and a name, and there must be one at least.",
        "Add them to the categories of {annotations}.",
    ),
    Check(
        "category_id_twice",
        "stop",
        "several categories have the same id",
        "Detectron counts a class for each, and trains one of them alone.",
        "Give each category of {annotations} an id of its own.",
    ),
    Check(
        "category_name_twice",
        "stop",
        "several categories have the same name",
        "Detections are written by name, so those of one class are evaluated as the other's.",
        "Give each category of {annotations} a name of its own, or merge them.",
    ),
    Check(
        "category_order",
        "warn",
        "the categories are not in the order of their ids",
        "Detectron numbers its classes in the file's order, the evaluation of cocoapi in that of the ids: the average "
        "precision that the log gives to a class is another one's. The mean over all is right.",
        "Sort the categories of {annotations} by id, and those of its other parts likewise.",
    ),
    Check(
        "category_gaps",
        "info",
        "the categories' ids have gaps",
        "Harmless: Detectron numbers its classes from 1 in the file's order, whatever the ids. COCO has gaps too.",
        "Nothing to do.",
    ),
    Check(
        "category_unused",
        "info",
        "categories have no annotation",
        "Harmless: the class is never learned, and its average precision is not counted.",
        "Nothing to do.",
    ),
    Check(
        "classes_differ",
        "stop",
        "two datasets list the same categories in another order",
        "Detectron numbers classes in the file's order: what is trained on one is another class in the other.",
        "Write the categories of both annotation files in the same order.",
    ),
    # --- Annotations -------------------------------------------------------------------------------------------------
    Check(
        "annotations_none",
        "stop",
        "there is no annotation that counts",
        "Detectron leaves out all images without one: nothing is left to train on, and nothing to be evaluated by.",
        "Use an annotation file with annotations; one of a test set has none, and its dataset is named so.",
    ),
    Check(
        "annotation_fields",
        "stop",
        "annotations lack what Detectron reads",
        "It stops with a KeyError where id, image_id, category_id, bbox, area, iscrowd or segmentation is missing, and "
        "with a ValueError where area or iscrowd is no number.",
        "Add them in {annotations}: area is the box's or mask's in pixels, iscrowd is 0, segmentation may be [] where "
        "only boxes are trained.",
    ),
    Check(
        "annotation_id_twice",
        "stop",
        "several annotations have the same id",
        "The last one replaces the others, also in their images.",
        "Number the annotations of {annotations} anew, from 1.",
    ),
    Check(
        "annotation_id",
        "stop",
        "an annotation's id is 0 or no whole number",
        "The evaluation of cocoapi takes id 0 for 'nothing found', so that a hit counts as a false alarm. Other ids "
        "than numbers end it, after all of the testing: ValueError: could not convert string to float.",
        "Number the annotations of {annotations} anew, from 1.",
    ),
    Check(
        "annotation_image",
        "warn",
        "annotations belong to no image",
        "Their image_id is that of no image in the file; Detectron leaves them out.",
        "Remove them, or add their images to {annotations}.",
    ),
    Check(
        "annotation_category",
        "stop",
        "annotations belong to no category",
        "Their category_id is that of no category in the file: Detectron stops with a KeyError.",
        "Add the category to {annotations}, or remove them.",
    ),
    Check(
        "image_without",
        "info",
        "images have no annotation that counts",
        "Harmless: Detectron leaves them out in training. In evaluation, what is found there counts as a false alarm.",
        "Nothing to do.",
    ),
    Check(
        "box_numbers",
        "stop",
        "boxes are not four numbers",
        "A box is [x, y, width, height] in pixels, all of them finite numbers.",
        "Correct them in {annotations}.",
    ),
    Check(
        "box_empty",
        "warn",
        "boxes are empty",
        "They are not wider or not higher than one pixel; Detectron leaves them out in training, not in evaluation.",
        "Remove them from {annotations}, or correct them: a box is [x, y, width, height], not two corners.",
    ),
    Check(
        "box_outside",
        "warn",
        "boxes lie outside of their image",
        "Nothing is left of them inside; Detectron leaves them out in training, not in evaluation.",
        "Correct them in {annotations}: a box is [x, y, width, height] in pixels of the image's own size.",
    ),
    Check(
        "box_beyond",
        "warn",
        "boxes reach beyond their image",
        "By more than a pixel; Detectron cuts them. Many of them mean [x1, y1, x2, y2] instead of [x, y, width, "
        "height], or images of another size.",
        "Look at some of them; correct them in {annotations}.",
    ),
    Check(
        "area_empty",
        "warn",
        "areas are zero or negative",
        "Detectron leaves annotations without an area out in training.",
        "Write the area of the mask, or of the box, in pixels into {annotations}.",
    ),
    Check(
        "mask_shape",
        "stop",
        "masks are not polygons nor RLE",
        "A segmentation is a list of polygons [[x1, y1, x2, y2, ...], ...], all finite numbers, or an object with "
        "counts and size. Detectron stops at another, also when it trains boxes only; an infinite coordinate takes all "
        "of the server's memory.",
        "Correct them in {annotations}; a single polygon needs its second pair of brackets too.",
    ),
    Check(
        "polygon_short",
        "warn",
        "polygons have less than three points",
        "Detectron leaves those out in training.",
        "Remove them from {annotations}, or draw them again.",
    ),
    Check(
        "polygon_two",
        "warn",
        "masks begin with a polygon of two points",
        "cocoapi takes it for a box: testing masks on it ends in TypeError: Argument 'bb' has incorrect type.",
        "Remove those polygons from {annotations}, or draw them again.",
        breaks="mask_evaluation",
    ),
    Check(
        "polygon_odd",
        "warn",
        "polygons have an odd number of coordinates",
        "The last one is ignored, if nothing worse is wrong with the order of x and y.",
        "Correct them in {annotations}.",
    ),
    Check(
        "rle_shape",
        "stop",
        "RLE masks are malformed",
        "counts must add up to the pixels of size, which is [height, width] of the image. cocoapi does not check it, "
        "and reads and writes elsewhere in memory: Segmentation fault, or other masks.",
        "Encode them again, by pycocotools.mask.encode, and write counts as text.",
    ),
    Check(
        "mask_rle",
        "warn",
        "single objects have RLE masks",
        "Detectron trains masks by polygons alone: Mask R-CNN stops with a ValueError. Boxes are not affected.",
        "Convert them to polygons for Mask R-CNN (cv2.findContours on pycocotools.mask.decode).",
        breaks="masks",
    ),
    Check(
        "mask_missing",
        "warn",
        "some objects have no mask, others do",
        "Mask R-CNN stops at the first of them: ValueError: min() arg is an empty sequence. Boxes are not affected.",
        "Draw them, or remove those annotations for Mask R-CNN.",
        breaks="masks",
    ),
    Check(
        "mask_none",
        "info",
        "no object has a mask",
        "Harmless for Faster R-CNN and RetinaNet, which learn boxes. Mask R-CNN cannot be trained on it.",
        "Use a config with MODEL.MASK_ON False.",
        breaks="masks",
    ),
    # --- Keypoints ---------------------------------------------------------------------------------------------------
    Check(
        "keypoints_missing",
        "stop",
        "the name says keypoints, the file has none",
        "Detectron takes keypoints from a category named person that lists them.",
        "Use the file with keypoints (person_keypoints_*.json), or another name than {name}.",
        breaks="keypoints",
    ),
    Check(
        "keypoints_count",
        "stop",
        "annotations have another number of keypoints than their category",
        "Where the category person lists keypoints, each annotation needs x, y and visibility of them all: Detectron "
        "stops at another.",
        "Correct them in {annotations}; zeros for those that are not labelled.",
        breaks="keypoints",
    ),
    # --- Names, and datasets side by side ----------------------------------------------------------------------------
    Check(
        "name_evaluator",
        "info",
        "Detectron finds no evaluator by the name",
        "It chooses one by name, and for one without coco_ must be told which: else testing ends, after hours, in "
        "NotImplementedError: No evaluator for dataset.",
        "Nothing to do for playbooks/train.yml, which sets TEST.FORCE_JSON_DATASET_EVAL True in the config. By hand, "
        "set it, or name the dataset with coco_ (coco_{name}).",
    ),
    Check(
        "name_test",
        "warn",
        "Detectron does not evaluate what is named test",
        "It takes a name with test in it for a set whose annotations are secret, and skips the evaluation.",
        "Give it a name without test.",
    ),
    Check(
        "overlap",
        "warn",
        "the same images are trained on and tested on",
        "What is measured on them says nothing about others.",
        "Remove them from one of the two annotation files.",
    ),
)

# What COCO's own files have here and there, as published: Detectron has always been trained on that, and nobody is to
# correct it. There these are `info`.
PUBLISHED = frozenset(
    {
        *("image_rotated", "image_cut", "annotation_image", "box_empty", "box_outside", "box_beyond", "area_empty"),
        *("polygon_short", "polygon_two", "polygon_odd"),
    }
)

BY_ID = {check.id: check for check in CATALOGUE}


@dataclass
class Findings:
    """Collects what is wrong with one dataset; a finding is a check with a count and its first examples."""

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, check: str, example: str) -> None:
        """Another thing to which `check` applies."""
        count = self.counts[check] = self.counts.get(check, 0) + 1
        if count <= SHOWN:
            # A file may hold half of a pair of surrogates, which nothing can print.
            self.examples.setdefault(check, []).append(example[:LENGTH].encode("utf-8", "backslashreplace").decode())

    def result(self, published: bool = False, **names: str) -> list[dict[str, Any]]:
        """[{id, severity, breaks, title, what, cause, remedy, count, examples}], in the order of the catalogue.

        `published`: of a dataset that is everybody's. `names`: what the remedies' templates want.
        """
        found = []
        for check in CATALOGUE:
            if count := self.counts.get(check.id, 0):
                examples = self.examples[check.id]
                what = "; ".join(examples) + (f"; and {count - len(examples):,} more" if count > len(examples) else "")
                found.append(
                    {
                        "id": check.id,
                        "severity": "info" if published and check.id in PUBLISHED else check.severity,
                        "breaks": check.breaks,
                        "title": check.title,
                        "what": what,
                        "cause": check.cause,
                        "remedy": check.remedy.format_map(names),
                        "count": count,
                        "examples": examples,
                    }
                )
        return found
