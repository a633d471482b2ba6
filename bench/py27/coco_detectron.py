# -*- coding: utf-8 -*-
"""What Detectron does with datasets: for each of a JSON file's, a line of JSON on what it says at every step.

Runs in the activated 2.7 environment of a stack with Detectron: python coco_detectron.py CASES.json NUMBER
begins with dataset NUMBER, as one may end the process (a malformed mask does).
"""

from __future__ import absolute_import, division, print_function

import json
import os
import resource
import sys
import tempfile

import cv2
import numpy as np
from pycocotools.cocoeval import COCOeval

import detectron.utils.segms as segm_utils
from detectron.core.config import cfg
from detectron.datasets import dataset_catalog, roidb
from detectron.datasets.json_dataset import JsonDataset

MEMORY = 4 << 30  # bytes of address space: an infinite coordinate would take all there is


def attempt(steps, name, function, *arguments):
    """The result of a step, of which the exception is noted; None then."""
    said, sys.stdout = sys.stdout, open(os.devnull, 'w')
    try:
        return function(*arguments)
    except BaseException as error:
        steps.append('%s: %s: %s' % (name, type(error).__name__, ' '.join(map(repr, error.args))[:100]))
    finally:
        sys.stdout = said


def read_images(entries):
    for entry in entries:
        image = cv2.imread(entry['image'])
        if image is None:
            raise ValueError('cv2.imread returns nothing')
        if image.shape[:2] != (entry['height'], entry['width']):
            raise ValueError('image of %d x %d' % (image.shape[1], image.shape[0]))


def train_masks(entries):
    """As detectron/roi_data/mask_rcnn.py does."""
    for entry in entries:
        objects = np.where((entry['gt_classes'] > 0) & (entry['is_crowd'] == 0))[0]
        segm_utils.polys_to_boxes([entry['segms'][index] for index in objects])
        for index in objects:
            segm_utils.polys_to_mask_wrt_box(entry['segms'][index], entry['boxes'][index], 28)


def average_precision(name, kind):
    """What an evaluation gives to detections that are the annotations themselves: 1, if all is well."""
    coco = JsonDataset(name).COCO
    detections = []
    for annotation in coco.dataset['annotations']:
        if not annotation.get('iscrowd') and annotation['image_id'] in coco.imgs:
            detection = {'image_id': annotation['image_id'], 'category_id': annotation['category_id'], 'score': 0.9}
            if kind == 'bbox':
                detection['bbox'] = annotation['bbox']
            else:
                detection['segmentation'] = coco.annToRLE(annotation)
            detections.append(detection)
    with tempfile.NamedTemporaryFile(suffix='.json') as results:
        json.dump(detections, results)
        results.flush()
        evaluation = COCOeval(coco, coco.loadRes(results.name), kind)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation.stats[0]


def look(name):
    """What becomes of a dataset, step by step."""
    steps = []
    dataset = attempt(steps, 'load', JsonDataset, name)
    if dataset is None:
        return steps
    entries = attempt(steps, 'annotations', dataset.get_roidb, True)
    if entries is not None:
        number = len(entries)
        attempt(steps, 'flip', roidb.extend_with_flipped_entries, entries, dataset)
        used = attempt(steps, 'filter', roidb.filter_for_training, entries) or []
        steps.append('trains on %d of %d images, %d boxes' % (
            len(used) // 2, number, sum(len(entry['boxes']) for entry in used) // 2))
        attempt(steps, 'images', read_images, used)
        attempt(steps, 'masks', train_masks, used)
    for kind, title in (('bbox', 'box'), ('segm', 'mask')):
        precision = attempt(steps, title + ' AP', average_precision, name, kind)
        if precision is not None:
            steps.append('%s AP %.2f' % (title, precision))
    return steps


def main():
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    cfg.MODEL.MASK_ON = True
    with open(sys.argv[1]) as stream:
        cases = json.load(stream)
    for number in range(int(sys.argv[2]), len(cases)):
        case = cases[number]
        catalog = dict((str(key), value.encode('utf-8')) for key, value in case['entry'].items())
        dataset_catalog._DATASETS[str(case['name'])] = catalog
        print(json.dumps([number, look(str(case['name']))]))
        sys.stdout.flush()


if __name__ == '__main__':
    main()
