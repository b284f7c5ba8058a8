"""Stand-in for numcodecs.lz4."""

from numcodecs._missing import MissingCodec


class LZ4(MissingCodec):
    codec_id = "lz4"

    def __init__(self, acceleration=1):
        self.acceleration = acceleration
