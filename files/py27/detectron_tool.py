#!/usr/bin/env python
"""Detectron's tools train_net.py, test_net.py and infer_simple.py, unmodified, with datasets of your own and on the CPU.

  . <prefix>/current/activate.sh
  "$DETECTRON_TOOLS/train_net.py" --cfg config.yaml OUTPUT_DIR ~/log/first

The links of those names start this program. It runs $DETECTRON/tools/<name> with the same arguments, in this process;
what is meant for it stands in the environment:

  DETECTRON_DATASETS=FILE    datasets that Detectron's dataset_catalog.py gets, in JSON:
                             {"<name>": {"image_directory": "/...", "annotation_file": "/....json", "image_prefix": ""}}
                             (or a file that has such an object as "datasets"). By default
                             <prefix>/checks/<server>/datasets.json, which role coco writes, where it is there; empty
                             is none.
  DETECTRON_DEVICE=cpu       run without a GPU: slow, for a rehearsal
  DETECTRON_LOG_PERIOD=N     a line of statistics every N iterations, of the median of the last N, instead of 20

And for infer_simple.py:

  DETECTRON_RESULTS=FOLDER   keep FOLDER/results.json while it works: seconds and number of detections of each image,
                             and the pictures drawn, each as PDF, as PNG, and small as JPEG. FOLDER/names.json, where it
                             is there, says what its images are really called: {"<file>": "<name>"}
  DETECTRON_THRESHOLD=0.7    draw and count detections with this score or a higher one
  DETECTRON_CLASSES=FILE     names of the classes instead of COCO's, in JSON: ["__background__", "cat", ...]

Testing on several GPUs starts the test_net.py beside the program that runs. That is this one, so those processes know
the datasets as well. Datasets that a run needs are looked at before it starts: a name that is unknown, or for which
there is no evaluator, would otherwise be told after days of training.
"""

from __future__ import absolute_import, division, print_function

import io
import json
import os
import runpy
import socket
import sys
import time

TOOLS = ('train_net.py', 'test_net.py', 'infer_simple.py')
REQUIRED, OPTIONAL = ('image_directory', 'annotation_file'), ('image_prefix', 'devkit_directory', 'raw_dir')
THRESHOLD = 0.7  # of infer_simple.py, where it is not told another
SMALL = 480  # pixels: width of a small picture


class ToolError(Exception):
    """What a person got wrong, and what to do about it."""


# --- datasets ---


def read_datasets(path):
    """The datasets of a file: {name: {'image_directory': ..., 'annotation_file': ..., ...}}.

    Raises ToolError where it is not such a file.
    """
    try:
        with io.open(path, encoding='utf-8') as stream:
            datasets = json.load(stream)
    except EnvironmentError as error:
        raise ToolError('The datasets file %s cannot be read: %s.' % (path, error.strerror))
    except ValueError as error:
        raise ToolError('The datasets file %s is not JSON: %s.' % (path, error))
    if isinstance(datasets, dict) and {'datasets', 'reports'}.issubset(datasets):
        datasets = datasets['datasets']
    if not isinstance(datasets, dict):
        raise ToolError('The datasets file %s holds no JSON object of datasets by name.' % path)
    for name, entry in datasets.items():
        if not isinstance(entry, dict):
            raise ToolError('Dataset %s of %s is not an object.' % (name, path))
        missing = [key for key in REQUIRED if not entry.get(key)]
        unknown = sorted(set(entry) - set(REQUIRED + OPTIONAL))
        if missing or unknown:
            what = ' and '.join(['lacks %s' % ', '.join(missing)] * bool(missing) +
                                ['has an unknown %s' % ', '.join(unknown)] * bool(unknown))
            raise ToolError('Dataset %s of %s %s. A dataset has %s, and may have %s.'
                            % (name, path, what, ' and '.join(REQUIRED), ', '.join(OPTIONAL)))
    return datasets


def catalog():
    """Detectron's datasets by name: {'image_directory': ..., ...}, which may be changed in place."""
    from detectron.datasets import dataset_catalog

    # DATASETS until 2018-05; its keys have the same values.
    return getattr(dataset_catalog, '_DATASETS', None) or dataset_catalog.DATASETS


def register(datasets):
    """Add datasets to Detectron's catalog; one of a known name takes its place."""
    for name, entry in datasets.items():
        # Detectron joins paths and compares names as str.
        catalog()[str(name)] = dict((str(key), value.encode('utf-8')) for key, value in entry.items() if value)


def datasets_file():
    """The file of datasets that is meant; '' when there is none."""
    given = os.environ.get('DETECTRON_DATASETS')
    if given is not None:
        return given
    # This file lies in <prefix>/generations/<n>/tools/.
    prefix = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__)))))
    path = os.path.join(prefix, 'checks', socket.gethostname(), 'datasets.json')
    return path if os.path.isfile(path) else ''


def registered_datasets():
    """Register the datasets of that file; returns them."""
    path = datasets_file()
    datasets = read_datasets(path) if path else {}
    register(datasets)
    return datasets


def missing_dataset(name, own):
    """Why a dataset cannot be used, and the remedy; '' when it can. `own` are the datasets that were registered."""
    if name not in catalog():
        file_name = datasets_file()
        source = 'In %s: %s.' % (file_name, ', '.join(sorted(own)) or 'none') if file_name else \
            'DETECTRON_DATASETS names no file of further ones.'
        others = sorted(set(catalog()) - set(own))
        return 'There is no dataset %s. %s Of Detectron itself: %s.' % (name, source, ', '.join(others))
    for key, kind in zip(REQUIRED, ('folder', 'file')):
        path = catalog()[name][key]
        if not (os.path.isdir if kind == 'folder' else os.path.isfile)(path):
            return 'Dataset %s: there is no %s %s (%s).' % (name, kind, path, key)
    return ''


def missing_evaluator(name, cfg):
    """Why Detectron cannot evaluate on a dataset, and the remedy; '' when it can (or need not).

    By the name alone: task_evaluation.py. After all training and testing it would say, for instance,
    `NotImplementedError: No evaluator for dataset: things`.
    """
    if cfg.MODEL.get('RPN_ONLY'):
        return ''
    if cfg.MODEL.get('KEYPOINTS_ON') and not name.startswith('keypoints_coco_'):
        return ('Detectron evaluates keypoints only on a dataset whose name begins with keypoints_coco_, and this one is '
                '%s: give it such a name.' % name)
    by_name = 'coco_' in name or 'cityscapes_' in name or name.startswith('voc_')
    if not by_name and not cfg.TEST.get('FORCE_JSON_DATASET_EVAL'):
        return ('Detectron has no evaluator for a dataset called %s: set TEST.FORCE_JSON_DATASET_EVAL to True, or give '
                'it a name with coco_ in it.' % name)
    return ''


def check_datasets_of_run(tool, arguments, own):
    """Have Detectron's own check of its options look at the datasets too."""
    from detectron.core import config

    check_options = config.assert_and_infer_cfg

    def check(*positional, **named):
        check_options(*positional, **named)
        tests = tool == 'test_net.py' or '--skip-test' not in arguments
        used = [('TRAIN.DATASETS', config.cfg.TRAIN.DATASETS)] * (tool == 'train_net.py')
        used += [('TEST.DATASETS', config.cfg.TEST.DATASETS)] * tests
        for option, names in used:
            for name in [names] if isinstance(names, str) else names:
                fault = missing_dataset(name, own)
                if not fault and option == 'TEST.DATASETS':
                    fault = missing_evaluator(name, config.cfg)
                if fault:
                    sys.exit('%s: %s' % (option, fault))

    config.assert_and_infer_cfg = check


# --- inference ---


class Results(object):
    """results.json of an inference, written by rename as it goes.

    {"images": [{"image": "a.jpg", "seconds": 1.234, "detections": 3, "pictures": ["a.jpg.pdf", "a.jpg.png"],
    "small": "a.jpg.small.jpg"}], "threshold": 0.7, "total": 8, "unreadable": ["b.jpg"]}
    """

    def __init__(self, folder, threshold, total):
        self.path = os.path.join(folder, 'results.json')
        self.threshold, self.total, self.images, self.unreadable = threshold, total, [], []
        self.names = {}
        if os.path.isfile(os.path.join(folder, 'names.json')):
            with io.open(os.path.join(folder, 'names.json'), encoding='utf-8') as stream:
                self.names = json.load(stream)
        self.image, self.written = '', 0.0

    def name_of(self, path):
        """What an image is really called."""
        name = os.path.basename(path)
        if isinstance(name, bytes):
            name = name.decode('utf-8', 'replace')
        return self.names.get(name, name)

    def detected(self, seconds, detections):
        """Keep what was found in the image that was read last."""
        entry = {'image': self.name_of(self.image), 'seconds': round(seconds, 3), 'detections': detections,
                 'pictures': []}
        self.images.append(entry)
        if time.time() - self.written > 1:  # not for each of thousands, which each make the file longer
            self.write()

    def drawn(self, pictures, small):
        """Keep the names of the pictures of that image."""
        self.images[-1].update(pictures=[os.path.basename(path) for path in pictures], small=os.path.basename(small))

    def write(self):
        with io.open(self.path + '.new', 'w', encoding='utf-8') as stream:
            text = json.dumps({'images': self.images, 'threshold': self.threshold, 'total': self.total,
                               'unreadable': self.unreadable}, indent=1)
            stream.write(text if isinstance(text, type(u'')) else text.decode('ascii'))
        os.rename(self.path + '.new', self.path)
        self.written = time.time()


def count(boxes, threshold):
    """How many of boxes[class] = [[x1, y1, x2, y2, score], ...] have at least the score."""
    return sum(1 for of_class in boxes for box in of_class if box[4] >= threshold)


def shrunk(width, height):
    """Size of a small picture."""
    factor = min(1.0, SMALL / width)
    return max(1, int(width * factor)), max(1, int(height * factor))


def keep_results(results, folder):
    """Have what reads, detects and draws tell `results`, and draw each picture in other formats as well.

    Of the images of `folder`, those that cannot be read are left out: the tool would end at the first one.
    """
    import glob

    import cv2
    from detectron.core import test_engine
    from matplotlib.figure import Figure

    imread, detect, savefig = cv2.imread, test_engine.im_detect_all, Figure.savefig
    iglob, last = glob.iglob, {}

    def read_one(path, *positional):
        image = last.pop(path, None)
        results.image = path
        return imread(path, *positional) if image is None else image

    def readable(pattern):
        for path in iglob(pattern):
            last.clear()
            if pattern.startswith(folder):
                last[path] = imread(path)
                if last[path] is None:
                    results.unreadable.append(results.name_of(path))
                    print('%s cannot be read and is left out: it is damaged, or no image that OpenCV knows.' % path)
                    continue
            yield path

    def detect_all(*positional, **named):
        began = time.time()
        found = detect(*positional, **named)
        boxes = found[0] if isinstance(found, tuple) else found
        results.detected(time.time() - began, count(boxes, results.threshold))
        return found

    def save(figure, path, *positional, **named):
        savefig(figure, path, *positional, **named)
        stem, ending = os.path.splitext(path)
        if ending == '.pdf':
            savefig(figure, stem + '.png', *positional, **named)
            picture = imread(stem + '.png')
            size = shrunk(picture.shape[1], picture.shape[0])
            small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
            cv2.imwrite(stem + '.small.jpg', small, [cv2.IMWRITE_JPEG_QUALITY, 80])
            results.drawn([path, stem + '.png'], stem + '.small.jpg')

    cv2.imread, test_engine.im_detect_all, Figure.savefig = read_one, detect_all, save
    glob.iglob, glob.glob = readable, lambda pattern: list(readable(pattern))


def use_threshold(threshold):
    """Draw by this score: older versions of infer_simple.py have no argument for it."""
    from detectron.utils import vis

    draw = vis.vis_one_image

    def draw_from(*positional, **named):
        named['thresh'] = threshold
        return draw(*positional, **named)

    vis.vis_one_image = draw_from


class ClassNames(dict):
    """Names by number, also of those that have none."""

    def __missing__(self, number):
        return 'class %d' % number


def read_classes(path):
    """The class names of a file, as matplotlib shows them: between two $ it would read a formula."""
    try:
        with io.open(path, encoding='utf-8') as stream:
            names = json.load(stream)
    except (EnvironmentError, ValueError) as error:
        raise ToolError('The file of class names %s cannot be read: %s.' % (path, error))
    if not isinstance(names, list) or not all(isinstance(name, type(u'')) for name in names):
        raise ToolError('The file of class names %s holds no JSON list of names.' % path)
    return ClassNames(enumerate(name.replace('$', r'\$') for name in names))


def use_classes(names):
    """Have infer_simple.py write these names into its pictures."""
    from detectron.datasets import dummy_datasets
    from detectron.utils.collections import AttrDict

    dummy_datasets.get_coco_dataset = lambda: AttrDict(classes=names)


def prepare_inference(arguments):
    """What the environment asks of infer_simple.py; returns its results, or None. Raises ToolError."""
    given = os.environ.get('DETECTRON_THRESHOLD') or str(THRESHOLD)
    try:
        threshold = float(given)
    except ValueError:
        raise ToolError('DETECTRON_THRESHOLD is %r: it must be a number from 0 to 1.' % given)
    if os.environ.get('DETECTRON_THRESHOLD'):
        use_threshold(threshold)
    if os.environ.get('DETECTRON_CLASSES'):
        use_classes(read_classes(os.environ['DETECTRON_CLASSES']))
    if not os.environ.get('DETECTRON_RESULTS'):
        return None
    images = arguments[-1] if arguments else ''
    results = Results(os.environ['DETECTRON_RESULTS'], threshold, len(os.listdir(images)) if os.path.isdir(images) else 1)
    keep_results(results, images)
    return results


# --- the process ---


def use_device(device):
    """Prepare for DETECTRON_DEVICE. Raises ToolError for one that is not known."""
    if device not in ('', 'gpu', 'cpu'):
        raise ToolError('DETECTRON_DEVICE is %r: it must be cpu or gpu.' % device)
    if device == 'cpu':
        os.environ['CUDA_VISIBLE_DEVICES'] = ''  # somebody else may be at work on the GPUs
        import cpu_operators
        from detectron.utils import c2

        cpu_operators.use_cpu()
        # For the log of training. Caffe2 answers for CUDA and cuDNN only where it was built with them.
        c2.get_nvidia_info = lambda: ('not asked: the CPU is used (DETECTRON_DEVICE)', 'not used', 'not used')


def use_log_period(text):
    """Set how often training prints statistics. Raises ToolError for what is not a number."""
    if not text.isdigit() or int(text) < 1:
        raise ToolError('DETECTRON_LOG_PERIOD is %r: it must be a number of iterations.' % text)
    from detectron.utils import training_stats

    begin, smoothed = training_stats.TrainingStats.__init__, training_stats.SmoothedValue

    def begin_with_period(self, *positional, **named):
        begin(self, *positional, **named)
        self.LOG_PERIOD = int(text)

    training_stats.TrainingStats.__init__ = begin_with_period
    training_stats.SmoothedValue = lambda _: smoothed(int(text))


def main():
    tool = os.path.basename(sys.argv[0])
    try:
        if tool not in TOOLS:
            raise ToolError('Start %s: links to this program.' % ', '.join(TOOLS))
        if not os.environ.get('DETECTRON'):
            raise ToolError('DETECTRON is not set. Activate the stack first: . <prefix>/current/activate.sh')
        program = os.path.join(os.environ['DETECTRON'], 'tools', tool)
        if not os.path.isfile(program):
            raise ToolError('There is no %s: DETECTRON names the folder of Detectron.' % program)
        # Detectron prints its statistics without a flush: in a file or a pipe they would show up late, or never.
        sys.stdout = os.fdopen(sys.stdout.fileno(), 'w', 1)
        import cv2  # noqa: F401  before Caffe2, as Detectron has it

        use_device(os.environ.get('DETECTRON_DEVICE', ''))
        if os.environ.get('DETECTRON_LOG_PERIOD'):
            use_log_period(os.environ['DETECTRON_LOG_PERIOD'])
        own, results = registered_datasets(), None
        if tool == 'infer_simple.py':  # which only draws
            results = prepare_inference(sys.argv[1:])
        else:
            check_datasets_of_run(tool, sys.argv[1:], own)
    except ToolError as error:
        sys.exit('%s: %s' % (tool, error))
    try:
        runpy.run_path(program, run_name='__main__')
    finally:
        if results:
            results.write()


if __name__ == '__main__':
    main()
