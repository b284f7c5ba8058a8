"""Stand-in for h5py: its names, for packages that only mention them. There is no HDF5."""

__version__ = "3.11.0"


class _Missing:
    def __class_getitem__(cls, key):
        return cls

    def __init__(self, *args, **kwargs):
        raise NotImplementedError("HDF5 is not available in the sandbox: h5py is compiled code")


class AttributeManager(_Missing):
    pass


class Dataset(_Missing):
    pass


class Datatype(_Missing):
    pass


class Empty(_Missing):
    pass


class File(_Missing):
    pass


class Group(_Missing):
    pass


class version:
    version = __version__
    hdf5_version = "1.14.0"


def special_dtype(**kwargs):
    return object


def string_dtype(*args, **kwargs):
    return object


def check_dtype(**kwargs):
    return None


def check_string_dtype(*args, **kwargs):
    return None


def is_hdf5(*args):
    return False
