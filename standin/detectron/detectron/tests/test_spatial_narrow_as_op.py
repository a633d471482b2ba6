"""Detectron's operator SpatialNarrowAs on the first GPU. Without one, Caffe2 aborts the process."""

from __future__ import absolute_import, division, print_function

import unittest

from caffe2.proto import caffe2_pb2
from caffe2.python import core, workspace
import numpy as np

from detectron.utils import c2

GPU = core.DeviceOption(caffe2_pb2.CUDA, 0)


def run(wide, narrow):
    for name, value in (('A', wide), ('B', narrow)):
        workspace.FeedBlob(name, value, device_option=GPU)
    workspace.RunOperatorOnce(core.CreateOperator('SpatialNarrowAs', ['A', 'B'], ['C'], device_option=GPU))
    return workspace.FetchBlob('C')


def numbers(*shape):
    return np.random.RandomState(0).randn(*shape).astype(np.float32)


class TestSpatialNarrowAs(unittest.TestCase):
    def test_cuts_height_and_width(self):
        wide = numbers(2, 3, 5, 7)
        np.testing.assert_array_equal(run(wide, numbers(2, 3, 2, 4)), wide[:, :, :2, :4])

    def test_cuts_large_arrays(self):
        wide = numbers(2, 64, 42, 100)
        np.testing.assert_array_equal(run(wide, numbers(2, 64, 35, 87)), wide[:, :, :35, :87])

    def test_refuses_to_widen(self):
        with self.assertRaises(RuntimeError):
            run(numbers(2, 3, 5, 6), numbers(2, 3, 5, 7))


if __name__ == '__main__':
    workspace.GlobalInit(['caffe2', '--caffe2_log_level=0'])
    c2.import_detectron_ops()
    assert 'SpatialNarrowAs' in workspace.RegisteredOperators()
    unittest.main()
