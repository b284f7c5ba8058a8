//! Zarr version 2: groups, and arrays of planes whose chunks are zlib-compressed. It knows nothing of what the arrays
//! mean.
//!
//! Own code, since the crate `zarrs` does not fit a small module: its file store does not build for WASI, and without it
//! an empty program is 2.3 MB and starts threads.

use crate::each_type;
use crate::pixel::{AnyPlane, Pixel, PixelType};
use crate::plane::Plane;
use fractal_task::TaskError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use zlib_rs::{DeflateConfig, InflateConfig, ReturnCode};

/// The largest chunk that is read, in bytes of pixels.
const MAX_CHUNK_BYTES: usize = 256 << 20;

/// An array of planes, in a folder of its own. A chunk is a part of one plane.
#[derive(Debug)]
pub struct Array {
    folder: PathBuf,
    pixel_type: PixelType,
    /// The axes before height and width.
    outer: Vec<usize>,
    size: (usize, usize),
    chunk_size: (usize, usize),
    /// `None` is not compressed.
    compression_level: Option<u32>,
}

impl Array {
    /// Makes the folder and writes the array's metadata.
    ///
    /// * `pixel_type`: type of the pixels.
    /// * `outer`: the sizes of the axes before height and width.
    /// * `size`: width and height of each plane.
    /// * `chunk_size`: the largest width and height of a chunk.
    /// * `compression_level`: 0 (none) to 9 of zlib.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn create(
        folder: PathBuf,
        pixel_type: PixelType,
        outer: &[usize],
        size: (usize, usize),
        chunk_size: usize,
        compression_level: u32,
    ) -> Result<Self, TaskError> {
        let (width, height) = size;
        let chunk_size = (chunk_size.min(width), chunk_size.min(height));
        create_folder(&folder)?;
        let shape = [outer, &[height, width]].concat();
        let chunks = [vec![1; outer.len()], vec![chunk_size.1, chunk_size.0]].concat();
        let metadata = json!({
            "zarr_format": 2,
            "shape": shape,
            "chunks": chunks,
            "dtype": pixel_type.dtype(),
            "compressor": {"id": "zlib", "level": compression_level},
            "fill_value": 0,
            "order": "C",
            "filters": null,
            "dimension_separator": "/",
        });
        write_json(&folder.join(".zarray"), &metadata)?;
        let compression_level = Some(compression_level);
        Ok(Self { folder, pixel_type, outer: outer.to_vec(), size, chunk_size, compression_level })
    }

    /// Opens an array that is there.
    ///
    /// # Errors
    /// If its metadata cannot be read, or it is of another kind than [`Array::create`] makes: other pixels, chunks of more
    /// than one plane, or another compression than zlib or none.
    pub fn open(folder: PathBuf) -> Result<Self, TaskError> {
        let path = folder.join(".zarray");
        let metadata: Value = read_json(&path)?;
        let expected = json!({"zarr_format": 2, "order": "C", "fill_value": 0, "dimension_separator": "/"});
        for (key, expected) in expected.as_object().into_iter().flatten() {
            if &metadata[key] != expected {
                let found = &metadata[key];
                return Err(TaskError::about("cannot use", &path, format!("{key} is {found}, not {expected}")));
            }
        }
        let dtype = &metadata["dtype"];
        let Some(pixel_type) = PixelType::ALL.into_iter().find(|known| dtype == known.dtype()) else {
            let known = PixelType::ALL.map(PixelType::dtype).join(", ");
            return Err(TaskError::about("cannot use", &path, format!("dtype is {dtype}, not one of {known}")));
        };
        let compression_level = match (&metadata["compressor"], &metadata["filters"]) {
            (Value::Null, Value::Null) => None,
            (compressor, Value::Null) if compressor["id"] == "zlib" => {
                compressor["level"].as_u64().map(|level| level as u32)
            }
            _ => return Err(TaskError::about("cannot use", &path, "it is compressed by something else than zlib")),
        };
        let sizes = |key: &str| -> Option<Vec<usize>> { serde_json::from_value(metadata[key].clone()).ok() };
        let wrong = || TaskError::about("cannot use", &path, "shape and chunks are not those of an array of planes");
        let (shape, chunks) = sizes("shape").zip(sizes("chunks")).ok_or_else(wrong)?;
        let [outer @ .., height, width] = shape.as_slice() else { return Err(wrong()) };
        let [outer_chunks @ .., chunk_height, chunk_width] = chunks.as_slice() else { return Err(wrong()) };
        let n_bytes = chunk_height.checked_mul(*chunk_width).and_then(|n| n.checked_mul(pixel_type.n_bytes()));
        let one_plane = outer_chunks.len() == outer.len() && outer_chunks.iter().all(|&n| n == 1);
        let usable =
            n_bytes.is_some_and(|n| (1..=MAX_CHUNK_BYTES).contains(&n)) && width.checked_mul(*height).is_some();
        if !one_plane || !usable {
            return Err(wrong());
        }
        Ok(Self {
            outer: outer.to_vec(),
            size: (*width, *height),
            chunk_size: (*chunk_width, *chunk_height),
            compression_level,
            folder,
            pixel_type,
        })
    }

    /// The type of its pixels.
    pub fn pixel_type(&self) -> PixelType {
        self.pixel_type
    }

    /// The sizes of the axes before height and width.
    pub fn outer(&self) -> &[usize] {
        &self.outer
    }

    /// Width and height of each plane.
    pub fn size(&self) -> (usize, usize) {
        self.size
    }

    /// Width and height of a chunk.
    pub fn chunk_size(&self) -> (usize, usize) {
        self.chunk_size
    }

    /// 0 to 9 of zlib; 0 also for an array that is not compressed.
    pub fn compression_level(&self) -> u32 {
        self.compression_level.unwrap_or(0)
    }

    /// Writes the chunks of one plane.
    ///
    /// * `index`: its place on the axes before height and width.
    ///
    /// # Errors
    /// If a file cannot be written, or the array has other pixels.
    pub fn write_plane<T: Pixel>(&self, index: &[usize], plane: &Plane<T>) -> Result<(), TaskError> {
        self.check_type(T::TYPE)?;
        debug_assert_eq!((plane.width, plane.height), self.size, "a plane has the size of the array");
        for (row, y) in (0..plane.height).step_by(self.chunk_size.1).enumerate() {
            let folder = self.row_folder(index, row);
            create_folder(&folder)?;
            for (column, x) in (0..plane.width).step_by(self.chunk_size.0).enumerate() {
                let path = folder.join(column.to_string());
                let bytes = chunk_bytes(plane, (x, y), self.chunk_size);
                match self.compression_level {
                    Some(level) => compress(&bytes, level),
                    None => Ok(bytes),
                }
                .and_then(|bytes| fs::write(&path, bytes))
                .map_err(|err| TaskError::about("cannot write", &path, err))?;
            }
        }
        Ok(())
    }

    /// Reads one plane. A chunk that is not there is 0, as Zarr has it.
    ///
    /// # Errors
    /// If a file cannot be read or is damaged, or the array has other pixels.
    pub fn read_plane<T: Pixel>(&self, index: &[usize]) -> Result<Plane<T>, TaskError> {
        self.check_type(T::TYPE)?;
        let (width, height) = self.size;
        let mut plane = Plane { width, height, values: vec![T::default(); width * height] };
        let n_bytes = self.chunk_size.0 * self.chunk_size.1 * T::TYPE.n_bytes();
        for (row, y) in (0..height).step_by(self.chunk_size.1).enumerate() {
            let folder = self.row_folder(index, row);
            for (column, x) in (0..width).step_by(self.chunk_size.0).enumerate() {
                let path = folder.join(column.to_string());
                let bytes = match fs::read(&path) {
                    Ok(bytes) => bytes,
                    Err(err) if err.kind() == io::ErrorKind::NotFound => continue,
                    Err(err) => return Err(TaskError::about("cannot read", &path, err)),
                };
                let bytes = if self.compression_level.is_some() { decompress(&bytes, n_bytes) } else { Ok(bytes) }
                    .and_then(
                        |bytes| if bytes.len() == n_bytes { Ok(bytes) } else { Err(io::ErrorKind::InvalidData.into()) },
                    )
                    .map_err(|err| {
                        TaskError::about(
                            "cannot read",
                            &path,
                            format!("{err}; the chunk is damaged, make its image again"),
                        )
                    })?;
                put_chunk(&mut plane, (x, y), self.chunk_size.0, &bytes);
            }
        }
        Ok(plane)
    }

    /// Reads one plane, whatever its pixels.
    ///
    /// # Errors
    /// As [`Array::read_plane`].
    pub fn read_any(&self, index: &[usize]) -> Result<AnyPlane, TaskError> {
        each_type!(self.pixel_type, T => self.read_plane::<T>(index).map(Pixel::wrap))
    }

    fn check_type(&self, pixel_type: PixelType) -> Result<(), TaskError> {
        if pixel_type == self.pixel_type {
            return Ok(());
        }
        let cause = format!("its pixels are {}, not {}", self.pixel_type.name(), pixel_type.name());
        Err(TaskError::about("cannot use", &self.folder, cause))
    }

    fn row_folder(&self, index: &[usize], row: usize) -> PathBuf {
        debug_assert_eq!(index.len(), self.outer.len(), "a plane has a place on each axis");
        let mut folder = self.folder.clone();
        folder.extend(index.iter().chain([&row]).map(usize::to_string));
        folder
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

/// Reads the attributes of a group.
///
/// # Errors
/// If the file is not there or holds something else.
pub fn read_attributes<A: DeserializeOwned>(group: &Path) -> Result<A, TaskError> {
    read_json(&group.join(".zattrs"))
}

/// Whether a folder holds a group of Zarr version 2 or 3.
pub fn is_group(folder: &Path) -> bool {
    [".zgroup", "zarr.json"].iter().any(|name| folder.join(name).is_file())
}

/// The values of one chunk, little endian. Chunks at the right and lower edge are filled up with zeros.
fn chunk_bytes<T: Pixel>(plane: &Plane<T>, (x, y): (usize, usize), (width, height): (usize, usize)) -> Vec<u8> {
    let mut bytes = vec![0; T::TYPE.n_bytes() * width * height];
    let n_columns = width.min(plane.width - x);
    let rows = plane.values.chunks_exact(plane.width).skip(y);
    for (target, row) in bytes.chunks_exact_mut(T::TYPE.n_bytes() * width).zip(rows) {
        for (bytes, value) in target.chunks_exact_mut(T::TYPE.n_bytes()).zip(&row[x..x + n_columns]) {
            value.put(bytes);
        }
    }
    bytes
}

/// Puts what [`chunk_bytes`] gives into its place, without what the edge chunks are filled up with.
fn put_chunk<T: Pixel>(plane: &mut Plane<T>, (x, y): (usize, usize), chunk_width: usize, bytes: &[u8]) {
    let n_columns = chunk_width.min(plane.width - x);
    let rows = plane.values.chunks_exact_mut(plane.width).skip(y);
    for (source, row) in bytes.chunks_exact(T::TYPE.n_bytes() * chunk_width).zip(rows) {
        for (bytes, value) in source.chunks_exact(T::TYPE.n_bytes()).zip(&mut row[x..x + n_columns]) {
            *value = T::take(bytes);
        }
    }
}

/// * `level`: 0 to 9.
fn compress(bytes: &[u8], level: u32) -> io::Result<Vec<u8>> {
    let mut compressed = vec![0; zlib_rs::compress_bound(bytes.len())];
    let (whole, code) = zlib_rs::compress_slice(&mut compressed, bytes, DeflateConfig::new(level as i32));
    let n_bytes = whole.len();
    check(code)?;
    compressed.truncate(n_bytes);
    Ok(compressed)
}

/// At most `n_bytes`, whatever the compressed data say; more of them are an error.
fn decompress(bytes: &[u8], n_bytes: usize) -> io::Result<Vec<u8>> {
    let mut values = vec![0; n_bytes];
    let (whole, code) = zlib_rs::decompress_slice(&mut values, bytes, InflateConfig::default());
    let n_bytes = whole.len();
    check(code)?;
    values.truncate(n_bytes);
    Ok(values)
}

fn check(code: ReturnCode) -> io::Result<()> {
    match code {
        ReturnCode::Ok => Ok(()),
        code => Err(io::Error::new(io::ErrorKind::InvalidData, format!("zlib ends with {code:?}"))),
    }
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

fn read_json<V: DeserializeOwned>(path: &Path) -> Result<V, TaskError> {
    fs::read(path)
        .and_then(|bytes| serde_json::from_slice(&bytes).map_err(io::Error::from))
        .map_err(|err| TaskError::about("cannot read", path, err))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plane() -> Plane {
        Plane { width: 3, height: 3, values: (1..=9).map(|i| i * 256).collect() }
    }

    #[test]
    fn edge_chunks_are_filled_up() {
        assert_eq!(chunk_bytes(&plane(), (0, 0), (2, 2)), [0, 1, 0, 2, 0, 4, 0, 5]);
        assert_eq!(chunk_bytes(&plane(), (2, 0), (2, 2)), [0, 3, 0, 0, 0, 6, 0, 0]);
        assert_eq!(chunk_bytes(&plane(), (2, 2), (2, 2)), [0, 9, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = std::env::temp_dir().join(format!("ome-zarr-array-{}", std::process::id()));
        let array = Array::create(folder.clone(), PixelType::U16, &[2, 1], (3, 3), 2, 1).unwrap();
        array.write_plane(&[1, 0], &plane()).unwrap();
        let array = Array::open(folder.clone()).unwrap();
        assert_eq!((array.outer(), array.size()), (&[2, 1][..], (3, 3)));
        assert_eq!(array.read_plane(&[1, 0]).unwrap(), plane());
        assert_eq!(array.read_plane::<u16>(&[0, 0]).unwrap().values, [0; 9], "a chunk that is not there");

        assert_eq!(array.read_any(&[1, 0]).unwrap(), AnyPlane::U16(plane()));
        let error = array.read_plane::<u32>(&[1, 0]).unwrap_err().to_string();
        assert!(error.ends_with("its pixels are uint16, not uint32"), "{error}");
        let chunk = folder.join("1/0/1/0");
        let whole = fs::read(&chunk).unwrap();
        for damaged in [&whole[..whole.len() / 2], &compress(&[0; 6], 1).unwrap(), &compress(&[0; 9], 1).unwrap(), b""]
        {
            fs::write(&chunk, damaged).unwrap();
            let error = array.read_plane::<u16>(&[1, 0]).unwrap_err().to_string();
            assert!(error.contains("1/0/1/0: ") && error.contains("the chunk is damaged"), "{error}");
        }
        fs::remove_dir_all(&folder).unwrap();
    }
}
