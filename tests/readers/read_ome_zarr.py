"""Compares OME-Zarr images with the TIFF files that they were made from.

usage: read_ome_zarr.py IMAGES RESULTS
"""

import sys
from pathlib import Path

import numpy
import tifffile
import zarr


def halved(pixels):
    """Means of 2x2 pixels, halves rounded to even; shape (c, y, x), with y and x even, to (c, y / 2, x / 2)."""
    c, y, x = pixels.shape
    means = pixels.reshape(c, y // 2, 2, x // 2, 2).mean(axis=(2, 4))
    return numpy.rint(means).astype(numpy.uint16)


def check(image, images):
    channels = [tifffile.imread(path) for path in sorted(images.glob(f"{image.stem}_C*.tif"))]
    expected = numpy.stack(channels)
    group = zarr.open_group(str(image), mode="r")
    multiscale = group.attrs["multiscales"][0]
    assert multiscale["version"] == "0.4", multiscale
    assert [axis["name"] for axis in multiscale["axes"]] == ["c", "y", "x"], multiscale
    for dataset in multiscale["datasets"]:
        pixels = group[dataset["path"]][:]
        assert pixels.dtype == numpy.uint16 and numpy.array_equal(pixels, expected), (image, dataset)
        expected = halved(expected)
    n_levels = len(multiscale["datasets"])
    print(f"{image.name}: {n_levels} levels of {group['0'].shape}, equal to what its TIFF files give")


def main():
    images, results = map(Path, sys.argv[1:])
    found = sorted(results.glob("*.zarr"))
    assert len(found) == 4, found
    for image in found:
        check(image, images)


main()
