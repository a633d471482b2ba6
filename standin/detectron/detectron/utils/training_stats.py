"""What training tells of its course."""

from __future__ import absolute_import, division, print_function

import datetime
import time

import numpy as np

from detectron.core.config import cfg
from detectron.utils import blob
from detectron.utils.logging import log_json_stats, SmoothedValue


class TrainingStats(object):
    """The losses of a training run, as medians over the last iterations, and how long an iteration takes."""

    def __init__(self, losses):
        self.WIN_SZ = 20  # iterations
        self.LOG_PERIOD = 20
        self.losses = dict((name, SmoothedValue(self.WIN_SZ)) for name in losses)
        self.total_loss = SmoothedValue(self.WIN_SZ)
        self.iter_total_loss = np.nan
        self.seconds, self.iterations, self.began = 0.0, 0, 0.0

    def IterTic(self):
        self.began = time.time()

    def IterToc(self):
        self.seconds += time.time() - self.began
        self.iterations += 1

    def UpdateIterStats(self):
        """Read the losses of the iteration that has just run."""
        values = dict((name, float(blob.fetch(name))) for name in self.losses)
        for name, value in values.items():
            self.losses[name].AddValue(value)
        self.iter_total_loss = sum(values.values())
        self.total_loss.AddValue(self.iter_total_loss)

    def LogIterStats(self, iteration, rate):
        if iteration % self.LOG_PERIOD and iteration != cfg.SOLVER.MAX_ITER - 1:
            return
        each = self.seconds / self.iterations
        left = datetime.timedelta(seconds=int(each * (cfg.SOLVER.MAX_ITER - iteration)))
        medians = dict((name, value.GetMedianValue()) for name, value in self.losses.items())
        log_json_stats(dict(medians, loss=self.total_loss.GetMedianValue(), iter=iteration, lr=float(rate), time=each,
                            eta=str(left), mb_qsize=0, mem=0))
