//! Compressions of strips and tiles whose data are bytes, not images of their own.

use super::tiff::Tiff;
use fractal_task::TaskError;
use std::io::Read;

/// The largest memory that decoding LZMA may need, in KiB.
const MAX_LZMA_KIB: u32 = 128 << 10;

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
        8 | 32946 => {
            let mut decoder = fdeflate::Decompressor::new();
            let (_, n) = decoder
                .read(&stored, &mut bytes, 0, false)
                .map_err(|err| damaged(format!("{err:?}")))?;
            // A strip may hold more rows than the image.
            if n < n_bytes && !decoder.is_done() {
                return Err(damaged("it ends too early".to_owned()));
            }
            n
        }
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

fn read_up_to(mut reader: impl Read, bytes: &mut [u8]) -> std::io::Result<usize> {
    let mut n_read = 0;
    while n_read < bytes.len() {
        match reader.read(&mut bytes[n_read..])? {
            0 => break,
            n => n_read += n,
        }
    }
    Ok(n_read)
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
