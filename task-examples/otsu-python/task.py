"""Otsu's threshold as a typed task."""

import json
import re
from array import array
from pathlib import Path
from typing import NamedTuple

import wit_world
from componentize_py_types import Err
from wit_world.imports import host

IMAGE = "image.pgm"  # name of an image in its folder
BLANKS = rb"(?:[ \t\r\n]|#[^\n]*\n)*"
HEADER = re.compile(rb"P5" + (BLANKS + rb"([0-9]{1,7})(?![0-9])") * 3 + rb"[ \t\r\n]")
DESCRIPTION = {
    "name": "Otsu threshold",
    "input_type": "Any",
    "output_type": "Any",
    "meta": {"parallelization_level": "image"},
    "args_schema": {
        "type": "object",
        "properties": {
            "bins": {
                "type": "integer",
                "minimum": 2,
                "maximum": 65536,
                "default": 256,
                "description": "Bins of the histogram over all values that a pixel can have.",
            },
            "write_mask": {
                "type": "boolean",
                "default": True,
                "description": "Whether to write the mask, or to find the threshold only.",
            },
        },
        "additionalProperties": False,
    },
    "docs_info": "Finds a threshold between dark and bright pixels of a grey PGM image and writes the mask of the bright ones.",
}


class Image(NamedTuple):
    """A grey image of `width * height` pixels, row by row, each from 0 to `max`."""

    width: int
    height: int
    max: int
    pixels: array


class WitWorld(wit_world.WitWorld):
    def run(self, args: str) -> str | None:
        try:
            args = json.loads(args)
            # In Fractal v1 the args have `input_paths`.
            return json.dumps(call_v1(**args) if "input_paths" in args else call(**args))
        except (OSError, ValueError, TypeError) as error:
            raise Err(str(error))

    def describe(self) -> str:
        return json.dumps(DESCRIPTION)


def call(zarr_url=None, zarr_dir=None, folder=None, bins=256, write_mask=True):
    """Makes the mask of the image in the folder `zarr_url`; without it, imports the images of `folder`.

    Returns the changes of the image list.
    """
    if zarr_url is None:
        return import_images(Path(folder), Path(zarr_dir))
    image = Path(zarr_url)
    threshold = segment(image.name, image / IMAGE, image / "mask.pgm", bins, write_mask)
    return {"image_list_updates": [{"zarr_url": zarr_url, "attributes": {"threshold": threshold}}]}


def import_images(folder, zarr_dir):
    """Copies each image of a folder to a folder of its own in `zarr_dir`."""
    updates = []
    for name in image_names(folder):
        image = zarr_dir / name.removesuffix(".pgm")
        image.mkdir(parents=True, exist_ok=True)
        (image / IMAGE).write_bytes((folder / name).read_bytes())
        updates.append({"zarr_url": str(image), "attributes": {"file": name}})
    return {"image_list_updates": updates}


def call_v1(input_paths, output_path, metadata, component=None, bins=256, write_mask=True):
    """Makes the mask of the image that `component` names; without a component, says which images there are.

    Returns the metadiff.
    """
    folder = Path(input_paths[0])
    if component is None:
        return {"image": image_names(folder), "image_folder": str(folder)}
    # In a workflow only the first task gets the input: what lists the images says where they are.
    folder = Path(metadata.get("image_folder", folder))
    mask_path = Path(output_path, component.removesuffix(".pgm") + "_mask.pgm")
    return {"thresholds": {component: segment(component, folder / component, mask_path, bins, write_mask)}}


def image_names(folder):
    """The names of the images in a folder, sorted."""
    names = sorted(path.name for path in folder.iterdir() if path.name.endswith(".pgm"))
    if not names:
        raise ValueError(f"there is no .pgm image in {folder}")
    return names


def segment(name, path, mask_path, bins, write_mask):
    """Finds the threshold of an image, and writes its mask if that is wanted."""
    if type(bins) is not int or not 2 <= bins <= 65536:
        raise ValueError("bins must be a whole number from 2 to 65536")
    try:
        image = parse_pgm(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    threshold = otsu_threshold(image, bins)
    host.log(host.Level.INFO, f"{name}: threshold {threshold}")
    if write_mask:
        mask = bytes(255 if pixel >= threshold else 0 for pixel in image.pixels)
        mask_path.write_bytes(b"P5\n%d %d\n255\n" % (image.width, image.height) + mask)
    return threshold


def parse_pgm(data):
    """Reads a binary PGM image: `P5`, width, height, maximum, one blank, pixels of one byte, or two if the maximum is
    above 255."""
    if not data.startswith(b"P5"):
        raise ValueError("no binary PGM image, which begins with P5")
    header = HEADER.match(data)
    width, height, maximum = (int(number) for number in header.groups()) if header else (0, 0, 0)
    if 0 in (width, height, maximum) or maximum > 65535:
        raise ValueError("its header needs a width, a height and a maximum of at most 65535, each above 0")
    data = data[header.end() :]
    pixels = array("B" if maximum < 256 else "H")
    needed = width * height * pixels.itemsize
    if len(data) < needed:
        raise ValueError(f"cut off: {width} x {height} pixels need {needed} bytes, and there are {len(data)}")
    pixels.frombytes(data[:needed])
    if pixels.itemsize == 2:
        pixels.byteswap()  # the file is big-endian, WebAssembly little-endian
    too_large = next((pixel for pixel in pixels if pixel > maximum), None)
    if too_large is not None:
        raise ValueError(f"a pixel is {too_large}, above the maximum {maximum}")
    return Image(width, height, maximum, pixels)


def otsu_threshold(image, bins):
    """The smallest pixel value of the foreground: the bound between two bins that separates the pixels best. In an
    image of one bin only it is above every pixel.

    Source: N. Otsu, "A threshold selection method from gray-level histograms", 1979.
    """
    n_values = image.max + 1
    histogram = [0] * bins
    for pixel in image.pixels:
        histogram[pixel * bins // n_values] += 1
    total = float(len(image.pixels))
    total_sum = sum(float(bin) * n for bin, n in enumerate(histogram))
    below, sum_below, best_variance, threshold = 0.0, 0.0, 0.0, n_values
    for bin, n in enumerate(histogram):
        below += n
        sum_below += float(bin) * n
        above = total - below
        if below == 0 or above == 0:
            continue
        difference = sum_below / below - (total_sum - sum_below) / above
        variance = below * above * difference * difference
        if variance > best_variance:
            best_variance = variance
            threshold = -(-(bin + 1) * n_values // bins)
    return threshold
