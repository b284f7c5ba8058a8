"""Stand-in for numcodecs._shuffle, with numpy."""

import numpy as np


def _doShuffle(src, des, element_size):
    elements = np.asarray(src).reshape(-1, element_size)
    des[:] = np.ascontiguousarray(elements.T).reshape(-1)


def _doUnshuffle(src, des, element_size):
    planes = np.asarray(src).reshape(element_size, -1)
    des[:] = np.ascontiguousarray(planes.T).reshape(-1)
