"""Greedy non-maximum suppression."""

cimport cython
cimport numpy as np
import numpy as np


@cython.boundscheck(False)
@cython.wraparound(False)
def nms(np.ndarray[np.float32_t, ndim=2] scored, np.float32_t threshold):
    """Indices of the kept boxes of scored [N, 5] (x1, y1, x2, y2, score), best first, as an int64 array."""
    cdef np.ndarray[np.int64_t, ndim=1] order = np.argsort(-scored[:, 4], kind='mergesort').astype(np.int64)
    cdef np.ndarray[np.uint8_t, ndim=1] dropped = np.zeros(scored.shape[0], np.uint8)
    cdef np.ndarray[np.float32_t, ndim=1] area = \
        (scored[:, 2] - scored[:, 0] + 1) * (scored[:, 3] - scored[:, 1] + 1)
    cdef Py_ssize_t a, b, i, j
    cdef np.float32_t width, height, shared
    kept = []
    for a in range(order.shape[0]):
        i = order[a]
        if dropped[i]:
            continue
        kept.append(i)
        for b in range(a + 1, order.shape[0]):
            j = order[b]
            width = min(scored[i, 2], scored[j, 2]) - max(scored[i, 0], scored[j, 0]) + 1
            height = min(scored[i, 3], scored[j, 3]) - max(scored[i, 1], scored[j, 1]) + 1
            if width > 0 and height > 0:
                shared = width * height
                if shared / (area[i] + area[j] - shared) >= threshold:
                    dropped[j] = 1
    return np.array(kept, np.int64)
