//! Reads and writes the container of Blosc: blocks of values whose bytes are shuffled and
//! compressed. This crate writes LZ4, and reads zlib and Zstandard too.
//!
//! The crates for Blosc bind the library in C, which does not build for WASI without a C compiler.
//!
//! Source: c-blosc 1, README_CHUNK_FORMAT.rst.

use crate::codec::{WINDOW_BITS, cut, inflate, invalid, read_u32, unzstd};
use std::io;

/// Versions of the container and of LZ4's format in it.
const VERSION: u8 = 2;
const LZ4_VERSION: u8 = 1;
const HEADER: usize = 16;
const SHUFFLED: u8 = 1;
const COPIED: u8 = 2;
const BITS_SHUFFLED: u8 = 4;
const NOT_SPLIT: u8 = 16;
/// Formats of the streams, in the upper bits of the flags.
const LZ4: u8 = 1;
const ZLIB: u8 = 3;
const ZSTD: u8 = 4;
/// Only values of at most this size, in blocks of at least this many values, have one stream for
/// each byte.
const MAX_SPLIT_SIZE: usize = 16;
const MIN_SPLIT_VALUES: usize = 128;
/// Maximum size of a block that is written. lz4_flex is faster in modules with less than 65,535
/// bytes, and then writes the same bytes on all processors.
const MAX_BLOCK: usize = (1 << 16) - 16;

/// Returns the number of streams of a block. The last block, if it is shorter than the others, has
/// one.
fn n_streams(n_bytes: usize, block_size: usize, type_size: usize) -> usize {
    let is_split = type_size <= MAX_SPLIT_SIZE
        && block_size / type_size >= MIN_SPLIT_VALUES
        && n_bytes == block_size;
    if is_split { type_size } else { 1 }
}

/// Compresses values with LZ4 to the start of `stored`. Returns the compressed size.
///
/// * `type_size`: bytes of a value.
/// * `shuffled`: memory for a block.
pub(crate) fn compress(
    bytes: &[u8],
    type_size: usize,
    shuffled: &mut Vec<u8>,
    stored: &mut Vec<u8>,
) -> io::Result<usize> {
    debug_assert_eq!(bytes.len() % type_size, 0, "a chunk has whole values");
    let block_size = bytes.len().min(MAX_BLOCK / type_size * type_size);
    let n_blocks = bytes.len().div_ceil(block_size.max(1));
    let is_shuffled = type_size > 1;
    // LZ4 needs room for a stream that grows, after the streams before it.
    let max_streams = n_blocks * type_size;
    let max_stream = lz4_flex::block::get_maximum_output_size(block_size);
    let max_bytes = HEADER + 4 * (n_blocks + max_streams) + bytes.len() + max_stream;
    // All sizes in the container have 32 bits, with a sign in c-blosc.
    if i32::try_from(max_bytes).is_err() {
        return Err(invalid(format!(
            "{} bytes are too many for Blosc",
            bytes.len()
        )));
    }
    if stored.len() < max_bytes {
        stored.resize(max_bytes, 0);
    }
    shuffled.resize(block_size, 0);
    let mut end = HEADER + 4 * n_blocks;
    for (index, block) in bytes.chunks(block_size.max(1)).enumerate() {
        put_u32(stored, HEADER + 4 * index, end);
        let block = if is_shuffled {
            shuffle(block, type_size, &mut shuffled[..block.len()]);
            &shuffled[..block.len()]
        } else {
            block
        };
        let n_streams = n_streams(block.len(), block_size, type_size);
        for stream in block.chunks(block.len() / n_streams) {
            let start = end + 4;
            let mut n_stored = lz4_flex::block::compress_into(stream, &mut stored[start..])
                .map_err(io::Error::other)?;
            if n_stored >= stream.len() {
                n_stored = stream.len();
                stored[start..start + n_stored].copy_from_slice(stream);
            }
            put_u32(stored, end, n_stored);
            end = start + n_stored;
        }
    }
    let mut flags = LZ4 << 5;
    if end >= HEADER + bytes.len() {
        flags |= COPIED;
        end = HEADER + bytes.len();
        stored[HEADER..end].copy_from_slice(bytes);
    }
    if is_shuffled {
        flags |= SHUFFLED;
    }
    // c-blosc 1 also applies the rule above when it reads; c-blosc 2 needs the flag.
    if n_streams(block_size, block_size, type_size) < type_size {
        flags |= NOT_SPLIT;
    }
    let type_size = u8::try_from(type_size).map_err(invalid)?;
    stored[..4].copy_from_slice(&[VERSION, LZ4_VERSION, flags, type_size]);
    put_u32(stored, 4, bytes.len());
    put_u32(stored, 8, block_size);
    put_u32(stored, 12, end);
    Ok(end)
}

/// Decompresses a chunk of `n_bytes`; another size is an error.
pub(crate) fn decompress(bytes: &[u8], n_bytes: usize, values: &mut Vec<u8>) -> io::Result<()> {
    let header = bytes.get(..HEADER).ok_or_else(cut)?;
    let (flags, type_size) = (header[2], usize::from(header[3]).max(1));
    if header[0] != VERSION {
        return Err(invalid("this version of Blosc is not supported"));
    }
    if read_u32(header, 4)? != n_bytes {
        return Err(io::ErrorKind::InvalidData.into());
    }
    if flags & COPIED != 0 {
        let copied = bytes.get(HEADER..HEADER + n_bytes).ok_or_else(cut)?;
        values.clear();
        values.extend_from_slice(copied);
        return Ok(());
    }
    if flags & BITS_SHUFFLED != 0 {
        return Err(invalid("Blosc with shuffled bits is not supported"));
    }
    let block_size = read_u32(header, 8)?.max(1);
    values.resize(n_bytes, 0);
    let is_shuffled = flags & SHUFFLED != 0 && type_size > 1;
    let mut stored = vec![
        0;
        if is_shuffled {
            block_size.min(n_bytes)
        } else {
            0
        }
    ];
    let mut n_read = 0;
    for (index, block) in values.chunks_mut(block_size).enumerate() {
        let n_streams = if flags & NOT_SPLIT == 0 {
            n_streams(block.len(), block_size, type_size)
        } else {
            1
        };
        let mut start = read_u32(bytes, HEADER + 4 * index)?;
        let n_block = block.len();
        let streams = if is_shuffled {
            &mut stored[..n_block]
        } else {
            &mut *block
        };
        for stream in streams.chunks_mut(n_block / n_streams) {
            let rest = bytes.get(start..).ok_or_else(cut)?;
            let n_stored = read_u32(rest, 0)?;
            let stored = rest[4..].get(..n_stored).ok_or_else(cut)?;
            // Streams do not overlap, so each byte is decompressed once.
            n_read += 4 + n_stored;
            if n_read > bytes.len() {
                return Err(invalid("blocks of Blosc overlap"));
            }
            decompress_stream(flags >> 5, stored, stream)?;
            start += 4 + n_stored;
        }
        if is_shuffled {
            unshuffle(&stored[..n_block], type_size, block);
        }
    }
    Ok(())
}

/// Decompresses one stream of a block. A stream as long as its values is not compressed.
fn decompress_stream(format: u8, bytes: &[u8], values: &mut [u8]) -> io::Result<()> {
    let n_bytes = values.len();
    if bytes.len() == n_bytes {
        values.copy_from_slice(bytes);
        return Ok(());
    }
    let decompressed = match format {
        LZ4 => {
            let n_read = lz4_flex::block::decompress_into(bytes, values).map_err(invalid)?;
            return if n_read == n_bytes {
                Ok(())
            } else {
                Err(io::ErrorKind::InvalidData.into())
            };
        }
        ZLIB => inflate(bytes, n_bytes, WINDOW_BITS)?,
        ZSTD => unzstd(bytes, n_bytes)?,
        _ => {
            return Err(invalid(
                "Blosc with another compressor than LZ4, zlib and zstd is not supported",
            ));
        }
    };
    if decompressed.len() != n_bytes {
        return Err(io::ErrorKind::InvalidData.into());
    }
    values.copy_from_slice(&decompressed);
    Ok(())
}

/// Puts the first bytes of all values together, then all second ones, and so on. Bytes at the end
/// that are no whole value stay there.
fn shuffle(values: &[u8], type_size: usize, planes: &mut [u8]) {
    let n = values.len() / type_size;
    let (planes, rest) = planes.split_at_mut(n * type_size);
    rest.copy_from_slice(&values[n * type_size..]);
    // Loops that the compiler turns into vector instructions, for the usual sizes.
    match type_size {
        2 => {
            let (first, second) = planes.split_at_mut(n);
            let values = values.as_chunks::<2>().0.iter();
            for ((value, first), second) in values.zip(first).zip(second) {
                let value = u16::from_le_bytes(*value);
                (*first, *second) = (value as u8, (value >> 8) as u8);
            }
        }
        4 => {
            for (pair, planes) in planes.chunks_exact_mut((2 * n).max(1)).enumerate() {
                let (first, second) = planes.split_at_mut(n);
                let values = values.as_chunks::<4>().0.iter();
                for ((value, first), second) in values.zip(first).zip(second) {
                    let value = u32::from_le_bytes(*value) >> (16 * pair);
                    (*first, *second) = (value as u8, (value >> 8) as u8);
                }
            }
        }
        _ => {
            for (byte, plane) in planes.chunks_exact_mut(n.max(1)).enumerate() {
                let bytes = values.iter().skip(byte).step_by(type_size);
                plane
                    .iter_mut()
                    .zip(bytes)
                    .for_each(|(to, from)| *to = *from);
            }
        }
    }
}

/// Inverts [`shuffle`].
fn unshuffle(planes: &[u8], type_size: usize, values: &mut [u8]) {
    let n = values.len() / type_size;
    let (planes, rest) = planes.split_at(n * type_size);
    values[n * type_size..].copy_from_slice(rest);
    match type_size {
        2 => {
            let (first, second) = planes.split_at(n);
            let values = values.as_chunks_mut::<2>().0.iter_mut();
            for ((value, first), second) in values.zip(first).zip(second) {
                *value = (u16::from(*first) | u16::from(*second) << 8).to_le_bytes();
            }
        }
        4 => {
            let (lower, upper) = planes.split_at(2 * n);
            let (lower, upper) = (lower.split_at(n), upper.split_at(n));
            let values = values.as_chunks_mut::<4>().0.iter_mut();
            let values = values.zip(lower.0).zip(lower.1).zip(upper.0).zip(upper.1);
            for ((((value, first), second), third), fourth) in values {
                let bytes = [*first, *second, *third, *fourth].map(u32::from);
                *value = (bytes[0] | bytes[1] << 8 | bytes[2] << 16 | bytes[3] << 24).to_le_bytes();
            }
        }
        _ => {
            for (byte, plane) in planes.chunks_exact(n.max(1)).enumerate() {
                let bytes = values.iter_mut().skip(byte).step_by(type_size);
                bytes.zip(plane).for_each(|(to, from)| *to = *from);
            }
        }
    }
}

/// Writes a size that has been checked to fit.
fn put_u32(bytes: &mut [u8], start: usize, value: usize) {
    bytes[start..start + 4].copy_from_slice(&(value as u32).to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(bytes: &[u8], type_size: usize) -> Vec<u8> {
        let mut stored = vec![0xff; 10];
        let n_bytes = compress(bytes, type_size, &mut Vec::new(), &mut stored).unwrap();
        stored[..n_bytes].to_vec()
    }

    /// Values whose low bytes are noise and whose high bytes change rarely, as in an image.
    fn image(n_bytes: usize, type_size: usize) -> Vec<u8> {
        let mut state = 1_u32;
        let bytes = (0..n_bytes).map(|index| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            match index % type_size {
                0 => (state >> 24) as u8,
                byte => (index / 1000 / byte) as u8,
            }
        });
        bytes.collect()
    }

    #[test]
    fn what_is_compressed_is_decompressed() {
        for type_size in [1, 2, 3, 4, 8, 16] {
            let block = MAX_BLOCK / type_size;
            for n_values in [
                1,
                127,
                128,
                1000,
                block - 1,
                block,
                block + 1,
                3 * block + 7,
            ] {
                let bytes = image(n_values * type_size, type_size);
                let stored = stored(&bytes, type_size);
                let mut values = vec![1; 5];
                decompress(&stored, bytes.len(), &mut values).unwrap();
                assert!(values == bytes, "{n_values} values of {type_size} bytes");
                assert!(stored.len() <= HEADER + bytes.len());
                assert!(decompress(&stored, bytes.len() + 1, &mut values).is_err());
                let cut = &stored[..stored.len() - 1];
                assert!(decompress(cut, bytes.len(), &mut values).is_err());
            }
        }
    }

    /// The longest stream is that of a last block, which is not split.
    #[test]
    fn streams_are_short() {
        assert!(MAX_BLOCK < usize::from(u16::MAX));
        let bytes = image(2 * MAX_BLOCK - 4, 4);
        let stored = stored(&bytes, 4);
        let last = read_u32(&stored, HEADER + 4).unwrap();
        let n_stored = read_u32(&stored, last).unwrap();
        assert_eq!(stored.len(), last + 4 + n_stored);
        assert_eq!(stored[2] & NOT_SPLIT, 0);
    }

    #[test]
    fn blocks_that_are_not_split_have_the_flag() {
        for (n_values, expected) in [(MIN_SPLIT_VALUES - 1, NOT_SPLIT), (MIN_SPLIT_VALUES, 0)] {
            let stored = stored(&vec![0; 2 * n_values], 2);
            assert_eq!(stored[2] & NOT_SPLIT, expected, "{n_values}");
        }
    }

    #[test]
    fn blocks_that_overlap_are_refused() {
        let bytes = vec![0; 4 * MAX_BLOCK];
        let mut damaged = stored(&bytes, 2);
        let error = |damaged: &[u8]| {
            let mut values = Vec::new();
            let result = decompress(damaged, bytes.len(), &mut values);
            result.unwrap_err().to_string()
        };
        let last = read_u32(&damaged, HEADER + 12).unwrap();
        put_u32(&mut damaged, HEADER + 12, HEADER + 16);
        damaged.truncate(last);
        assert_eq!(error(&damaged), "blocks of Blosc overlap");
        damaged[0] = 5;
        assert_eq!(error(&damaged), "this version of Blosc is not supported");
    }

    #[test]
    fn noise_is_stored_as_it_is() {
        let bytes = image(5000, 1);
        let stored = stored(&bytes, 1);
        assert_eq!(stored.len(), HEADER + bytes.len());
        assert_eq!(stored[2] & COPIED, COPIED);
    }

    #[test]
    fn bytes_of_values_are_put_together() {
        let values = [1, 2, 3, 4, 11, 12, 13, 14, 21, 22, 23, 24, 99];
        for (type_size, expected) in [
            (2, [1, 3, 11, 13, 21, 23, 2, 4, 12, 14, 22, 24, 99]),
            (4, [1, 11, 21, 2, 12, 22, 3, 13, 23, 4, 14, 24, 99]),
            (5, [1, 12, 2, 13, 3, 14, 4, 21, 11, 22, 23, 24, 99]),
        ] {
            let (mut planes, mut back) = ([0; 13], [0; 13]);
            shuffle(&values, type_size, &mut planes);
            assert_eq!(planes, expected, "{type_size}");
            unshuffle(&planes, type_size, &mut back);
            assert_eq!(back, values, "{type_size}");
        }
    }
}
