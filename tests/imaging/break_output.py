"""Spoils one thing in a copy of what the pipeline made, and prints what compare.py has to say of it.

usage: break_output.py OUTPUT WAY        (without WAY: the names of all ways)

What is to be said is a line each: the name of a check, and a part of what failed.
"""

import json
import sys
from pathlib import Path

import numpy
import zarr


def write(array, index, value):
    """Changes one place of a zarr array, and leaves all else as it is."""
    zarr.open_array(array, mode="r+")[index] = value


def one_pixel_of_a_projection(output, image):
    array = image / "0"
    write(array, (0, 0, 7, 5), zarr.open_array(array, mode="r")[0, 0, 7, 5] + 1)
    return "projections equal the maximum", "0: 1 pixels differ, the first at [0, 0, 7, 5]"


def one_pixel_of_an_image(output, image):
    array = original(output, image) / "0"
    write(array, (1, 0, 9, 3), zarr.open_array(array, mode="r")[1, 0, 9, 3] + 1)
    return "pixels equal the corrected files", "0: 1 pixels differ, the first at [1, 0, 9, 3]"


def one_pixel_of_a_small_level(output, image):
    array = image / "3"
    write(array, (0, 0, 1, 2), zarr.open_array(array, mode="r")[0, 0, 1, 2] + 1)
    return "pyramid levels", "3: 1 pixels differ, the first at [0, 0, 1, 2]"


def two_labels_merged(output, image):
    array = image / "labels/nuclei/0"
    labels = zarr.open_array(array, mode="r")[:]
    write(array, slice(None), numpy.where(labels == 2, 1, labels))
    return "label images equal", f"labels/nuclei: {(labels == 2).sum()} pixels differ"


def a_label_removed(output, image):
    array = image / "labels/nuclei/0"
    labels = zarr.open_array(array, mode="r")[:]
    write(array, slice(None), numpy.where(labels == labels.max(), 0, labels))
    return "rows for each label", f"{labels.max()} rows, {labels.max() - 1} labels; not in both: {labels.max()}"


def another_threshold(output, image):
    path = image / "labels/nuclei/.zattrs"
    attributes = json.loads(path.read_text())
    attributes["imaging"]["threshold"] += 5
    path.write_text(json.dumps(attributes))
    return "thresholds as scikit-image's", f"labels/nuclei: {attributes['imaging']['threshold']}, not "


def no_axes(output, image):
    edit(image / ".zattrs", lambda attributes: attributes["multiscales"][0].pop("axes"))
    return "ome-zarr-models takes each image", "multiscales.0.axes Field required"


def no_image_label(output, image):
    edit(image / "labels/nuclei/.zattrs", lambda attributes: attributes.pop("image-label"))
    return "ome-zarr-models takes each label image", "image-label Field required"


def a_well_left_out(output, image):
    edit(image.parents[2] / ".zattrs", lambda attributes: attributes["plate"]["wells"].pop())
    return "wells and images as in the image files", f"{image.parents[2].name}: "


def one_value_of_a_table(output, image):
    path = image.parents[2].with_suffix(".tables") / f"{image.parts[-3]}{image.parts[-2]}.csv"
    lines = path.read_text().splitlines()
    cells = lines[1].split(",")
    column = lines[0].split(",").index("perimeter")
    cells[column] = str(float(cells[column]) * 1.00001)
    lines[1] = ",".join(cells)
    path.write_text("\n".join(lines) + "\n")
    return "region properties", f"label 1: perimeter is {cells[column]}, not "


def a_merged_row_left_out(output, image):
    path = image.parents[2].with_suffix(".csv")
    lines = path.read_text().splitlines(True)
    path.write_text("".join(lines[:3] + lines[4:]))
    return "merged table equals those of the wells", f"{len(lines) - 1} lines, of {len(lines)}, and another line 4"


def a_chunk_cut_off(output, image):
    path = original(output, image) / "0/0/0/0/0"
    path.write_bytes(path.read_bytes()[:-20])
    return "arrays open and all chunks read", "0: "


def a_chunk_of_another_size(output, image):
    edit(image / "1/.zarray", lambda metadata: metadata.update(chunks=[1, 1, 50, 50]))
    return "arrays open and all chunks read", "1: "


def a_profile_changed(output, image):
    from imageio.v3 import imread, imwrite

    path = original(output, image).parents[2].with_suffix(".illumination") / "C01.png"
    profile = imread(path)
    profile[:8] = profile[:8] * 0.8
    imwrite(path, profile)
    return "pixels equal the corrected files", "0: "


def a_folder_left_over(output, image):
    (image / "labels/nuclei.part").mkdir()
    return "nothing is left half made", "there is nuclei.part"


WAYS = [
    one_pixel_of_a_projection,
    one_pixel_of_an_image,
    one_pixel_of_a_small_level,
    two_labels_merged,
    a_label_removed,
    another_threshold,
    no_axes,
    no_image_label,
    a_well_left_out,
    one_value_of_a_table,
    a_merged_row_left_out,
    a_chunk_cut_off,
    a_chunk_of_another_size,
    a_profile_changed,
    a_folder_left_over,
]


def edit(path, change):
    attributes = json.loads(path.read_text())
    change(attributes)
    path.write_text(json.dumps(attributes))


def original(output, image):
    """The image that a projection was made of."""
    plate, *rest = image.relative_to(output).parts
    return output.joinpath(plate.replace("_mip.zarr", ".zarr"), *rest)


def main():
    output, *chosen = sys.argv[1:]
    if not chosen:
        print(*(way.__name__ for way in WAYS), sep="\n")
        return
    plate = sorted(Path(output).glob("*_mip.zarr"))[0]
    well = json.loads((plate / ".zattrs").read_text())["plate"]["wells"][0]["path"]
    way = next(way for way in WAYS if way.__name__ == chosen[0])
    print(*way(Path(output), plate / well / "0"), sep="\n")


main()
