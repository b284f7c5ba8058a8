"""Checks what the imaging pipeline made: with zarr-python, tifffile, scipy, scikit-image, and validators of OME-Zarr.

usage: compare.py OUTPUT --images FOLDER [--truth truth.json] [--illumination FOLDER] [--background N] [--contact-sheet]

Prints a line for each check, with its figure, then what failed with its place. The exit code is 1 if something failed,
or if a check found nothing to check.
"""

import argparse
import json
import sys
import warnings
from pathlib import Path

import compare_images
import compare_regions
from python_tasks import FILE_NAME


class Report:
    """What was checked: for each check how often, and what failed."""

    def __init__(self):
        self.checks = {}

    def expect(self, *names):
        """From here on these checks fail if nothing is checked."""
        for name in names:
            self.checks.setdefault(name, {"n": 0, "failures": [], "figures": []})

    def check(self, name, good, place, message=""):
        """One more thing to check; `message` says what is wrong with `place` if it is not good."""
        self.expect(name)
        self.checks[name]["n"] += 1
        if not good:
            self.checks[name]["failures"].append(f"{place}: {message}" if message else str(place))
        return bool(good)

    def equal(self, name, found, expected, place):
        return self.check(name, found == expected, place, f"{found!r}, not {expected!r}")

    def figure(self, name, text):
        self.checks[name]["figures"].append(text)

    def print(self):
        """Returns whether all is good."""
        failed = 0
        for name, check in self.checks.items():
            n, failures = check["n"], check["failures"]
            failed += bool(failures) or n == 0
            figures = "".join(f", {figure}" for figure in check["figures"])
            print(f"{name}: {n - len(failures)} of {n}{figures}")
            if n == 0:
                print("  FAILED: there was nothing to check")
            for failure in failures[:10]:
                print(f"  FAILED: {failure}")
            if len(failures) > 10:
                print(f"  FAILED: and {len(failures) - 10} more")
        print(f"{len(self.checks) - failed} checks passed, {failed} failed")
        return not failed


def find_files(folder):
    """The image files: plate, (row, column), field, channel and plane, down to the path; all in order."""
    plates = {}
    for path in sorted(folder.iterdir()):
        match = FILE_NAME.fullmatch(path.name)
        if match:
            plate, well, field, z, channel = match.group("plate", "well", "field", "z", "channel")
            row = well.rstrip("0123456789")
            fields = plates.setdefault(plate, {}).setdefault((row, well[len(row) :]), {})
            fields.setdefault(field, {}).setdefault(channel, {})[z or ""] = path
    in_order = sorted(plates.items())
    return {
        plate: dict(sorted(wells.items(), key=lambda well: (len(well[0][0]), well[0]))) for plate, wells in in_order
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("output", type=Path)
    parser.add_argument("--images", required=True, type=Path, help="the files that the pipeline read")
    parser.add_argument("--truth", type=Path, help="what the generator says of them")
    parser.add_argument("--illumination", type=Path, help="the generator's profiles")
    parser.add_argument("--background", type=int, default=110, help="the camera's offset in counts")
    parser.add_argument("--contact-sheet", action="store_true", help="there has to be one")
    options = parser.parse_args()
    truth = json.loads(options.truth.read_text()) if options.truth else {}
    # Without a truth, nuclei may touch in any way.
    kind = truth.get("kind", "crowded")
    # A validator that wants something else than the format demands says so; that is no failure.
    warnings.simplefilter("ignore")

    report = Report()
    report.expect("plates of the image files")
    for plate, wells in find_files(options.images).items():
        folder = options.output / f"{plate}.zarr"
        if not report.check("plates of the image files", folder.is_dir(), folder, "it is not there"):
            continue
        projected = options.output / f"{plate}_mip.zarr"
        compare_images.check_metadata(report, folder, wells, labels=False)
        compare_images.check_metadata(report, projected, wells, labels=True)
        tables = compare_regions.Tables(report, projected, wells)
        same = []
        for (row, column), fields in wells.items():
            for index, (field, channels) in enumerate(fields.items()):
                image, projection = (plate / row / column / str(index) for plate in (folder, projected))
                pixels = compare_images.check_image(report, image, channels, options.background)
                mip = compare_images.check_projection(report, projection, pixels)
                labels = compare_regions.check_labels(report, projection, mip, list(channels), kind, same)
                tables.check_field(
                    plate, row + column, field, labels, dict(zip(channels, mip if mip is not None else []))
                )
        compare_regions.check_same(report, projected, same)
        tables.check_merged()
        if options.contact_sheet:
            compare_images.check_contact_sheet(report, projected.with_suffix(".png"))
        if truth.get("plate") == plate:
            compare_regions.check_truth(report, tables, truth)
        if options.illumination:
            compare_images.check_illumination(report, folder.with_suffix(".illumination"), options.illumination, kind)
    if truth:
        report.expect("number of nuclei")
    sys.exit(not report.print())


if __name__ == "__main__":
    main()
