//! Strips and tiles of TIFF files that are JPEG or JPEG 2000 images of their own. The sizes in
//! their headers are compared with those of the strip or tile before any pixel is decoded.

use hayro_jpeg2000::{DecodeSettings, DecoderContext, Image};
use ome_zarr::pixel::PixelType;
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

/// The most values of a strip or tile in JPEG 2000. The decoder needs 12 bytes for each.
const MAX_JPEG2000_VALUES: usize = 64 << 20;
/// The most precincts and code-blocks of a strip or tile in JPEG 2000. The decoder keeps a record
/// of each, of 650 bytes at most.
const MAX_JPEG2000_RECORDS: u64 = 1 << 20;

/// What the tags of a page state about a strip or tile.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block {
    pub(super) width: usize,
    /// Rows that are used. A strip or tile may have more of them.
    pub(super) n_rows: usize,
    /// Rows that a strip or tile has.
    pub(super) max_rows: usize,
    pub(super) n_samples: usize,
    pub(super) pixel_type: PixelType,
}

/// Why a strip or tile cannot be decoded.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// It is damaged.
    Damaged(String),
    /// It has what is not supported. The text also states what to do.
    Unsupported(&'static str),
}

impl Block {
    fn check_size(&self, width: usize, height: usize) -> Result<(), Failure> {
        if width == self.width && (self.n_rows..=self.max_rows).contains(&height) {
            return Ok(());
        }
        Err(Failure::Damaged(format!(
            "its header states {width}x{height} pixels in place of {}x{}",
            self.width, self.n_rows
        )))
    }
}

/// Decodes JPEG.
///
/// * `tables`: value of the tag JPEGTables, which strips and tiles have in common; may be empty.
/// * `is_ycbcr`: true if three samples are luminance and two colour differences, which become red,
///   green and blue.
///
/// Returns the samples of each pixel, row by row.
///
/// # Errors
/// If the data are damaged, of another size than the block, or of an unsupported form.
///
/// Source: TIFF Technical Note 2.
pub(super) fn decode_jpeg(
    stored: &[u8],
    tables: &[u8],
    block: Block,
    is_ycbcr: bool,
) -> Result<Vec<u8>, Failure> {
    let damaged = |cause: String| Failure::Damaged(cause);
    if block.pixel_type != PixelType::U8 {
        return Err(Failure::Unsupported(
            "it has JPEG with more than 8 bits; save it with LZW or deflate",
        ));
    }
    let stream = with_tables(stored, tables);
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(block.width)
        .set_max_height(block.max_rows);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(stream.as_slice()), options);
    decoder
        .decode_headers()
        .map_err(|err| damaged(format!("{err:?}")))?;
    let (width, height) = decoder.dimensions().unwrap_or_default();
    block.check_size(width, height)?;
    let n_components = decoder
        .info()
        .map_or(0, |info| usize::from(info.components));
    if n_components != block.n_samples {
        return Err(damaged(format!(
            "it has {n_components} samples in place of {}",
            block.n_samples
        )));
    }
    let wanted = match (n_components, is_ycbcr) {
        (1, _) => ColorSpace::Luma,
        (3, true) => ColorSpace::RGB,
        // The samples as they are stored.
        (3, false) => decoder.input_colorspace().unwrap_or(ColorSpace::YCbCr),
        _ => {
            return Err(Failure::Unsupported(
                "it has JPEG with two or four samples; save it with LZW or deflate",
            ));
        }
    };
    decoder.set_options(options.jpeg_set_out_colorspace(wanted));
    decoder.decode().map_err(|err| damaged(format!("{err:?}")))
}

/// Puts common tables into a JPEG stream, behind its first marker.
fn with_tables(stored: &[u8], tables: &[u8]) -> Vec<u8> {
    const START: &[u8] = &[0xff, 0xd8];
    const END: &[u8] = &[0xff, 0xd9];
    let tables = tables.strip_prefix(START).unwrap_or_default();
    let tables = tables.strip_suffix(END).unwrap_or(tables);
    match stored.strip_prefix(START) {
        Some(rest) => [START, tables, rest].concat(),
        None => stored.to_vec(),
    }
}

/// Decodes JPEG 2000, a codestream or a JP2 file.
///
/// * `may_be_ycbcr`: true if three samples without a transform of colours may be luminance and
///   colour differences.
///
/// Returns the samples of each pixel in little-endian order, row by row.
///
/// # Errors
/// If the data are damaged, of another size than the block, or of an unsupported form.
pub(super) fn decode_jpeg2000(
    stored: &[u8],
    block: Block,
    may_be_ycbcr: bool,
) -> Result<Vec<u8>, Failure> {
    let damaged = |cause: String| Failure::Damaged(cause);
    let start = stored
        .windows(CODESTREAM.len())
        .position(|bytes| bytes == CODESTREAM)
        .ok_or_else(|| damaged("it has no JPEG 2000 codestream".to_owned()))?;
    let codestream = &stored[start..];
    let header = Header::read(codestream)
        .ok_or_else(|| damaged("the JPEG 2000 header is damaged".to_owned()))?;
    header.check(block)?;
    if block.n_samples > 1 && may_be_ycbcr && !header.has_color_transform {
        return Err(Failure::Unsupported(
            "its colors may be luminance and color differences in JPEG 2000, as Aperio's scanners write them; save it with LZW or \
             deflate",
        ));
    }
    let settings = DecodeSettings {
        strict: true,
        ..DecodeSettings::default()
    };
    let image = Image::new(codestream, &settings).map_err(|err| damaged(err.to_string()))?;
    block.check_size(image.width() as usize, image.height() as usize)?;
    let mut context = DecoderContext::default();
    let decoded = image
        .decode(&mut context)
        .map_err(|err| damaged(err.to_string()))?;
    let planes: Vec<&[f32]> = decoded
        .components()
        .iter()
        .map(|component| component.samples())
        .collect();
    let n_pixels = block.width * header.height;
    if planes.len() != block.n_samples || planes.iter().any(|plane| plane.len() != n_pixels) {
        return Err(damaged("it has too few samples".to_owned()));
    }
    Ok(to_bytes(&planes, &header, block.pixel_type))
}

/// Interleaves samples and converts them to the type of the pixels.
fn to_bytes(planes: &[&[f32]], header: &Header, pixel_type: PixelType) -> Vec<u8> {
    // The decoder adds half of the range to all samples, also to signed ones.
    let shift = if header.is_signed {
        1_i32 << (header.bits - 1)
    } else {
        0
    };
    let highest = (1_i32 << header.bits) - 1;
    let n_pixels = planes.first().map_or(0, |plane| plane.len());
    let mut bytes = Vec::with_capacity(n_pixels * planes.len() * pixel_type.n_bytes());
    for index in 0..n_pixels {
        for plane in planes {
            let value = (libm::rintf(plane[index]) as i32).clamp(0, highest) - shift;
            bytes.extend(&value.to_le_bytes()[..pixel_type.n_bytes()]);
        }
    }
    bytes
}

/// The markers that begin a codestream: SOC and SIZ.
const CODESTREAM: &[u8] = &[0xff, 0x4f, 0xff, 0x51];

/// What is read of the header of a JPEG 2000 codestream.
///
/// Source: ISO/IEC 15444-1, sections A.5.1 (SIZ) and A.6.1 (COD).
#[derive(Debug, PartialEq, Eq)]
struct Header {
    width: usize,
    height: usize,
    n_tiles: u64,
    n_components: usize,
    bits: u8,
    is_signed: bool,
    /// True if all components have one size and type.
    is_uniform: bool,
    /// True if it is of part 15 of the standard, HTJ2K.
    is_high_throughput: bool,
    /// True if the components are transformed colours.
    has_color_transform: bool,
    /// Number of precincts and code-blocks in a component.
    n_records: u64,
}

impl Header {
    /// Reads the header of a codestream; `None` if it is damaged.
    fn read(codestream: &[u8]) -> Option<Self> {
        let size = segment(codestream, CODESTREAM.len())?;
        let number = |index: usize| {
            let bytes = size.get(2 + 4 * index..6 + 4 * index)?;
            Some(u64::from(u32::from_be_bytes(bytes.try_into().ok()?)))
        };
        let (width, height) = (
            number(0)?.checked_sub(number(2)?)?,
            number(1)?.checked_sub(number(3)?)?,
        );
        let count = |end: u64, start: u64, size: u64| {
            (size > 0).then(|| Some(end.checked_sub(start)?.div_ceil(size)))?
        };
        let n_tiles = count(number(0)?, number(6)?, number(4)?)?.checked_mul(count(
            number(1)?,
            number(7)?,
            number(5)?,
        )?)?;
        let (first, components) = (size.get(36..39)?, size.get(36..)?);
        let mut header = Self {
            width: width.try_into().ok()?,
            height: height.try_into().ok()?,
            n_tiles,
            n_components: usize::from(u16::from_be_bytes(size.get(34..36)?.try_into().ok()?)),
            bits: (first[0] & 0x7f) + 1,
            is_signed: first[0] & 0x80 != 0,
            is_uniform: first[1..] == [1, 1] && components.chunks(3).all(|other| other == first),
            is_high_throughput: false,
            has_color_transform: false,
            n_records: 0,
        };
        let mut start = CODESTREAM.len() + 2 + size.len();
        // Segments follow each other up to the data of a tile, then those of the next tile.
        let mut next_tile = None;
        while let Some(marker) = codestream.get(start..start + 2) {
            if marker == [0xff, 0x93] {
                match next_tile {
                    Some(next) if next > start => start = next,
                    _ => break,
                }
                continue;
            }
            if marker == [0xff, 0xd9] {
                break;
            }
            let segment = segment(codestream, start + 2)?;
            match marker {
                [0xff, 0x90] => {
                    let length = u32::from_be_bytes(segment.get(2..6)?.try_into().ok()?);
                    next_tile = start.checked_add(usize::try_from(length).ok()?);
                }
                [0xff, 0x50] => header.is_high_throughput = true,
                [0xff, 0x52] => header.read_coding_style(segment)?,
                // Another coding style of a component, which is rare.
                [0xff, 0x53] => header.is_uniform = false,
                _ => {}
            }
            start += 4 + segment.len();
        }
        Some(header)
    }

    fn read_coding_style(&mut self, segment: &[u8]) -> Option<()> {
        let &[style, _, _, _, transform, n_levels, x_block, y_block, ..] = segment else {
            return None;
        };
        self.has_color_transform = transform == 1;
        let sizes = [self.width as u64, self.height as u64];
        let count = |level: u8, exponents: [u8; 2]| {
            let count = |axis: usize| {
                let exponent = u32::from(level) + u32::from(exponents[axis]);
                sizes[axis].div_ceil(1_u64.checked_shl(exponent).unwrap_or(u64::MAX))
            };
            count(0).saturating_mul(count(1))
        };
        if n_levels > 32 {
            return None;
        }
        let blocks = [x_block, y_block].map(|exponent| (exponent & 15) + 2);
        let mut n_records = count(0, blocks);
        for resolution in 0..=n_levels {
            let precinct = match style & 1 {
                0 => 0xff,
                _ => *segment.get(10 + usize::from(resolution))?,
            };
            let n_precincts = count(n_levels - resolution, [precinct & 15, precinct >> 4]);
            n_records = n_records.saturating_add(n_precincts.max(self.n_tiles));
        }
        self.n_records = self.n_records.max(n_records);
        Some(())
    }

    /// Refuses what the decoder must not be given, and what is not supported.
    fn check(&self, block: Block) -> Result<(), Failure> {
        block.check_size(self.width, self.height)?;
        if self.is_high_throughput {
            return Err(Failure::Unsupported(
                "it has high-throughput JPEG 2000 (HTJ2K), which is not supported; save it with LZW or deflate",
            ));
        }
        if self.n_components != block.n_samples {
            return Err(Failure::Damaged(format!(
                "it has {} samples in place of {}",
                self.n_components, block.n_samples
            )));
        }
        let n_values = self.width * self.height * self.n_components;
        if n_values > MAX_JPEG2000_VALUES {
            return Err(Failure::Unsupported(
                "its strips or tiles in JPEG 2000 have more than 64 million values; save it with smaller tiles",
            ));
        }
        let n_records = self.n_records.saturating_mul(self.n_components as u64);
        if n_records > MAX_JPEG2000_RECORDS {
            return Err(Failure::Unsupported(
                "its JPEG 2000 data are cut into very small tiles, precincts or code-blocks; save it with LZW or deflate",
            ));
        }
        let fits = match block.pixel_type {
            PixelType::U8 => self.bits <= 8 && !self.is_signed,
            PixelType::U16 => self.bits <= 16 && !self.is_signed,
            // Bio-Formats writes signed pixels as if they had no sign.
            PixelType::I16 => self.bits == 16 || self.bits < 16 && self.is_signed,
            PixelType::U32 | PixelType::F32 => false,
        };
        if !fits || !self.is_uniform {
            return Err(Failure::Unsupported(
                "its JPEG 2000 data have other bits than its tags state, or samples of different sizes; save it with LZW \
                 or deflate, with 8 or 16 bits",
            ));
        }
        Ok(())
    }
}

/// The contents of a segment of a codestream, whose length is stored at `start`.
fn segment(codestream: &[u8], start: usize) -> Option<&[u8]> {
    let length = codestream.get(start..start + 2)?;
    let length = usize::from(u16::from_be_bytes(length.try_into().ok()?));
    codestream.get(start + 2..start + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A codestream of a size, with a coding style of the tile in addition to that of the image.
    fn codestream(size: u32, tile: u32, precinct: u8) -> Vec<u8> {
        let style = |precinct: u8| {
            let parts: [&[u8]; 2] = [&[1, 0, 0, 1, 0, 1, 4, 4, 0, 1], &[precinct, precinct]];
            [&[0xff, 0x52, 0, 14], parts.concat().as_slice()].concat()
        };
        let mut bytes = [CODESTREAM, &[0, 41, 0, 0]].concat();
        for number in [size, size, 0, 0, tile, tile, 0, 0] {
            bytes.extend(number.to_be_bytes());
        }
        bytes.extend([0, 1, 7, 1, 1]);
        bytes.extend(style(0xff));
        bytes.extend([0xff, 0x90, 0, 10, 0, 0, 0, 0, 0, 0, 0, 1]);
        bytes.extend(style(precinct));
        bytes.extend([0xff, 0x93]);
        bytes
    }

    #[test]
    fn bombs_are_refused_by_their_headers() {
        let check = |size: usize, tile: u32, precinct: u8| {
            let block = Block {
                width: size,
                n_rows: size,
                max_rows: size,
                n_samples: 1,
                pixel_type: PixelType::U8,
            };
            Header::read(&codestream(size as u32, tile, precinct))
                .unwrap()
                .check(block)
        };
        assert_eq!(check(4096, 4096, 0x88), Ok(()));
        for (size, tile, precinct, expected) in [
            (4096, 4096, 0x11, "very small tiles, precincts"),
            (4096, 2, 0x88, "very small tiles, precincts"),
            (1 << 14, 1 << 14, 0x88, "more than 64 million values"),
        ] {
            match check(size, tile, precinct) {
                Err(Failure::Unsupported(cause)) => assert!(cause.contains(expected), "{cause}"),
                other => panic!("{other:?}"),
            }
        }
        let mut cut = codestream(64, 64, 0x88);
        cut.truncate(40);
        assert_eq!(Header::read(&cut), None);
    }
}
