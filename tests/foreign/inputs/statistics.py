import hashlib
import sys

import numpy as np
from scipy import ndimage

rows, columns = np.mgrid[0:64, 0:64]
image = ((rows // 8 + columns // 8) % 3 == 0).astype(np.uint8)
labels, n_objects = ndimage.label(image)
print(sys.version.split()[0], np.__version__, n_objects, np.bincount(labels.ravel())[1:6].tolist())
print(hashlib.sha256(ndimage.distance_transform_edt(image).round(6).tobytes()).hexdigest())
print(np.linalg.solve(np.array([[4.0, 1.0], [2.0, 3.0]]), np.array([9.0, 13.0])).round(12).tolist())
