#!/usr/bin/env python
"""Rehearse a training on the CPU, in minutes: what would go wrong after hours or days on the GPUs goes wrong now.

  . <prefix>/current/activate.sh
  "$DETECTRON_TOOLS/rehearse.py" FOLDER [--config CONFIG.yaml] [--datasets DATASETS.json]

FOLDER is a run's, as playbooks/train.yml -e train_rehearsal=true makes it, with config.yaml and datasets.json; or any
other, and the two are named.

Detectron's own code trains the network of the configuration on a handful of its real images, writes a checkpoint, is
killed, resumes from the checkpoint, tests the model and evaluates it. What is made smaller is only what takes time:
the images' scale, how many of them and how many regions of each go through the network, and the iterations. From that
and from a look at the datasets, the weights and the disk comes a verdict, rung by rung:

  config      Detectron reads the configuration
  dataset     the images and annotations are there and can be read
  classes     MODEL.NUM_CLASSES is what the datasets have
  evaluator   Detectron will know how to evaluate on the test datasets
  weights     TRAIN.WEIGHTS can be loaded, and how much of it the network takes
  schedule    the learning rate fits the number of GPUs
  training    the network is built and iterations run
  finite      the loss is a number throughout
  falling     the loss falls
  checkpoint  a checkpoint is written
  disk        there is room for all checkpoints of the real training
  resume      a killed training goes on from its checkpoint
  evaluation  the model is tested and average precisions come out

FOLDER gets verdict.json and rehearsal/ (what was made smaller, logs, results; the models are removed). Nothing is
trained that could be of use. Exit status: 0 nothing failed, 1 a rung failed, 2 wrong usage, 3 nothing failed but this
network cannot be rehearsed on the CPU.
"""

from __future__ import absolute_import, division, print_function

import argparse
import collections
import ctypes
import errno
import gc
import io
import json
import math
import os
import pickle
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import yaml

import detectron_tool

SCHEMA = 1
RUNGS = ('config', 'dataset', 'classes', 'evaluator', 'weights', 'schedule', 'training', 'finite', 'falling',
         'checkpoint', 'disk', 'resume', 'evaluation')
PASSED, FAILED, NOT_APPLICABLE = 'passed', 'failed', 'not_applicable'

# Detectron has folded the batch normalization of its ResNets into pretrained weights, so at random ones their
# activations grow from block to block: losses of some hundreds, which diverge at 1e-4. With these scales in place of
# the normalization they learn at usual rates: the deviation of pixels about 1, each block's share of its output small.
CALM_PIXELS, CALM_BLOCK = 1 / 60, 0.2
CHANNELS = {2: 256, 3: 512, 4: 1024, 5: 2048}  # of a ResNet's stages
MOST_BLOCKS = 36  # in a stage, of ResNet-152

# What is made smaller, by option; options that this Detectron does not have are left out.
SMALLER = {
    'NUM_GPUS': 1,
    'TRAIN.SCALES': [160],
    'TRAIN.MAX_SIZE': 256,
    'TRAIN.IMS_PER_BATCH': 1,
    'TRAIN.BATCH_SIZE_PER_IM': 16,
    'TRAIN.RPN_PRE_NMS_TOP_N': 200,
    'TRAIN.RPN_POST_NMS_TOP_N': 50,
    'DATA_LOADER.NUM_THREADS': 1,
    'DATA_LOADER.MINIBATCH_QUEUE_SIZE': 8,
    'TEST.SCALE': 160,
    'TEST.MAX_SIZE': 256,
    'TEST.RPN_PRE_NMS_TOP_N': 200,
    'TEST.RPN_POST_NMS_TOP_N': 50,
    'TEST.DETECTIONS_PER_IM': 10,
    # Hardly trained, a network is sure of nothing; and without a single box the evaluation ends in cocoapi's
    # `IndexError: list index out of range`.
    'TEST.SCORE_THRESH': 0.0,
    'TEST.BBOX_AUG.ENABLED': False,
    'TEST.MASK_AUG.ENABLED': False,
    'TEST.KPS_AUG.ENABLED': False,
    'VIS': False,
    'EXPECTED_RESULTS': [],  # of the whole training; they may send mail
}


class Stop(Exception):
    """The rehearsal cannot go on; the verdict says why."""


class Verdict(object):
    """What was found, by rung."""

    def __init__(self):
        self.rungs = collections.OrderedDict()

    def add(self, rung, status, reason, remedy=''):
        self.rungs[rung] = {'rung': rung, 'status': status, 'reason': reason, 'remedy': remedy}
        say('%s: %s. %s%s' % (rung, shown(status), reason, '\n  remedy: %s' % remedy if remedy else ''))

    def passed(self, rung, reason):
        self.add(rung, PASSED, reason)

    def failed(self, rung, reason, remedy=''):
        self.add(rung, FAILED, reason, remedy)

    def not_applicable(self, rung, reason):
        self.add(rung, NOT_APPLICABLE, reason)

    def list(self):
        """All rungs in their order; one that was not reached says so."""
        not_reached = {'status': NOT_APPLICABLE, 'reason': 'not reached', 'remedy': ''}
        return [self.rungs.get(rung, dict(not_reached, rung=rung)) for rung in RUNGS]

    @property
    def status(self):
        """'failed', 'not_rehearsed' (nothing failed, but nothing was trained) or 'passed'."""
        found = dict((rung['rung'], rung['status']) for rung in self.list())
        if FAILED in found.values():
            return FAILED
        return PASSED if found['training'] == PASSED else 'not_rehearsed'


def shown(status):
    return {PASSED: 'passed', FAILED: 'FAILED', NOT_APPLICABLE: 'n/a'}.get(status, status)


def say(line):
    print(line)
    sys.stdout.flush()


def table(verdict):
    """The verdict for people."""
    lines = ['REHEARSAL of %(config)s: %(status)s' % dict(verdict, status=verdict['status'].upper())]
    lines += ['  %s' % verdict['stand_in']] if verdict['stand_in'] else []
    for rung in verdict['rungs']:
        lines.append('  %-10s  %-6s  %s' % (rung['rung'], shown(rung['status']), rung['reason']))
        if rung['remedy']:
            lines.append('  %-10s          remedy: %s' % ('', rung['remedy']))
    return '\n'.join(lines)


# --- the configuration ---


def option(options, name, default=None):
    """The value of a dotted name in nested dicts."""
    for part in name.split('.'):
        if not isinstance(options, dict) or part not in options:
            return default
        options = options[part]
    return options


def set_option(options, name, value):
    """Set a dotted name in nested dicts, which are made where they are missing."""
    parts = name.split('.')
    for part in parts[:-1]:
        options = options.setdefault(part, {})
    options[parts[-1]] = value


def read_config(path, verdict):
    """(the file's own options, all of Detectron's with the file's merged in)."""
    from detectron.core import config

    try:
        with io.open(path, encoding='utf-8') as stream:
            own = yaml.safe_load(stream) or {}
        config.merge_cfg_from_file(path)
    except EnvironmentError as error:
        raise detectron_tool.ToolError('The configuration %s cannot be read: %s.' % (path, error.strerror))
    except yaml.YAMLError as error:
        verdict.failed('config', '%s is not YAML: %s' % (path, ' '.join(str(error).split())), 'mend the file')
        raise Stop()
    except (KeyError, ValueError, AttributeError, AssertionError) as error:
        said = error.args[0] if error.args else error
        verdict.failed('config', 'Detectron refuses %s: %s' % (path, said), 'mend the option it names')
        raise Stop()
    verdict.passed('config', '%s, %s' % (config.cfg.MODEL.TYPE, config.cfg.MODEL.CONV_BODY))
    return own, config.cfg


def listed(names):
    return [names] if isinstance(names, str) else [str(name) for name in names]


def smaller(own, cfg, output, iterations, weights, rate):
    """(options of the rehearsal, [[name, real value, rehearsed value]]); `weights` is a file, or '' for random ones.

    The iterations suffice for a checkpoint in the middle and half a dozen lines of statistics.
    """
    changes = dict((name, value) for name, value in SMALLER.items() if option(cfg, name) is not None)
    changes.update({
        'OUTPUT_DIR': output,
        'TRAIN.WEIGHTS': weights or write_calm_weights(os.path.join(output, 'calm.pkl')),
        'TRAIN.SNAPSHOT_ITERS': iterations // 2 + 1,
        'TRAIN.AUTO_RESUME': True,
        'SOLVER.MAX_ITER': iterations,
        'SOLVER.STEPS': [0],
        'SOLVER.BASE_LR': rate,
    })
    if option(cfg, 'SOLVER.LR_POLICY') == 'steps_with_lrs':
        changes['SOLVER.LRS'] = [rate]
    if not weights:
        changes['SOLVER.WARM_UP_ITERS'] = 0  # it spares pretrained weights
    result = json.loads(json.dumps(own))
    # Never more than in the real training: somebody may have made it small already.
    for name, value in changes.items():
        real = option(cfg, name)
        if name in SMALLER and type(value) is int and type(real) is int:
            changes[name] = min(value, real)
        set_option(result, name, changes[name])
    differing = [[name, option(cfg, name), value] for name, value in sorted(changes.items())
                 if json.dumps(option(cfg, name)) != json.dumps(value)]
    return result, differing


def rate_of(cfg, given):
    """(learning rate, why)."""
    if given:
        return given, 'as given with --rate'
    batch = cfg.NUM_GPUS * cfg.TRAIN.IMS_PER_BATCH
    return cfg.SOLVER.BASE_LR / batch, "the configuration's %g for %d images, scaled to one" % (cfg.SOLVER.BASE_LR, batch)


def look_at_schedule(cfg, experiment, verdict):
    """Whether the schedule can be, and whether it was judged when the run's configuration was derived (`experiment`, of
    experiment.json): an unscaled one is refused there, unless somebody said that it is meant."""
    steps, last = list(cfg.SOLVER.STEPS), cfg.SOLVER.MAX_ITER
    if cfg.SOLVER.LR_POLICY.startswith('steps_') and (
            steps != sorted(set(steps)) or not steps or steps[0] != 0 or steps[-1] >= last):
        return verdict.failed('schedule', 'SOLVER.STEPS %s do not rise from 0 to below SOLVER.MAX_ITER %d' % (steps, last),
                              'mend SOLVER.STEPS')
    asked = experiment.get('asked')
    numbers = 'a rate of %g for %d GPUs, %d iterations' % (cfg.SOLVER.BASE_LR, cfg.NUM_GPUS, last)
    if asked and not asked.get('unscaled'):
        return verdict.passed('schedule', '%s: scaled, as it was when the configuration was derived' % numbers)
    return verdict.not_applicable('schedule', '%s: %s' % (numbers, 'not scaled, as told (unscaled: true)' if asked else
                                                          'nobody has compared it with that of a baseline'))


# --- datasets ---


def is_usable(annotation, cfg):
    """Whether Detectron can learn from an object."""
    box = annotation.get('bbox') or [0, 0, 0, 0]
    people = not option(cfg, 'MODEL.KEYPOINTS_ON') or annotation.get('num_keypoints', 0) > 0
    return not annotation.get('iscrowd') and annotation.get('area', 0) > 0 and min(box[2:]) > 1 and people


def handful(document, number, cfg):
    """A dataset of `number` images with something in them, spread over all of them, and all categories.

    Of one without annotations (as COCO's test sets), any images.
    """
    usable = set(one['image_id'] for one in document.get('annotations', []) if is_usable(one, cfg))
    images = sorted((one for one in document['images'] if one['id'] in usable or 'annotations' not in document),
                    key=lambda one: one['id'])
    taken = [images[index * len(images) // number] for index in range(number)] if len(images) > number else images
    ids = set(one['id'] for one in taken)
    result = dict((key, document.get(key, {} if key == 'info' else [])) for key in ('info', 'licenses', 'categories'))
    result['images'] = taken
    if 'annotations' in document:
        result['annotations'] = [one for one in document['annotations'] if one['image_id'] in ids]
    return result


def image_fault(entry, image):
    """What is wrong with an image's file; '' when nothing."""
    import cv2

    path = os.path.join(entry['image_directory'], entry.get('image_prefix', '') + image['file_name'])
    if not os.path.isfile(path):
        return 'there is no %s' % path
    pixels = cv2.imread(path)
    if pixels is None:
        return '%s cannot be read as an image' % path
    size = pixels.shape[1::-1]
    if size != (image['width'], image['height']):
        return '%s is %d x %d, but its annotation says %d x %d' % ((path,) + size + (image['width'], image['height']))
    return ''


def take_images(names, own, number, folder, cfg, verdict):
    """Write a small dataset for each of `names` and a file of them all; {name: [(category id, name)]}."""
    small, categories, counts, faults = {}, {}, [], []
    for name in names:
        fault = detectron_tool.missing_dataset(name, own)
        if fault:
            faults.append(fault)
            continue
        entry = detectron_tool.catalog()[name]
        try:
            with io.open(entry['annotation_file'], encoding='utf-8') as stream:
                document = json.load(stream)
            taken = handful(document, number, cfg)
        except (EnvironmentError, ValueError, KeyError, TypeError, AttributeError) as error:
            faults.append('%s of dataset %s is not in the format of COCO: %s %s'
                          % (entry['annotation_file'], name, type(error).__name__, error))
            continue
        counts.append('%s: %d of %d images' % (name, len(taken['images']), len(document['images'])))
        categories[name] = sorted((one['id'], one['name']) for one in taken['categories'])
        del document
        gc.collect()  # COCO's own takes gigabytes, and training comes next
        if not taken['images']:
            faults.append('Dataset %s has no image with an object that can be learnt from' % name)
        wrong = [fault for fault in (image_fault(entry, image) for image in taken['images']) if fault]
        faults += ['Dataset %s: %s' % (name, '; '.join(wrong[:3]))] if wrong else []
        path = os.path.join(folder, '%s.json' % name)
        with io.open(path, 'wb') as stream:
            json.dump(taken, stream)
        small[name] = dict(entry, annotation_file=path)
    with io.open(os.path.join(folder, 'datasets.json'), 'wb') as stream:
        json.dump(small, stream, indent=2, sort_keys=True)
    if faults:
        verdict.failed('dataset', '; '.join(faults), 'mend the dataset, or the entry that names it')
        raise Stop()
    verdict.passed('dataset', '; '.join(counts))
    return categories


def compare_classes(cfg, categories, verdict):
    """MODEL.NUM_CLASSES against the datasets' categories (and the background), and those among themselves."""
    if option(cfg, 'MODEL.RPN_ONLY'):
        return verdict.not_applicable('classes', 'a network that only proposes regions knows no classes')
    first = sorted(categories)[0]
    for name in sorted(categories):
        if categories[name] != categories[first]:
            return verdict.failed('classes', '%s and %s have different categories' % (first, name),
                                  'give all datasets of a training the same categories with the same ids')
    needed = len(categories[first]) + 1
    if cfg.MODEL.NUM_CLASSES != needed:
        return verdict.failed(
            'classes', 'MODEL.NUM_CLASSES is %d, but %s has %d categories, and the background is a class as well'
            % (cfg.MODEL.NUM_CLASSES, first, needed - 1), 'set MODEL.NUM_CLASSES to %d' % needed)
    return verdict.passed('classes', '%d: %d categories and the background' % (needed, needed - 1))


def look_for_evaluator(cfg, names, verdict):
    if not names:
        return verdict.not_applicable('evaluator', 'TEST.DATASETS is empty: the model will not be tested')
    faults = [fault for fault in (detectron_tool.missing_evaluator(name, cfg) for name in names) if fault]
    if faults:
        return verdict.failed('evaluator', faults[0].partition(': ')[0], faults[0].partition(': ')[2])
    silent = [name for name in names if 'test' in name and not option(cfg, 'MODEL.RPN_ONLY')]
    if silent:
        return verdict.not_applicable(
            'evaluator', 'Detectron evaluates on no dataset that has "test" in its name, as %s has' % ', '.join(silent))
    return verdict.passed('evaluator', "COCO's average precision on %s" % ', '.join(names))


# --- weights ---


def find_weights(cfg, verdict):
    """File of the weights to rehearse with, '' for random ones. Says in the verdict what is wrong with them; what can
    be loaded is judged when it has been."""
    named = cfg.TRAIN.WEIGHTS
    if not named:
        verdict.not_applicable('weights', 'random weights: TRAIN.WEIGHTS names none')
        return ''
    if re.match('https?://', named, re.I):
        return find_url(named, option(cfg, 'DOWNLOAD_CACHE', ''), verdict)
    if os.path.isfile(named) and os.access(named, os.R_OK):
        return named
    verdict.failed('weights', 'random weights: not found at %s (TRAIN.WEIGHTS)' % named,
                   'put the file there, or name the one that you have')
    return ''


def find_url(url, cache, verdict):
    """Detectron downloads weights by itself when training begins, into `cache`. Here only what it has is used."""
    import urllib2

    from detectron.utils import io as detectron_io

    base = getattr(detectron_io, '_DETECTRON_S3_BASE_URL', '')
    cached = url.replace(base, cache) if base and cache else ''
    if cached and os.path.isfile(cached):
        return cached
    try:
        urllib2.urlopen(url, timeout=20).close()
    except EnvironmentError as error:  # URLError is one
        verdict.failed('weights', 'random weights: %s cannot be fetched (%s)' % (url, getattr(error, 'reason', error)),
                       'download them elsewhere, and name the file as TRAIN.WEIGHTS')
    else:
        verdict.passed('weights', 'random weights: %s answers; training would download it' % url)
    return ''


def write_calm_weights(path):
    """Write the scales that let a ResNet begin at random weights, as a file of weights; returns `path`. A network takes
    those that it has."""
    import numpy as np

    blobs = {'res_conv1_bn_s': np.full(64, CALM_PIXELS, np.float32)}
    for stage, channels in CHANNELS.items():
        for block in range(MOST_BLOCKS):
            blobs['res%d_%d_branch2c_bn_s' % (stage, block)] = np.full(channels, CALM_BLOCK, np.float32)
    with io.open(path, 'wb') as stream:
        pickle.dump({'blobs': blobs}, stream, 2)
    return path


def judge_weights(path, lines, verdict):
    """How much of the file the network took, by what Detectron logged of it; true if all that it has."""
    if not path:
        return False
    for line in lines:
        match = re.search(r'Workspace blob .* does not match weights file shape .*', line)
        if match:
            verdict.failed('weights', '%s: %s' % (path, match.group()),
                           'the file is of another network or another number of classes')
            raise Stop()
    loaded = [line for line in lines if ' loaded from weights file into ' in line]
    missing = re.findall(r'^INFO \S+ *\d+: (\S+) not found$', '\n'.join(lines), re.M)
    if loaded:
        rest = 'all of them' if not missing else 'the other %d (%s, ...) begin at random' % (len(missing), missing[0])
        verdict.passed('weights', '%s: %d of %d blobs of the network, %s'
                       % (path, len(loaded), len(loaded) + len(missing), rest))
    else:
        verdict.failed('weights', '%s holds no blob of this network' % path, 'name weights of its backbone')
    return bool(loaded and not missing)


# --- running Detectron ---


class Run(object):
    """One of Detectron's tools, run to its end or to where it is killed."""

    def __init__(self, tool, arguments, log, environment):
        self.log, self.lines, self.statistics, self.killed = log, [], [], False
        self.began = time.time()
        tools = os.path.dirname(os.path.abspath(__file__))
        self.process = subprocess.Popen(
            [sys.executable, os.path.join(tools, tool)] + arguments, env=dict(os.environ, **environment),
            stdin=open(os.devnull), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            preexec_fn=lambda: ctypes.CDLL(None).prctl(1, signal.SIGKILL))  # PR_SET_PDEATHSIG: it never outlives us
        self.seconds = 0.0

    def follow(self, title, until=None):
        """Read what it says to the end, showing the statistics; kill it at those of which `until` is true."""
        with io.open(self.log, 'wb') as log:
            for line in iter(self.process.stdout.readline, b''):
                log.write(line)
                self.lines.append(line.decode('utf-8', 'replace').rstrip())
                if self.lines[-1].startswith('json_stats: '):
                    self._count(title, json.loads(self.lines[-1].partition(' ')[2]))
                    if until and until(self.statistics[-1]):
                        self.killed = True
                        self.process.kill()
                elif self.lines[-1].startswith('INFO') and 'im_detect: ' in self.lines[-1]:
                    say('  %s: %s' % (title, self.lines[-1].partition('im_detect: ')[2]))
        self.process.wait()
        self.seconds = time.time() - self.began
        return self

    def _count(self, title, raw):
        # Floats are texts since 2018-10.
        stats = dict((key, float(raw[key])) for key in ('iter', 'loss', 'lr', 'time'))
        self.statistics.append(dict(stats, iter=int(stats['iter'])))
        say('  %s: iteration %d, loss %.6g, rate %.3g, %.2f s each, %s left'
            % (title, stats['iter'], stats['loss'], stats['lr'], stats['time'], raw['eta']))

    @property
    def error(self):
        """Why it ended, if not because all was done or we killed it; else ''."""
        if self.process.returncode == 0 or self.killed:
            return ''
        said = [line for line in self.lines if re.match(r'^[\w.]*(Error|Exception|Exit|NotOnTheCPU)\b|.*enforce fail', line)]
        last = (said or [line for line in self.lines if line.strip()] or ['no output'])[-1]
        code = self.process.returncode
        return '%s (%s; all of it in %s)' % (last, 'signal %d' % -code if code < 0 else 'exit status %d' % code, self.log)

    def divergence(self):
        """The line that says that the loss is no number any more; '' when none does."""
        for line in self.lines:
            if re.search(r'Loss is NaN|Negative areas? found', line):
                return line
        for one in self.statistics:
            if math.isnan(one['loss']) or math.isinf(one['loss']):
                return 'loss %s in iteration %d' % (one['loss'], one['iter'])
        return ''


def judge_training(run, title, rate, verdict):
    """Whether a run of train_net.py did what it should. Raises Stop where it did not."""
    refusal = [line for line in run.lines if 'This network cannot run on the CPU' in line]
    if refusal:
        verdict.not_applicable('training', refusal[-1].partition('NotOnTheCPU: ')[2] or refusal[-1])
        raise Stop()
    diverged = run.divergence()
    if diverged:
        if run.statistics:
            verdict.passed('training', '%d iterations ran' % (run.statistics[-1]['iter'] + 1))
        verdict.failed('finite', '%s, at the rate of %g' % (diverged, rate),
                       'if the rate is that of the configuration, lower it; look for degenerate boxes in the dataset')
        raise Stop()
    if run.error:
        verdict.failed('training', '%s failed: %s' % (title, run.error))
        raise Stop()


def judge_losses(statistics, rate, why, trained, verdict):
    """Whether the loss falls: medians of the first and last third of what was logged. Of a network that is `trained`,
    nothing of which begins at random, it need not, but it must not double."""
    losses = [loss for _, loss in sorted(dict((one['iter'], one['loss']) for one in statistics).items())]
    verdict.passed('finite', 'throughout, at a rate of %g (%s)' % (rate, why))
    third = max(1, len(losses) // 3)
    first, last = median(losses[:third]), median(losses[-third:])
    reason = 'from %.4g to %.4g' % (first, last)
    if last < first:
        return verdict.passed('falling', reason)
    if trained and last < 2 * first:
        return verdict.not_applicable('falling', '%s: all of the network was trained before' % reason)
    return verdict.failed('falling', '%s, at a rate of %g' % (reason, rate),
                          'look at SOLVER.BASE_LR, and whether the annotations belong to the images; '
                          'more --iterations say more')


def median(values):
    ordered = sorted(values)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


def judge_disk(cfg, size, folder, verdict):
    """Room for the checkpoints of the real training, all of which Detectron keeps. `size` is of one, in bytes."""
    period = max(1, int(cfg.TRAIN.SNAPSHOT_ITERS / cfg.NUM_GPUS))
    number = cfg.SOLVER.MAX_ITER // period + 1
    disk = os.statvfs(folder)
    needed, free = number * size, disk.f_bavail * disk.f_frsize
    reason = '%d checkpoints and final models of %s are %s; %s are free at %s (a quota is not seen)' % (
        number, megabytes(size), megabytes(needed), megabytes(free), folder)
    if needed > free:
        return verdict.failed('disk', reason, 'a larger TRAIN.SNAPSHOT_ITERS, a larger disk, or fewer other files')
    return verdict.passed('disk', reason)


def megabytes(size):
    return '%.4g MB' % (size / 1e6) if size < 1e9 else '%.4g GB' % (size / 1e9)


def precisions(lines):
    """Detectron's tables of results: {dataset: {task: {metric: value}}}."""
    said = [line.partition('copypaste: ')[2] for line in lines if 'copypaste: ' in line]
    found, dataset, metrics = {}, '', []
    for text in said:
        if text.startswith('Dataset: '):
            dataset = text.partition(': ')[2]
        elif text.startswith('Task: '):
            task, metrics = text.partition(': ')[2], []
        elif not metrics:
            metrics = text.split(',')
        else:
            found.setdefault(dataset, {})[task] = dict(zip(metrics, map(float, text.split(','))))
    return found


def judge_evaluation(run, names, verdict):
    found = precisions(run.lines)
    missing = [name for name in names if name not in found]
    if run.error or missing:
        return verdict.failed('evaluation', run.error or 'no results for %s' % ', '.join(missing))
    tasks = ['%s on %s' % (task, name) for name in names for task in sorted(found[name])]
    return verdict.passed('evaluation', 'tables for %s (their numbers mean nothing here)' % ', '.join(tasks))


# --- the rehearsal ---


def rehearse(options, verdict, figures):
    """Climb the rungs; raises Stop at one without which the next cannot be."""
    own, cfg = read_config(options.config, verdict)
    os.environ['DETECTRON_DATASETS'] = options.datasets
    datasets = detectron_tool.registered_datasets()
    folder = os.path.join(options.folder, 'rehearsal')
    trains, tests = listed(cfg.TRAIN.DATASETS), listed(cfg.TEST.DATASETS)
    look_at_schedule(cfg, experiment_of(options.folder), verdict)
    categories = take_images(sorted(set(trains + tests)), datasets, options.images, folder, cfg, verdict)
    compare_classes(cfg, categories, verdict)
    look_for_evaluator(cfg, tests, verdict)
    weights = find_weights(cfg, verdict)
    if any(verdict.rungs[rung]['status'] == FAILED for rung in ('classes', 'evaluator')):
        raise Stop()
    model = cfg.MODEL
    if not (model.FASTER_RCNN or model.get('RPN_ONLY') or option(cfg, 'RETINANET.RETINANET_ON')):
        verdict.not_applicable('training', 'cannot be rehearsed on the CPU: a network that is given its regions in '
                                           'TRAIN.PROPOSAL_FILES needs those of exactly the images it gets')
        raise Stop()

    rate, why = rate_of(cfg, options.rate)
    shrunk, figures['changes'] = smaller(own, cfg, folder, options.iterations, weights, rate)
    config = os.path.join(folder, 'config.yaml')
    with io.open(config, 'wb') as stream:
        yaml.safe_dump(shrunk, stream, default_flow_style=False)
    environment = {'DETECTRON_DATASETS': os.path.join(folder, 'datasets.json'), 'DETECTRON_DEVICE': 'cpu',
                   'DETECTRON_LOG_PERIOD': str(max(1, options.iterations // 6))}

    def run(tool, log, *arguments):
        return Run(tool, ['--cfg', config] + list(arguments), os.path.join(folder, log), environment)

    say('Training: %d iterations on the CPU, at a rate of %g (%s)' % (options.iterations, rate, why))
    saved = options.iterations // 2
    first = run('train_net.py', 'train.log', '--skip-test').follow('training', lambda one: one['iter'] > saved)
    trained = judge_weights(weights, first.lines, verdict)
    judge_training(first, 'training', rate, verdict)
    models = os.path.join(folder, 'train', ':'.join(trains), model.TYPE)
    checkpoint = os.path.join(models, 'model_iter%d.pkl' % saved)
    if not os.path.isfile(checkpoint):
        verdict.failed('checkpoint', 'there is no %s (see %s)' % (checkpoint, first.log))
        raise Stop()
    size = os.path.getsize(checkpoint)

    say('Killed in iteration %d. Resuming from the checkpoint' % first.statistics[-1]['iter'])
    second = run('train_net.py', 'resume.log', '--skip-test').follow('resumed')
    judge_training(second, 'resumed training', rate, verdict)
    statistics = first.statistics + second.statistics
    figures.update(losses=[[one['iter'], one['loss']] for one in statistics], rate=rate,
                   checkpoint_bytes=size, seconds_per_iteration=second.statistics[-1]['time'],
                   seconds={'training': first.seconds, 'resumed': second.seconds})
    verdict.passed('training', '%d iterations, %.2g s each' % (options.iterations, figures['seconds_per_iteration']))
    judge_losses(statistics, rate, why, trained, verdict)
    verdict.passed('checkpoint', '%s, %s' % (os.path.basename(checkpoint), megabytes(size)))
    judge_resume(second, saved + 1, os.path.join(models, 'model_final.pkl'), verdict)
    if not tests:
        verdict.not_applicable('evaluation', 'TEST.DATASETS is empty')
    elif os.path.isfile(os.path.join(models, 'model_final.pkl')):
        say('Testing the final model')
        third = run('test_net.py', 'test.log', 'TEST.WEIGHTS', os.path.join(models, 'model_final.pkl')).follow('testing')
        judge_evaluation(third, tests, verdict)
        figures['results'] = precisions(third.lines)
        figures['seconds']['testing'] = third.seconds
    remove_models(models)
    judge_disk(cfg, size, options.folder, verdict)


def judge_resume(run, start, final, verdict):
    """A resumed training begins right after the checkpoint, with everything in it, and ends with a final model."""
    resumed = [line for line in run.lines if 'Resuming from checkpoint' in line]
    if not resumed or not resumed[0].endswith(' at start iter %d' % start):
        return verdict.failed('resume', 'training began anew instead of after the checkpoint (see %s)' % run.log)
    lost = re.findall(r'^INFO \S+ *\d+: (\S+) not found$', '\n'.join(run.lines), re.M)
    if lost:
        return verdict.failed('resume', 'the checkpoint lacks %s (see %s)' % (', '.join(lost[:3]), run.log))
    if not os.path.isfile(final):
        return verdict.failed('resume', 'the resumed training left no %s (see %s)' % (final, run.log))
    return verdict.passed('resume', 'from iteration %d, after SIGKILL, to the final model' % start)


def remove_models(folder):
    """Models are large, and these are of no use."""
    for name in os.listdir(folder):
        if name.endswith('.pkl'):
            os.remove(os.path.join(folder, name))


def experiment_of(folder):
    """What playbooks/train.yml wrote of a run; {} in a folder of another kind."""
    try:
        with io.open(os.path.join(folder, 'experiment.json'), encoding='utf-8') as stream:
            return json.load(stream)
    except (EnvironmentError, ValueError):
        return {}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', metavar='FOLDER', help='gets verdict.json and rehearsal/')
    parser.add_argument('--config', help='the configuration of the training (default FOLDER/config.yaml)')
    parser.add_argument('--datasets', help='its datasets, as in DETECTRON_DATASETS (default FOLDER/datasets.json)')
    parser.add_argument('--images', type=int, default=8, help='how many images of each dataset (default 8)')
    parser.add_argument('--iterations', type=int, default=24, help='how many in all, at least 6 (default 24)')
    parser.add_argument('--rate', type=float, help='another learning rate than the one that is chosen, and told')
    options = parser.parse_args()
    if options.images < 1:
        parser.error('--images must be 1 or more')
    if options.iterations < 6:
        parser.error('--iterations must be 6 or more: a checkpoint in the middle, and losses before and after it')
    options.folder = os.path.abspath(options.folder)
    options.config = os.path.abspath(options.config or os.path.join(options.folder, 'config.yaml'))
    options.datasets = os.path.abspath(options.datasets or os.path.join(options.folder, 'datasets.json'))
    folder, written = os.path.join(options.folder, 'rehearsal'), os.path.join(options.folder, 'verdict.json')
    began, verdict, figures = time.time(), Verdict(), {}
    try:
        remove_file(written)
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        rehearse(options, verdict, figures)
    except Stop:
        pass
    except (detectron_tool.ToolError, EnvironmentError) as error:
        parser.exit(2, 'rehearse.py: %s\n' % error)
    import detectron

    document = {'schema': SCHEMA, 'host': socket.gethostname(), 'config': options.config,
                'stand_in': getattr(detectron, 'STAND_IN', ''), 'status': verdict.status,
                'total_seconds': round(time.time() - began, 1), 'figures': figures, 'rungs': verdict.list()}
    with io.open(written + '.new', 'wb') as stream:
        json.dump(document, stream, indent=2, sort_keys=True)
    os.rename(written + '.new', written)
    say('\n%s\n%s, in %d s' % (table(document), written, document['total_seconds']))
    sys.exit({PASSED: 0, FAILED: 1}.get(verdict.status, 3))


def remove_file(path):
    try:
        os.remove(path)
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise


if __name__ == '__main__':
    main()
