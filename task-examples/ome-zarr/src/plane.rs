//! Reads 16-bit grey images, TIFF or PNG, one plane a file.
//!
//! [`open`] checks all that the header tells, so that a set of files can be refused before any
//! pixel is read; [`OpenPlane::read`] then reads the pixels. A TIFF in which 0 is white is
//! inverted.

use fractal_task::TaskError;
use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind};
use std::path::{Path, PathBuf};
use tiff::TiffError;
use tiff::tags::Tag;

/// The largest plane that is read, in bytes of pixels: more than 11,500 x 11,500.
const MAX_PLANE_BYTES: usize = 256 << 20;

/// An image in memory: 16-bit grey, or of another kind of pixel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plane<T = u16> {
    /// Columns, at least 1.
    pub width: usize,
    /// Rows, at least 1.
    pub height: usize,
    /// Row after row, without gaps: `width * height` values.
    pub values: Vec<T>,
}

/// A file whose header is that of a 16-bit grey image, and which may still be damaged further on.
pub struct OpenPlane {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    path: PathBuf,
    decoder: Decoder,
}

enum Decoder {
    Tiff(Box<tiff::decoder::Decoder<BufReader<File>>>),
    Png(Box<png::Reader<BufReader<File>>>),
}

/// Opens an image file. The format is found from its first bytes, not from its name.
///
/// # Errors
/// If the file cannot be opened, is neither TIFF nor PNG, has other pixels than 16-bit unsigned
/// grey, more than one page, or more than 256 MiB of pixels.
pub fn open(path: &Path) -> Result<OpenPlane, TaskError> {
    let file = File::open(path).map_err(|err| TaskError::about("cannot open", path, err))?;
    let mut file = BufReader::with_capacity(1 << 16, file);
    let start = file
        .fill_buf()
        .map_err(|err| TaskError::about("cannot read", path, err))?;
    if start.is_empty() {
        return Err(TaskError::about(
            "cannot read",
            path,
            "the file is empty; replace it",
        ));
    }
    let is_png = start.starts_with(b"\x89PNG");
    let opened = if is_png {
        open_png(path, file)
    } else {
        open_tiff(path, file)
    }?;
    let n_bytes = opened
        .width
        .checked_mul(opened.height)
        .and_then(|n| n.checked_mul(2));
    if n_bytes.is_none_or(|n_bytes| n_bytes > MAX_PLANE_BYTES) {
        return Err(TaskError::about(
            "cannot convert",
            path,
            format!(
                "{}x{} pixels are more than the 256 MiB that a plane may have",
                opened.width, opened.height
            ),
        ));
    }
    Ok(opened)
}

impl OpenPlane {
    /// Reads the pixels.
    ///
    /// # Errors
    /// If the file is damaged or cut off.
    pub fn read(self) -> Result<Plane, TaskError> {
        let n_values = self.width * self.height;
        let values = match self.decoder {
            Decoder::Tiff(mut decoder) => match decoder.read_image() {
                Ok(tiff::decoder::DecodingResult::U16(values)) => values,
                Ok(_) => return Err(other_pixels(&self.path, "not 16-bit unsigned")),
                Err(err) => return Err(tiff_failed(&self.path, err)),
            },
            Decoder::Png(mut reader) => {
                let mut bytes = vec![0; n_values * 2];
                reader
                    .next_frame(&mut bytes)
                    .map_err(|err| png_failed(&self.path, err))?;
                bytes
                    .chunks_exact(2)
                    .map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
                    .collect()
            }
        };
        if values.len() != n_values {
            return Err(damaged(
                &self.path,
                format!("{} pixels in place of {n_values}", values.len()),
            ));
        }
        Ok(Plane {
            width: self.width,
            height: self.height,
            values,
        })
    }
}

fn open_tiff(path: &Path, file: BufReader<File>) -> Result<OpenPlane, TaskError> {
    let failed = |err| tiff_failed(path, err);
    let mut limits = tiff::decoder::Limits::default();
    limits.decoding_buffer_size = MAX_PLANE_BYTES;
    let mut decoder = tiff::decoder::Decoder::new(file)
        .map_err(failed)?
        .with_limits(limits);
    let (width, height) = decoder.dimensions().map_err(failed)?;
    match decoder.colortype().map_err(failed)? {
        tiff::ColorType::Gray(16) => {}
        tiff::ColorType::Gray(bits) => return Err(other_pixels(path, &format!("{bits}-bit grey"))),
        color => return Err(other_pixels(path, &format!("{color:?}"))),
    }
    let formats: Option<Vec<u16>> = decoder
        .find_tag_unsigned_vec(Tag::SampleFormat)
        .map_err(failed)?;
    if formats.is_some_and(|formats| formats != [1]) {
        return Err(other_pixels(path, "16-bit signed or floating-point grey"));
    }
    if decoder.more_images() {
        return Err(TaskError::about(
            "cannot convert",
            path,
            "it has more than one page; save each plane as a file of its own",
        ));
    }
    Ok(OpenPlane {
        width: width as usize,
        height: height as usize,
        path: path.to_owned(),
        decoder: Decoder::Tiff(Box::new(decoder)),
    })
}

fn open_png(path: &Path, file: BufReader<File>) -> Result<OpenPlane, TaskError> {
    let reader = png::Decoder::new(file)
        .read_info()
        .map_err(|err| png_failed(path, err))?;
    let info = reader.info();
    let (width, height) = (info.width as usize, info.height as usize);
    if (info.color_type, info.bit_depth) != (png::ColorType::Grayscale, png::BitDepth::Sixteen) {
        let pixels = format!("{}-bit {:?}", info.bit_depth as u8, info.color_type);
        return Err(other_pixels(path, &pixels));
    }
    Ok(OpenPlane {
        width,
        height,
        path: path.to_owned(),
        decoder: Decoder::Png(Box::new(reader)),
    })
}

fn other_pixels(path: &Path, pixels: &str) -> TaskError {
    TaskError::about(
        "cannot convert",
        path,
        format!("its pixels are {pixels}; save it as a 16-bit unsigned grey image"),
    )
}

fn damaged(path: &Path, cause: impl fmt::Display) -> TaskError {
    let cause = format!("{cause}; the file is damaged or no TIFF or PNG image, replace it");
    TaskError::about("cannot read", path, cause)
}

fn tiff_failed(path: &Path, err: TiffError) -> TaskError {
    match err {
        TiffError::UnsupportedError(err) => {
            let cause = format!(
                "{err}; save it as a 16-bit unsigned grey TIFF with LZW, deflate or no compression"
            );
            TaskError::about("cannot convert", path, cause)
        }
        TiffError::IoError(err) if err.kind() == ErrorKind::UnexpectedEof => {
            damaged(path, "it ends too early")
        }
        TiffError::FormatError(err) => damaged(path, err),
        err => damaged(path, err),
    }
}

fn png_failed(path: &Path, err: png::DecodingError) -> TaskError {
    match err {
        png::DecodingError::IoError(err) if err.kind() == ErrorKind::UnexpectedEof => {
            damaged(path, "it ends too early")
        }
        err => damaged(path, err),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::panic::catch_unwind;

    const WIDTH: u32 = 20;
    const HEIGHT: u32 = 12;

    fn values() -> Vec<u16> {
        (0..WIDTH * HEIGHT).map(|i| (i * i) as u16).collect()
    }

    fn tiff_bytes() -> Vec<u8> {
        use tiff::encoder::{Compression, Predictor, TiffEncoder, colortype::Gray16};
        let mut bytes = std::io::Cursor::new(Vec::new());
        TiffEncoder::new(&mut bytes)
            .unwrap()
            .with_compression(Compression::Deflate(Default::default()))
            .with_predictor(Predictor::Horizontal)
            .write_image::<Gray16>(WIDTH, HEIGHT, &values())
            .unwrap();
        bytes.into_inner()
    }

    fn png_bytes(color: png::ColorType, depth: png::BitDepth, pixels: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, WIDTH, HEIGHT);
        encoder.set_color(color);
        encoder.set_depth(depth);
        encoder
            .write_header()
            .unwrap()
            .write_image_data(pixels)
            .unwrap();
        bytes
    }

    fn grey_png_bytes() -> Vec<u8> {
        let pixels: Vec<u8> = values()
            .iter()
            .flat_map(|value| value.to_be_bytes())
            .collect();
        png_bytes(png::ColorType::Grayscale, png::BitDepth::Sixteen, &pixels)
    }

    /// Each test has a file name of its own, as tests run side by side.
    fn read(name: &str, bytes: &[u8]) -> Result<Plane, String> {
        let path = std::env::temp_dir().join(format!("{}-{name}", std::process::id()));
        fs::write(&path, bytes).unwrap();
        let plane = open(&path).and_then(OpenPlane::read);
        fs::remove_file(&path).unwrap();
        plane.map_err(|err| err.to_string())
    }

    #[test]
    fn both_formats_give_the_same_plane() {
        let expected = Plane {
            width: 20,
            height: 12,
            values: values(),
        };
        assert_eq!(read("good.tif", &tiff_bytes()).unwrap(), expected);
        assert_eq!(read("good.png", &grey_png_bytes()).unwrap(), expected);
    }

    #[test]
    fn eight_bits_are_refused() {
        let n = (WIDTH * HEIGHT) as usize;
        let grey = png_bytes(png::ColorType::Grayscale, png::BitDepth::Eight, &vec![7; n]);
        assert!(
            read("8.png", &grey)
                .unwrap_err()
                .contains("its pixels are 8-bit Grayscale; save it as")
        );
        let color = png_bytes(png::ColorType::Rgb, png::BitDepth::Eight, &vec![7; 3 * n]);
        assert!(
            read("rgb.png", &color)
                .unwrap_err()
                .contains("its pixels are 8-bit Rgb")
        );
    }

    #[test]
    fn no_cut_and_no_changed_byte_makes_a_panic() {
        for (name, bytes) in [("fuzz.tif", tiff_bytes()), ("fuzz.png", grey_png_bytes())] {
            for length in 0..bytes.len() {
                let cut = catch_unwind(|| read(name, &bytes[..length])).expect("no panic");
                assert!(
                    cut.is_err() || length + 16 > bytes.len(),
                    "{name} cut at {length} of {}",
                    bytes.len()
                );
            }
            for position in 0..bytes.len() {
                for flip in [0x01, 0x80, 0xff] {
                    let mut changed = bytes.clone();
                    changed[position] ^= flip;
                    let _ = catch_unwind(|| read(name, &changed))
                        .unwrap_or_else(|_| panic!("{name}: byte {position} changed by {flip:#x}"));
                }
            }
        }
    }
}
