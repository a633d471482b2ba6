"""Where things are outside this tree."""

from __future__ import absolute_import, division, print_function

import os
import sys

import yaml

yaml_load, yaml_dump = yaml.load, yaml.dump


def get_detectron_ops_lib():
    """Path of Detectron's operators. As in the real one, /usr/local is preferred to the environment's own."""
    name = 'libcaffe2_detectron_ops_gpu.so'
    for prefix in ['/usr/local', sys.prefix, sys.exec_prefix] + sys.path:
        for folder in ('lib', 'torch/lib'):
            path = os.path.join(prefix, folder, name)
            if os.path.exists(path):
                print('Found Detectron ops lib: %s' % path)
                return path
    raise Exception('Detectron ops lib not found')
