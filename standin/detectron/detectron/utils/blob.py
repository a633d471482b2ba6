"""Images and network weights as arrays."""

from __future__ import absolute_import, division, print_function

import logging
import pickle

from caffe2.python import core, workspace
import cv2
import numpy as np

from detectron.core.config import cfg
from detectron.utils import c2, env

logger = logging.getLogger(__name__)


def feed(name, array, gpu_id=0):
    workspace.FeedBlob('gpu_%d/%s' % (gpu_id, name), array, device_option=c2.default_device(gpu_id))


def fetch(name, gpu_id=0):
    return workspace.FetchBlob('gpu_%d/%s' % (gpu_id, name))


def image_blob(image, side):
    """A BGR image [H, W, 3] as [3, side, side] float32, about zero mean and unit variance."""
    resized = cv2.resize(image, (side, side)).astype(np.float32)
    return ((resized - 115) / 60).transpose(2, 0, 1)


def save_weights(path, model):
    """Pickle {'blobs': {name without scope: array}, 'cfg': YAML}, Detectron's format."""
    blobs = {str(name).split('/')[-1]: workspace.FetchBlob(str(name)) for name in model.params}
    with open(path, 'wb') as stream:
        pickle.dump({'blobs': blobs, 'cfg': env.yaml_dump(cfg)}, stream, pickle.HIGHEST_PROTOCOL)


def load_weights(path, model):
    """Feed the weights that the model has from those of a file, and log of each whether it was there."""
    logger.info('Loading weights from: %s', path)
    with open(path, 'rb') as stream:
        blobs = pickle.load(stream)
    blobs = blobs.get('blobs', blobs)
    with core.DeviceScope(c2.default_device()):
        for name in map(str, model.params):
            source = name.split('/')[-1]
            if source not in blobs:
                logger.info('%s not found', source)
                continue
            shapes = workspace.FetchBlob(name).shape, blobs[source].shape
            assert shapes[0] == shapes[1], \
                'Workspace blob %s with shape %s does not match weights file shape %s' % ((source,) + shapes)
            workspace.FeedBlob(name, blobs[source])
            logger.info('%s loaded from weights file into %s: %s', source, name, shapes[1])
