"""Runs the tasks of python_tasks.py on a plate, one Python process for each call, as Fractal's local backend does.

usage: python_pipeline.py INPUT OUTPUT [--jobs N] [--work-dir FOLDER] [--args TASK.NAME=JSON]...

Prints the wall and CPU seconds of each task and of all as JSON; the CPU seconds are those of the tasks' processes.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

TASKS = Path(__file__).with_name("python_tasks.py")
# Each task, and the metadata key with its components, if it is called for each of them.
WORKFLOW = [
    ("create_plate", None),
    ("convert_images", "image"),
    ("estimate_illumination", None),
    ("correct_illumination", "image"),
    ("copy_structure", None),
    ("maximum_projection", "image"),
    ("segment_nuclei", "image"),
    ("measure_regions", "well"),
    ("merge_tables", None),
]


def cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def run_call(task, parameters, folder, index):
    """Runs one call in a process of its own; gives what it changes in the metadata."""
    args, changed = (folder / f"{task}_{index}.{ending}" for ending in ["args.json", "metadiff.json"])
    args.write_text(json.dumps(parameters))
    command = [sys.executable, str(TASKS), task, "-j", str(args), "--metadata-out", str(changed)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(f"{task} with {args} exited with {done.returncode}: {done.stdout}")
    return json.loads(changed.read_text())


def run_pipeline(images, output, jobs, folder, own_args):
    output.mkdir(parents=True, exist_ok=True)
    metadata, times = {}, []
    for task, level in WORKFLOW:
        wall, cpu = time.monotonic(), cpu_seconds()
        parameters = {"input_paths": [str(output if times else images)], "output_path": str(output)}
        parameters |= {"metadata": metadata, **own_args.get(task, {})}
        if level is None:
            calls = [parameters]
        else:
            calls = [{**parameters, "component": component} for component in metadata[level]]
        with ThreadPoolExecutor(jobs) as pool:
            changes = list(pool.map(lambda call, task=task: run_call(task, call[1], folder, call[0]), enumerate(calls)))
        if level is None:
            metadata = metadata | changes[0]
        else:
            # What the calls of a task say of one key becomes a list, in the order of the components.
            metadata = metadata | {key: [change[key] for change in changes] for key in changes[0]}
        seconds = {"wall_s": round(time.monotonic() - wall, 3), "cpu_s": round(cpu_seconds() - cpu, 3)}
        times.append({"task": task, "calls": len(calls), **seconds})
    total = {key: round(sum(task[key] for task in times), 3) for key in ["calls", "wall_s", "cpu_s"]}
    return {"jobs": jobs, "tasks": times, **total}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("input", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    parser.add_argument("--work-dir", type=Path, help="where the arguments of the calls go; not kept by default")
    parser.add_argument("--args", action="append", default=[], metavar="TASK.NAME=JSON", help="an argument of a task")
    options = parser.parse_args()
    own_args = {}
    for text in options.args:
        name, value = text.split("=", 1)
        task, name = name.split(".", 1)
        own_args.setdefault(task, {})[name] = json.loads(value)
    unknown = own_args.keys() - dict(WORKFLOW).keys()
    if unknown:
        parser.error(f"there is no task {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.work_dir or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        times = run_pipeline(options.input.resolve(), options.output.resolve(), options.jobs, folder, own_args)
    print(json.dumps(times, indent=2))


if __name__ == "__main__":
    main()
