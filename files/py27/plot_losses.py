#!/usr/bin/env python
"""Draw the losses of runs in one picture, out of their logs: plot_losses.py PICTURE NAME=LOG [NAME=LOG ...]

The loss is Detectron's own number, a median of 20 iterations, on a logarithmic axis; where it is not a number any more,
or the run ended in an error, a cross says so at the last one that was. The format is that of PICTURE's name (png, pdf).
"""

from __future__ import absolute_import, division, print_function

import json
import sys

import matplotlib
matplotlib.use('Agg')
from matplotlib import pyplot  # noqa: E402

MARK = 'json_stats: '


def read(path):
    """([(iteration, loss, rate)] of the finite losses, whether it ended in a loss that is not)."""
    points, diverged = [], False
    with open(path) as stream:
        for line in stream:
            diverged = diverged or 'Loss is NaN' in line or 'Negative areas founds' in line
            if MARK not in line:
                continue
            try:
                stats = json.loads(line[line.index(MARK) + len(MARK):])
                point = int(stats['iter']), float(stats['loss']), float(stats['lr'])
            except (ValueError, KeyError, TypeError):
                continue  # a line that was cut short
            if point[1] - point[1] == 0:  # neither NaN nor infinite
                points.append(point)
            else:
                diverged = True
    return points, diverged


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    figure = pyplot.figure(figsize=(8, 4.5))
    axes = figure.add_subplot(1, 1, 1)
    for argument in sys.argv[2:]:
        name, _, path = argument.partition('=')
        points, diverged = read(path)
        if not points:
            continue
        iterations, losses, rates = zip(*points)
        end = 'diverged' if diverged else 'loss %.3g' % losses[-1]
        line, = axes.plot(iterations, losses, marker='.', label='%s: learning rate %g, %s' % (name, rates[0], end))
        if diverged:
            axes.plot(iterations[-1:], losses[-1:], marker='x', markersize=14, markeredgewidth=3, color=line.get_color())
    axes.set_yscale('log')
    axes.set_xlabel('iteration')
    axes.set_ylabel('loss')
    axes.grid(True, which='major', alpha=0.4)
    axes.legend(loc='best')
    figure.tight_layout()
    figure.savefig(sys.argv[1], dpi=120)


if __name__ == '__main__':
    main()
