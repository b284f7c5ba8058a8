//! Pixels of a page of a TIFF file: strips and tiles, decompressed and put together.

use super::compression::{cannot_decompress, decompress};
use super::jpeg::{self, Block, Failure};
use super::tiff::{Tiff, tag};
use super::{MAX_PLANE_BYTES, check_size};
use fractal_task::TaskError;
use ome_zarr::pixel::{AnyPlane, PixelType};

/// The most values of a pixel.
const MAX_SAMPLES: u64 = 16;
/// Compressions whose data are images of their own.
const JPEG: u64 = 7;
/// Aperio's number for JPEG 2000 with luminance and colour differences, and Bio-Formats' number for
/// JPEG 2000.
const JPEG_2000_YCBCR: u64 = 33003;
const JPEG_2000: [u64; 4] = [JPEG_2000_YCBCR, 33004, 33005, 34712];
/// Form of the pixels of a page.
#[derive(Debug)]
pub(super) struct Form {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) pixel_type: PixelType,
    /// Bits of a value as it is stored, which may be fewer than those of its type.
    bits: usize,
    /// Values of a pixel: 3 for red, green and blue.
    pub(super) n_samples: usize,
    /// 2 for red, green and blue.
    pub(super) photometric: u64,
    /// True if red, green and blue are computed from luminance and colour differences.
    is_ycbcr: bool,
    compression: u64,
    predictor: u64,
    /// True if the bits of all bytes are in reversed order.
    is_reversed: bool,
    /// True if the values of a pixel lie side by side.
    interleaved: bool,
}

impl Form {
    /// Reads the form of a page.
    ///
    /// # Errors
    /// If the page has pixels that are not supported.
    pub(super) fn read(tiff: &mut Tiff, page: usize) -> Result<Self, TaskError> {
        let mut get = |tag: u16, default: u64| Ok(tiff.number(page, tag)?.unwrap_or(default));
        let (width, height) = (get(tag::WIDTH, 0)?, get(tag::HEIGHT, 0)?);
        let n_samples = get(tag::SAMPLES, 1)?;
        let compression = get(tag::COMPRESSION, 1)?;
        let (photometric, predictor) = (get(tag::PHOTOMETRIC, 1)?, get(tag::PREDICTOR, 1)?);
        let interleaved = get(tag::PLANAR, 1)? == 1;
        let (depth, fill_order) = (get(tag::IMAGE_DEPTH, 1)?, get(tag::FILL_ORDER, 1)?);
        let (bits, formats) = (
            tiff.numbers(page, tag::BITS)?,
            tiff.numbers(page, tag::SAMPLE_FORMAT)?,
        );
        if width == 0 || height == 0 {
            return Err(tiff.damaged("a page has no width or no height"));
        }
        if depth > 1 {
            return Err(tiff.unsupported(
                "it has volumes; save each plane as a page, with ImageJ for example",
            ));
        }
        if !(1..=MAX_SAMPLES).contains(&n_samples) {
            let cause = format!(
                "its pixels have {n_samples} samples; save each channel as a page of its own"
            );
            return Err(tiff.unsupported(cause));
        }
        let is_ycbcr = photometric == 6 && compression == JPEG && n_samples == 3 && interleaved;
        if n_samples > 1 && !matches!(photometric, 0..=2) && !is_ycbcr {
            let cause =
                "its colors are not stored as red, green and blue; save it as an RGB or grey image";
            return Err(tiff.unsupported(cause));
        }
        let (bits, format) = (
            bits.first().copied().unwrap_or(1),
            formats.first().copied().unwrap_or(1),
        );
        let pixel_type = pixel_type(bits, format).ok_or_else(|| {
            let name = match format {
                1 | 4 => format!("{bits}-bit unsigned"),
                2 => format!("{bits}-bit signed"),
                3 => format!("{bits}-bit floating-point"),
                5 | 6 => "complex numbers".to_owned(),
                other => format!("of the unknown sample format {other}"),
            };
            tiff.unsupported(format!(
                "its pixels are {name}; save it with 8, 16 or 32 bits unsigned, 16 bits signed or 32 bits floating-point"
            ))
        })?;
        check_size(tiff.path(), width, height, pixel_type)?;
        Ok(Self {
            width: width as usize,
            height: height as usize,
            pixel_type,
            bits: bits as usize,
            n_samples: n_samples as usize,
            photometric: if is_ycbcr { 2 } else { photometric },
            is_ycbcr,
            compression,
            predictor,
            is_reversed: fill_order == 2,
            interleaved,
        })
    }

    /// Bytes of one value of each pixel.
    fn plane_bytes(&self) -> usize {
        self.width * self.height * self.pixel_type.n_bytes()
    }

    /// True if a page has planes of the same size and type.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        let key = |form: &Self| {
            (
                form.width,
                form.height,
                form.pixel_type,
                form.n_samples,
                form.photometric,
            )
        };
        key(self) == key(other)
    }

    /// True if the pixels of more planes may follow those of the page without pages of their own.
    pub(super) fn is_raw(&self) -> bool {
        self.compression == 1 && self.n_samples == 1 && !self.is_packed() && !self.is_reversed
    }

    /// True if values are stored in fewer bits than those of their type.
    fn is_packed(&self) -> bool {
        self.bits < 8 * self.pixel_type.n_bytes()
    }
}

fn pixel_type(bits: u64, format: u64) -> Option<PixelType> {
    match (bits, format) {
        (1..=8, 1 | 4) => Some(PixelType::U8),
        (9..=16, 1 | 4) => Some(PixelType::U16),
        (32, 1 | 4) => Some(PixelType::U32),
        (16, 2) => Some(PixelType::I16),
        (32, 3) => Some(PixelType::F32),
        _ => None,
    }
}

/// Reads one sample of all pixels of a page.
///
/// # Errors
/// If the page is damaged or compressed in an unsupported way.
pub(super) fn read_page(
    tiff: &mut Tiff,
    page: usize,
    sample: usize,
) -> Result<AnyPlane, TaskError> {
    let form = Form::read(tiff, page)?;
    let grid = Grid::read(tiff, page, &form)?;
    let n_value = form.pixel_type.n_bytes();
    let mut bytes = empty_plane(tiff, page, &form)?;
    let first = if form.interleaved {
        0
    } else {
        sample * grid.across * grid.down
    };
    for index in 0..grid.across * grid.down {
        let (x, y) = (
            index % grid.across * grid.width,
            index / grid.across * grid.height,
        );
        let n_rows = if grid.is_tiled {
            grid.height
        } else {
            grid.height.min(form.height - y)
        };
        let block = grid.block(tiff, &form, first + index, n_rows)?;
        let Some(block) = block else { continue };
        let n_columns = grid.width.min(form.width - x);
        let (step, offset) = if form.interleaved {
            (form.n_samples, sample)
        } else {
            (1, 0)
        };
        let rows = block.chunks_exact(grid.width * step * n_value);
        for (row, values) in rows.take(form.height - y).enumerate() {
            let start = ((y + row) * form.width + x) * n_value;
            let target = &mut bytes[start..start + n_columns * n_value];
            if step == 1 {
                target.copy_from_slice(&values[..n_columns * n_value]);
                continue;
            }
            let pixels = values.chunks_exact(step * n_value);
            for (target, pixel) in target.chunks_exact_mut(n_value).zip(pixels) {
                target.copy_from_slice(&pixel[offset * n_value..(offset + 1) * n_value]);
            }
        }
    }
    Ok(AnyPlane::from_le_bytes(
        form.pixel_type,
        (form.width, form.height),
        &bytes,
    ))
}

/// The pixels of a page whose strips or tiles are left out: zeros, or GDAL's value for no data.
fn empty_plane(tiff: &mut Tiff, page: usize, form: &Form) -> Result<Vec<u8>, TaskError> {
    let value = tiff.text(page, tag::NO_DATA)?;
    let value = value.and_then(|text| text.trim().parse::<f64>().ok());
    let n_values = form.width * form.height;
    Ok(match (value.unwrap_or(0.0), form.pixel_type) {
        (0.0, _) => vec![0; form.plane_bytes()],
        (value, PixelType::U8) => vec![value as u8; n_values],
        (value, PixelType::U16) => (value as u16).to_le_bytes().repeat(n_values),
        (value, PixelType::I16) => (value as i16).to_le_bytes().repeat(n_values),
        (value, PixelType::U32) => (value as u32).to_le_bytes().repeat(n_values),
        (value, PixelType::F32) => (value as f32).to_le_bytes().repeat(n_values),
    })
}

/// Reads a plane of a file that has the pixels of all planes behind its only page, as ImageJ writes
/// files above 4 GiB.
///
/// # Errors
/// If the file ends before the plane.
pub(super) fn read_raw(tiff: &mut Tiff, index: usize) -> Result<AnyPlane, TaskError> {
    let form = Form::read(tiff, 0)?;
    let start = tiff.number(0, tag::STRIP_OFFSETS)?.unwrap_or(0);
    let n_bytes = form.plane_bytes() as u64;
    let mut bytes = tiff.bytes(
        start.saturating_add(n_bytes.saturating_mul(index as u64)),
        n_bytes,
    )?;
    to_little_endian(&mut bytes, form.pixel_type.n_bytes(), tiff.big_endian);
    Ok(AnyPlane::from_le_bytes(
        form.pixel_type,
        (form.width, form.height),
        &bytes,
    ))
}

/// True if the file is long enough for this number of planes behind its only page.
pub(super) fn has_raw(tiff: &mut Tiff, n_planes: usize) -> Result<bool, TaskError> {
    let form = Form::read(tiff, 0)?;
    let start = tiff.number(0, tag::STRIP_OFFSETS)?.unwrap_or(0);
    let end = (form.plane_bytes() as u64)
        .checked_mul(n_planes as u64)
        .and_then(|n| n.checked_add(start));
    Ok(form.is_raw() && end.is_some_and(|end| end <= tiff.n_bytes()))
}

/// How a page is cut into strips or tiles.
struct Grid {
    is_tiled: bool,
    width: usize,
    height: usize,
    across: usize,
    down: usize,
    offsets: Vec<u64>,
    lengths: Vec<u64>,
    /// Tables that JPEG strips or tiles have in common.
    jpeg_tables: Vec<u8>,
}

impl Grid {
    fn read(tiff: &mut Tiff, page: usize, form: &Form) -> Result<Self, TaskError> {
        let is_tiled = tiff.number(page, tag::TILE_WIDTH)?.is_some();
        let (width, height, offsets, lengths) = if is_tiled {
            let width = tiff.number(page, tag::TILE_WIDTH)?.unwrap_or(0);
            let height = tiff.number(page, tag::TILE_HEIGHT)?.unwrap_or(0);
            (width, height, tag::TILE_OFFSETS, tag::TILE_LENGTHS)
        } else {
            let rows = tiff.number(page, tag::ROWS_PER_STRIP)?.unwrap_or(u64::MAX);
            (
                form.width as u64,
                rows.min(form.height as u64),
                tag::STRIP_OFFSETS,
                tag::STRIP_LENGTHS,
            )
        };
        let n_values =
            form.pixel_type.n_bytes() * if form.interleaved { form.n_samples } else { 1 };
        let n_bytes = width
            .checked_mul(height)
            .and_then(|n| n.checked_mul(n_values as u64));
        if width == 0 || height == 0 || n_bytes.is_none_or(|n| n > 4 * MAX_PLANE_BYTES as u64) {
            return Err(tiff.damaged(format!("its strips or tiles have {width}x{height} pixels")));
        }
        let (width, height) = (width as usize, height as usize);
        let (across, down) = (form.width.div_ceil(width), form.height.div_ceil(height));
        let (offsets, mut lengths) = (tiff.numbers(page, offsets)?, tiff.numbers(page, lengths)?);
        if lengths.is_empty() && form.compression == 1 && offsets.len() == 1 {
            // Old programs leave the length of the only strip out.
            lengths.push(form.plane_bytes() as u64);
        }
        let n_blocks = across * down * if form.interleaved { 1 } else { form.n_samples };
        if offsets.len() < n_blocks || lengths.len() < n_blocks {
            let n = offsets.len().min(lengths.len());
            return Err(tiff.damaged(format!("it has {n} strips or tiles in place of {n_blocks}")));
        }
        let jpeg_tables = if form.compression == JPEG {
            tiff.raw(page, tag::JPEG_TABLES)?
        } else {
            Vec::new()
        };
        Ok(Self {
            is_tiled,
            width,
            height,
            across,
            down,
            offsets,
            lengths,
            jpeg_tables,
        })
    }

    /// Reads a strip or tile, little endian; `None` if the file leaves it out.
    fn block(
        &self,
        tiff: &mut Tiff,
        form: &Form,
        index: usize,
        n_rows: usize,
    ) -> Result<Option<Vec<u8>>, TaskError> {
        let (offset, length) = (self.offsets[index], self.lengths[index]);
        if offset == 0 && length == 0 {
            return Ok(None);
        }
        if offset == 0 {
            return Err(tiff.damaged("a strip or tile has no position in the file"));
        }
        let n_samples = if form.interleaved { form.n_samples } else { 1 };
        let (n_value, n_row) = (
            form.pixel_type.n_bytes(),
            self.width * n_samples * form.pixel_type.n_bytes(),
        );
        let mut stored = tiff.bytes(offset, length)?;
        if form.is_reversed {
            stored
                .iter_mut()
                .for_each(|byte| *byte = byte.reverse_bits());
        }
        if form.compression == JPEG || JPEG_2000.contains(&form.compression) {
            let mut bytes = self.decode_image(tiff, form, &stored, n_rows)?;
            bytes.truncate(n_rows * n_row);
            return Ok(Some(bytes));
        }
        // Rows begin with a new byte.
        let n_row_stored = (self.width * n_samples * form.bits).div_ceil(8);
        let n_bytes = n_rows * n_row_stored;
        let mut bytes = decompress(tiff, form.compression, stored, n_bytes)?;
        if bytes.len() < n_bytes {
            return Err(tiff.damaged(format!(
                "a strip or tile has {} bytes in place of {n_bytes}",
                bytes.len(),
            )));
        }
        bytes.truncate(n_bytes);
        match form.predictor {
            1 if form.is_packed() => {
                bytes = bytes
                    .chunks_exact(n_row_stored)
                    .flat_map(|row| unpack(row, form.bits, self.width * n_samples, n_value))
                    .collect();
            }
            2 | 3 if form.is_packed() => {
                return Err(tiff.unsupported(format!(
                    "its pixels have {} bits and a predictor; save it with 8 or 16 bits",
                    form.bits
                )));
            }
            1 => to_little_endian(&mut bytes, n_value, tiff.big_endian),
            2 => {
                to_little_endian(&mut bytes, n_value, tiff.big_endian);
                bytes
                    .chunks_exact_mut(n_row)
                    .for_each(|row| undo_differences(row, n_samples, n_value));
            }
            3 => bytes
                .chunks_exact_mut(n_row)
                .for_each(|row| undo_float_predictor(row, n_samples, n_value)),
            other => {
                return Err(
                    tiff.unsupported(format!("it has the predictor {other}; save it without one"))
                );
            }
        }
        Ok(Some(bytes))
    }

    /// Decodes a strip or tile that is an image of its own.
    fn decode_image(
        &self,
        tiff: &Tiff,
        form: &Form,
        stored: &[u8],
        n_rows: usize,
    ) -> Result<Vec<u8>, TaskError> {
        let block = Block {
            width: self.width,
            n_rows,
            max_rows: self.height,
            n_samples: if form.interleaved { form.n_samples } else { 1 },
            pixel_type: form.pixel_type,
        };
        let decoded = if form.compression == JPEG {
            jpeg::decode_jpeg(stored, &self.jpeg_tables, block, form.is_ycbcr)
        } else {
            jpeg::decode_jpeg2000(stored, block, form.compression == JPEG_2000_YCBCR)
        };
        decoded.map_err(|failure| match failure {
            Failure::Damaged(cause) => cannot_decompress(tiff, &cause),
            Failure::Unsupported(cause) => tiff.unsupported(cause),
        })
    }
}

/// Unpacks values of fewer bits than those of their type, the highest bits first.
///
/// * `bits`: 1 to 15.
/// * `n_value`: 1 or 2, the bytes of a value of the result, which is little endian.
fn unpack(row: &[u8], bits: usize, n_values: usize, n_value: usize) -> Vec<u8> {
    let mut values = Vec::with_capacity(n_values * n_value);
    let (mut window, mut n_bits) = (0_u32, 0);
    for &byte in row {
        window = window << 8 | u32::from(byte);
        n_bits += 8;
        while n_bits >= bits && values.len() < n_values * n_value {
            n_bits -= bits;
            let value = window >> n_bits & ((1 << bits) - 1);
            values.extend(&value.to_le_bytes()[..n_value]);
        }
    }
    values
}

fn to_little_endian(bytes: &mut [u8], n_value: usize, big_endian: bool) {
    if big_endian && n_value > 1 {
        bytes.chunks_exact_mut(n_value).for_each(<[u8]>::reverse);
    }
}

/// Source: TIFF 6.0, section 14.
///
/// * `n_value`: 1, 2 or 4.
fn undo_differences(row: &mut [u8], n_samples: usize, n_value: usize) {
    match n_value {
        1 => add_up(row, n_samples, |[sum], [value]| [sum.wrapping_add(value)]),
        2 => add_up(row, n_samples, |sum, value| {
            let sum = u16::from_le_bytes(sum);
            sum.wrapping_add(u16::from_le_bytes(value)).to_le_bytes()
        }),
        _ => add_up(row, n_samples, |sum, value| {
            let sum = u32::from_le_bytes(sum);
            sum.wrapping_add(u32::from_le_bytes(value)).to_le_bytes()
        }),
    }
}

/// Replaces each value by the sum of the values up to it, sample by sample.
fn add_up<const N: usize>(
    row: &mut [u8],
    n_samples: usize,
    add: impl Fn([u8; N], [u8; N]) -> [u8; N],
) {
    let values = row.as_chunks_mut::<N>().0;
    for sample in 0..n_samples {
        let mut sum = [0; N];
        for value in values.iter_mut().skip(sample).step_by(n_samples) {
            sum = add(sum, *value);
            *value = sum;
        }
    }
}

/// Differences of bytes; the highest byte of all values comes first, then the next.
///
/// Source: Adobe Photoshop TIFF Technical Note 3.
fn undo_float_predictor(row: &mut [u8], n_samples: usize, n_value: usize) {
    for index in n_samples..row.len() {
        row[index] = row[index].wrapping_add(row[index - n_samples]);
    }
    let planes = row.to_vec();
    let n_values = row.len() / n_value;
    for (index, value) in row.chunks_exact_mut(n_value).enumerate() {
        for (byte, target) in value.iter_mut().rev().enumerate() {
            *target = planes[byte * n_values + index];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_values_have_the_highest_bits_first() {
        assert_eq!(unpack(&[0b1010_0000], 1, 3, 1), [1, 0, 1]);
        assert_eq!(
            unpack(&[0x12, 0x3f, 0xed], 12, 2, 2),
            [0x23, 0x01, 0xed, 0x0f]
        );
        assert_eq!(unpack(&[0xff, 0xfe], 15, 1, 2), [0xff, 0x7f]);
    }

    #[test]
    fn predictors_are_undone() {
        let mut row = [250, 10, 10];
        undo_differences(&mut row, 1, 1);
        assert_eq!(row, [250, 4, 14]);
        let mut row = [0xff, 0, 1, 0, 1, 1];
        undo_differences(&mut row, 1, 2);
        assert_eq!(row, [0xff, 0, 0, 1, 1, 2]);
        let mut row = [1, 2, 1, 1];
        undo_differences(&mut row, 2, 1);
        assert_eq!(row, [1, 2, 2, 3]);
        // 1.0 and 2.0 are 3f800000 and 40000000.
        let mut row = [0x3f, 1, 0x40, 0x80, 0, 0, 0, 0];
        undo_float_predictor(&mut row, 1, 4);
        assert_eq!(row, [0, 0, 0x80, 0x3f, 0, 0, 0, 0x40]);
    }
}
