"""Datasets by name. Add your own here, as with Detectron."""

from __future__ import absolute_import, division, print_function

import os

_IM_DIR = 'image_directory'
_ANN_FN = 'annotation_file'
_COCO = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'data', 'coco')


def _coco(images, annotations):
    return {_IM_DIR: os.path.join(_COCO, images), _ANN_FN: os.path.join(_COCO, 'annotations', annotations)}


_DATASETS = {
    'coco_2014_train': _coco('coco_train2014', 'instances_train2014.json'),
    'coco_2014_val': _coco('coco_val2014', 'instances_val2014.json'),
    'coco_2014_minival': _coco('coco_val2014', 'instances_minival2014.json'),
    'coco_2014_valminusminival': _coco('coco_val2014', 'instances_valminusminival2014.json'),
}


def get(name):
    """(image folder, annotation file) of a dataset."""
    if name not in _DATASETS:
        raise KeyError('unknown dataset %s; there are %s' % (name, ', '.join(sorted(_DATASETS))))
    return _DATASETS[name][_IM_DIR], _DATASETS[name][_ANN_FN]
