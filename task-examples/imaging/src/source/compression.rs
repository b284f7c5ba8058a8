//! Compressions of strips and tiles whose data are bytes, not images of their own.

use super::tiff::Tiff;
use fdeflate::DecompressionError;
use fractal_task::TaskError;
use std::io::Read;

/// The largest memory that decoding LZMA may need, in KiB.
const MAX_LZMA_KIB: u32 = 128 << 10;

/// Bytes that the last strip or tile of an image may have in addition to those of the image, at
/// least.
const MAX_UNUSED_BYTES: usize = 1 << 20;

/// Error about a strip or tile that is damaged.
pub(super) fn cannot_decompress(tiff: &Tiff, cause: &str) -> TaskError {
    tiff.damaged(format!("a strip or tile cannot be decompressed ({cause})"))
}

/// Decompresses a strip or tile to at most `n_bytes` bytes.
pub(super) fn decompress(
    tiff: &Tiff,
    compression: u64,
    stored: Vec<u8>,
    n_bytes: usize,
) -> Result<Vec<u8>, TaskError> {
    let damaged = |cause: String| cannot_decompress(tiff, &cause);
    let mut bytes = vec![0; if compression == 1 { 0 } else { n_bytes }];
    let n_decoded = match compression {
        1 => return Ok(stored),
        5 => {
            let mut decoder =
                weezl::decode::Decoder::with_tiff_size_switch(weezl::BitOrder::Msb, 8);
            decode_lzw(&mut decoder, &stored, &mut bytes).map_err(damaged)?
        }
        8 | 32946 => inflate(&stored, &mut bytes).map_err(|err| damaged(err.to_owned()))?,
        32773 => decode_packbits(&stored, &mut bytes),
        34925 => {
            let reader = lzma_rust2::XzReader::new_mem_limit(stored.as_slice(), true, MAX_LZMA_KIB);
            read_up_to(reader, &mut bytes).map_err(|err| damaged(err.to_string()))?
        }
        34926 | 50000 => {
            let decoder = ruzstd::decoding::StreamingDecoder::new(stored.as_slice());
            let decoder = decoder.map_err(|err| damaged(err.to_string()))?;
            read_up_to(decoder, &mut bytes).map_err(|err| damaged(err.to_string()))?
        }
        other => {
            let name = compression_name(other);
            return Err(tiff.unsupported(format!(
                "it is compressed with {name}, which is not supported; save it with LZW, deflate, zstd, LZMA or no \
                 compression, for example with ImageJ or `bfconvert -compression LZW`"
            )));
        }
    };
    bytes.truncate(n_decoded);
    Ok(bytes)
}

/// Decompresses deflate to at most the length of `bytes`. A strip may hold more rows than the image,
/// whose bytes are only decompressed to check them.
fn inflate(stored: &[u8], bytes: &mut [u8]) -> Result<usize, &'static str> {
    let mut decoder = fdeflate::Decompressor::new();
    let cause = |err: DecompressionError| match err {
        DecompressionError::WrongChecksum => "its checksum is wrong",
        _ => "its data are damaged",
    };
    let (_, n) = decoder.read(stored, bytes, 0, false).map_err(cause)?;
    if decoder.is_done() {
        return Ok(n);
    }
    if n < bytes.len() {
        return Err("its data are cut off");
    }
    let max_bytes = bytes.len().saturating_mul(2).max(MAX_UNUSED_BYTES);
    match fdeflate::decompress_to_vec_bounded(stored, max_bytes) {
        Ok(_) => Ok(n),
        Err(fdeflate::BoundedDecompressionError::DecompressionError { inner }) => match inner {
            DecompressionError::InsufficientInput => Err("its data are cut off"),
            other => Err(cause(other)),
        },
        Err(fdeflate::BoundedDecompressionError::OutputTooLarge { .. }) => {
            Err("it has more than twice the bytes that it should have")
        }
    }
}

/// Name of a compression that is not supported.
///
/// Source: the list of compressions of tifffile and libtiff.
fn compression_name(compression: u64) -> String {
    let name = match compression {
        2..=4 => "a fax compression",
        6 => "an old form of JPEG",
        34892 => "a lossy form of DNG",
        33007 => "JPEG 2000 of Aperio",
        34887 => "LERC",
        34934 | 48124 | 22610 => "JPEG XR",
        50001 => "WebP",
        50002 | 52546 => "JPEG XL",
        _ => return format!("method {compression}"),
    };
    name.to_owned()
}

fn decode_lzw(
    decoder: &mut weezl::decode::Decoder,
    stored: &[u8],
    bytes: &mut [u8],
) -> Result<usize, String> {
    let (mut n_in, mut n_out) = (0, 0);
    while n_out < bytes.len() {
        let result = decoder.decode_bytes(&stored[n_in..], &mut bytes[n_out..]);
        n_in += result.consumed_in;
        n_out += result.consumed_out;
        match result.status {
            Ok(weezl::LzwStatus::Ok) if result.consumed_in + result.consumed_out > 0 => {}
            Ok(_) => break,
            Err(err) => return Err(err.to_string()),
        }
    }
    Ok(n_out)
}

/// Source: TIFF 6.0, section 9.
fn decode_packbits(stored: &[u8], bytes: &mut [u8]) -> usize {
    let (mut rest, mut n_out) = (stored, 0);
    while let [head, tail @ ..] = rest {
        let (n, n_used) = match *head {
            head @ 0..=127 => (usize::from(head) + 1, usize::from(head) + 1),
            128 => (0, 0),
            head => (257 - usize::from(head), 1),
        };
        let n_copied = n.min(bytes.len() - n_out);
        let Some(source) = tail.get(..n_used) else {
            break;
        };
        let target = &mut bytes[n_out..n_out + n_copied];
        if n_used == n {
            target.copy_from_slice(&source[..n_copied]);
        } else {
            target.fill(source[0]);
        }
        n_out += n_copied;
        rest = &tail[n_used..];
    }
    n_out
}

/// Fills `bytes`, and reads what follows to its end, since a checksum may be there.
fn read_up_to(mut reader: impl Read, bytes: &mut [u8]) -> std::io::Result<usize> {
    let mut n_read = 0;
    while n_read < bytes.len() {
        match reader.read(&mut bytes[n_read..])? {
            0 => break,
            n => n_read += n,
        }
    }
    let max_bytes = bytes.len().max(MAX_UNUSED_BYTES) as u64;
    let n_unused = std::io::copy(&mut reader.take(max_bytes + 1), &mut std::io::sink())?;
    if n_unused > max_bytes {
        return Err(std::io::Error::other(
            "it has more than twice the bytes that it should have",
        ));
    }
    Ok(n_read)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn packbits_of_the_specification() {
        let stored = [
            0xFE, 0xAA, 0x02, 0x80, 0x00, 0x2A, 0xFD, 0xAA, 0x03, 0x80, 0x00, 0x2A, 0x22, 0xF7,
            0xAA, 0x80,
        ];
        let mut bytes = [0; 30];
        assert_eq!(decode_packbits(&stored, &mut bytes), 24);
        let expected = [
            [0xAA; 3].as_slice(),
            &[0x80, 0x00, 0x2A],
            &[0xAA; 4],
            &[0x80, 0x00, 0x2A, 0x22],
            &[0xAA; 10],
        ];
        assert_eq!(bytes[..24], expected.concat());
        assert_eq!(decode_packbits(&[5, 1], &mut bytes), 0, "cut off");
    }

    #[test]
    fn damaged_deflate_is_refused() {
        let values: Vec<u8> = (0..5000_u32).map(|i| (i * i / 7 % 50) as u8).collect();
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&values).unwrap();
        let stored = encoder.finish().unwrap();
        let inflated = |stored: &[u8], n_bytes: usize| {
            let mut bytes = vec![0; n_bytes];
            inflate(stored, &mut bytes).map(|n| bytes[..n] == values[..n] && n == n_bytes.min(5000))
        };
        assert_eq!(inflated(&stored, 5000), Ok(true));
        assert_eq!(inflated(&stored, 100), Ok(true), "more rows than the image");
        assert_eq!(inflated(&stored, 6000), Ok(true), "fewer rows");
        let half = &stored[..stored.len() / 2];
        assert_eq!(inflated(half, 5000), Err("its data are cut off"));
        let mut changed = stored.clone();
        *changed.last_mut().unwrap() ^= 1;
        assert_eq!(inflated(&changed, 5000), Err("its checksum is wrong"));
        assert_eq!(inflated(&changed, 100), Err("its checksum is wrong"));
        assert_eq!(inflated(half, 100), Err("its data are cut off"));
        changed[0] = 0;
        assert_eq!(inflated(&changed, 5000), Err("its data are damaged"));
    }
}
