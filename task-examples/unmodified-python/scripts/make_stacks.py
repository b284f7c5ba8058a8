"""Makes z-stacks of blurred spots for the example, and names them in the dataset's metadata.

Called like any task, once: `make_stacks.py -j ARGS.json --metadata-out METADIFF.json`.
"""

import argparse
import json
from pathlib import Path

import numpy as np


def make_stack(seed, n_planes, size):
    """Returns spots out of and in focus, of 16 bits: shape (n_planes, size, size)."""
    random = np.random.default_rng(seed)
    z, y, x = np.ogrid[:n_planes, :size, :size]
    stack = random.poisson(100, (n_planes, size, size)).astype(np.float64)
    for _ in range(12):
        centre = random.uniform(0, [n_planes, size, size])
        distance = (z - centre[0]) ** 2 / 4 + ((y - centre[1]) ** 2 + (x - centre[2]) ** 2) / 30
        stack += 2000 / (1 + distance) ** 2
    return stack.astype(np.uint16)


def main(input_paths, output_path, metadata, n_images=6, n_planes=10, size=256):
    names = [f"B{1 + number // 2:02}_F{1 + number % 2}" for number in range(n_images)]
    for number, name in enumerate(names):
        np.save(Path(output_path) / f"{name}.npy", make_stack(number, n_planes, size))
    return {"image": names}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("-j", "--json", required=True)
    parser.add_argument("--metadata-out", required=True)
    args = parser.parse_args()
    Path(args.metadata_out).write_text(json.dumps(main(**json.loads(Path(args.json).read_text()))))
