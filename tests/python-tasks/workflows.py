"""The workflows of the comparison: tasks, arguments, and how mandelbox runs them."""

from dataclasses import dataclass

#: Folders with images: the cycles of a multiplexed plate.
CYCLES = ("cycle0", "cycle1")
#: What the tasks use natively, and fractal-tasks-core requires only in an extra with torch.
NATIVE_REQUIREMENTS = ("scikit-image<0.25", "Pillow", "zarr<3", "numcodecs<0.14")


@dataclass(frozen=True)
class Step:
    """One task: its name in the manifest and the arguments of its calls."""

    name: str
    args: dict
    #: Arguments of the parallel part (v2).
    args_parallel: dict | None = None


@dataclass(frozen=True)
class Workflow:
    """A linear workflow of one version of fractal-tasks-core."""

    name: str
    version: str
    #: Names of the folders with images.
    inputs: tuple
    steps: list
    is_v2 = False
    #: Number of tasks at the start that only run natively.
    n_native = 0
    #: Options of the scripts: the file of the arguments, and that of the output.
    script_options = ("--json", "--metadata-out")

    @property
    def requirement(self):
        return f"fractal-tasks-core=={self.version}"

    def filled(self, inputs):
        """Returns the steps with the paths of the folders in their arguments."""
        return [
            Step(step.name, _filled(step.args, inputs), _filled(step.args_parallel, inputs))
            for step in self.steps
        ]

    def document(self, inputs):
        """Returns the workflow for mandelbox."""
        source = f"pip_remote:fractal_tasks_core:{self.version}:fractal-tasks::"
        tasks = [
            {
                "order": order,
                "args": step.args,
                "meta": None,
                "task": {"source": source + step.name.replace(" ", "_").lower()},
            }
            for order, step in enumerate(self.filled(inputs))
        ]
        return {"name": self.name, "task_list": tasks}


class WorkflowV2(Workflow):
    """A workflow of Fractal's version 2.

    Its first task, which creates the images, runs natively: it requires `zarr_urls`, which
    converters do not get any more.
    """

    is_v2 = True
    n_native = 1
    script_options = ("--args-json", "--out-json")

    def document(self, inputs):
        tasks = []
        for step in self.filled(inputs)[self.n_native :]:
            name = {"pkg_name": "fractal-tasks-core", "version": self.version, "name": step.name}
            task = {"task": name, "args_non_parallel": step.args}
            if step.args_parallel is not None:
                task["args_parallel"] = step.args_parallel
            tasks.append(task)
        return {"name": self.name, "task_list": tasks}


def _filled(value, inputs):
    """Returns a value in which `{cycle0}` is the path of that folder."""
    if isinstance(value, str):
        return value.format(**inputs)
    if isinstance(value, list):
        return [_filled(item, inputs) for item in value]
    if isinstance(value, dict):
        return {key: _filled(item, inputs) for key, item in value.items()}
    return value


def _channels(suffix=""):
    window = {"start": 110, "end": 800}
    return [
        {"wavelength_id": f"A0{number}_C0{number}", "label": label + suffix, "window": window}
        for number, label in ((1, "DAPI"), (2, "nanog"))
    ]


_PYRAMID = {"num_levels": 3, "coarsening_xy": 2, "image_extension": "png"}
_PROFILES = {"A01_C01": "illumination.png", "A02_C02": "illumination.png"}
_REGISTERED = "registered_FOV_ROI_table"

ALL = [
    Workflow(
        "registration",
        "0.14.3",
        CYCLES,
        [
            Step(
                "Create OME-ZARR structure (multiplexing)",
                {
                    "allowed_channels": {"0": _channels(), "1": _channels("_1")},
                    "metadata_table_files": {"0": "{cycle0}/meta.csv", "1": "{cycle1}/meta.csv"},
                    **_PYRAMID,
                },
            ),
            Step("Convert Yokogawa to OME-Zarr", {}),
            Step(
                "Illumination correction",
                {
                    "illumination_profiles_folder": "{cycle0}/profiles",
                    "dict_corr": _PROFILES,
                    "background": 100,
                },
            ),
            Step("Calculate registration (image-based)", {"wavelength_id": "A01_C01", "level": 0}),
            Step("Apply Registration to ROI Tables", {"new_roi_table": _REGISTERED}),
            Step("Apply Registration to Image", {"registered_roi_table": _REGISTERED}),
            Step("Copy OME-Zarr structure", {"project_to_2D": True, "suffix": "mip"}),
            Step("Maximum Intensity Projection", {}),
        ],
    ),
    Workflow(
        "import",
        "0.14.3",
        CYCLES[:1],
        [
            Step(
                "Create OME-Zarr structure",
                {
                    "allowed_channels": _channels(),
                    "metadata_table_file": "{cycle0}/meta.csv",
                    **_PYRAMID,
                },
            ),
            Step("Convert Yokogawa to OME-Zarr", {}),
            Step(
                "Import OME-Zarr",
                {
                    "zarr_name": "20200812-Test.zarr",
                    "add_image_ROI_table": True,
                    "add_grid_ROI_table": True,
                },
            ),
        ],
    ),
    WorkflowV2(
        "v2",
        "1.0.2",
        CYCLES[:1],
        [
            Step(
                "Convert Cellvoyager to OME-Zarr",
                {
                    "image_dirs": ["{cycle0}"],
                    "allowed_channels": _channels(),
                    "metadata_table_file": "{cycle0}/meta.csv",
                    **_PYRAMID,
                },
            ),
            Step(
                "Illumination Correction",
                {},
                {
                    "illumination_profiles_folder": "{cycle0}/profiles",
                    "illumination_profiles": _PROFILES,
                    "background": 100,
                },
            ),
            Step("Maximum Intensity Projection HCS Plate", {}),
        ],
    ),
]
