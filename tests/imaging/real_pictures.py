"""Puts real microscope pictures of nuclei into a folder, as 16-bit TIFF files with the names that the pipeline reads.

usage: real_pictures.py FOLDER

They are in packages for Python's pip, of which only the pictures are taken, nothing is installed:

- well B02: four quarters of a fluorescence picture from the 2018 Data Science Bowl (Caicedo et al., Nature Methods 16,
  2019; Broad Bioimage Benchmark Collection BBBC038, CC0), with a mask of its nuclei, in stardist (BSD 3-clause).
- well B03: four parts of the picture of nuclei in the demonstrations of mahotas (MIT), at half its size.

Their 8 bits become 12, upon the camera's offset that the pipeline takes away. FOLDER/images has the pictures,
FOLDER/truth.json the nuclei of the mask. Exit code 3: the packages cannot be had here.
"""

import hashlib
import io
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy
import tifffile
from imageio.v3 import imread

SIZE = 256
BACKGROUND = 110
PACKAGES = {"stardist": "0.9.2", "mahotas": "1.4.19"}
# Name and file in the package, and its sha256.
PICTURES = {
    "bowl": (
        "stardist",
        "stardist/data/images/img2d.tif",
        "f9ccc1571b92c861ff87e28463068b43f61bd47357ed0503f711e5cd1eb97750",
    ),
    "mask": (
        "stardist",
        "stardist/data/images/mask2d.tif",
        "59ad5e820b7982ca9d13e946fa6e7f64e2714899e00a2ae6c69aa79aad53d46f",
    ),
    "demo": (
        "mahotas",
        "mahotas/demos/data/nuclear.png",
        "c0d3fc389d90a90118b43b585cd5134a560a7fcadb7b46825fc7845321755e27",
    ),
}


def fetch(package, folder):
    # The wheel of one interpreter is as good as that of another: only its pictures are used.
    command = [sys.executable, "-m", "pip", "--quiet", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--python-version", "3.11", "--dest", str(folder), f"{package}=={PACKAGES[package]}"]
    if subprocess.run(command).returncode:
        print(f"{package} cannot be had here", file=sys.stderr)
        sys.exit(3)
    return zipfile.ZipFile(next(folder.glob(f"{package}-*.whl")))


def read_pictures():
    pictures = {}
    with tempfile.TemporaryDirectory() as folder:
        wheels = {package: fetch(package, Path(folder)) for package in PACKAGES}
        for name, (package, path, expected) in PICTURES.items():
            data = wheels[package].read(path)
            digest = hashlib.sha256(data).hexdigest()
            if digest != expected:
                sys.exit(f"{path} of {package} has the sha256 {digest}, not {expected}")
            read = tifffile.imread if path.endswith(".tif") else imread
            pictures[name] = read(io.BytesIO(data))
    return pictures


def fields(picture):
    """Parts of a picture, row by row: four of `SIZE`."""
    return [picture[y : y + SIZE, x : x + SIZE] for y in (0, SIZE) for x in (0, SIZE)]


def describe_nuclei(mask):
    nuclei = []
    for label in numpy.unique(mask[mask > 0]):
        y, x = numpy.nonzero(mask == label)
        nuclei.append({"y": float(y.mean()), "x": float(x.mean()), "area_px": len(y)})
    return nuclei


def main():
    (folder,) = map(Path, sys.argv[1:])
    pictures = read_pictures()
    demo = pictures["demo"][..., 0].astype(numpy.float64)
    halved = (demo[::2, ::2] + demo[1::2, ::2] + demo[::2, 1::2] + demo[1::2, 1::2]) / 4
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for well, picture in [("B02", pictures["bowl"]), ("B03", halved)]:
        for index, field in enumerate(fields(picture)):
            counts = numpy.rint(BACKGROUND + 16 * field.astype(numpy.float64)).astype(numpy.uint16)
            name = f"real_{well}_F{index + 1:03}_C01.tif"
            tifffile.imwrite(folder / "images" / name, counts, compression="zlib")
    described = [
        {"well": "B02", "field": f"F{index + 1:03}", "nuclei": describe_nuclei(field)}
        for index, field in enumerate(fields(pictures["mask"]))
    ]
    truth = {"plate": "real", "kind": "real", "size": SIZE, "background": BACKGROUND, "fields": described}
    (folder / "truth.json").write_text(json.dumps(truth))


main()
