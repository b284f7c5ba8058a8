"""Checks OME-Zarr plates and images: metadata, arrays, pyramids, pixels, projections and illumination profiles."""

import json
import os
from functools import partial

import numpy
import ome_zarr_models.v04
import tifffile
import yaozarrs
import zarr
from imageio.v3 import imread

from algorithms import corrected, every_second, halved

LEVELS = 5
# How far an estimated profile may be off: where cells cover all, there is no even light to see it by.
ILLUMINATION_LIMITS = {"easy": 0.05, "crowded": 0.20}


def check_metadata(report, plate, wells, labels):
    """Both validators, on the plate and all in it, and the lists of wells and images; `labels`: images have some."""
    group_names = ["plate", "well", "image"] + ["labels", "label image"] * labels
    report.expect(*(f"ome-zarr-models takes each {name}" for name in group_names), "yaozarrs takes each group")
    models = ome_zarr_models.v04
    groups = {plate: ("plate", models.HCS)}
    for (row, column), fields in wells.items():
        groups[plate / row / column] = ("well", models.Well)
        for index in range(len(fields)):
            image = plate / row / column / str(index)
            groups[image] = ("image", models.Image)
            if labels:
                groups[image / "labels"] = ("labels", models.Labels)
                groups[image / "labels/nuclei"] = ("label image", models.ImageLabel)
    for folder, (name, model) in groups.items():
        model_name = f"ome-zarr-models takes each {name}"
        attempt(report, model_name, folder, lambda folder=folder, model=model: model.from_zarr(open_group(folder)))
        # The list of labels has no version, which this validator asks for where it begins.
        if name != "labels":
            validate = partial(yaozarrs.validate_zarr_store, str(folder))
            attempt(report, "yaozarrs takes each group", folder, validate)

    def described():
        metadata = read_attributes(plate)["plate"]
        rows, columns = ([entry["name"] for entry in metadata[key]] for key in ["rows", "columns"])
        paths = [(entry["path"], rows[entry["rowIndex"]], columns[entry["columnIndex"]]) for entry in metadata["wells"]]
        expected = [(f"{row}/{column}", row, column) for row, column in wells]
        report.equal("wells and images as in the image files", paths, expected, plate)
        for (row, column), fields in wells.items():
            images = [image["path"] for image in read_attributes(plate / row / column)["well"]["images"]]
            expected = [str(index) for index in range(len(fields))]
            report.equal("wells and images as in the image files", images, expected, plate / row / column)

    report.expect("wells and images as in the image files", "nothing is left half made")
    attempt(report, "wells and images as in the image files", plate, described)
    left = [
        name for _, folders, files in os.walk(plate) for name in folders + files if name.endswith((".part", ".old"))
    ]
    report.check("nothing is left half made", not left, plate, f"there is {', '.join(left[:3])}")


def check_image(report, image, channels, background):
    """All of one image before the projection; gives its pixels as they have to be."""
    files = [[imread_plane(path) for _, path in sorted(planes.items())] for planes in channels.values()]
    expected = numpy.stack(files)
    attempt(report, "channels", image, lambda: check_channels(report, image, list(channels)))
    profiles = image.parents[2].with_suffix(".illumination")
    report.expect("pixels equal the corrected files")
    if not profiles.is_dir():
        report.check("pixels equal the corrected files", False, profiles, "there are no profiles")
        return None
    for index, channel in enumerate(channels):
        expected[index] = corrected(expected[index], imread(profiles / f"{channel}.png"), background)
    levels = check_levels(report, image, expected.shape, numpy.uint16, halved)
    check_pixels(report, "pixels equal the corrected files", levels, expected, image / "0")
    return expected


def check_projection(report, image, pixels):
    """The projection of `pixels` (c, z, y, x); gives it, with the axes c, y, x."""
    report.expect("projections equal the maximum")
    if pixels is None:
        return None
    expected = pixels.max(axis=1)
    levels = check_levels(report, image, expected[:, None].shape, numpy.uint16, halved)
    check_pixels(report, "projections equal the maximum", levels, expected[:, None], image / "0")
    return expected


def check_levels(report, image, shape, dtype, smaller):
    """The arrays of one image and its pyramid; gives level 0, or `None`."""
    report.expect("arrays open and all chunks read", "shapes and types", "chunks", "pyramid levels")
    levels = []
    for level in range(LEVELS):
        folder = image / str(level)
        expected = (*shape[:-2], *(-(-n // 2**level) for n in shape[-2:]))
        try:
            array = zarr.open_array(folder, mode="r", zarr_format=2)
            pixels = array[:]
        except Exception as error:
            report.check("arrays open and all chunks read", False, folder, describe(error))
            return levels[0] if levels else None
        report.check("arrays open and all chunks read", True, folder)
        found = (pixels.shape, pixels.dtype.name)
        report.equal("shapes and types", found, (expected, numpy.dtype(dtype).name), folder)
        check_chunks(report, folder, json.loads((image / "0/.zarray").read_text())["chunks"])
        if levels and pixels.shape == expected:
            wrong = numpy.argwhere(smaller(levels[-1]) != pixels)
            report.check("pyramid levels", not len(wrong), folder, differing(wrong))
        levels.append(pixels)
    names = [dataset["path"] for dataset in read_attributes(image)["multiscales"][0]["datasets"]]
    report.equal("pyramid levels", names, [str(level) for level in range(LEVELS)], image)
    return levels[0]


def check_chunks(report, folder, largest):
    """How an array is stored: planes in chunks of one size, Blosc, "/" between the indices, and no other file."""
    metadata = json.loads((folder / ".zarray").read_text())
    shape, chunks = metadata["shape"], metadata["chunks"]
    allowed = [{n, min(n, size)} for n, size in zip(largest[-2:], shape[-2:])]
    good = all(n == 1 for n in chunks[:-2]) and all(n in sizes for n, sizes in zip(chunks[-2:], allowed))
    report.check("chunks", good, folder, f"{chunks}, with {largest} in level 0")
    stored = (metadata["compressor"]["id"], metadata.get("dimension_separator"), metadata["order"], metadata["filters"])
    report.equal("chunks", stored, ("blosc", "/", "C", None), folder)
    grid = [-(-n // size) for n, size in zip(shape, chunks)]
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    expected = {"/".join(map(str, index)) for index in numpy.ndindex(*grid)} | {".zarray", ".zattrs"}
    report.check("chunks", files <= expected, folder, f"there is also {', '.join(sorted(files - expected)[:3])}")


def check_pixels(report, name, pixels, expected, place):
    if pixels is None or pixels.shape != expected.shape:
        report.check(name, False, place, "no pixels of the right shape")
        return
    report.check(name, numpy.array_equal(pixels, expected), place, differing(numpy.argwhere(pixels != expected)))


def check_channels(report, image, ids):
    """The channels are those of the files, and viewers see their labels."""
    attributes = read_attributes(image)
    channels = attributes["imaging"]["channels"]
    report.equal("channels", [channel["id"] for channel in channels], ids, image)
    labels = [channel["label"] for channel in attributes["omero"]["channels"]]
    report.equal("channels", labels, [channel["label"] for channel in channels], image)


def check_illumination(report, found, true, kind):
    """The estimated profiles against those that the generator used."""
    name = "illumination found"
    report.expect(name)
    for path in sorted(true.glob("*.png")):
        profile, expected = (imread(folder / path.name) for folder in (found, true))
        report.equal(name, (profile.dtype.name, int(profile.max())), ("uint16", 65535), found / path.name)
        off = numpy.abs(profile / profile.max() / (expected / expected.max()) - 1).max()
        report.check(name, off < ILLUMINATION_LIMITS[kind], found / path.name, f"{off:.1%} off the true one")
        report.figure(name, f"{path.stem} at most {off:.1%} off")


def check_contact_sheet(report, path):
    def check():
        sheet = imread(path)
        report.check("contact sheet", sheet.std() > 1, path, "it is of one colour")
        report.figure("contact sheet", f"{sheet.shape[1]}x{sheet.shape[0]} pixels")

    report.expect("contact sheet")
    attempt(report, "contact sheet", path, check)


def check_labels_levels(report, image, shape):
    return check_levels(report, image / "labels/nuclei", (1, *shape), numpy.uint32, every_second)


def open_group(folder):
    return zarr.open_group(folder, mode="r", zarr_format=2)


def attempt(report, name, place, action):
    """An action that raises an error fails the check; one that returns may have made checks of its own."""
    try:
        action()
    except Exception as error:
        report.check(name, False, place, describe(error))
    else:
        report.check(name, True, place)


def describe(error):
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def differing(places):
    return f"{len(places)} pixels differ, the first at {places[0].tolist()}" if len(places) else ""


def read_attributes(folder):
    return json.loads((folder / ".zattrs").read_text())


def imread_plane(path):
    return imread(path) if path.suffix == ".png" else tifffile.imread(path)
