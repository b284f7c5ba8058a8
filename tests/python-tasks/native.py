"""The workflows natively: each call is a process of Python, as fractal-server starts it."""

import json
import subprocess
import sys


class Calls:
    """Calls of the tasks of fractal-tasks-core in a virtual environment."""

    def __init__(self, python, scratch, options):
        self._python, self._scratch, self._options = python, scratch, options
        site = next(python.parent.parent.glob("lib/*/site-packages"))
        self._package = site / "fractal_tasks_core"
        self._n_calls = 0
        manifest = json.loads((self._package / "__FRACTAL_MANIFEST__.json").read_text())
        self.tasks = {task["name"]: task for task in manifest["task_list"]}

    def call(self, script, args):
        """Calls a task and returns what it writes."""
        self._n_calls += 1
        args_file = self._scratch / f"{self._n_calls}.args.json"
        output_file = self._scratch / f"{self._n_calls}.out.json"
        args_file.write_text(json.dumps(args))
        words = [self._python, self._package / script]
        words += [self._options[0], args_file, self._options[1], output_file]
        done = subprocess.run([*map(str, words)], capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{script}, natively: exit code {done.returncode}\n{done.stderr[-3000:]}")
        return json.loads(output_file.read_text()) if output_file.exists() else None


def run(workflow, inputs, target, python):
    """Runs a workflow. `inputs` has the folders with images by their names."""
    scratch = target.with_name(f"{target.name}.calls")
    scratch.mkdir()
    target.mkdir()
    calls = Calls(python, scratch, workflow.script_options)
    run_version = _run_v2 if workflow.is_v2 else _run_v1
    run_version(calls, workflow.filled(inputs), inputs, target)


def _run_v1(calls, steps, inputs, target):
    paths, metadata = [str(path) for path in inputs.values()], {}
    for step in steps:
        task = calls.tasks[step.name]
        level = (task.get("meta") or {}).get("parallelization_level")
        args = {**step.args, "input_paths": paths, "output_path": str(target)}
        if level is None:
            metadata |= calls.call(task["executable"], {**args, "metadata": metadata}) or {}
        else:
            for component in metadata[level]:
                args |= {"component": component, "metadata": metadata}
                calls.call(task["executable"], args)
        paths = [str(target)]


def _run_v2(calls, steps, inputs, target):
    urls = []
    for step in steps:
        task = calls.tasks[step.name]
        parallel, rest = task.get("executable_parallel"), step.args_parallel or {}
        items = [{"zarr_url": url} for url in urls]
        if "executable_non_parallel" in task:
            args = {**step.args, "zarr_urls": urls, "zarr_dir": str(target)}
            items = calls.call(task["executable_non_parallel"], args)["parallelization_list"]
        updates = [calls.call(parallel, {**rest, **item})["image_list_updates"] for item in items]
        urls = [image["zarr_url"] for images in updates for image in images]
