//! PNG files.

use super::{ImageFile, Location, Series, check_size, damaged, plausible_size};
use crate::about;
use fractal_task::TaskError;
use ome_zarr::pixel::{AnyPlane, PixelType};
use std::fs::File;
use std::io::{BufReader, ErrorKind};
use std::path::Path;

/// Reads what the header states.
///
/// # Errors
/// If the file is damaged, or has pixels that are not supported.
pub(super) fn open_png(path: &Path, file: File) -> Result<ImageFile, TaskError> {
    let reader = reader(path, file)?;
    let info = reader.info();
    check_size(path, info.width.into(), info.height.into(), PixelType::U16)?;
    let unsupported = |pixels: &str| {
        let cause =
            format!("its pixels are {pixels}; save it as an RGB or grey image with 8 or 16 bits");
        TaskError::about("cannot convert", path, cause)
    };
    let pixel_type = match info.bit_depth {
        png::BitDepth::Eight => PixelType::U8,
        png::BitDepth::Sixteen => PixelType::U16,
        other => return Err(unsupported(&format!("{}-bit", other as u8))),
    };
    let channels: Vec<String> = match info.color_type {
        png::ColorType::Grayscale | png::ColorType::GrayscaleAlpha => vec![String::new()],
        png::ColorType::Rgb | png::ColorType::Rgba => ["R", "G", "B"].map(str::to_owned).to_vec(),
        png::ColorType::Indexed => return Err(unsupported("colors of a table")),
    };
    let pixel_size_um = info.pixel_dims.filter(|dims| dims.unit == png::Unit::Meter);
    let series = Series {
        size: (info.width as usize, info.height as usize),
        pixel_type,
        n_z: 1,
        n_times: 1,
        is_color: channels.len() == 3,
        has_axes: true,
        pixel_size_um: pixel_size_um
            .and_then(|dims| plausible_size([dims.xppu, dims.yppu].map(|n| 1e6 / f64::from(n)))),
        z_step_um: None,
        stage: None,
        has_z_elsewhere: false,
        has_channels_elsewhere: false,
        planes: (0..channels.len()).map(Location::Png).collect(),
        channels,
    };
    Ok(ImageFile {
        path: path.to_owned(),
        tiff: None,
        series: vec![series],
        warnings: Vec::new(),
    })
}

fn reader(path: &Path, file: File) -> Result<png::Reader<BufReader<File>>, TaskError> {
    let file = BufReader::with_capacity(1 << 16, file);
    png::Decoder::new(file)
        .read_info()
        .map_err(|err| failed(path, err))
}

/// Reads one sample of all pixels.
///
/// # Errors
/// If the file cannot be read or is damaged.
pub(super) fn read_png(path: &Path, sample: usize) -> Result<AnyPlane, TaskError> {
    let file = File::open(path).map_err(about("cannot open", path))?;
    let mut reader = reader(path, file)?;
    let info = reader.info();
    let (size, n_samples) = (
        (info.width as usize, info.height as usize),
        info.color_type.samples(),
    );
    let pixel_type = if info.bit_depth == png::BitDepth::Sixteen {
        PixelType::U16
    } else {
        PixelType::U8
    };
    let n_value = pixel_type.n_bytes();
    let mut bytes = vec![0; size.0 * size.1 * n_samples * n_value];
    reader
        .next_frame(&mut bytes)
        .map_err(|err| failed(path, err))?;
    if n_samples > 1 {
        let values = bytes
            .chunks_exact(n_samples * n_value)
            .flat_map(|pixel| &pixel[sample * n_value..][..n_value]);
        bytes = values.copied().collect();
    }
    if n_value == 2 {
        bytes.chunks_exact_mut(2).for_each(<[u8]>::reverse);
    }
    Ok(AnyPlane::from_le_bytes(pixel_type, size, &bytes))
}

fn failed(path: &Path, err: png::DecodingError) -> TaskError {
    match err {
        png::DecodingError::IoError(err) if err.kind() == ErrorKind::UnexpectedEof => {
            damaged(path, "it ends too early")
        }
        // The text of the error is for programmers.
        png::DecodingError::Format(_) => damaged(path, "its data or their checksum are wrong"),
        err => damaged(path, err),
    }
}
