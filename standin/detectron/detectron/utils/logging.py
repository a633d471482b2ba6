"""Log lines as people's scripts expect them from Detectron."""

from __future__ import absolute_import, division, print_function

from collections import deque
import json
import logging
import sys

import numpy as np


def setup_logging(name):
    """Log everything to standard output, where Detectron logs; returns the named logger."""
    logging.basicConfig(level=logging.INFO, stream=sys.stdout,
                        format='%(levelname)s %(filename)s:%(lineno)4d: %(message)s')
    return logging.getLogger(name)


def log_json_stats(stats):
    """Print statistics as one line; floats are strings of six decimals, as in Detectron since 2018-10."""
    texts = {key: '%.6f' % value if isinstance(value, float) else value for key, value in stats.items()}
    print('json_stats: %s' % json.dumps(texts, sort_keys=True))
    sys.stdout.flush()


class SmoothedValue(object):
    """The median of the last values."""

    def __init__(self, window):
        self.deque = deque(maxlen=window)

    def AddValue(self, value):
        self.deque.append(value)

    def GetMedianValue(self):
        return float(np.median(self.deque))
