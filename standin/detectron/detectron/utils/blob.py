"""Images and network weights as arrays."""

from __future__ import absolute_import, division, print_function

import pickle

from caffe2.python import core, workspace
import cv2
import numpy as np

from detectron.core.config import cfg
from detectron.utils import c2, env


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
    """Feed the weights that the model has and the file holds in the same shape; returns how many."""
    with open(path, 'rb') as stream:
        blobs = pickle.load(stream)['blobs']
    fed = 0
    with core.DeviceScope(c2.default_device()):
        for name in map(str, model.params):
            value = blobs.get(name.split('/')[-1])
            if value is not None and value.shape == workspace.FetchBlob(name).shape:
                workspace.FeedBlob(name, value)
                fed += 1
    return fed
