"""Stand-in for numcodecs.blosc: the format Blosc 1, in Python with numpy.

Reads blocks that are stored, or compressed with lz4 or zlib, with or without the byte shuffle.
Writes zlib, whichever compressor is asked for: each Blosc library reads it, since the header of the
data names the compressor.

Source: c-blosc 1.21, README_CHUNK_FORMAT.rst.
"""

import struct
import zlib

import numpy as np
from numcodecs.abc import Codec
from numcodecs.compat import ensure_contiguous_ndarray, ndarray_copy

NOSHUFFLE, SHUFFLE, BITSHUFFLE, AUTOSHUFFLE = 0, 1, 2, -1
MAX_BUFFERSIZE = 2**31 - 17
AUTOBLOCKS = 0

_HEADER = struct.Struct("<BBBBIII")
_INT = struct.Struct("<i")
_SHUFFLED, _STORED, _BIT_SHUFFLED, _NOT_SPLIT = 1, 2, 4, 0x10
_LZ4, _ZLIB = 1, 3
_COMPRESSORS = {0: "blosclz", _LZ4: "lz4", 2: "snappy", _ZLIB: "zlib", 4: "zstd"}
_MIN_COMPRESSED = 128
_BLOCK_BYTES = 1 << 18
_MAX_SPLITS = 16


def init():
    pass


def destroy():
    pass


def set_nthreads(nthreads):
    return nthreads


def get_nthreads():
    return 1


def list_compressors():
    return ["lz4", "zlib"]


def _bytes_of(buf):
    return memoryview(ensure_contiguous_ndarray(buf).view("u1").reshape(-1))


def _decompress_lz4(source, size):
    """Decompress a block of LZ4 with a known size."""
    out = bytearray(size)
    position = written = 0
    while True:
        token = source[position]
        position += 1
        length = token >> 4
        if length == 15:
            length, position = _extended(source, position, length)
        out[written : written + length] = source[position : position + length]
        position += length
        written += length
        if position >= len(source):
            return out
        distance = source[position] | source[position + 1] << 8
        position += 2
        length = token & 15
        if length == 15:
            length, position = _extended(source, position, length)
        length += 4
        start = written - distance
        if distance >= length:
            out[written : written + length] = out[start : start + length]
        else:
            # The match overlaps what it writes: it repeats the last bytes.
            repeated = out[start:written] * (length // distance + 1)
            out[written : written + length] = repeated[:length]
        written += length


def _extended(source, position, length):
    while True:
        byte = source[position]
        position += 1
        length += byte
        if byte != 255:
            return length, position


def _decompress_part(data, size, compressor):
    if len(data) == size:
        return data
    if compressor == _LZ4:
        return _decompress_lz4(data, size)
    if compressor == _ZLIB:
        return zlib.decompress(data)
    name = _COMPRESSORS.get(compressor, compressor)
    raise RuntimeError(f"blosc data compressed with {name} cannot be read in the sandbox")


def decompress(source, dest=None):
    data = _bytes_of(source)
    _, _, flags, type_size, size, block_size, _ = _HEADER.unpack_from(data, 0)
    if flags & _STORED:
        result = bytes(data[_HEADER.size : _HEADER.size + size])
    else:
        n_blocks = -(-size // block_size)
        starts = struct.unpack_from(f"<{n_blocks}I", data, _HEADER.size)
        blocks = [
            _decompress_block(
                data, start, min(block_size, size - index * block_size), flags, type_size, block_size
            )
            for index, start in enumerate(starts)
        ]
        result = b"".join(blocks)
    if dest is None:
        return result
    return ndarray_copy(np.frombuffer(result, "u1"), dest)


def _decompress_block(data, start, size, flags, type_size, block_size):
    is_split = (
        not flags & _NOT_SPLIT
        and type_size <= _MAX_SPLITS
        and block_size // type_size >= _MIN_COMPRESSED
        and size == block_size
    )
    n_parts = type_size if is_split else 1
    parts = []
    for _ in range(n_parts):
        (length,) = _INT.unpack_from(data, start)
        start += _INT.size
        part = bytes(data[start : start + length])
        parts.append(_decompress_part(part, size // n_parts, flags >> 5))
        start += length
    block = b"".join(parts)
    if flags & _SHUFFLED and type_size > 1:
        n_shuffled = size // type_size * type_size
        planes = np.frombuffer(block, "u1", n_shuffled).reshape(type_size, -1)
        return np.ascontiguousarray(planes.T).tobytes() + block[n_shuffled:]
    if flags & _BIT_SHUFFLED:
        raise RuntimeError("blosc data with the bit shuffle cannot be read in the sandbox")
    return block


def compress(source, cname=b"lz4", clevel=5, shuffle=SHUFFLE, blocksize=AUTOBLOCKS):
    array = ensure_contiguous_ndarray(source)
    type_size = array.dtype.itemsize
    data = array.view("u1").reshape(-1)
    size = data.nbytes
    stored = _HEADER.pack(
        2, 1, _STORED, min(type_size, 255), size, max(size, 1), size + _HEADER.size
    )
    if size < _MIN_COMPRESSED or type_size > 255 or clevel == 0:
        return stored + data.tobytes()
    block_size = min(max(type_size * _MIN_COMPRESSED, _BLOCK_BYTES) // type_size * type_size, size)
    is_shuffled = shuffle in (SHUFFLE, AUTOSHUFFLE) and type_size > 1
    flags = _ZLIB << 5 | _NOT_SPLIT | (_SHUFFLED if is_shuffled else 0)
    n_blocks = -(-size // block_size)
    position = _HEADER.size + 4 * n_blocks
    starts, parts = [], []
    for index in range(n_blocks):
        block = data[index * block_size : (index + 1) * block_size]
        if is_shuffled:
            n_shuffled = block.size // type_size * type_size
            elements = block[:n_shuffled].reshape(-1, type_size)
            planes = np.ascontiguousarray(elements.T).reshape(-1)
            block = np.concatenate([planes, block[n_shuffled:]])
        raw = block.tobytes()
        packed = zlib.compress(raw, 1)
        if len(packed) >= len(raw):
            packed = raw
        starts.append(position)
        parts.append(_INT.pack(len(packed)) + packed)
        position += len(parts[-1])
    if position >= size + _HEADER.size:
        return stored + data.tobytes()
    header = _HEADER.pack(2, 1, flags, type_size, size, block_size, position)
    return header + struct.pack(f"<{n_blocks}I", *starts) + b"".join(parts)


def cbuffer_sizes(source):
    _, _, _, _, size, block_size, compressed = _HEADER.unpack_from(_bytes_of(source), 0)
    return size, compressed, block_size


def cbuffer_metainfo(source):
    _, _, flags, type_size, _, _, _ = _HEADER.unpack_from(_bytes_of(source), 0)
    return type_size, flags & _SHUFFLED, bool(flags & _STORED)


def cbuffer_complib(source):
    flags = _HEADER.unpack_from(_bytes_of(source), 0)[2]
    return _COMPRESSORS.get(flags >> 5, "unknown").upper()


def decompress_partial(*args, **kwargs):
    raise NotImplementedError("parts of blosc data cannot be read in the sandbox")


class Blosc(Codec):
    codec_id = "blosc"
    NOSHUFFLE = NOSHUFFLE
    SHUFFLE = SHUFFLE
    BITSHUFFLE = BITSHUFFLE
    AUTOSHUFFLE = AUTOSHUFFLE
    max_buffer_size = MAX_BUFFERSIZE

    def __init__(self, cname="lz4", clevel=5, shuffle=SHUFFLE, blocksize=AUTOBLOCKS):
        self.cname = cname
        self.clevel = clevel
        self.shuffle = shuffle
        self.blocksize = blocksize

    def encode(self, buf):
        return compress(buf, self.cname, self.clevel, self.shuffle, self.blocksize)

    def decode(self, buf, out=None):
        data = decompress(buf)
        array = np.frombuffer(data, "u1")
        return array if out is None else ndarray_copy(array, out)

    def __repr__(self):
        return (
            f"Blosc(cname={self.cname!r}, clevel={self.clevel!r}, shuffle={self.shuffle!r}, "
            f"blocksize={self.blocksize})"
        )
