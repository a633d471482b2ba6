"""Datasets in COCO's JSON format."""

from __future__ import absolute_import, division, print_function

import os

import numpy as np
from pycocotools.coco import COCO

from detectron.datasets import dataset_catalog
from detectron.utils.boxes import xywh_to_xyxy


class JsonDataset(object):
    """A dataset of the catalog; its classes are numbered from 1, in the order of COCO's ids."""

    def __init__(self, name):
        self.name = name
        self.image_directory, annotation_file = dataset_catalog.get(name)
        for path in (self.image_directory, annotation_file):
            if not os.path.exists(path):
                raise IOError('dataset %s: there is no %s' % (name, path))
        self.COCO = COCO(annotation_file)
        ids = sorted(self.COCO.getCatIds())
        self.classes = ['background'] + [category['name'] for category in self.COCO.loadCats(ids)]
        self.class_of_id = {coco_id: index + 1 for index, coco_id in enumerate(ids)}

    def get_roidb(self, gt=False):
        """One dict per image: id, image (path), width, height; with `gt` also boxes [N, 4] and gt_classes [N]."""
        return [self._entry(image, gt) for image in self.COCO.loadImgs(sorted(self.COCO.getImgIds()))]

    def _entry(self, image, gt):
        path = os.path.join(self.image_directory, image['file_name'])
        if not os.path.exists(path):
            raise IOError('dataset %s: there is no image %s' % (self.name, path))
        entry = {'id': image['id'], 'image': path, 'width': image['width'], 'height': image['height']}
        if gt:
            objects = [one for one in self.COCO.loadAnns(self.COCO.getAnnIds(imgIds=image['id']))
                       if not one.get('iscrowd') and one['area'] > 0]
            entry['boxes'] = np.array([xywh_to_xyxy(one['bbox']) for one in objects], np.float32).reshape(-1, 4)
            entry['gt_classes'] = np.array([self.class_of_id[one['category_id']] for one in objects], np.int32)
        return entry
