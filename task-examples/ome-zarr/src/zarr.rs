//! Arrays of planes in Zarr versions 2 and 3. It knows nothing of what the arrays mean.
//!
//! Arrays of version 2 have a file for each chunk, compressed with zlib. Those of version 3 have
//! shards, each with all chunks of an array, compressed with gzip. Arrays of other programs may be
//! stored in other ways.
//!
//! Own code, since the crate `zarrs` does not fit a small module: its file store does not build for
//! WASI, and without it an empty program is 2.3 MB and starts threads.

use crate::codec::{Codec, Encoder};
use crate::each_type;
use crate::group::{Format, METADATA_V3, read_json, write_json};
use crate::pixel::{AnyPlane, Pixel, PixelType};
use crate::plane::Plane;
use crate::shard::{IndexForm, ShardReader, ShardWriter, crc32c};
use fractal_task::TaskError;
use serde_json::{Value, json};
use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The largest chunk that is read, in bytes of pixels.
const MAX_CHUNK_BYTES: usize = 256 << 20;
/// An array with more bytes of pixels than this has a shard for each place on its first axis.
const MAX_SHARD_BYTES: u64 = 1 << 30;

/// How a new array is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options<'a> {
    /// Version of OME-NGFF.
    pub format: Format,
    /// A letter for each axis: `czyx`.
    pub axes: &'a str,
    /// The largest width and height of a chunk.
    pub chunk_size: usize,
    /// 0 (none) to 9 of zlib or gzip.
    pub compression_level: u32,
}

/// Where the chunks of an array are.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Layout {
    /// A file for each chunk, with this text between the parts of its name. In version 3 they are
    /// below a folder `c`.
    Files {
        separator: &'static str,
        below_c: bool,
    },
    /// Files of several chunks.
    Shards {
        separator: &'static str,
        n_chunks: Vec<usize>,
        form: IndexForm,
    },
}

/// An array of planes, in a folder of its own.
#[derive(Debug)]
pub struct Array {
    folder: PathBuf,
    pixel_type: PixelType,
    /// The axes before height and width.
    outer: Vec<usize>,
    /// How many places on these axes a chunk has. Arrays of this crate have 1 for each.
    outer_chunk: Vec<usize>,
    size: (usize, usize),
    chunk_size: (usize, usize),
    codec: Codec,
    /// True if a checksum follows each compressed chunk.
    has_checksums: bool,
    layout: Layout,
}

impl Array {
    /// Opens an existing array.
    ///
    /// # Errors
    /// If its metadata cannot be read, or it is stored in a way that is not supported.
    pub fn open(folder: PathBuf) -> Result<Self, TaskError> {
        match Format::of(&folder) {
            Format::V04 => Self::open_v2(folder),
            Format::V05 => Self::open_v3(folder),
        }
    }

    fn open_v2(folder: PathBuf) -> Result<Self, TaskError> {
        let path = folder.join(".zarray");
        let metadata: Value = read_json(&path)?;
        let expected = json!({"zarr_format": 2, "order": "C", "filters": null});
        check_values(&path, &metadata, &expected)?;
        check_fill_value(&path, &metadata)?;
        let pixel_type = find_type(&path, &metadata["dtype"], PixelType::dtype)?;
        let codec = Codec::parse(&metadata["compressor"])
            .ok_or_else(|| unknown_codec(&path, &metadata["compressor"]))?;
        let separator = if metadata["dimension_separator"] == "/" {
            "/"
        } else {
            "."
        };
        let layout = Layout::Files {
            separator,
            below_c: false,
        };
        let chunks = metadata["chunks"].clone();
        Self::from_parts(
            folder,
            &path,
            pixel_type,
            [metadata["shape"].clone(), chunks],
            (codec, false),
            layout,
        )
    }

    fn open_v3(folder: PathBuf) -> Result<Self, TaskError> {
        let path = folder.join(METADATA_V3);
        let metadata: Value = read_json(&path)?;
        check_values(
            &path,
            &metadata,
            &json!({"zarr_format": 3, "node_type": "array"}),
        )?;
        check_values(&path, &metadata["chunk_grid"], &json!({"name": "regular"}))?;
        check_fill_value(&path, &metadata)?;
        let pixel_type = find_type(&path, &metadata["data_type"], PixelType::name)?;
        let keys = &metadata["chunk_key_encoding"];
        let is_default = keys["name"] == "default";
        let separator = match (keys["configuration"]["separator"].as_str(), is_default) {
            (Some("."), _) | (None, false) => ".",
            _ => "/",
        };
        let mut chunks = metadata["chunk_grid"]["configuration"]["chunk_shape"].clone();
        let mut chain = Chain::parse(&path, &metadata["codecs"])?;
        let mut layout = Layout::Files {
            separator,
            below_c: is_default,
        };
        if let Some(shard) = chain.shard.take() {
            let n_chunks = sizes(&chunks)
                .zip(sizes(&shard.chunks))
                .and_then(|(shard, chunk)| count_chunks(&shard, &chunk));
            let n_chunks = n_chunks.ok_or_else(|| wrong_shape(&path))?;
            let form = IndexForm {
                is_at_end: shard.is_at_end,
                has_checksum: shard.has_index_checksum,
            };
            layout = Layout::Shards {
                separator,
                n_chunks,
                form,
            };
            chunks = shard.chunks;
            chain = Chain::parse(&path, &shard.codecs)?;
        }
        let shape = [metadata["shape"].clone(), chunks];
        Self::from_parts(
            folder,
            &path,
            pixel_type,
            shape,
            (chain.codec, chain.has_checksums),
            layout,
        )
    }

    fn from_parts(
        folder: PathBuf,
        path: &Path,
        pixel_type: PixelType,
        [shape, chunks]: [Value; 2],
        (codec, has_checksums): (Codec, bool),
        layout: Layout,
    ) -> Result<Self, TaskError> {
        let (shape, chunks) = sizes(&shape)
            .zip(sizes(&chunks))
            .ok_or_else(|| wrong_shape(path))?;
        let ([outer @ .., height, width], [outer_chunk @ .., chunk_height, chunk_width]) =
            (shape.as_slice(), chunks.as_slice())
        else {
            return Err(wrong_shape(path));
        };
        let n_bytes = chunks
            .iter()
            .try_fold(pixel_type.n_bytes(), |n, size| n.checked_mul(*size));
        let is_usable = n_bytes.is_some_and(|n| (1..=MAX_CHUNK_BYTES).contains(&n));
        if outer.len() != outer_chunk.len() || !is_usable || width.checked_mul(*height).is_none() {
            return Err(wrong_shape(path));
        }
        Ok(Self {
            outer: outer.to_vec(),
            outer_chunk: outer_chunk.to_vec(),
            size: (*width, *height),
            chunk_size: (*chunk_width, *chunk_height),
            codec,
            has_checksums,
            layout,
            pixel_type,
            folder,
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

    /// 0 to 9 of zlib or gzip, also for new arrays that are made from this one.
    pub fn compression_level(&self) -> u32 {
        self.codec.level()
    }

    /// Reads one plane. A chunk that is not there is 0, as Zarr has it.
    ///
    /// # Errors
    /// If a file cannot be read or is damaged, or the array has other pixels.
    pub fn read_plane<T: Pixel>(&self, index: &[usize]) -> Result<Plane<T>, TaskError> {
        self.check_type(T::TYPE)?;
        let (width, height) = self.size;
        let mut plane = Plane {
            width,
            height,
            values: vec![T::default(); width * height],
        };
        let mut open = None;
        for (row, y) in (0..height).step_by(self.chunk_size.1).enumerate() {
            for (column, x) in (0..width).step_by(self.chunk_size.0).enumerate() {
                if let Some(bytes) = self.read_chunk(&mut open, index, row, column)? {
                    let bytes = &bytes[self.range_in_chunk(index)];
                    put_chunk(&mut plane, (x, y), self.chunk_size.0, bytes);
                }
            }
        }
        Ok(plane)
    }

    /// Reads the bytes of a chunk; `None` if it is not there. The code of this function does not
    /// depend on the pixels, so it is in a module once.
    fn read_chunk(
        &self,
        open: &mut Option<(PathBuf, Option<ShardReader>)>,
        index: &[usize],
        row: usize,
        column: usize,
    ) -> Result<Option<Vec<u8>>, TaskError> {
        let place = self.chunk_place(index, row, column);
        let bytes = match &self.layout {
            Layout::Files { .. } => not_found_is_none(fs::read(self.file(&place))),
            Layout::Shards { n_chunks, form, .. } => {
                self.read_from_shard(open, &place, n_chunks, *form)
            }
        };
        bytes
            .and_then(|bytes| bytes.map(|bytes| self.decode(bytes)).transpose())
            .map_err(|err| {
                let cause = match err.kind() {
                    io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                        format!("{err}; the chunk is damaged, make its image again")
                    }
                    _ => err.to_string(),
                };
                TaskError::about("cannot read", &self.file(&place), cause)
            })
    }

    /// Position of a plane in the bytes of its chunks.
    fn range_in_chunk(&self, index: &[usize]) -> Range<usize> {
        let n_bytes = self.chunk_size.0 * self.chunk_size.1 * self.pixel_type.n_bytes();
        let places = index.iter().zip(&self.outer_chunk).map(|(i, n)| i % n);
        let start = n_bytes * flat(&self.outer_chunk, places);
        start..start + n_bytes
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
        let cause = format!(
            "its pixels are {}, not {}",
            self.pixel_type.name(),
            pixel_type.name()
        );
        Err(TaskError::about("cannot use", &self.folder, cause))
    }

    /// The place of a chunk in the grid of chunks.
    fn chunk_place(&self, index: &[usize], row: usize, column: usize) -> Vec<usize> {
        debug_assert_eq!(
            index.len(),
            self.outer.len(),
            "a plane has a place on each axis"
        );
        let outer = index
            .iter()
            .zip(&self.outer_chunk)
            .map(|(index, n)| index / n);
        outer.chain([row, column]).collect()
    }

    /// The file that contains a chunk.
    fn file(&self, place: &[usize]) -> PathBuf {
        match &self.layout {
            Layout::Files { separator, below_c } => self.file_at(place, separator, *below_c),
            Layout::Shards {
                separator,
                n_chunks,
                ..
            } => {
                let shard: Vec<usize> = place
                    .iter()
                    .zip(n_chunks)
                    .map(|(place, n)| place / n)
                    .collect();
                self.file_at(&shard, separator, true)
            }
        }
    }

    fn file_at(&self, place: &[usize], separator: &str, below_c: bool) -> PathBuf {
        let mut name = place
            .iter()
            .map(usize::to_string)
            .collect::<Vec<_>>()
            .join(separator);
        if below_c {
            name = format!("c{separator}{name}");
        }
        self.folder.join(name)
    }

    /// * `open`: the shard of the chunk before, which is used again.
    fn read_from_shard(
        &self,
        open: &mut Option<(PathBuf, Option<ShardReader>)>,
        place: &[usize],
        n_chunks: &[usize],
        form: IndexForm,
    ) -> io::Result<Option<Vec<u8>>> {
        let path = self.file(place);
        let reader = match open {
            Some((known, reader)) if *known == path => reader,
            _ => {
                let reader =
                    ShardReader::open(&path, n_chunks.iter().product(), form, MAX_CHUNK_BYTES);
                &mut open.insert((path, not_found_is_none(reader)?)).1
            }
        };
        let chunk = flat(
            n_chunks,
            place.iter().zip(n_chunks).map(|(place, n)| place % n),
        );
        reader
            .as_mut()
            .map_or(Ok(None), |reader| reader.read(chunk))
    }

    fn decode(&self, mut bytes: Vec<u8>) -> io::Result<Vec<u8>> {
        if self.has_checksums {
            let start = bytes
                .len()
                .checked_sub(4)
                .ok_or(io::ErrorKind::UnexpectedEof)?;
            let checksum = bytes.split_off(start);
            if checksum != crc32c(&bytes).to_le_bytes() {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "its checksum is wrong",
                ));
            }
        }
        let n_pixels =
            self.outer_chunk.iter().product::<usize>() * self.chunk_size.0 * self.chunk_size.1;
        self.codec
            .decode(bytes, n_pixels * self.pixel_type.n_bytes())
    }
}

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
                let codec = Codec::Zlib(options.compression_level);
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
                let metadata = metadata_v3(pixel_type, &shape, &chunks, &n_chunks, options);
                write_json(&folder.join(METADATA_V3), &metadata)?;
                let form = IndexForm {
                    is_at_end: true,
                    has_checksum: true,
                };
                (
                    Codec::Gzip(options.compression_level),
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
        };
        Ok(Self {
            array,
            open: None,
            encoder: Encoder::new(codec),
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

fn metadata_v2(pixel_type: PixelType, shape: &[usize], chunks: &[usize], codec: Codec) -> Value {
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
    options: Options<'_>,
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
    let names: Vec<String> = options.axes.chars().map(String::from).collect();
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
                "codecs": [bytes, {"name": "gzip", "configuration": {"level": options.compression_level}}],
                "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
                "index_location": "end",
            },
        }],
        "attributes": {},
        "dimension_names": names,
    })
}

/// The codecs of an array of version 3, or those inside its shards.
struct Chain {
    codec: Codec,
    has_checksums: bool,
    shard: Option<Shard>,
}

/// Configuration of the codec `sharding_indexed`.
struct Shard {
    chunks: Value,
    codecs: Value,
    is_at_end: bool,
    has_index_checksum: bool,
}

impl Chain {
    fn parse(path: &Path, codecs: &Value) -> Result<Self, TaskError> {
        let mut chain = Self {
            codec: Codec::None,
            has_checksums: false,
            shard: None,
        };
        for codec in codecs.as_array().into_iter().flatten() {
            let configuration = &codec["configuration"];
            match codec["name"].as_str() {
                Some("bytes") if configuration["endian"] != "big" => {}
                Some("crc32c") => chain.has_checksums = true,
                Some("sharding_indexed") => {
                    let index_codecs = configuration["index_codecs"].as_array();
                    let mut index_codecs = index_codecs.into_iter().flatten();
                    chain.shard = Some(Shard {
                        chunks: configuration["chunk_shape"].clone(),
                        codecs: configuration["codecs"].clone(),
                        is_at_end: configuration["index_location"] != "start",
                        has_index_checksum: index_codecs.any(|codec| codec["name"] == "crc32c"),
                    });
                }
                _ => chain.codec = Codec::parse(codec).ok_or_else(|| unknown_codec(path, codec))?,
            }
        }
        Ok(chain)
    }
}

fn check_values(path: &Path, metadata: &Value, expected: &Value) -> Result<(), TaskError> {
    for (key, expected) in expected.as_object().into_iter().flatten() {
        if &metadata[key] != expected {
            let found = &metadata[key];
            return Err(TaskError::about(
                "cannot use",
                path,
                format!("{key} is {found}, not {expected}"),
            ));
        }
    }
    Ok(())
}

fn check_fill_value(path: &Path, metadata: &Value) -> Result<(), TaskError> {
    let fill_value = &metadata["fill_value"];
    if fill_value.is_null() || fill_value.as_f64() == Some(0.0) {
        return Ok(());
    }
    Err(TaskError::about(
        "cannot use",
        path,
        format!("fill_value is {fill_value}, not 0"),
    ))
}

fn find_type(
    path: &Path,
    name: &Value,
    name_of: fn(PixelType) -> &'static str,
) -> Result<PixelType, TaskError> {
    PixelType::ALL
        .into_iter()
        .find(|known| name == name_of(*known))
        .ok_or_else(|| {
            let known = PixelType::ALL.map(name_of).join(", ");
            TaskError::about(
                "cannot use",
                path,
                format!("its pixels are {name}, not one of {known}"),
            )
        })
}

fn unknown_codec(path: &Path, codec: &Value) -> TaskError {
    let cause =
        format!("the compression {codec} is not supported; zlib, gzip, zstd, blosc and none are");
    TaskError::about("cannot use", path, cause)
}

fn wrong_shape(path: &Path) -> TaskError {
    TaskError::about(
        "cannot use",
        path,
        "shape and chunks are not those of an array of planes",
    )
}

fn sizes(value: &Value) -> Option<Vec<usize>> {
    serde_json::from_value(value.clone()).ok()
}

/// Chunks of a shard on each axis; `None` if a shard has no whole number of them.
fn count_chunks(shard: &[usize], chunk: &[usize]) -> Option<Vec<usize>> {
    const MAX_CHUNKS: usize = 1 << 22;
    let counts: Option<Vec<usize>> = shard
        .iter()
        .zip(chunk)
        .map(|(shard, chunk)| {
            (shard.checked_rem(*chunk)? == 0)
                .then(|| shard / chunk)
                .filter(|n| *n > 0)
        })
        .collect();
    let counts =
        counts.filter(|counts| counts.len() == shard.len() && shard.len() == chunk.len())?;
    let n = counts
        .iter()
        .try_fold(1_usize, |n, count| n.checked_mul(*count));
    n.is_some_and(|n| n <= MAX_CHUNKS).then_some(counts)
}

/// The position of an index in an array of this shape, row after row.
fn flat(shape: &[usize], index: impl Iterator<Item = usize>) -> usize {
    shape
        .iter()
        .zip(index)
        .fold(0, |position, (n, index)| position * n + index)
}

fn not_found_is_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(err) => Err(err),
    }
}

/// Puts the values of one chunk, little endian, into `bytes`. Chunks at the right and lower edge
/// are filled up with zeros.
fn put_bytes<T: Pixel>(
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

/// Puts what [`put_bytes`] gives into its place, without what the edge chunks are filled up with.
fn put_chunk<T: Pixel>(
    plane: &mut Plane<T>,
    (x, y): (usize, usize),
    chunk_width: usize,
    bytes: &[u8],
) {
    let n_columns = chunk_width.min(plane.width - x);
    let rows = plane.values.chunks_exact_mut(plane.width).skip(y);
    for (source, row) in bytes
        .chunks_exact(T::TYPE.n_bytes() * chunk_width)
        .zip(rows)
    {
        for (bytes, value) in source
            .chunks_exact(T::TYPE.n_bytes())
            .zip(&mut row[x..x + n_columns])
        {
            *value = T::take(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plane() -> Plane {
        Plane {
            width: 3,
            height: 3,
            values: (1..=9).map(|i| i * 256).collect(),
        }
    }

    fn options(format: Format) -> Options<'static> {
        Options {
            format,
            axes: "czyx",
            chunk_size: 2,
            compression_level: 1,
        }
    }

    #[test]
    fn edge_chunks_are_filled_up() {
        let mut bytes = Vec::new();
        for (place, expected) in [
            ((0, 0), [0, 1, 0, 2, 0, 4, 0, 5]),
            ((2, 0), [0, 3, 0, 0, 0, 6, 0, 0]),
            ((0, 0), [0, 1, 0, 2, 0, 4, 0, 5]),
            ((2, 2), [0, 9, 0, 0, 0, 0, 0, 0]),
        ] {
            put_bytes(&plane(), place, (2, 2), &mut bytes);
            assert_eq!(bytes, expected);
        }
    }

    fn damage(folder: &Path, array: &Array, chunk: &str, damaged: &[Vec<u8>]) {
        let path = folder.join(chunk);
        for bytes in damaged {
            fs::write(&path, bytes).unwrap();
            let error = array.read_plane::<u16>(&[1, 0]).unwrap_err().to_string();
            assert!(
                error.contains(&format!("{chunk}: ")) && error.contains("the chunk is damaged"),
                "{error}"
            );
        }
    }

    #[test]
    fn what_is_written_is_read() {
        for format in [Format::V04, Format::V05] {
            let name = format!("ome-zarr-array-{}-{}", std::process::id(), format.version());
            let folder = std::env::temp_dir().join(name);
            let mut writer = ArrayWriter::create(
                folder.clone(),
                PixelType::U16,
                &[2, 1],
                (3, 3),
                options(format),
            )
            .unwrap();
            writer.write_plane(&[1, 0], &plane()).unwrap();
            writer.finish().unwrap();
            let array = Array::open(folder.clone()).unwrap();
            assert_eq!(
                (array.outer(), array.size(), array.compression_level()),
                (&[2, 1][..], (3, 3), 1)
            );
            assert_eq!(array.read_plane(&[1, 0]).unwrap(), plane());
            assert_eq!(
                array.read_plane::<u16>(&[0, 0]).unwrap().values,
                [0; 9],
                "a chunk that is not there"
            );
            assert_eq!(array.read_any(&[1, 0]).unwrap(), AnyPlane::U16(plane()));
            let error = array.read_plane::<u32>(&[1, 0]).unwrap_err().to_string();
            assert!(
                error.ends_with("its pixels are uint16, not uint32"),
                "{error}"
            );

            let chunk = if format == Format::V04 {
                "1/0/1/0"
            } else {
                "c/0/0/0/0"
            };
            let whole = fs::read(folder.join(chunk)).unwrap();
            let mut damaged = vec![whole[..whole.len() / 2].to_vec(), Vec::new()];
            match format {
                Format::V04 => damaged.extend([6, 9].map(|n| {
                    Encoder::new(Codec::Zlib(1))
                        .encode(&vec![0; n])
                        .unwrap()
                        .to_vec()
                })),
                Format::V05 => {
                    let mut wrong = whole.clone();
                    wrong[12] ^= 0xff;
                    damaged.push(wrong);
                }
            }
            damage(&folder, &array, chunk, &damaged);
            fs::remove_dir_all(&folder).unwrap();
        }
    }

    /// Chunks of several planes, in shards that do not contain the whole array, with checksums.
    #[test]
    fn arrays_of_other_programs_are_read() {
        let folder =
            std::env::temp_dir().join(format!("ome-zarr-array-{}-other", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let shard = json!({
            "name": "sharding_indexed",
            "configuration": {
                "chunk_shape": [2, 1, 2],
                "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
                "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
                "index_location": "start",
            },
        });
        let metadata = json!({
            "zarr_format": 3,
            "node_type": "array",
            "shape": [3, 2, 4],
            "data_type": "uint8",
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [2, 2, 2]}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
            "fill_value": 0,
            "codecs": [shard],
        });
        write_json(&folder.join(METADATA_V3), &metadata).unwrap();
        let chunk = [1, 2, 3, 4];
        let mut bytes: Vec<u8> = [u64::MAX, u64::MAX, 32, 8]
            .iter()
            .flat_map(|n: &u64| n.to_le_bytes())
            .collect();
        bytes.extend(chunk);
        bytes.extend(crc32c(&chunk).to_le_bytes());
        fs::write(folder.join("c.0.0.1"), bytes).unwrap();
        let array = Array::open(folder.clone()).unwrap();
        assert_eq!(
            array.read_plane::<u8>(&[0]).unwrap().values,
            [0, 0, 0, 0, 0, 0, 1, 2]
        );
        assert_eq!(
            array.read_plane::<u8>(&[1]).unwrap().values,
            [0, 0, 0, 0, 0, 0, 3, 4]
        );
        assert_eq!(array.read_plane::<u8>(&[2]).unwrap().values, [0; 8]);
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn what_is_not_supported_is_refused() {
        let folder =
            std::env::temp_dir().join(format!("ome-zarr-array-{}-refused", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let good = metadata_v2(PixelType::U16, &[2, 4, 4], &[1, 2, 2], Codec::Zlib(1));
        for (key, value, expected) in [
            (
                "dtype",
                json!("<f8"),
                "its pixels are \"<f8\", not one of |u1, <u2",
            ),
            (
                "compressor",
                json!({"id": "lzma"}),
                "is not supported; zlib, gzip, zstd, blosc and none are",
            ),
            ("fill_value", json!(7), "fill_value is 7, not 0"),
            ("order", json!("F"), "order is \"F\", not \"C\""),
            (
                "chunks",
                json!([1, 0, 2]),
                "shape and chunks are not those of an array of planes",
            ),
            (
                "chunks",
                json!([1, 2]),
                "shape and chunks are not those of an array of planes",
            ),
            (
                "shape",
                json!([4]),
                "shape and chunks are not those of an array of planes",
            ),
        ] {
            let mut metadata = good.clone();
            metadata[key] = value;
            write_json(&folder.join(".zarray"), &metadata).unwrap();
            let error = Array::open(folder.clone()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        fs::remove_dir_all(&folder).unwrap();
    }
}
