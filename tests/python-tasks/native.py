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


class NativeRun:
    """A native run of a workflow. `inputs` has the folders with images by their names."""

    def __init__(self, workflow, inputs, target, python):
        scratch = target.with_name(f"{target.name}.calls")
        scratch.mkdir()
        target.mkdir()
        self._workflow, self._target = workflow, target
        self._calls = Calls(python, scratch, workflow.script_options)
        self._paths = [str(path) for path in inputs.values()]
        self._steps = workflow.filled(inputs)
        self._images = []

    def convert(self):
        """Runs the tasks that only run natively. Returns the images of the dataset."""
        for step in self._steps[: self._workflow.n_native]:
            self._run_v2(step)
        return self._images

    def finish(self):
        """Runs the other tasks."""
        if self._workflow.is_v2:
            for step in self._steps[self._workflow.n_native :]:
                self._run_v2(step)
        else:
            self._run_v1()

    def _run_v1(self):
        paths, metadata = self._paths, {}
        for step in self._steps:
            task = self._calls.tasks[step.name]
            level = (task.get("meta") or {}).get("parallelization_level")
            args = {**step.args, "input_paths": paths, "output_path": str(self._target)}
            if level is None:
                args["metadata"] = metadata
                metadata |= self._calls.call(task["executable"], args) or {}
            else:
                for component in metadata[level]:
                    args |= {"component": component, "metadata": metadata}
                    self._calls.call(task["executable"], args)
            paths = [str(self._target)]

    def _run_v2(self, step):
        task = self._calls.tasks[step.name]
        urls = [image["zarr_url"] for image in self._images]
        items = [{"zarr_url": url} for url in urls]
        if "executable_non_parallel" in task:
            args = {**step.args, "zarr_urls": urls, "zarr_dir": str(self._target)}
            output = self._calls.call(task["executable_non_parallel"], args)
            items = output["parallelization_list"]
        parallel, rest = task["executable_parallel"], step.args_parallel or {}
        outputs = [self._calls.call(parallel, {**rest, **item}) for item in items]
        self._images = [image for output in outputs for image in output["image_list_updates"]]
