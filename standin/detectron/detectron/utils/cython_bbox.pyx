"""Overlaps of boxes."""

cimport cython
cimport numpy as np
import numpy as np


@cython.boundscheck(False)
@cython.wraparound(False)
def bbox_overlaps(np.ndarray[np.float32_t, ndim=2] boxes, np.ndarray[np.float32_t, ndim=2] others):
    """Intersection over union [N, K] of boxes [N, 4] and others [K, 4] (x1, y1, x2, y2, ends included)."""
    cdef Py_ssize_t i, j, n = boxes.shape[0], k = others.shape[0]
    cdef np.float32_t width, height, area, other_area, shared
    cdef np.ndarray[np.float32_t, ndim=2] result = np.zeros((n, k), np.float32)
    for j in range(k):
        other_area = (others[j, 2] - others[j, 0] + 1) * (others[j, 3] - others[j, 1] + 1)
        for i in range(n):
            width = min(boxes[i, 2], others[j, 2]) - max(boxes[i, 0], others[j, 0]) + 1
            height = min(boxes[i, 3], others[j, 3]) - max(boxes[i, 1], others[j, 1]) + 1
            if width > 0 and height > 0:
                area = (boxes[i, 2] - boxes[i, 0] + 1) * (boxes[i, 3] - boxes[i, 1] + 1)
                shared = width * height
                result[i, j] = shared / (area + other_area - shared)
    return result
