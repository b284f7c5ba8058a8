"""Checks labels and tables: against scipy and scikit-image, against each other, and against what the generator drew."""

import csv
import math

import numpy
from scipy.spatial import KDTree
from skimage.filters import threshold_otsu

from algorithms import SHAPES, measured, segmented, smoothed
from compare_images import attempt, check_labels_levels, describe, differing, read_attributes

MIN_AREA = 50
# Where nuclei touch, the rounding of a distance can move a border.
LEAST_SAME = 0.98
# For each kind of plate: by how much the number of nuclei may be off, and the least correlation of areas. In real
# pictures the dim nuclei beside very bright ones are below the one threshold that there is for all.
LIMITS = {"easy": (0.02, 0.95), "crowded": (0.10, 0.95), "real": (0.20, 0.3)}


def check_labels(report, image, mip, channels, kind, same):
    """The labels of one projection (c, y, x), computed again with the threshold that the task used; gives them.

    How many nuclei are the same is added to `same`.
    """
    report.expect("thresholds as scikit-image's", "nuclei the same")
    if kind == "easy":
        report.expect("label images equal")
    if mip is None:
        return None
    labels = check_labels_levels(report, image, mip.shape[1:])
    folder = image / "labels/nuclei"
    try:
        imaging = read_attributes(folder)["imaging"]
        settings = dict(imaging["settings"])
        pixels = mip[channels.index(imaging.get("channel", channels[0]))]
        threshold = imaging["threshold"]
    except Exception as error:
        report.check("nuclei the same", False, folder, describe(error))
        return None
    smooth = smoothed(pixels, settings.pop("smoothing_sigma"))
    if settings.pop("threshold", None) is None:
        otsu = int(threshold_otsu(smooth))
        report.check("thresholds as scikit-image's", abs(threshold - otsu) <= 1, folder, f"{threshold}, not {otsu}")
    expected = segmented(smooth, threshold, **settings)
    if labels is None or labels[0].shape != expected.shape:
        report.check("nuclei the same", False, folder, "no labels of the right shape")
        return None
    same.append(count_same(labels[0], expected))
    wrong = numpy.argwhere(labels[0] != expected)
    if kind == "easy":
        report.check("label images equal", not len(wrong), folder, differing(wrong))
    elif len(wrong):
        report.figure("nuclei the same", f"all but {same[-1][1] - same[-1][0]} in {'/'.join(image.parts[-4:])}")
    return labels[0]


def count_same(labels, expected):
    """The number of regions that have the same pixels in both, whatever their numbers, and of all."""
    areas, expected_areas = numpy.bincount(labels.ravel()), numpy.bincount(expected.ravel())
    pairs, counts = numpy.unique(numpy.stack([labels.ravel(), expected.ravel()]), axis=1, return_counts=True)
    same = (pairs > 0).all(axis=0) & (areas[pairs[0]] == counts) & (expected_areas[pairs[1]] == counts)
    return int(same.sum()), int(max((areas[1:] > 0).sum(), (expected_areas[1:] > 0).sum()))


def check_same(report, plate, same):
    """Nearly all nuclei of a plate are those of scikit-image; `same`: what `count_same` gave of each image."""
    n_same, n = (sum(counts) for counts in zip(*same)) if same else (0, 0)
    share = n_same / max(n, 1)
    report.check("nuclei the same", share >= LEAST_SAME, plate, f"{n_same} of {n}, {share:.2%}")
    report.figure("nuclei the same", f"{n_same} of {n} nuclei of {plate.name}")


class Tables:
    """The tables of a plate: a file for each well, and one of all."""

    def __init__(self, report, plate, wells):
        self.report, self.plate = report, plate
        self.header, self.rows = [], {}
        folder = plate.with_suffix(".tables")
        report.expect("tables of the wells", "table columns", "rows for each label", "region properties")
        report.expect("merged table equals those of the wells")
        for row, column in wells:
            path = folder / f"{row}{column}.csv"
            attempt(report, "tables of the wells", path, lambda path=path, well=row + column: self.read(path, well))
        found = {path.name for path in folder.glob("*")}
        expected = {f"{row}{column}.csv" for row, column in wells}
        report.equal("tables of the wells", sorted(found - expected), [], folder)

    def read(self, path, well):
        with open(path, newline="") as file:
            header, *rows = csv.reader(file)
        self.header = self.header or header
        self.report.equal("table columns", header, self.header, path)
        self.rows[well] = rows

    def fields(self):
        """Each well and field, with the numbers of its rows."""
        for well, rows in self.rows.items():
            for field in dict.fromkeys(row[2] for row in rows):
                yield well, field, [dict(zip(self.header, row)) for row in rows if row[2] == field]

    def check_field(self, plate, well, field, labels, channels):
        """Measures the labels of one field again."""
        place = f"{self.plate.name} {well} {field}"
        if labels is None or well not in self.rows:
            return
        columns = ["plate", "well", "field", "label", *SHAPES]
        columns += [f"{name}_{channel}" for channel in channels for name in ["mean", "integrated", "min", "max"]]
        if not self.report.equal("table columns", self.header, columns, place):
            return
        rows = [row for row in self.rows[well] if row[2] == field]
        expected = measured(labels, channels)
        numbers = [row[3] for row in rows]
        names = [str(n) for n in expected["label"]]
        others = sorted(set(numbers) ^ set(names), key=lambda name: (len(name), name)) or ["none, but the order"]
        message = f"{len(numbers)} rows, {len(names)} labels; not in both: {', '.join(others[:5])}"
        if not self.report.check("rows for each label", numbers == names, place, message):
            return
        for index, row in enumerate(rows):
            row_place = f"{place} label {row[3]}"
            self.report.equal("rows for each label", row[:2], [plate, well], row_place)
            values = {name: column[index] for name, column in expected.items()}
            round_region = (
                values["axis_major_length"] - values["axis_minor_length"] <= 1e-6 * values["axis_major_length"]
            )
            for name, text in zip(columns[4:], row[4:], strict=True):
                if round_region and name in ["orientation", "eccentricity"]:
                    continue
                good = is_same(name, text, float(values[name]))
                self.report.check("region properties", good, row_place, f"{name} is {text}, not {values[name]}")

    def check_merged(self):
        def check():
            path = self.plate.with_suffix(".csv")
            with open(path, newline="") as file:
                found = list(csv.reader(file))
            expected = [self.header, *(row for rows in self.rows.values() for row in rows)]
            wrong = [index for index, rows in enumerate(zip(found, expected)) if rows[0] != rows[1]]
            line = wrong[0] + 1 if wrong else min(len(found), len(expected)) + 1
            message = f"{len(found)} lines, of {len(expected)}, and another line {line}"
            self.report.check("merged table equals those of the wells", found == expected, path, message)
            self.report.figure("merged table equals those of the wells", f"{len(found) - 1} rows")

        attempt(self.report, "merged table equals those of the wells", self.plate.with_suffix(".csv"), check)


def is_same(name, text, expected):
    """Whether a value of a table is that of scikit-image, but for rounding."""
    if not math.isfinite(expected):
        return text == ""
    try:
        difference = float(text) - expected
    except ValueError:
        return False
    if name == "orientation":
        difference -= round(difference / math.pi) * math.pi
    return abs(difference) <= 1e-6 * max(abs(expected), 1)


def check_truth(report, tables, truth):
    """Numbers of nuclei, and areas of those that are found where one was drawn."""
    limit, least_correlation = LIMITS[truth["kind"]]
    report.expect("number of nuclei", "areas of nuclei")
    found = {(well, field): rows for well, field, rows in tables.fields()}
    n_true, n_found, areas = 0, 0, []
    for field in truth["fields"]:
        # Less of a nucleus than this, at the edge of an image, is not taken for one.
        nuclei = [nucleus for nucleus in field["nuclei"] if nucleus["area_px"] >= MIN_AREA]
        rows = found.get((field["well"], field["field"]), [])
        n_true, n_found = n_true + len(nuclei), n_found + len(rows)
        if not nuclei or not rows:
            continue
        diameter = sum(2 * math.sqrt(nucleus["area_px"] / math.pi) for nucleus in nuclei) / len(nuclei)
        tree = KDTree([(nucleus["y"], nucleus["x"]) for nucleus in nuclei])
        for row in rows:
            distance, index = tree.query([float(row["centroid_y"]), float(row["centroid_x"])])
            if distance <= diameter / 2:
                areas.append((float(row["area"]), nuclei[index]["area_px"]))
    place = tables.plate.with_suffix(".csv")
    off = abs(n_found - n_true) / max(n_true, 1)
    report.check("number of nuclei", n_true > 0 and off <= limit, place, f"{n_found}, {off:.1%} off the true {n_true}")
    report.figure("number of nuclei", f"{n_found} found, {n_true} true ({truth['kind']})")
    if len(areas) > 2:
        correlation = numpy.corrcoef(numpy.array(areas).T)[0, 1]
        ratio = numpy.median([one / other for one, other in areas])
        report.check(
            "areas of nuclei",
            correlation > least_correlation,
            place,
            f"their correlation with the true ones is {correlation:.3f}",
        )
        report.figure("areas of nuclei", f"correlation {correlation:.4f} of {len(areas)}, median ratio {ratio:.3f}")
