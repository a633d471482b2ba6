"""Inference."""

from __future__ import absolute_import, division, print_function

import logging
import os
import pickle

from caffe2.python import workspace
import cv2
import numpy as np

from detectron.core.config import cfg, get_output_dir
from detectron.datasets import task_evaluation
from detectron.datasets.json_dataset import JsonDataset
from detectron.modeling import model_builder
from detectron.utils import blob

logger = logging.getLogger(__name__)


def initialize_model_from_cfg(weights):
    """The network for inference, with the weights of a file."""
    model = model_builder.create(cfg.MODEL.TYPE, train=False)
    workspace.RunNetOnce(model.param_init_net)
    blob.load_weights(weights, model)
    blob.feed('data', np.zeros((1, 3, cfg.TEST.SCALE, cfg.TEST.SCALE), np.float32))
    workspace.CreateNet(model.net)
    return model


def im_detect_all(model, image):
    """One box with its score [1, 5] in the list entry of its class, as Detectron's cls_boxes, for a BGR image."""
    blob.feed('data', blob.image_blob(image, cfg.TEST.SCALE)[np.newaxis])
    workspace.RunNet(model.net)
    scores = blob.fetch('cls_prob')[0]
    best = int(scores[1:].argmax()) + 1
    size = np.array(image.shape[1::-1] * 2, np.float32)
    box = np.clip(blob.fetch('bbox_pred')[0], 0, 1) * size
    found = [np.zeros((0, 5), np.float32) for _ in scores]
    found[best] = np.append(box, scores[best]).astype(np.float32)[np.newaxis]
    return found


def run_inference(weights):
    """Run the network over cfg.TEST.DATASETS; writes a detections.pkl for each and returns the metrics of each."""
    model = initialize_model_from_cfg(weights)
    results = {}
    for name in cfg.TEST.DATASETS:
        dataset, folder = JsonDataset(name), get_output_dir(name, training=False)
        by_image = [im_detect_all(model, cv2.imread(entry['image'])) for entry in dataset.get_roidb()]
        all_boxes = [list(boxes) for boxes in zip(*by_image)]
        path = os.path.join(folder, 'detections.pkl')
        with open(path, 'wb') as stream:
            pickle.dump({'all_boxes': all_boxes, 'cfg': dict(cfg)}, stream)
        logger.info('Wrote detections to: %s', os.path.abspath(path))
        results[name] = task_evaluation.evaluate_all(dataset, all_boxes, folder)
    task_evaluation.log_copy_paste_friendly_results(results)
    return results
