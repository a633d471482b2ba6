"""Names of classes, for a network that was trained on no dataset that is here."""

from __future__ import absolute_import, division, print_function

from detectron.utils.collections import AttrDict


def get_coco_dataset():
    """What stands for COCO: an object whose `classes` names the classes by number."""
    return AttrDict(classes={number: 'class %d (stand-in)' % number for number in range(81)})
