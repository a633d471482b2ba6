"""Average precision of the boxes found, by COCO's own measure, and in which datasets it is taken."""

from __future__ import absolute_import, division, print_function

import json
import logging
import os

from pycocotools.cocoeval import COCOeval

from detectron.core.config import cfg
from detectron.utils.boxes import xyxy_to_xywh

METRICS = ('AP', 'AP50', 'AP75', 'APs', 'APm', 'APl')
logger = logging.getLogger(__name__)


def evaluate_all(dataset, all_boxes, output_dir):
    """Metrics by name, from all_boxes[class][image]: [N, 5] arrays of boxes and scores. As Detectron, it evaluates
    datasets of which the name says that they are COCO's, or those that are said to be like them."""
    if 'coco_' not in dataset.name and not cfg.TEST.FORCE_JSON_DATASET_EVAL:
        raise NotImplementedError('No evaluator for dataset: %s' % dataset.name)
    if 'test' in dataset.name:
        logger.warning('%s eval ignored as annotations are undisclosed on test', dataset.name)
        return dict.fromkeys(METRICS, -1)
    found = [{'image_id': image, 'category_id': category, 'bbox': xyxy_to_xywh(tuple(row[:4])), 'score': float(row[4])}
             for category, index in dataset.class_of_id.items()
             for image, boxes in zip(sorted(dataset.COCO.getImgIds()), all_boxes[index])
             for row in boxes]
    path = os.path.join(output_dir, 'bbox_%s_results.json' % dataset.name)
    with open(path, 'w') as stream:
        json.dump(found, stream)
    evaluation = COCOeval(dataset.COCO, dataset.COCO.loadRes(path), 'bbox')
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return dict(zip(METRICS, evaluation.stats))


def log_copy_paste_friendly_results(results):
    """Log {dataset: metrics by name} as two lines for a table."""
    for name, metrics in results.items():
        logger.info('copypaste: Dataset: %s', name)
        logger.info('copypaste: Task: box')
        logger.info('copypaste: %s', ','.join(METRICS))
        logger.info('copypaste: %s', ','.join('%.4f' % metrics[metric] for metric in METRICS))
