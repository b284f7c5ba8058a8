"""Runs the tasks of python_tasks.py on a plate, one Python process for each call, as Fractal's local backend does.

usage: python_pipeline.py INPUT OUTPUT [--jobs N] [--work-dir FOLDER] [--workflow WORKFLOW.json]

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
# Each task, the metadata key with its components, if it is called for each of them, and its name in workflow.json.
WORKFLOW = [
    ("create_plate", None, "create_ome-zarr_plate"),
    ("convert_images", "image", "convert_images"),
    ("estimate_illumination", None, "estimate_illumination"),
    ("correct_illumination", "image", "correct_illumination"),
    ("copy_structure", None, "copy_plate_structure"),
    ("project_maximum", "image", "project_maximum_intensity"),
    ("segment_nuclei", "image", "segment_nuclei"),
    ("measure_regions", "well", "measure_regions"),
    ("merge_tables", None, "merge_tables"),
]


def cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def read_args(workflow):
    """The arguments of each task of a workflow, by its name; these tasks always write over what is there."""
    tasks = json.loads(workflow.read_text())["task_list"]
    own_args = {task["task"]["source"].split(":")[1]: task["args"] for task in tasks}
    return {name: {key: value for key, value in args.items() if key != "overwrite"} for name, args in own_args.items()}


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
    for task, level, name in WORKFLOW:
        wall, cpu = time.monotonic(), cpu_seconds()
        parameters = {"input_paths": [str(output if times else images)], "output_path": str(output)}
        parameters |= {"metadata": metadata, **own_args.get(name, {})}
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
    parser.add_argument("--workflow", type=Path, help="whose tasks have the arguments to use")
    options = parser.parse_args()
    own_args = read_args(options.workflow) if options.workflow else {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.work_dir or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        times = run_pipeline(options.input.resolve(), options.output.resolve(), options.jobs, folder, own_args)
    print(json.dumps(times, indent=2))


if __name__ == "__main__":
    main()
