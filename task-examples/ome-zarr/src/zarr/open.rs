//! Opens arrays: their metadata, checked.

use super::{Array, Layout};
use crate::codec::Codec;
use crate::group::{Format, METADATA_V3, read_json};
use crate::pixel::PixelType;
use crate::shard::IndexForm;
use fractal_task::TaskError;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::path::{Path, PathBuf};

/// The largest chunk that is read, in bytes of pixels.
pub(super) const MAX_CHUNK_BYTES: usize = 256 << 20;

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
            buffer: RefCell::default(),
        })
    }
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
