"""Stand-ins for compiled modules, and changes of modules after their import.

Both work in the import system: no file of a package is changed. ``_shim_list.py`` has the names of
those that this environment needs.
"""

import importlib.util
import os
import sys
from importlib.machinery import PathFinder

import _shim_list

_FOLDER = os.path.join(os.path.dirname(__file__), "shims")


class _Finder:
    """Finds stand-ins before the modules of packages, and wraps modules that are changed."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name in _shim_list.MODULES:
            return _spec_of_shim(name)
        change = _CHANGES.get(name) if name in _shim_list.CHANGES else None
        if change is None:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Changed(spec.loader, change)
        return spec


def _spec_of_shim(name):
    base = os.path.join(_FOLDER, *name.split("."))
    init = os.path.join(base, "__init__.py")
    if os.path.exists(init):
        return importlib.util.spec_from_file_location(
            name, init, submodule_search_locations=[base]
        )
    return importlib.util.spec_from_file_location(name, base + ".py")


class _Changed:
    """Loads a module and changes it."""

    def __init__(self, loader, change):
        self._loader = loader
        self._change = change

    def __getattr__(self, name):
        return getattr(self._loader, name)

    def create_module(self, spec):
        return self._loader.create_module(spec)

    def exec_module(self, module):
        self._loader.exec_module(module)
        self._change(module)


def _change_dask(dask):
    """There are no threads in the sandbox."""
    from dask import config

    config.set(scheduler="synchronous")


def _change_pandas(pandas):
    """Packages for pandas 1 index a series with labels by position, and store texts as objects."""
    pandas.options.future.infer_string = False
    by_label = pandas.Series.__getitem__

    def get(self, key):
        if isinstance(key, int) and not pandas.api.types.is_integer_dtype(self.index.dtype):
            return self.iloc[key]
        return by_label(self, key)

    pandas.Series.__getitem__ = get


_CHANGES = {"dask": _change_dask, "pandas": _change_pandas}


def install():
    """Put the stand-ins in front of all other modules."""
    if not any(finder is _Finder for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder)
