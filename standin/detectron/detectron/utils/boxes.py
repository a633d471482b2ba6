"""Boxes: [N, 4] arrays of x1, y1, x2, y2 in pixels, ends included, so a width is x2 - x1 + 1."""

from __future__ import absolute_import, division, print_function

import numpy as np

from detectron.utils import cython_bbox, cython_nms

bbox_overlaps = cython_bbox.bbox_overlaps
LARGEST_LOG_SCALE = np.log(1000. / 16.)  # a network's exp() must not overflow


def xywh_to_xyxy(xywh):
    """Turn x, y, width, height into x1, y1, x2, y2; a list or tuple of four numbers gives a tuple."""
    boxes = np.asarray(xywh, dtype=np.float64)
    corners = np.concatenate([boxes[..., :2], boxes[..., :2] + np.maximum(boxes[..., 2:] - 1, 0)], axis=-1)
    return corners if isinstance(xywh, np.ndarray) else tuple(corners)


def xyxy_to_xywh(xyxy):
    """The inverse of xywh_to_xyxy."""
    boxes = np.asarray(xyxy, dtype=np.float64)
    sized = np.concatenate([boxes[..., :2], boxes[..., 2:] - boxes[..., :2] + 1], axis=-1)
    return sized if isinstance(xyxy, np.ndarray) else tuple(sized)


def _centers_and_sizes(boxes):
    sizes = boxes[:, 2:] - boxes[:, :2] + 1
    return boxes[:, :2] + sizes / 2, sizes


def bbox_transform_inv(boxes, targets, weights=(1., 1., 1., 1.)):
    """Deltas (dx, dy, dw, dh) [N, 4] that lead from boxes to targets. Source: R-CNN (arXiv:1311.2524), appendix C."""
    (center, size), (target_center, target_size) = _centers_and_sizes(boxes), _centers_and_sizes(targets)
    deltas = np.concatenate([(target_center - center) / size, np.log(target_size / size)], axis=1)
    return deltas * np.asarray(weights)


def bbox_transform(boxes, deltas, weights=(1., 1., 1., 1.)):
    """The inverse of bbox_transform_inv: boxes [N, 4] moved by deltas [N, 4]."""
    center, size = _centers_and_sizes(boxes)
    deltas = deltas / np.asarray(weights)
    center = center + deltas[:, :2] * size
    size = size * np.exp(np.minimum(deltas[:, 2:], LARGEST_LOG_SCALE))
    return np.concatenate([center - size / 2, center + size / 2 - 1], axis=1)


def nms(scored, threshold):
    """Indices of the boxes [N, 5] (with scores) that non-maximum suppression keeps."""
    return cython_nms.nms(scored, np.float32(threshold)) if len(scored) else []
