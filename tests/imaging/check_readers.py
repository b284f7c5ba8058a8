"""Runs the imaging pipeline in all forms of its output, and opens it with ngio, napari-ome-zarr, zarr-python and validators.

usage: check_readers.py FOLDER NATIVE

NATIVE is the program imaging-native. FOLDER is created. The exit code is 1 if something differs.
"""

import json
import logging
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import napari_ome_zarr
import numpy
import ome_zarr_models.v04
import ome_zarr_models.v05
import pandas
import yaozarrs
import zarr

EXAMPLE = Path(__file__).resolve().parents[2] / "task-examples/imaging"
PIXEL_SIZE = 0.65
SIZE = 192
WELLS = ["B/03", "B/04", "C/03", "C/04"]
# Second field: left of the first and a bit higher, with an overlap of 10 columns.
SHIFT = (-182, -7)


def run(folder, native, name, arguments):
    """Runs the workflow with other arguments of its first task; gives the output folder."""
    workflow = json.loads((EXAMPLE / "workflow.json").read_text())
    workflow["task_list"][0]["args"].update(arguments)
    work = folder / name
    work.mkdir(parents=True)
    shutil.copy(EXAMPLE / "__FRACTAL_MANIFEST__.json", work)
    (work / "workflow.json").write_text(json.dumps(workflow))
    command = [native, "run", work / "workflow.json", "--input", folder / "images", "--output", work / "output"]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert done.returncode == 0, (name, done.stderr)
    return work / "output"


def validate(output, version):
    """Both validators on plates, wells, images and labels."""
    models = ome_zarr_models.v04 if version == "0.4" else ome_zarr_models.v05
    zarr_format = 2 if version == "0.4" else 3

    def check(model, folder, is_described=True):
        model.from_zarr(zarr.open_group(folder, mode="r", zarr_format=zarr_format))
        if is_described:
            yaozarrs.validate_zarr_store(str(folder))

    n = 0
    for plate in sorted(output.glob("*.zarr")):
        check(models.HCS, plate)
        for image in sorted(plate.glob("*/*/[0-9]")):
            check(models.Well, image.parent)
            check(models.Image, image)
            if (image / "labels").is_dir():
                # The list of labels of 0.4 has no version, which yaozarrs asks for.
                check(models.Labels, image / "labels", version == "0.5")
                check(models.ImageLabel, image / "labels/nuclei")
            n += 1
    return n


def check_ngio(output):
    """Images, labels and tables of all images; gives the number of nuclei."""
    # It changes classes that ome-zarr-models uses, which then validates nothing any more.
    import ngio

    n_nuclei = 0
    for name, has_labels in [("plate1", False), ("plate1_mip", True)]:
        plate = ngio.open_ome_zarr_plate(str(output / f"{name}.zarr"))
        for path, container in plate.get_images().items():
            image = container.get_image()
            pixels = image.get_as_numpy()
            assert container.wavelength_ids == ["C01", "C02"], container.wavelength_ids
            fields = container.get_table("FOV_ROI_table").rois()
            for field in fields:
                assert image.get_roi(field).shape[-2:] == (SIZE, SIZE), (path, field)
            (whole,) = container.get_table("well_ROI_table").rois()
            assert numpy.array_equal(image.get_roi(whole), pixels), path
            if has_labels:
                n_nuclei += check_tables(output, path, container, pixels)
    return n_nuclei


def check_tables(output, path, container, pixels):
    """Each bounding box has its label, and the measurements are those of the table of the plate."""
    label = container.get_label("nuclei")
    labels = label.get_as_numpy()
    boxes = container.get_table("nuclei_ROI_table")
    features = container.get_table("nuclei").dataframe
    numbers = numpy.unique(labels[labels > 0]).tolist()
    assert list(boxes.dataframe.index) == list(features.index) == numbers, path
    for number in numbers:
        inside = label.get_roi(boxes.get_label(number)) == number
        assert inside.sum() == (labels == number).sum() == features["area"][number], (path, number)
        assert inside[0].any(axis=1).all() and inside[0].any(axis=0).all(), (path, number)
        mean = pixels[0][labels == number].mean()
        assert abs(mean - features["mean_C01"][number]) < 1e-9 * mean, (path, number)
    everything = pandas.read_csv(output / "plate1_mip.csv")
    row, column, _ = path.split("/")
    areas = everything[everything["well"] == row + column]["area"]
    assert set(features["area"]) <= set(areas), path
    return len(numbers)


def check_napari(output):
    """The reader gives the plate as one picture."""
    sizes = []
    for name in ["plate1.zarr", "plate1_mip.zarr"]:
        path = str(output / name)
        layers = napari_ome_zarr.napari_get_reader(path)(path)
        levels = layers[0][0]
        largest = numpy.asarray(levels[0] if isinstance(levels, list) else levels)
        assert largest.std() > 0, path
        sizes.append(largest.shape)
    return sizes


def arrays(output):
    """All pixels of level 0, by their paths."""
    images = sorted(output.glob("*.zarr/*/*/[0-9]"))
    folders = [image / "0" for image in images] + [image / "labels/nuclei/0" for image in images]
    return {
        folder.relative_to(output).as_posix(): zarr.open_array(folder, mode="r")[:]
        for folder in folders
        if folder.is_dir()
    }


def same(one, other):
    one, other = arrays(one), arrays(other)
    assert one.keys() == other.keys(), (one.keys() ^ other.keys())
    for path, pixels in one.items():
        assert pixels.dtype == other[path].dtype and numpy.array_equal(pixels, other[path]), path


def check_stitched(apart, stitched):
    """Fields are at their places, and the second one is on top."""
    for well in WELLS:
        whole = zarr.open_array(stitched / "plate1.zarr" / well / "0/0", mode="r")[:]
        fields = [zarr.open_array(apart / "plate1.zarr" / well / str(index) / "0", mode="r")[:] for index in (0, 1)]
        assert whole.shape[-2:] == (SIZE - SHIFT[1], SIZE - SHIFT[0]), whole.shape
        raw = numpy.zeros_like(whole)
        raw[..., -SHIFT[1] :, -SHIFT[0] :] = fields[0]
        raw[..., :SIZE, :SIZE] = fields[1]
        # The illumination is estimated from other small images, so its profile differs a little.
        is_close = numpy.isclose(whole.astype(float), raw, rtol=0.05, atol=20)
        assert is_close.mean() > 0.999, (well, is_close.mean())


def main():
    folder, native = Path(sys.argv[1]), Path(sys.argv[2])
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    folder.mkdir(parents=True)
    shutil.copytree(EXAMPLE / "images", folder / "images")
    rows = [f"{field},{100 + x * PIXEL_SIZE},{50 + y * PIXEL_SIZE}" for field, (x, y) in [(1, (0, 0)), (2, SHIFT)]]
    (folder / "images/positions.csv").write_text("\n".join(["field,x,y", *rows]) + "\n")
    outputs, n_images, n_nuclei = {}, {}, {}
    for is_stitched in [False, True]:
        for version in ["0.4", "0.5"]:
            arguments = {"ngff_version": version, "stitch": is_stitched, "positions": "positions.csv"}
            name = f"{version}{'-stitched' if is_stitched else ''}"
            output = outputs[name] = run(folder, native, name, arguments)
            n_images[name] = validate(output, version)
            assert n_images[name] == (8 if is_stitched else 16), n_images
    for name, output in outputs.items():
        n_nuclei[name] = check_ngio(output)
        n_files = sum(path.is_file() for path in output.rglob("*"))
        sizes = check_napari(output)
        print(f"{name}: {n_images[name]} images, {n_nuclei[name]} nuclei, {n_files} files, napari shows {sizes}")
    same(outputs["0.4"], outputs["0.5"])
    same(outputs["0.4-stitched"], outputs["0.5-stitched"])
    truth = json.loads((EXAMPLE / "truth.json").read_text())
    expected = sum(len(field["nuclei"]) for field in truth["fields"])
    assert n_nuclei["0.4"] == n_nuclei["0.5"] == expected, (n_nuclei, expected)
    check_stitched(outputs["0.4"], outputs["0.5-stitched"])
    print("pixels and labels of both versions are equal, and stitched fields are at their places")


main()
