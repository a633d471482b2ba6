"""Detectron's operator BatchPermutation on the first GPU. Without one, Caffe2 aborts the process."""

from __future__ import absolute_import, division, print_function

import unittest

from caffe2.proto import caffe2_pb2
from caffe2.python import core, workspace
import numpy as np

from detectron.utils import c2

GPU = core.DeviceOption(caffe2_pb2.CUDA, 0)


def run(values, order):
    for name, value in (('A', values), ('I', order)):
        workspace.FeedBlob(name, value, device_option=GPU)
    workspace.RunOperatorOnce(core.CreateOperator('BatchPermutation', ['A', 'I'], ['C'], device_option=GPU))
    return workspace.FetchBlob('C')


class TestBatchPermutation(unittest.TestCase):
    def test_reorders_the_first_axis(self):
        values = np.random.RandomState(0).randn(10, 3, 5, 7).astype(np.float32)
        order = np.random.RandomState(1).permutation(10).astype(np.int32)
        np.testing.assert_array_equal(run(values, order), values[order])

    def test_refuses_an_order_of_another_length(self):
        with self.assertRaises(RuntimeError):
            run(np.zeros((2, 3), np.float32), np.arange(10, dtype=np.int32))


if __name__ == '__main__':
    workspace.GlobalInit(['caffe2', '--caffe2_log_level=0'])
    c2.import_detectron_ops()
    assert 'BatchPermutation' in workspace.RegisteredOperators()
    unittest.main()
