"""Stand-in for numcodecs.zstd."""

from numcodecs._missing import MissingCodec


class Zstd(MissingCodec):
    codec_id = "zstd"

    def __init__(self, level=1, checksum=False):
        self.level = level
        self.checksum = checksum
