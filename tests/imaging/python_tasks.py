"""The tasks of the imaging package in Python, called as Fractal calls its tasks.

usage: python_tasks.py TASK -j ARGS.json --metadata-out METADIFF.json

With zarr-python, tifffile, scipy and scikit-image they make the same files as the WebAssembly tasks: to compare results
with, and times. What is computed is in algorithms.py. A module is imported where it is needed, so that a task waits
only for what it uses.
"""

import argparse
import json
import re
import shutil
from itertools import cycle
from pathlib import Path

from algorithms import corrected, every_second, fitted_profile, halved, measured, segmented, smoothed

FILE_NAME = re.compile(
    r"(?P<plate>.+)_(?P<well>[A-Z]+\d+)_(?P<field>F\d+)(_(?P<z>Z\d+))?_(?P<channel>C\d+)\.(tiff?|png)"
)
COLORS = ["00FFFF", "FF00FF", "FFFF00", "00FF00", "FF0000", "0000FF"]


def read_attributes(folder):
    return json.loads((folder / ".zattrs").read_text())


def write_group(folder, attributes):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".zgroup").write_text(json.dumps({"zarr_format": 2}))
    (folder / ".zattrs").write_text(json.dumps(attributes, indent=2))


def read_level(image, level=0):
    import zarr

    return zarr.open_array(image / str(level), mode="r")[:]


def write_levels(image, pixels, n_levels, smaller, chunk_size):
    """Writes `pixels`, whose last two axes are y and x, and the smaller levels."""
    import zarr
    from numcodecs import Blosc

    for level in range(n_levels):
        chunks = (1,) * (pixels.ndim - 2) + tuple(min(chunk_size, n) for n in pixels.shape[-2:])
        array = zarr.create_array(
            image / str(level),
            shape=pixels.shape,
            chunks=chunks,
            dtype=pixels.dtype,
            compressors=Blosc("lz4", 5, Blosc.SHUFFLE),
            fill_value=0,
            zarr_format=2,
            chunk_key_encoding={"name": "v2", "separator": "/"},
            overwrite=True,
        )
        array[:] = pixels
        pixels = smaller(pixels)


def multiscales(name, axes, scale, n_levels, kind):
    """The entry of NGFF 0.4; `scale` is that of level 0, one number an axis of `axes`."""
    types = {"c": {"type": "channel"}}
    space = {"type": "space", "unit": "micrometer"}
    datasets = []
    for level in range(n_levels):
        scales = [n * 2**level if axis in "yx" else n for axis, n in zip(axes, scale, strict=True)]
        datasets.append({"path": str(level), "coordinateTransformations": [{"type": "scale", "scale": scales}]})
    described = [{"name": axis, **types.get(axis, space)} for axis in axes]
    return [{"version": "0.4", "name": name, "axes": described, "datasets": datasets, "type": kind}]


def channel_ids(attributes):
    return [channel["id"] for channel in attributes["imaging"]["channels"]]


def read_image(path):
    if path.endswith(".png"):
        from imageio.v3 import imread
    else:
        from tifffile import imread
    return imread(path)


def shape_of(image, level=0):
    return json.loads((image / str(level) / ".zarray").read_text())["shape"]


def chunk_size_of(image):
    return max(json.loads((image / "0/.zarray").read_text())["chunks"][-2:])


# The tasks. Each takes Fractal's parameters and its own, and gives what is to be changed in the metadata.


def create_plate(input_paths, output_path, metadata, channels=(), pixel_size_um=0.65, z_step_um=1.0):
    names = [path for folder in input_paths for path in sorted(Path(folder).iterdir())]
    files = [(match, str(path)) for path in names if (match := FILE_NAME.fullmatch(path.name))]
    if not files:
        raise SystemExit(f"there is no image with a name such as plate1_B03_F001_Z001_C01.tif in {input_paths}")
    # Plate, well, field, channel and plane, down to the file.
    plates = {}
    for match, path in files:
        plate, well, field, z, channel = match.group("plate", "well", "field", "z", "channel")
        row, column = re.fullmatch(r"([A-Z]+)(\d+)", well).groups()
        fields = plates.setdefault(plate, {}).setdefault((len(row), row, column), {})
        fields.setdefault(field, {}).setdefault(channel, {})[z or ""] = path
    channels = channels or [{"id": channel} for channel in sorted({match["channel"] for match, _ in files})]
    channels = [{"label": entry["id"], "color": color, **entry} for entry, color in zip(channels, cycle(COLORS))]
    ids = [channel["id"] for channel in channels]

    new = {"plate": [], "well": [], "image": []}
    for plate, wells in plates.items():
        rows = list(dict.fromkeys(row for _, row, _ in sorted(wells)))
        columns = sorted({column for _, _, column in wells})
        entries = [
            {"path": f"{row}/{column}", "rowIndex": rows.index(row), "columnIndex": columns.index(column)}
            for _, row, column in sorted(wells)
        ]
        attributes = {
            "version": "0.4",
            "name": plate,
            "rows": [{"name": row} for row in rows],
            "columns": [{"name": column} for column in columns],
            "wells": entries,
            "acquisitions": [{"id": 0, "name": plate}],
            "field_count": max(map(len, wells.values())),
        }
        folder = Path(output_path) / f"{plate}.zarr"
        write_group(folder, {"plate": attributes})
        new["plate"].append(folder.name)
        for (_, row, column), fields in sorted(wells.items()):
            well = folder / row / column
            write_group(well.parent, {})
            images = [{"path": str(index), "acquisition": 0} for index in range(len(fields))]
            write_group(well, {"well": {"version": "0.4", "images": images}})
            new["well"].append(f"{folder.name}/{row}/{column}")
            for index, (field, planes) in enumerate(sorted(fields.items())):
                imaging = {"plate": plate, "well": row + column, "field": field, "channels": channels}
                imaging |= {"pixel_size_um": pixel_size_um, "z_step_um": z_step_um}
                imaging["files"] = [[path for _, path in sorted(planes[channel].items())] for channel in ids]
                write_group(well / str(index), {"imaging": imaging})
                new["image"].append(f"{new['well'][-1]}/{index}")
    return new


def convert_images(output_path, metadata, component, num_levels=5, chunk_size=512):
    import numpy

    folder = Path(output_path) / component
    imaging = read_attributes(folder)["imaging"]
    pixels = numpy.stack([[read_image(path) for path in planes] for planes in imaging.pop("files")])
    omero = []
    for channel, values in zip(imaging["channels"], pixels):
        start, end = int(values.min()), max(int(values.max()), 1)
        window = {"min": 0, "max": 65535, "start": start, "end": end}
        omero.append({"label": channel["label"], "color": channel["color"], "active": True, "window": window})
    name = f"{imaging['plate']}_{imaging['well']}_{imaging['field']}"
    scale = [1.0, imaging["z_step_um"], imaging["pixel_size_um"], imaging["pixel_size_um"]]
    attributes = {
        "multiscales": multiscales(name, "czyx", scale, num_levels, "mean"),
        "omero": {"version": "0.4", "name": name, "channels": omero},
        "imaging": imaging,
    }
    write_group(folder, attributes)
    write_levels(folder, pixels, num_levels, halved, chunk_size)
    return {"shape": list(pixels.shape)}


def estimate_illumination(output_path, metadata, background=110, max_images=48):
    import numpy
    from imageio.v3 import imwrite

    for plate in metadata["plate"]:
        folders = [Path(output_path) / image for image in metadata["image"] if image.split("/")[0] == plate]
        n_chosen = min(len(folders), max_images)
        chosen = [folders[index * len(folders) // n_chosen] for index in range(n_chosen)]
        attributes = read_attributes(folders[0])
        sizes = [shape_of(folders[0], level)[-2:] for level in range(len(attributes["multiscales"][0]["datasets"]))]
        level = next((level for level, size in enumerate(sizes) if max(size) <= 32), len(sizes) - 1)
        light = [read_level(folder, level).min(axis=1).astype(float) - background for folder in chosen]
        # The light between the cells, of the few darkest images, and yet not that of one empty image.
        dark = numpy.quantile(light, 0.05, axis=0, method="lower")
        target = Path(output_path) / f"{plate.removesuffix('.zarr')}.illumination"
        target.mkdir(exist_ok=True)
        for channel, values in zip(channel_ids(attributes), dark, strict=True):
            profile = numpy.rint(fitted_profile(values, sizes[0]) * 65535)
            imwrite(target / f"{channel}.png", numpy.clip(profile, 1, 65535).astype(numpy.uint16))
    return {}


def correct_illumination(output_path, metadata, component, background=110):
    from imageio.v3 import imread

    folder = Path(output_path) / component
    profiles = Path(output_path) / f"{component.split('/')[0].removesuffix('.zarr')}.illumination"
    attributes = read_attributes(folder)
    pixels = read_level(folder)
    for index, channel in enumerate(channel_ids(attributes)):
        pixels[index] = corrected(pixels[index], imread(profiles / f"{channel}.png"), background)
    n_levels = len(attributes["multiscales"][0]["datasets"])
    write_levels(folder, pixels, n_levels, halved, chunk_size_of(folder))
    return {}


def copy_structure(output_path, metadata, suffix="mip"):
    new = {}
    for key in ["plate", "well", "image"]:
        new[key] = [name.replace(".zarr", f"_{suffix}.zarr", 1) for name in metadata[key]]
        for old_name, new_name in zip(metadata[key], new[key]):
            old, target = Path(output_path) / old_name, Path(output_path) / new_name
            attributes = read_attributes(old)
            if key == "plate":
                shutil.rmtree(target, ignore_errors=True)
                attributes["plate"]["name"] = target.stem
            if key == "well":
                write_group(target.parent, {})
            write_group(target, attributes)
    return {**new, "sources": metadata["plate"]}


def project_maximum(output_path, metadata, component):
    plate, rest = component.split("/", 1)
    source = next(name for name in metadata["sources"] if plate.startswith(name.removesuffix(".zarr") + "_"))
    old, folder = Path(output_path) / source / rest, Path(output_path) / component
    pixels = read_level(old).max(axis=1, keepdims=True)
    n_levels = len(read_attributes(folder)["multiscales"][0]["datasets"])
    write_levels(folder, pixels, n_levels, halved, chunk_size_of(old))
    return {}


def segment_nuclei(
    output_path,
    metadata,
    component,
    channel="C01",
    smoothing_sigma=1.0,
    threshold=None,
    split_sigma=1.0,
    min_distance=7,
    min_area=50,
):
    from skimage.filters import threshold_otsu

    folder = Path(output_path) / component
    attributes = read_attributes(folder)
    pixels = read_level(folder)[channel_ids(attributes).index(channel), 0]
    smooth = smoothed(pixels, smoothing_sigma)
    threshold = int(threshold_otsu(smooth)) if threshold is None else threshold
    settings = {"split_sigma": split_sigma, "min_distance": min_distance, "min_area": min_area}
    labels = segmented(smooth, threshold, **settings)

    multiscale = attributes["multiscales"][0]
    scale = multiscale["datasets"][0]["coordinateTransformations"][0]["scale"][1:]
    n_levels = len(multiscale["datasets"])
    write_group(folder / "labels", {"labels": ["nuclei"]})
    write_group(
        folder / "labels/nuclei",
        {
            "multiscales": multiscales("nuclei", "zyx", scale, n_levels, "nearest"),
            "image-label": {"version": "0.4", "source": {"image": "../../"}},
            "imaging": {
                "channel": channel,
                "settings": {"smoothing_sigma": smoothing_sigma, **settings},
                "threshold": threshold,
                "n_objects": int(labels.max()),
            },
        },
    )
    write_levels(
        folder / "labels/nuclei", labels[None], n_levels, every_second, chunk_size_of(folder)
    )
    return {"n_objects": int(labels.max())}


def measure_regions(output_path, metadata, component):
    import csv

    plate, row, column = component.split("/")
    plate = plate.removesuffix(".zarr")
    folder = Path(output_path) / component
    rows, header = [], []
    for image in read_attributes(folder)["well"]["images"]:
        image = folder / image["path"]
        attributes = read_attributes(image)
        imaging = attributes["imaging"]
        channels = dict(zip(channel_ids(attributes), read_level(image)[:, 0]))
        columns = measured(read_level(image / "labels/nuclei")[0], channels)
        header = ["plate", "well", "field", *columns]
        names = [imaging["plate"], imaging["well"], imaging["field"]]
        for values in zip(*(column.tolist() for column in columns.values())):
            rows.append(names + ["" if value == float("inf") else value for value in values])
    target = Path(output_path) / f"{plate}.tables"
    target.mkdir(exist_ok=True)
    with open(target / f"{row}{column}.csv", "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
    return {"n_regions": len(rows)}


def merge_tables(output_path, metadata):
    for name in metadata["plate"]:
        plate = Path(output_path) / name
        wells = [well["path"].replace("/", "") for well in read_attributes(plate)["plate"]["wells"]]
        tables = [(plate.with_suffix(".tables") / f"{well}.csv").read_text().splitlines(True) for well in wells]
        merged = tables[0][:1] + [line for table in tables for line in table[1:]]
        plate.with_suffix(".csv").write_text("".join(merged))
    return {}


TASKS = [
    create_plate,
    convert_images,
    estimate_illumination,
    correct_illumination,
    copy_structure,
    project_maximum,
    segment_nuclei,
    measure_regions,
    merge_tables,
]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("task", choices=[task.__name__ for task in TASKS])
    parser.add_argument("-j", "--json", required=True, type=Path)
    parser.add_argument("--metadata-out", required=True, type=Path)
    options = parser.parse_args()
    parameters = json.loads(options.json.read_text())
    task = next(task for task in TASKS if task.__name__ == options.task)
    if task is not create_plate:
        parameters.pop("input_paths")
    options.metadata_out.write_text(json.dumps(task(**parameters)))


if __name__ == "__main__":
    main()
