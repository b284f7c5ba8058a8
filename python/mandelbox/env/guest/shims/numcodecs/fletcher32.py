"""Stand-in for numcodecs.fletcher32."""

from numcodecs._missing import MissingCodec


class Fletcher32(MissingCodec):
    codec_id = "fletcher32"
