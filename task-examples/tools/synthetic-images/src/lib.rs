//! What programs that make images share: random numbers and TIFF files whose bytes depend on the
//! arguments alone.

pub mod random;

use std::io::Cursor;
use tiff::TiffResult;
pub use tiff::encoder::compression::DeflateLevel;
use tiff::encoder::{Compression, Predictor, TiffEncoder, colortype::Gray16};

/// A TIFF file of one square image, 16-bit grey, deflated after horizontal differences.
///
/// * `size`: rows and columns.
/// * `values`: row by row, `size * size` of them.
/// * `level`: of the compression. Noise makes the best one hardly smaller than the fast one, which
///   takes a tenth of the time.
///
/// # Errors
/// Of the encoder, if the number of values is another one.
pub fn build_tiff(size: usize, values: &[u16], level: DeflateLevel) -> TiffResult<Vec<u8>> {
    let mut bytes = Cursor::new(Vec::new());
    TiffEncoder::new(&mut bytes)?
        .with_compression(Compression::Deflate(level))
        .with_predictor(Predictor::Horizontal)
        .write_image::<Gray16>(size as u32, size as u32, values)?;
    Ok(bytes.into_inner())
}
