//! Writes Zarr version 2: groups, and 16-bit arrays of planes whose chunks are zlib-compressed.
//! It knows nothing of what the arrays mean.

use crate::plane::Plane;
use flate2::Compression;
use flate2::write::ZlibEncoder;
use fractal_task::TaskError;
use serde::Serialize;
use serde_json::json;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// An array of `n_planes` planes, in a folder of its own.
#[derive(Debug)]
pub struct Array {
    folder: PathBuf,
    size: (usize, usize),
    chunk_size: (usize, usize),
    compression_level: u32,
}

impl Array {
    /// Makes the folder and writes the array's metadata.
    ///
    /// * `size`: width and height of each plane.
    /// * `chunk_size`: the largest width and height of a chunk; a chunk has one plane.
    /// * `compression_level`: 0 (none) to 9 of zlib.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn create(
        folder: PathBuf,
        n_planes: usize,
        size: (usize, usize),
        chunk_size: usize,
        compression_level: u32,
    ) -> Result<Self, TaskError> {
        let (width, height) = size;
        let chunk_size = (chunk_size.min(width), chunk_size.min(height));
        create_folder(&folder)?;
        let metadata = json!({
            "zarr_format": 2,
            "shape": [n_planes, height, width],
            "chunks": [1, chunk_size.1, chunk_size.0],
            "dtype": "<u2",
            "compressor": {"id": "zlib", "level": compression_level},
            "fill_value": 0,
            "order": "C",
            "filters": null,
            "dimension_separator": "/",
        });
        write_json(&folder.join(".zarray"), &metadata)?;
        Ok(Self { folder, size, chunk_size, compression_level })
    }

    /// Writes the chunks of one plane.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write_plane(&self, index: usize, plane: &Plane) -> Result<(), TaskError> {
        debug_assert_eq!((plane.width, plane.height), self.size, "a plane has the size of the array");
        for (row, y) in (0..plane.height).step_by(self.chunk_size.1).enumerate() {
            let folder = self.folder.join(index.to_string()).join(row.to_string());
            create_folder(&folder)?;
            for (column, x) in (0..plane.width).step_by(self.chunk_size.0).enumerate() {
                let path = folder.join(column.to_string());
                compress(&chunk_bytes(plane, (x, y), self.chunk_size), self.compression_level)
                    .and_then(|bytes| fs::write(&path, bytes))
                    .map_err(|err| TaskError::about("cannot write", &path, err))?;
            }
        }
        Ok(())
    }
}

/// Makes a folder that is a Zarr group, and the folders above it.
///
/// # Errors
/// If it cannot be written.
pub fn create_group(folder: &Path) -> Result<(), TaskError> {
    create_folder(folder)?;
    write_json(&folder.join(".zgroup"), &json!({"zarr_format": 2}))
}

/// Writes the attributes of a group.
///
/// # Errors
/// If the file cannot be written.
pub fn write_attributes(group: &Path, attributes: &impl Serialize) -> Result<(), TaskError> {
    write_json(&group.join(".zattrs"), attributes)
}

/// Whether a folder holds a group of Zarr version 2 or 3.
pub fn is_group(folder: &Path) -> bool {
    [".zgroup", "zarr.json"].iter().any(|name| folder.join(name).is_file())
}

/// The values of one chunk, little endian. Chunks at the right and lower edge are filled up with zeros.
fn chunk_bytes(plane: &Plane, (x, y): (usize, usize), (width, height): (usize, usize)) -> Vec<u8> {
    let mut bytes = vec![0; 2 * width * height];
    let n_columns = width.min(plane.width - x);
    let rows = plane.values.chunks_exact(plane.width).skip(y);
    for (target, row) in bytes.chunks_exact_mut(2 * width).zip(rows) {
        for (pair, value) in target.chunks_exact_mut(2).zip(&row[x..x + n_columns]) {
            pair.copy_from_slice(&value.to_le_bytes());
        }
    }
    bytes
}

fn compress(bytes: &[u8], level: u32) -> io::Result<Vec<u8>> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::new(level));
    encoder.write_all(bytes)?;
    encoder.finish()
}

fn create_folder(folder: &Path) -> Result<(), TaskError> {
    fs::create_dir_all(folder).map_err(|err| TaskError::about("cannot make the folder", folder, err))
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<(), TaskError> {
    serde_json::to_vec_pretty(value)
        .map_err(io::Error::from)
        .and_then(|bytes| fs::write(path, bytes))
        .map_err(|err| TaskError::about("cannot write", path, err))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edge_chunks_are_filled_up() {
        let plane = Plane { width: 3, height: 3, values: (1..=9).map(|i| i * 256).collect() };
        assert_eq!(chunk_bytes(&plane, (0, 0), (2, 2)), [0, 1, 0, 2, 0, 4, 0, 5]);
        assert_eq!(chunk_bytes(&plane, (2, 0), (2, 2)), [0, 3, 0, 0, 0, 6, 0, 0]);
        assert_eq!(chunk_bytes(&plane, (2, 2), (2, 2)), [0, 9, 0, 0, 0, 0, 0, 0]);
    }
}
