"""Box arithmetic, against itself and against COCO's."""

from __future__ import absolute_import, division, print_function

import unittest

import numpy as np
from pycocotools import mask

from detectron.utils import boxes


def some_boxes(count, generator):
    corners = generator.uniform(0, 50, (count, 2))
    return np.hstack([corners, corners + generator.uniform(5, 50, (count, 2))]).astype(np.float32)


class TestBoxes(unittest.TestCase):
    def setUp(self):
        generator = np.random.RandomState(0)
        self.one, self.other = some_boxes(8, generator), some_boxes(8, generator)

    def test_deltas_lead_from_boxes_to_targets(self):
        weights = (10., 10., 5., 5.)
        deltas = boxes.bbox_transform_inv(self.one, self.other, weights)
        np.testing.assert_allclose(boxes.bbox_transform(self.one, deltas, weights), self.other, rtol=1e-4)

    def test_formats_are_inverse(self):
        np.testing.assert_allclose(boxes.xywh_to_xyxy(boxes.xyxy_to_xywh(self.one)), self.one, rtol=1e-5)
        self.assertEqual(boxes.xywh_to_xyxy([10, 10, 40, 30]), (10, 10, 49, 39))

    def test_overlaps_are_those_of_coco(self):
        ours = boxes.bbox_overlaps(self.one, self.other)
        theirs = mask.iou(boxes.xyxy_to_xywh(self.one), boxes.xyxy_to_xywh(self.other), [0] * len(self.other))
        np.testing.assert_allclose(ours, theirs, atol=1e-5)

    def test_suppression_keeps_the_best_of_each_place(self):
        scored = np.array([[0, 0, 9, 9, .5], [0, 0, 9, 8, .9], [20, 20, 29, 29, .1]], np.float32)
        self.assertEqual(list(boxes.nms(scored, 0.5)), [1, 2])


if __name__ == '__main__':
    unittest.main()
