//! Compression of chunks: what this crate writes (Blosc, zlib, gzip), and zstd, which programs in
//! Python write by default in Zarr version 3.

use crate::blosc;
use serde_json::{Value, json};
use std::fmt;
use std::io::{self, Read};
use zlib_rs::{Deflate, DeflateConfig, DeflateFlush, InflateConfig, ReturnCode, Status};

/// Value that zlib's window bits have for its largest window, and what is added for the header of
/// gzip.
pub(crate) const WINDOW_BITS: i32 = 15;
const GZIP: i32 = 16;

/// Compression of the chunks of an array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// Not compressed.
    None,
    /// zlib with a level, 0 to 9.
    Zlib(u32),
    /// gzip with a level, 0 to 9.
    Gzip(u32),
    /// Zstandard, which is only read.
    Zstd,
    /// Blosc: written with LZ4, as Fractal's tasks do; read with LZ4, zlib and Zstandard.
    Blosc,
}

impl Codec {
    /// Reads the compressor of an array of Zarr version 2, or a codec of version 3; `None` for an
    /// unknown one.
    pub fn parse(compressor: &Value) -> Option<Self> {
        let name = compressor["id"].as_str().or(compressor["name"].as_str());
        let level = compressor["level"]
            .as_u64()
            .or(compressor["configuration"]["level"].as_u64());
        let level = level
            .and_then(|level| u32::try_from(level).ok())
            .filter(|level| *level <= 9);
        match name {
            None if compressor.is_null() => Some(Self::None),
            Some("zlib") => level.map(Self::Zlib),
            Some("gzip") => level.map(Self::Gzip),
            Some("zstd") => Some(Self::Zstd),
            Some("blosc") => Some(Self::Blosc),
            _ => None,
        }
    }

    /// Compressor of an array of Zarr version 2.
    pub fn compressor(self) -> Value {
        match self {
            Self::None => Value::Null,
            Self::Zlib(level) => json!({"id": "zlib", "level": level}),
            Self::Gzip(level) => json!({"id": "gzip", "level": level}),
            Self::Zstd => json!({"id": "zstd"}),
            Self::Blosc => {
                json!({"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1, "blocksize": 0})
            }
        }
    }

    /// The level of zlib and gzip, 0 without compression; `None` for others.
    pub fn level(self) -> Option<u32> {
        match self {
            Self::None => Some(0),
            Self::Zlib(level) | Self::Gzip(level) => Some(level),
            Self::Zstd | Self::Blosc => None,
        }
    }

    /// Decompresses a chunk of `n_bytes`; another size is an error.
    ///
    /// # Errors
    /// If the bytes are damaged, or compressed in a way that is not supported.
    pub(crate) fn decode(self, bytes: Vec<u8>, n_bytes: usize) -> io::Result<Vec<u8>> {
        let mut values = Vec::new();
        self.decode_into(bytes, n_bytes, &mut values)?;
        Ok(values)
    }

    /// Decompresses a chunk as [`Codec::decode`] does, in place of what is in `values`.
    ///
    /// # Errors
    /// As [`Codec::decode`].
    pub(crate) fn decode_into(
        self,
        bytes: Vec<u8>,
        n_bytes: usize,
        values: &mut Vec<u8>,
    ) -> io::Result<()> {
        match self {
            Self::None => *values = bytes,
            Self::Zlib(_) => inflate_into(&bytes, n_bytes, WINDOW_BITS, values)?,
            Self::Gzip(_) => inflate_into(&bytes, n_bytes, WINDOW_BITS + GZIP, values)?,
            Self::Zstd => *values = unzstd(&bytes, n_bytes)?,
            Self::Blosc => blosc::decompress(&bytes, n_bytes, values)?,
        }
        if values.len() == n_bytes {
            Ok(())
        } else {
            Err(io::ErrorKind::InvalidData.into())
        }
    }

    /// Decompresses a chunk whose size is not known, with a limit.
    ///
    /// # Errors
    /// As [`Codec::decode`], and if the chunk is larger than `max_bytes`.
    pub(crate) fn decode_any(self, bytes: Vec<u8>, max_bytes: usize) -> io::Result<Vec<u8>> {
        match self {
            Self::None => Ok(bytes),
            Self::Blosc => {
                let n_bytes = read_u32(&bytes, 4)?;
                if n_bytes > max_bytes {
                    return Err(invalid(format!("{n_bytes} bytes are too many")));
                }
                let mut values = Vec::new();
                blosc::decompress(&bytes, n_bytes, &mut values)?;
                Ok(values)
            }
            Self::Zlib(_) => inflate(&bytes, max_bytes, WINDOW_BITS),
            Self::Gzip(_) => inflate(&bytes, max_bytes, WINDOW_BITS + GZIP),
            Self::Zstd => unzstd(&bytes, max_bytes),
        }
    }
}

/// Compresses chunks one after the other, in memory that is allocated and cleared once.
pub(crate) struct Encoder {
    codec: Codec,
    type_size: usize,
    deflate: Option<Deflate>,
    /// Memory for a block of Blosc.
    shuffled: Vec<u8>,
    compressed: Vec<u8>,
}

impl Encoder {
    /// * `type_size`: bytes of a value.
    pub(crate) fn new(codec: Codec, type_size: usize) -> Self {
        Self {
            codec,
            type_size,
            deflate: None,
            shuffled: Vec::new(),
            compressed: Vec::new(),
        }
    }

    /// Compresses a chunk.
    ///
    /// # Errors
    /// If the codec is only read.
    pub(crate) fn encode<'a>(&'a mut self, bytes: &'a [u8]) -> io::Result<&'a [u8]> {
        let (level, window_bits) = match self.codec {
            Codec::None => return Ok(bytes),
            Codec::Zlib(level) => (level, WINDOW_BITS),
            Codec::Gzip(level) => (level, WINDOW_BITS + GZIP),
            Codec::Blosc => {
                let (shuffled, compressed) = (&mut self.shuffled, &mut self.compressed);
                let n_stored = blosc::compress(bytes, self.type_size, shuffled, compressed)?;
                return Ok(&self.compressed[..n_stored]);
            }
            Codec::Zstd => {
                return Err(io::Error::other("this compression is only read"));
            }
        };
        // A header of gzip is 12 bytes longer than one of zlib.
        let max_bytes = zlib_rs::compress_bound(bytes.len()) + 12;
        if self.compressed.len() < max_bytes {
            self.compressed.resize(max_bytes, 0);
        }
        let deflate = match &mut self.deflate {
            Some(deflate) => {
                deflate.reset();
                deflate
            }
            none => none.insert(Deflate::new_with_config(DeflateConfig {
                window_bits,
                ..DeflateConfig::new(level as i32)
            })),
        };
        match deflate.compress(bytes, &mut self.compressed, DeflateFlush::Finish) {
            Ok(Status::StreamEnd) => Ok(&self.compressed[..deflate.total_out() as usize]),
            other => Err(invalid(format!("zlib ends with {other:?}"))),
        }
    }
}

impl fmt::Debug for Encoder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut encoder = formatter.debug_struct("Encoder");
        encoder.field("codec", &self.codec).finish_non_exhaustive()
    }
}

/// At most `n_bytes`, whatever the compressed data say; more of them are an error.
pub(crate) fn inflate(bytes: &[u8], n_bytes: usize, window_bits: i32) -> io::Result<Vec<u8>> {
    let mut values = Vec::new();
    inflate_into(bytes, n_bytes, window_bits, &mut values)?;
    Ok(values)
}

/// As [`inflate`], in place of what is in `values`, whose memory is not cleared.
fn inflate_into(
    bytes: &[u8],
    n_bytes: usize,
    window_bits: i32,
    values: &mut Vec<u8>,
) -> io::Result<()> {
    values.resize(n_bytes, 0);
    let (whole, code) = zlib_rs::decompress_slice(values, bytes, InflateConfig { window_bits });
    let n_bytes = whole.len();
    check(code)?;
    values.truncate(n_bytes);
    Ok(())
}

fn check(code: ReturnCode) -> io::Result<()> {
    match code {
        ReturnCode::Ok => Ok(()),
        code => Err(invalid(format!("zlib ends with {code:?}"))),
    }
}

/// At most `n_bytes`; more of them are an error.
pub(crate) fn unzstd(bytes: &[u8], n_bytes: usize) -> io::Result<Vec<u8>> {
    let mut decoder = ruzstd::decoding::StreamingDecoder::new(bytes).map_err(invalid)?;
    let mut values = Vec::new();
    decoder
        .by_ref()
        .take(n_bytes as u64 + 1)
        .read_to_end(&mut values)?;
    Ok(values)
}

pub(crate) fn read_u32(bytes: &[u8], start: usize) -> io::Result<usize> {
    let end = start.checked_add(4).ok_or_else(cut)?;
    let bytes = bytes
        .get(start..end)
        .and_then(|bytes| <[u8; 4]>::try_from(bytes).ok())
        .ok_or_else(cut)?;
    Ok(u32::from_le_bytes(bytes) as usize)
}

pub(crate) fn cut() -> io::Error {
    io::ErrorKind::UnexpectedEof.into()
}

pub(crate) fn invalid(cause: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, cause.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_compressed_is_decompressed() {
        let bytes: Vec<u8> = (0..5000_u32).map(|i| (i * i / 7 % 50) as u8).collect();
        for codec in [
            Codec::None,
            Codec::Zlib(1),
            Codec::Gzip(6),
            Codec::Zlib(0),
            Codec::Gzip(0),
            Codec::Blosc,
        ] {
            let stored = Encoder::new(codec, 2).encode(&bytes).unwrap().to_vec();
            let mut used = Encoder::new(codec, 2);
            used.encode(&bytes.repeat(20)).unwrap();
            assert_eq!(used.encode(&bytes).unwrap(), stored, "{codec:?}");
            assert_eq!(codec.decode(stored.clone(), bytes.len()).unwrap(), bytes);
            assert!(
                codec.decode(stored.clone(), bytes.len() - 1).is_err(),
                "{codec:?}"
            );
            assert!(
                codec
                    .decode(stored[..stored.len() / 2].to_vec(), bytes.len())
                    .is_err(),
                "{codec:?}"
            );
        }
        assert!(
            Encoder::new(Codec::Gzip(1), 1)
                .encode(&bytes)
                .unwrap()
                .starts_with(&[0x1f, 0x8b])
        );
    }

    /// 400 numbers of 16 bits, 0, 3, 6, ..., as numcodecs 0.16 stores them.
    fn check(codec: Codec, stored: &str) {
        let expected: Vec<u8> = (0..400_u16).flat_map(|i| (3 * i).to_le_bytes()).collect();
        let stored: Vec<u8> = stored
            .as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect();
        assert_eq!(
            codec.decode(stored.clone(), expected.len()).unwrap(),
            expected
        );
        for length in 0..stored.len() {
            assert!(
                codec
                    .decode(stored[..length].to_vec(), expected.len())
                    .is_err(),
                "{codec:?} cut at {length}"
            );
        }
        for position in 0..stored.len() {
            for flip in [1, 0x10, 0x80, 0xff] {
                let mut damaged = stored.clone();
                damaged[position] ^= flip;
                let _ = codec.decode(damaged, expected.len());
            }
        }
    }

    #[test]
    fn chunks_of_other_programs_are_read() {
        check(Codec::Blosc, BLOSC_LZ4);
        check(Codec::Blosc, BLOSC_ZSTD);
        check(Codec::Zstd, ZSTD);
    }

    const BLOSC_LZ4: &str = concat!(
        "02012102200300002003000046010000140000000b010000fff1000306090c0f1215181b1e2124272a2d3033",
        "36393c3f4245484b4e5154575a5d606366696c6f7275787b7e8184878a8d909396999c9fa2a5a8abaeb1b4b7",
        "babdc0c3c6c9cccfd2d5d8dbdee1e4e7eaedf0f3f6f9fcff0205080b0e1114171a1d202326292c2f3235383b",
        "3e4144474a4d505356595c5f6265686b6e7174777a7d808386898c8f9295989b9ea1a4a7aaadb0b3b6b9bcbf",
        "c2c5c8cbced1d4d7dadde0e3e6e9eceff2f5f8fbfe0104070a0d101316191c1f2225282b2e3134373a3d4043",
        "46494c4f5255585b5e6164676a6d707376797c7f8285888b8e9194979a9da0a3a6a9acafb2b5b8bbbec1c4c7",
        "cacdd0d3d6d9dcdfe2e5e8ebeef1f4f7fafd00017850a1a4a7aaad1f0000001f000100421f010100411f0201",
        "00411f030100421f04010021500404040404",
    );
    const BLOSC_ZSTD: &str = concat!(
        "0201910220030000200300003d010000140000002501000028b52ffd602002dd08005410000306090c0f1215",
        "181b1e2124272a2d303336393c3f4245484b4e5154575a5d606366696c6f7275787b7e8184878a8d90939699",
        "9c9fa2a5a8abaeb1b4b7babdc0c3c6c9cccfd2d5d8dbdee1e4e7eaedf0f3f6f9fcff0205080b0e1114171a1d",
        "202326292c2f3235383b3e4144474a4d505356595c5f6265686b6e7174777a7d808386898c8f9295989b9ea1",
        "a4a7aaadb0b3b6b9bcbfc2c5c8cbced1d4d7dadde0e3e6e9eceff2f5f8fbfe0104070a0d101316191c1f2225",
        "282b2e3134373a3d404346494c4f5255585b5e6164676a6d707376797c7f8285888b8e9194979a9da0a3a6a9",
        "acafb2b5b8bbbec1c4c7cacdd0d3d6d9dcdfe2e5e8ebeef1f4f7fafd0001020304060006a708982ec0c4024c",
        "22f874013406a83505",
    );
    const ZSTD: &str = concat!(
        "28b52ffd6020026d14000672a21a10d82c1d0cc3300cc3300cc36228594a9692a56429addd29c91493009e00",
        "9400f92019e46116e66006e65ff6e55ee6e55dd6e55cbae52aaedfcaadd96aadd30aadcdaaacc74aacc1eaab",
        "bb8aabb52aabafcaaaa96aaaa30aaa9daaa9974aa991eaa88b8aa8852aa87fcaa7796aa7730aa76daaa6674a",
        "a661eaa55b8aa5552aa54fcaa4496aa4430aa43daaa3374aa331eaa22b8aa2252aa21fcaa1196aa1130aa10d",
        "aaa08625ac6001eb57beea15af76a5ebdbde611cae61197e61164e61131e6110ee600dbe600a8e60075ee004",
        "46e00336e00226e00116e00006e0e84c72192ebde5b6c496d5525a3e4b66992c8de5b00496bd5257de4a5a19",
        "2b5de5aa4495a552547e4a4e99292de5a484948d52511e4a421928fde49ec49375524ebe49369926cde49804",
        "935d524b5e492a19259de4924492455248fe481e99236de48c84912d52459e481219223de486c4901552423f",
        "73320f732fdf722caf72297f72264f72231f7220ef711dbf711a8f71175f71142f7111ff700ecf700b9f7008",
        "6f7005373ce1050f78bff35def78b73bddff7a9cc1b99bb5f99aa9399a9d799991b99885f9977939976d7996",
        "61b99555f9944939943d799331b99225f9911939910d799001b98ff5f88ee9388edd788dd1b88cc5f88bb938",
        "8bad788aa1b88995f8888938887d04715284141b4545f150241403453f714fc413eb4439f14d6413d3443371",
        "4c0413bb442df14aa412a34427714944128b4421f147e41173441b714684115b4415f144241143440f7143c4",
        "102b4409f14164100f63611c8c81f12ff6c5bd9817ef625d9c8b7eb98bfbb7737bb65bfbb4437bb32bfbb113",
        "7bb0fbfaaee37aadcbfaabb37aaa9bfaa8837aa76bfaa5537aa43bfaa2237aa10bfa9ff3799edbf99cc3799b",
        "ab0900",
    );
}
