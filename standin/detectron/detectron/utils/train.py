"""The training loop, with Detectron's schedule, checkpoints, resuming and log lines."""

from __future__ import absolute_import, division, print_function

import logging
import os
import re

from caffe2.python import workspace
import cv2
import numpy as np

from detectron.core.config import cfg, get_output_dir
from detectron.datasets.json_dataset import JsonDataset
from detectron.modeling import model_builder
from detectron.utils import blob
from detectron.utils.training_stats import TrainingStats

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
    if weights:
        logger.info('========> Resuming from checkpoint %s at start iter %d', weights, start)
    if weights or cfg.TRAIN.WEIGHTS:
        blob.load_weights(weights or cfg.TRAIN.WEIGHTS, model)
    entries = [entry for name in cfg.TRAIN.DATASETS for entry in JsonDataset(name).get_roidb(gt=True)]
    _run(model, [entry for entry in entries if len(entry['boxes'])], start, folder)
    save(final, model)
    return {'final': final}


def save(path, model):
    logger.info('Saving parameters and momentum to %s', os.path.abspath(path))
    blob.save_weights(path, model)


def _run(model, roidb, start, folder):
    generator = np.random.RandomState(cfg.RNG_SEED)
    period = cfg.TRAIN.SNAPSHOT_ITERS // cfg.NUM_GPUS
    statistics = TrainingStats(('loss_cls', 'loss_bbox'))
    for iteration in range(start, cfg.SOLVER.MAX_ITER):
        statistics.IterTic()
        rate = get_lr_at_iter(iteration)
        for name, value in zip(('data', 'labels', 'boxes'), minibatch(roidb, generator)):
            blob.feed(name, value)
        blob.feed('lr', np.array([rate]))
        if iteration == start:
            workspace.CreateNet(model.net)
        workspace.RunNet(model.net)
        statistics.IterToc()
        statistics.UpdateIterStats()
        statistics.LogIterStats(iteration, rate)
        if (iteration + 1) % period == 0 and iteration > start:
            save(os.path.join(folder, 'model_iter%d.pkl' % iteration), model)
        if np.isnan(statistics.iter_total_loss):
            logger.critical('Loss is NaN')
            raise Exception('Loss is NaN')
