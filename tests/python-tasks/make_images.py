"""Writes a plate of a Yokogawa microscope: `make_images.py FOLDER CYCLE`.

Two wells, two fields, two channels and two planes of 270 x 270 pixels as PNG files, with the table
of their positions, and a profile of the illumination. The second cycle is the first one, moved by 5
and 3 pixels, with other noise. Needs numpy and Pillow.
"""

import csv
import sys
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = 270
PIXEL_UM = 0.325
COLUMNS = (
    "well_id,FieldIndex,x_micrometer,y_micrometer,x_micrometer_original,y_micrometer_original,"
    "z_micrometer,pixel_size_x,pixel_size_y,pixel_size_z,x_pixel,y_pixel,z_pixel,bit_depth,Time"
)


def write_png(path, image):
    Image.fromarray(image.astype(np.uint16)).save(path)


def nuclei(rng, offset):
    """Returns a picture of spots."""
    y, x = np.mgrid[:SIZE, :SIZE]
    spots = rng.uniform(0, SIZE, (20, 2)) + offset
    return sum(np.exp(-((y - a) ** 2 + (x - b) ** 2) / 162) for a, b in spots)


def write_cycle(folder, cycle):
    spots, noise = np.random.default_rng(0), np.random.default_rng(100 + cycle)
    rows = []
    for well in ("B03", "B05"):
        for field in (1, 2):
            base = nuclei(spots, (5 * cycle, 3 * cycle))
            for channel in (1, 2):
                for plane in (1, 2):
                    image = 110 + noise.poisson(5, (SIZE, SIZE)) + base * 500 * channel * plane
                    name = f"20200812-Test_{well}_T0001F{field:03d}L01"
                    write_png(folder / f"{name}A0{channel}Z{plane:02d}C0{channel}.png", image)
            x = (field - 1) * SIZE * PIXEL_UM
            sizes = [PIXEL_UM, PIXEL_UM, 1.0, SIZE, SIZE, 2, 16]
            rows.append([well, field, x, 0.0, x, 0.0, 0, *sizes, "2020-08-12 00:00:00"])
    with open(folder / "meta.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS.split(","))
        writer.writerows(rows)


def write_profile(folder):
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE / 2
    write_png(folder / "illumination.png", 1000 * np.exp(-(x**2 + y**2) / (2 * SIZE**2)))


def main():
    folder, cycle = Path(sys.argv[1]), int(sys.argv[2])
    draft = folder.with_name(folder.name + ".new")
    (draft / "profiles").mkdir(parents=True, exist_ok=True)
    write_cycle(draft, cycle)
    write_profile(draft / "profiles")
    draft.rename(folder)


if __name__ == "__main__":
    main()
