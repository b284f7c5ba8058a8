"""What is known about packages with compiled code: which of them work without it, and how."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Adapter:
    """Way to use a package with compiled code.

    Attributes:
        requirement: Versions that the stand-ins were written for, as for pip.
        is_unpacked: True if the Python modules of its wheel are used.
        modules: Names of its modules that stand-ins replace.
    """

    requirement: str
    is_unpacked: bool
    modules: tuple[str, ...] = ()


#: Adapters by normalized name of the package.
ADAPTERS = {
    "numcodecs": Adapter(
        "==0.13.1",
        is_unpacked=True,
        modules=(
            "numcodecs._missing",
            "numcodecs._shuffle",
            "numcodecs.blosc",
            "numcodecs.fletcher32",
            "numcodecs.jenkins",
            "numcodecs.lz4",
            "numcodecs.vlen",
            "numcodecs.zstd",
        ),
    ),
    "h5py": Adapter("", is_unpacked=False, modules=("h5py", "h5py.h5t")),
    "scikit-image": Adapter(
        "<0.25", is_unpacked=True, modules=("skimage._shared.geometry", "skimage.io")
    ),
}

#: Changes of modules after their import: the package, and the test that a requirement of another
#: package must fail for the change to be needed; empty: always.
CHANGES = {
    "dask": "",
    # Positions as keys of a series with labels worked until pandas 2.
    "pandas": ">=2",
}

#: Versions that work where the newest one does not, or where a stand-in depends on it.
CONSTRAINTS = {
    "zarr": "<3.1",
}

#: Modules that another module imports when it is first used, and not when it is imported. Snapshots
#: contain them with that module: each call would import them otherwise.
LATE_IMPORTS = {
    "zarr": ("fsspec.implementations.local", "fsspec.implementations.chained"),
    "skimage.io": ("PIL.PngImagePlugin", "PIL.TiffImagePlugin"),
}
