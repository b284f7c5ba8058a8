"""Projects each z-stack of a plate onto its brightest planes, and keeps its statistics.

A task in the way of Fractal's: called as `maximum_projection.py -j ARGS.json --metadata-out METADIFF.json`, once for
each image of the dataset.
"""

import argparse
import json
from pathlib import Path

import numpy as np


def project(stack, percentile):
    """Returns the maximum over z, and the intensities between which its contrast is best.

    stack: shape (z, y, x).
    """
    projection = stack.max(axis=0)
    low, high = np.percentile(projection, [percentile, 100 - percentile])
    return projection, (float(low), float(high))


def main(input_paths, output_path, component, metadata, percentile=1.0):
    stack = np.load(Path(input_paths[0]) / f"{component}.npy")
    projection, contrast = project(stack, percentile)
    np.save(Path(output_path) / f"{component}_mip.npy", projection)
    statistics = {
        "n_planes": len(stack),
        "contrast": contrast,
        "mean": round(float(projection.mean()), 6),
        "brightest_plane": int(stack.sum(axis=(1, 2), dtype=np.uint64).argmax()),
    }
    (Path(output_path) / f"{component}.json").write_text(json.dumps(statistics))
    print(f"{component}: {stack.shape} {stack.dtype} -> {projection.shape}")
    return {}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("-j", "--json", required=True, help="file of the task's arguments")
    parser.add_argument("--metadata-out", required=True, help="file for what the task has to say")
    args = parser.parse_args()
    result = main(**json.loads(Path(args.json).read_text()))
    Path(args.metadata_out).write_text(json.dumps(result))
