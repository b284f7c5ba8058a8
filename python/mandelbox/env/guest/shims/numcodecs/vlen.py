"""Stand-in for numcodecs.vlen: objects of different lengths, in Python."""

import struct

import numpy as np
from numcodecs._missing import MissingCodec
from numcodecs.abc import Codec
from numcodecs.compat import ensure_contiguous_ndarray

_LENGTH = struct.Struct("<I")


class _VLen(Codec):
    def encode(self, buf):
        items = [self._to_bytes(item) for item in np.asarray(buf, dtype=object).reshape(-1)]
        parts = [_LENGTH.pack(len(items))]
        for item in items:
            parts += [_LENGTH.pack(len(item)), item]
        return b"".join(parts)

    def decode(self, buf, out=None):
        data = bytes(ensure_contiguous_ndarray(buf).view("u1"))
        (n_items,) = _LENGTH.unpack_from(data, 0)
        position = _LENGTH.size
        items = np.empty(n_items, dtype=object)
        for index in range(n_items):
            (length,) = _LENGTH.unpack_from(data, position)
            position += _LENGTH.size
            items[index] = self._from_bytes(data[position : position + length])
            position += length
        if out is None:
            return items
        out[:] = items
        return out


def _is_empty(item):
    return item is None or (isinstance(item, int) and item == 0)


class VLenUTF8(_VLen):
    codec_id = "vlen-utf8"

    def _to_bytes(self, item):
        return b"" if _is_empty(item) else item.encode()

    def _from_bytes(self, data):
        return data.decode()


class VLenBytes(_VLen):
    codec_id = "vlen-bytes"

    def _to_bytes(self, item):
        return b"" if _is_empty(item) else item

    def _from_bytes(self, data):
        return data


class VLenArray(MissingCodec):
    codec_id = "vlen-array"

    def __init__(self, dtype=None):
        self.dtype = dtype
