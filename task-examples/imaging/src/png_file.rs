//! Writes PNG files.

use crate::about;
use fractal_task::TaskError;
use png::{BitDepth, ColorType, Encoder};
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::Path;

/// Writes a picture beside its place and moves it there.
///
/// * `size`: width and height.
/// * `bytes`: row after row, as PNG has them: values of 16 bits with the high byte first.
///
/// # Errors
/// If the file cannot be written. An old one stays then.
pub fn write(path: &Path, size: (usize, usize), pixels: (ColorType, BitDepth), bytes: &[u8]) -> Result<(), TaskError> {
    let part = path.with_extension("png.part");
    let written = encode(&part, size, pixels, bytes).map_err(about("cannot write", &part));
    let moved = written.and_then(|()| fs::rename(&part, path).map_err(about("cannot move the new picture to", path)));
    if moved.is_err() {
        // The first error is the one to report.
        let _ = fs::remove_file(&part);
    }
    moved
}

fn encode(
    path: &Path,
    (width, height): (usize, usize),
    (color, depth): (ColorType, BitDepth),
    bytes: &[u8],
) -> Result<(), png::EncodingError> {
    let mut encoder = Encoder::new(BufWriter::new(File::create(path)?), width as u32, height as u32);
    encoder.set_color(color);
    encoder.set_depth(depth);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(bytes)?;
    writer.finish()
}
