"""The training loop, with Detectron's schedule, checkpoints, resuming and log lines."""

from __future__ import absolute_import, division, print_function

import datetime
import logging
import os
import re
import time

from caffe2.python import workspace
import cv2
import numpy as np

from detectron.core.config import cfg, get_output_dir
from detectron.datasets.json_dataset import JsonDataset
from detectron.modeling import model_builder
from detectron.utils import blob
from detectron.utils.logging import log_json_stats

LOG_PERIOD = 20  # iterations
logger = logging.getLogger(__name__)


def get_lr_at_iter(iteration):
    """Learning rate by steps_with_decay, with a linear warm-up."""
    passed = sum(1 for step in cfg.SOLVER.STEPS[1:] if iteration >= step)
    rate = cfg.SOLVER.BASE_LR * cfg.SOLVER.GAMMA ** passed
    if iteration < cfg.SOLVER.WARM_UP_ITERS:
        share = iteration / cfg.SOLVER.WARM_UP_ITERS
        rate *= cfg.SOLVER.WARM_UP_FACTOR * (1 - share) + share
    return np.float32(rate)


def find_checkpoint(folder):
    """(file or '', iteration to start at): model_final.pkl, else the highest model_iter<N>.pkl."""
    names = os.listdir(folder) if cfg.TRAIN.AUTO_RESUME else []
    if 'model_final.pkl' in names:
        return os.path.join(folder, 'model_final.pkl'), cfg.SOLVER.MAX_ITER
    matches = [re.match(r'model_iter(\d+)\.pkl$', name) for name in names]
    iterations = [int(match.group(1)) for match in matches if match]
    if not iterations:
        return '', 0
    return os.path.join(folder, 'model_iter%d.pkl' % max(iterations)), max(iterations) + 1


def minibatch(roidb, generator):
    """Random images: data [N, 3, S, S], labels [N] and boxes [N, 4] (shares of the image) of their largest objects."""
    data, labels, boxes = [], [], []
    for entry in [roidb[index] for index in generator.randint(len(roidb), size=cfg.TRAIN.IMS_PER_BATCH)]:
        sizes = entry['boxes'][:, 2:] - entry['boxes'][:, :2] + 1
        largest = sizes.prod(axis=1).argmax()
        data.append(blob.image_blob(cv2.imread(entry['image']), cfg.TRAIN.SCALES[0]))
        labels.append(entry['gt_classes'][largest])
        boxes.append(entry['boxes'][largest] / ([entry['width'], entry['height']] * 2))
    return np.array(data), np.array(labels, np.int32), np.array(boxes, np.float32)


def train_model():
    """Train, or go on from the last checkpoint; returns {'final': file}."""
    folder = get_output_dir(cfg.TRAIN.DATASETS)
    final = os.path.join(folder, 'model_final.pkl')
    weights, start = find_checkpoint(folder)
    if weights == final:
        logger.info('model_final.pkl exists; no need to train!')
        return {'final': final}
    model = model_builder.create(cfg.MODEL.TYPE, train=True)
    workspace.RunNetOnce(model.param_init_net)
    if weights or cfg.TRAIN.WEIGHTS:
        logger.info('Loading weights from %s', weights or cfg.TRAIN.WEIGHTS)
        blob.load_weights(weights or cfg.TRAIN.WEIGHTS, model)
    entries = [entry for name in cfg.TRAIN.DATASETS for entry in JsonDataset(name).get_roidb(gt=True)]
    _run(model, [entry for entry in entries if len(entry['boxes'])], start, folder)
    blob.save_weights(final, model)
    return {'final': final}


def _run(model, roidb, start, folder):
    generator = np.random.RandomState(cfg.RNG_SEED)
    period = cfg.TRAIN.SNAPSHOT_ITERS // cfg.NUM_GPUS
    began = time.time()
    for iteration in range(start, cfg.SOLVER.MAX_ITER):
        rate = get_lr_at_iter(iteration)
        for name, value in zip(('data', 'labels', 'boxes'), minibatch(roidb, generator)):
            blob.feed(name, value)
        blob.feed('lr', np.array([rate]))
        if iteration == start:
            workspace.CreateNet(model.net)
        workspace.RunNet(model.net)
        losses = {name: float(blob.fetch(name)) for name in ('loss_cls', 'loss_bbox')}
        each = (time.time() - began) / (iteration - start + 1)
        if iteration % LOG_PERIOD == 0 or iteration == cfg.SOLVER.MAX_ITER - 1:
            left = datetime.timedelta(seconds=int(each * (cfg.SOLVER.MAX_ITER - iteration)))
            log_json_stats(dict(losses, loss=sum(losses.values()), iter=iteration, lr=float(rate), time=each,
                                eta=str(left), mb_qsize=0, mem=0))
        if np.isnan(sum(losses.values())):
            logger.critical('Loss is NaN')
            raise Exception('Loss is NaN')
        if (iteration + 1) % period == 0 and iteration > start:
            blob.save_weights(os.path.join(folder, 'model_iter%d.pkl' % iteration), model)
