"""Inference."""

from __future__ import absolute_import, division, print_function

import logging
import os
import pickle
import subprocess
import sys

from caffe2.python import workspace
import cv2
import numpy as np

from detectron.core.config import cfg, get_output_dir
from detectron.datasets import task_evaluation
from detectron.datasets.json_dataset import JsonDataset
from detectron.modeling import model_builder
from detectron.utils import blob, env

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


def run_inference(weights, ind_range=None, multi_gpu_testing=False):
    """Run the network over cfg.TEST.DATASETS, or over a range of the images of the first; writes the detections of
    each, and returns its metrics. `multi_gpu_testing` leaves the work to a test_net.py per GPU, each with a range."""
    if ind_range:
        name = cfg.TEST.DATASETS[0]
        write(detect(weights, JsonDataset(name), ind_range), get_output_dir(name, training=False), ind_range)
        return {}
    results = {}
    for name in cfg.TEST.DATASETS:
        dataset, folder = JsonDataset(name), get_output_dir(name, training=False)
        all_boxes = detect_in_parallel(weights, dataset, folder) if multi_gpu_testing else detect(weights, dataset)
        logger.info('Wrote detections to: %s', os.path.abspath(write(all_boxes, folder)))
        results[name] = task_evaluation.evaluate_all(dataset, all_boxes, folder)
    task_evaluation.log_copy_paste_friendly_results(results)
    return results


def detect(weights, dataset, ind_range=(None, None)):
    """all_boxes[class][image] of a dataset, or of a range of its images."""
    model = initialize_model_from_cfg(weights)
    by_image = [im_detect_all(model, cv2.imread(entry['image'])) for entry in dataset.get_roidb()[slice(*ind_range)]]
    return [list(boxes) for boxes in zip(*by_image)]


def detect_in_parallel(weights, dataset, folder):
    """As `detect`, by the test_net.py beside the program that runs: sys.path[0] is where Detectron looks for it."""
    options = os.path.join(folder, 'detection_range_config.yaml')
    with open(options, 'w') as stream:
        env.yaml_dump(cfg, stream=stream)
    all_boxes = [[] for _ in range(cfg.MODEL.NUM_CLASSES)]
    for part in np.array_split(np.arange(len(dataset.get_roidb())), cfg.NUM_GPUS):
        ends = [str(part[0]), str(part[-1] + 1)]
        command = [os.path.join(sys.path[0], 'test_net.py'), '--range'] + ends
        command += ['--cfg', options, 'NUM_GPUS', '1', 'TEST.DATASETS', '("%s",)' % dataset.name, 'TEST.WEIGHTS', weights]
        logger.info('detection range command: %s', ' '.join(command))
        subprocess.check_call(command)
        with open(os.path.join(folder, 'detection_range_%s_%s.pkl' % tuple(ends)), 'rb') as stream:
            for boxes, more in zip(all_boxes, pickle.load(stream)['all_boxes']):
                boxes.extend(more)
    return all_boxes


def write(all_boxes, folder, ind_range=None):
    """Pickle detections into a folder; returns the file."""
    path = os.path.join(folder, 'detection_range_%d_%d.pkl' % tuple(ind_range) if ind_range else 'detections.pkl')
    with open(path, 'wb') as stream:
        pickle.dump({'all_boxes': all_boxes, 'cfg': dict(cfg)}, stream)
    return path
