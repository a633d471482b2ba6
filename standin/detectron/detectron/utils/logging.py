"""Log lines as people's scripts expect them from Detectron."""

from __future__ import absolute_import, division, print_function

import json
import logging
import sys


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
