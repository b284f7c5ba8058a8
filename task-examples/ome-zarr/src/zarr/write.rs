//! Creates arrays and writes their planes.

use super::{Array, Layout, Options, flat};
use crate::codec::{Codec, Encoder};
use crate::group::{Format, METADATA_V3, write_json};
use crate::pixel::{Pixel, PixelType};
use crate::plane::Plane;
use crate::shard::{IndexForm, ShardWriter};
use fractal_task::TaskError;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// An array with more bytes of pixels than this has a shard for each place on its first axis.
const MAX_SHARD_BYTES: u64 = 1 << 30;
const DEFAULT_GZIP_LEVEL: u32 = 1;

/// A new array whose planes are written one after the other.
#[derive(Debug)]
pub struct ArrayWriter {
    array: Array,
    /// The shard that is written.
    open: Option<(PathBuf, ShardWriter)>,
    encoder: Encoder,
    /// Memory for the bytes of a chunk.
    chunk: Vec<u8>,
    /// Folder of the last chunk.
    folder: Option<PathBuf>,
}

impl ArrayWriter {
    /// Creates the folder and writes the array's metadata.
    ///
    /// * `outer`: the sizes of the axes before height and width.
    /// * `size`: width and height of each plane.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn create(
        folder: PathBuf,
        pixel_type: PixelType,
        outer: &[usize],
        size: (usize, usize),
        options: Options<'_>,
    ) -> Result<Self, TaskError> {
        let (width, height) = size;
        let chunk_size = (
            options.chunk_size.min(width),
            options.chunk_size.min(height),
        );
        fs::create_dir_all(&folder)
            .map_err(|err| TaskError::about("cannot make the folder", &folder, err))?;
        let shape = [outer, &[height, width]].concat();
        let chunks = [vec![1; outer.len()], vec![chunk_size.1, chunk_size.0]].concat();
        let (codec, layout) = match options.format {
            Format::V04 => {
                let codec = options.compression_level.map_or(Codec::Blosc, Codec::Zlib);
                write_json(
                    &folder.join(".zarray"),
                    &metadata_v2(pixel_type, &shape, &chunks, codec),
                )?;
                (
                    codec,
                    Layout::Files {
                        separator: "/",
                        below_c: false,
                    },
                )
            }
            Format::V05 => {
                let level = options.compression_level.unwrap_or(DEFAULT_GZIP_LEVEL);
                let mut n_chunks: Vec<usize> = shape
                    .iter()
                    .zip(&chunks)
                    .map(|(n, chunk)| n.div_ceil(*chunk))
                    .collect();
                // A module counts with 32 bits, which are not enough for a large image.
                let n_pixels: u64 = shape.iter().map(|n| *n as u64).product();
                if n_pixels * pixel_type.n_bytes() as u64 > MAX_SHARD_BYTES && outer.len() > 1 {
                    n_chunks[0] = 1;
                }
                let metadata =
                    metadata_v3(pixel_type, &shape, &chunks, &n_chunks, options.axes, level);
                write_json(&folder.join(METADATA_V3), &metadata)?;
                let form = IndexForm {
                    is_at_end: true,
                    has_checksum: true,
                };
                (
                    Codec::Gzip(level),
                    Layout::Shards {
                        separator: "/",
                        n_chunks,
                        form,
                    },
                )
            }
        };
        let (outer, outer_chunk) = (outer.to_vec(), vec![1; outer.len()]);
        let array = Array {
            folder,
            pixel_type,
            outer,
            outer_chunk,
            size,
            chunk_size,
            codec,
            has_checksums: false,
            layout,
            buffer: RefCell::default(),
        };
        Ok(Self {
            array,
            open: None,
            encoder: Encoder::new(codec, pixel_type.n_bytes()),
            chunk: Vec::new(),
            folder: None,
        })
    }

    /// The array, whose last planes may not have been written yet.
    pub fn array(&self) -> &Array {
        &self.array
    }

    /// Writes the chunks of one plane. The planes of a shard follow each other.
    ///
    /// * `index`: its place on the axes before height and width.
    ///
    /// # Errors
    /// If a file cannot be written, or the array has other pixels.
    pub fn write_plane<T: Pixel>(
        &mut self,
        index: &[usize],
        plane: &Plane<T>,
    ) -> Result<(), TaskError> {
        self.array.check_type(T::TYPE)?;
        debug_assert_eq!(
            (plane.width, plane.height),
            self.array.size,
            "a plane has the size of the array"
        );
        let (chunk_width, chunk_height) = self.array.chunk_size;
        for (row, y) in (0..plane.height).step_by(chunk_height).enumerate() {
            for (column, x) in (0..plane.width).step_by(chunk_width).enumerate() {
                put_bytes(plane, (x, y), (chunk_width, chunk_height), &mut self.chunk);
                self.write_chunk(index, row, column)?;
            }
        }
        Ok(())
    }

    /// Writes the end of the last shard. Without it, the array is damaged.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn finish(self) -> Result<(), TaskError> {
        match self.open {
            Some((path, writer)) => writer
                .finish()
                .map_err(|err| TaskError::about("cannot write", &path, err)),
            None => Ok(()),
        }
    }

    /// Writes the chunk whose bytes are in `self.chunk`. The code of this function does not depend
    /// on the pixels, so it is in a module once.
    fn write_chunk(&mut self, index: &[usize], row: usize, column: usize) -> Result<(), TaskError> {
        let place = self.array.chunk_place(index, row, column);
        let path = self.array.file(&place);
        // The chunks of a row are in one folder.
        if self.folder.as_deref() != path.parent() {
            self.folder = path.parent().map(Path::to_owned);
            self.folder.iter().try_for_each(|folder| {
                fs::create_dir_all(folder)
                    .map_err(|err| TaskError::about("cannot make the folder", folder, err))
            })?;
        }
        self.store_chunk(&path, &place)
            .map_err(|err| TaskError::about("cannot write", &path, err))
    }

    fn store_chunk(&mut self, path: &Path, place: &[usize]) -> io::Result<()> {
        let Layout::Shards { n_chunks, .. } = &self.array.layout else {
            return fs::write(path, self.encoder.encode(&self.chunk)?);
        };
        if !matches!(&self.open, Some((open, _)) if open == path) {
            let writer = ShardWriter::create(path, n_chunks.iter().product())?;
            if let Some((_, last)) = self.open.replace((path.to_owned(), writer)) {
                last.finish()?;
            }
        }
        let chunk = flat(
            n_chunks,
            place.iter().zip(n_chunks).map(|(place, n)| place % n),
        );
        match &mut self.open {
            // A chunk without light needs no bytes: 0 is the fill value.
            Some((_, writer)) if self.chunk.iter().any(|byte| *byte != 0) => {
                writer.add(chunk, self.encoder.encode(&self.chunk)?)
            }
            _ => Ok(()),
        }
    }
}

pub(super) fn metadata_v2(
    pixel_type: PixelType,
    shape: &[usize],
    chunks: &[usize],
    codec: Codec,
) -> Value {
    json!({
        "zarr_format": 2,
        "shape": shape,
        "chunks": chunks,
        "dtype": pixel_type.dtype(),
        "compressor": codec.compressor(),
        "fill_value": 0,
        "order": "C",
        "filters": null,
        "dimension_separator": "/",
    })
}

/// * `n_chunks`: chunks of a shard on each axis.
///
/// Source: Zarr 3 core specification, and the codecs `bytes`, `gzip`, `crc32c` and
/// `sharding_indexed`.
fn metadata_v3(
    pixel_type: PixelType,
    shape: &[usize],
    chunks: &[usize],
    n_chunks: &[usize],
    axes: &str,
    level: u32,
) -> Value {
    let shard: Vec<usize> = chunks
        .iter()
        .zip(n_chunks)
        .map(|(size, n)| size * n)
        .collect();
    let bytes = match pixel_type.n_bytes() {
        1 => json!({"name": "bytes"}),
        _ => json!({"name": "bytes", "configuration": {"endian": "little"}}),
    };
    let names: Vec<String> = axes.chars().map(String::from).collect();
    let fill_value = if pixel_type == PixelType::F32 {
        json!(0.0)
    } else {
        json!(0)
    };
    json!({
        "zarr_format": 3,
        "node_type": "array",
        "shape": shape,
        "data_type": pixel_type.name(),
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": shard}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": fill_value,
        "codecs": [{
            "name": "sharding_indexed",
            "configuration": {
                "chunk_shape": chunks,
                "codecs": [
                    bytes,
                    {"name": "gzip", "configuration": {"level": level}},
                ],
                "index_codecs": [
                    {"name": "bytes", "configuration": {"endian": "little"}},
                    {"name": "crc32c"},
                ],
                "index_location": "end",
            },
        }],
        "attributes": {},
        "dimension_names": names,
    })
}

/// Puts the values of one chunk, little endian, into `bytes`. Chunks at the right and lower edge
/// are filled up with zeros.
pub(super) fn put_bytes<T: Pixel>(
    plane: &Plane<T>,
    (x, y): (usize, usize),
    (width, height): (usize, usize),
    bytes: &mut Vec<u8>,
) {
    let n_columns = width.min(plane.width - x);
    bytes.resize(T::TYPE.n_bytes() * width * height, 0);
    if n_columns < width || y + height > plane.height {
        bytes.fill(0);
    }
    let rows = plane.values.chunks_exact(plane.width).skip(y);
    for (target, row) in bytes.chunks_exact_mut(T::TYPE.n_bytes() * width).zip(rows) {
        for (bytes, value) in target
            .chunks_exact_mut(T::TYPE.n_bytes())
            .zip(&row[x..x + n_columns])
        {
            value.put(bytes);
        }
    }
}
