"""What the imaging tasks compute, with numpy, scipy and scikit-image: arrays to arrays, without files.

The tasks in Python use it, and the comparison. A module is imported where it is needed, so that a task waits only for
what it uses.
"""

SHAPES = [
    "area",
    "centroid_y",
    "centroid_x",
    "bbox_min_y",
    "bbox_min_x",
    "bbox_max_y",
    "bbox_max_x",
    "equivalent_diameter_area",
    "axis_major_length",
    "axis_minor_length",
    "eccentricity",
    "orientation",
    "perimeter",
    "extent",
    "form_factor",
]


def halved(pixels):
    """Means of 2x2 pixels in the last two axes, halves to even; an odd last row or column counts twice."""
    import numpy

    y, x = pixels.shape[-2:]
    if y % 2 or x % 2:
        pixels = numpy.pad(pixels, [(0, 0)] * (pixels.ndim - 2) + [(0, y % 2), (0, x % 2)], mode="edge")
    rows = pixels[..., ::2, :].astype(numpy.uint32) + pixels[..., 1::2, :]
    return numpy.rint((rows[..., ::2] + rows[..., 1::2]) / 4).astype(pixels.dtype)


def every_second(pixels):
    return pixels[..., ::2, ::2]


def fitted_profile(dark, size, degree=4, rounds=40):
    """Fits a polynomial in y and x to `dark`, and gives its values at each pixel of an image of `size`; maximum 1.

    Values above it count the less, the farther above they are: where all images have cells, the darkest is too bright.
    """
    import numpy

    def terms(n_rows, n_columns):
        y, x = ((numpy.arange(n) + 0.5) / n * 2 - 1 for n in (n_rows, n_columns))
        powers = [(i, j) for i in range(degree + 1) for j in range(degree + 1 - i)]
        return numpy.stack([numpy.outer(y**i, x**j).ravel() for i, j in powers], axis=-1)

    values, known = dark.ravel(), terms(*dark.shape)
    coefficients, *_ = numpy.linalg.lstsq(known, values, rcond=None)
    for _ in range(rounds):
        above = values - known @ coefficients
        if not (above < 0).any():
            break
        below = numpy.sort(-above[above < 0])
        tolerance = 1.5 * below[len(below) // 2]
        # Least squares take the root of a weight.
        roots = 1 / numpy.hypot(1, numpy.maximum(above, 0) / tolerance)
        coefficients, *_ = numpy.linalg.lstsq(known * roots[:, None], values * roots, rcond=None)
    profile = (terms(*size) @ coefficients).reshape(size)
    return profile / profile.max()


def corrected(pixels, profile, background):
    """Takes the background away, and what the illumination makes of the rest; `profile` is of y, x."""
    import numpy

    light = numpy.maximum(pixels.astype(numpy.float64) - background, 0) / (profile / profile.max())
    return numpy.minimum(numpy.floor(light + 0.5), 65535).astype(numpy.uint16)


def smoothed(image, sigma):
    import numpy
    from scipy import ndimage

    smooth = ndimage.gaussian_filter(image.astype(numpy.float64), sigma, mode="nearest", truncate=4.0)
    return numpy.rint(smooth).astype(numpy.uint16)


def segmented(smooth, threshold, split_sigma=1.0, min_distance=7, min_area=50):
    """Labels of what is brighter than `threshold`, split where it is narrow, numbered row by row."""
    import numpy
    from scipy import ndimage
    from skimage.feature import peak_local_max
    from skimage.segmentation import watershed

    mask = smooth > threshold
    components, n_components = ndimage.label(mask)
    distance = ndimage.gaussian_filter(ndimage.distance_transform_edt(mask), split_sigma, mode="nearest", truncate=4.0)
    peaks = peak_local_max(distance, min_distance=min_distance, labels=components, exclude_border=False)
    markers = numpy.zeros(mask.shape, numpy.int32)
    markers[tuple(peaks.T)] = 1 + numpy.arange(len(peaks))
    without = numpy.setdiff1d(1 + numpy.arange(n_components), components[tuple(peaks.T)])
    for index, (y, x) in enumerate(ndimage.maximum_position(distance, components, without)):
        markers[y, x] = 1 + len(peaks) + index
    labels = watershed(-distance, markers, mask=mask, connectivity=1)

    areas = numpy.bincount(labels.ravel())
    values, firsts = numpy.unique(labels, return_index=True)
    kept = (values > 0) & (areas[values] >= min_area)
    new = numpy.zeros(len(areas), numpy.uint32)
    new[values[kept][numpy.argsort(firsts[kept])]] = 1 + numpy.arange(kept.sum())
    return new[labels]


def measured(labels, channels):
    """Columns of the table of one image, from `label` on: name to values. `channels`: name to pixels of y, x."""
    import numpy
    from skimage.measure import regionprops_table

    names = ["label", "centroid", "bbox", *SHAPES[:1], *SHAPES[7:-1]]
    if channels:
        names += ["intensity_mean", "intensity_min", "intensity_max"]
    table = regionprops_table(labels, numpy.stack(list(channels.values()), axis=-1), properties=names)
    found = {name.replace("-", "_"): values for name, values in table.items()}
    for axis, name in enumerate("yx"):
        found[f"centroid_{name}"] = found[f"centroid_{axis}"]
        found[f"bbox_min_{name}"], found[f"bbox_max_{name}"] = found[f"bbox_{axis}"], found[f"bbox_{axis + 2}"]
    with numpy.errstate(divide="ignore"):
        found["form_factor"] = 4 * numpy.pi * found["area"] / found["perimeter"] ** 2
    columns = {name: found[name] for name in ["label", *SHAPES]}
    columns["area"] = columns["area"].astype(numpy.int64)
    for index, (channel, pixels) in enumerate(channels.items()):
        columns[f"mean_{channel}"] = found[f"intensity_mean_{index}"]
        sums = numpy.bincount(labels.ravel(), weights=pixels.ravel())
        columns[f"integrated_{channel}"] = sums[found["label"]].astype(numpy.int64)
        columns[f"min_{channel}"] = found[f"intensity_min_{index}"].astype(numpy.int64)
        columns[f"max_{channel}"] = found[f"intensity_max_{index}"].astype(numpy.int64)
    return columns
