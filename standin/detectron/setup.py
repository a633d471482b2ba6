"""Build the stand-in's two Cython extensions, under the names of Detectron's."""

from Cython.Build import cythonize
import numpy as np
from setuptools import Extension, setup

EXTENSIONS = [
    Extension('detectron.utils.' + name, ['detectron/utils/%s.pyx' % name], include_dirs=[np.get_include()],
              extra_compile_args=['-Wno-cpp'])
    for name in ('cython_bbox', 'cython_nms')
]

setup(name='Detectron', packages=['detectron'], ext_modules=cythonize(EXTENSIONS))
