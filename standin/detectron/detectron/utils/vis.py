"""Drawing what was found in an image."""

from __future__ import absolute_import, division, print_function

import os

from matplotlib import pyplot


def vis_one_image(image, name, folder, boxes, dataset=None, thresh=0.9, ext='pdf'):
    """Save an RGB image with the boxes[class] (rows x1, y1, x2, y2, score) of at least the score `thresh`.

    As Detectron, it draws nothing at all where there are none.
    """
    found = [(number, row) for number, rows in enumerate(boxes) for row in rows if row[4] >= thresh]
    if not found:
        return
    figure = pyplot.figure()
    axes = figure.add_subplot(1, 1, 1)
    axes.imshow(image)
    for number, (x1, y1, x2, y2, score) in found:
        axes.add_patch(pyplot.Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor='g'))
        axes.text(x1, y1, '%s %.2f' % (dataset.classes[number], score))
    figure.savefig(os.path.join(folder, '%s.%s' % (os.path.basename(name), ext)))
    pyplot.close(figure)
