//! Arrays of planes in Zarr versions 2 and 3. It knows nothing of what the arrays mean.
//!
//! Arrays of version 2 have a file for each chunk, compressed with Blosc or zlib. Those of version 3
//! have shards, each with all chunks of an array, compressed with gzip. Arrays of other programs may
//! be stored in other ways.
//!
//! [`Array`] opens and reads an array, [`ArrayWriter`] creates one.
//!
//! Own code, since the crate `zarrs` does not fit a small module: its file store does not build for
//! WASI, and without it an empty program is 2.3 MB and starts threads.

mod open;
mod read;
#[cfg(test)]
mod tests;
mod write;

pub use write::ArrayWriter;

use crate::codec::Codec;
use crate::group::Format;
use crate::pixel::PixelType;
use crate::shard::IndexForm;
use fractal_task::TaskError;
use std::cell::RefCell;
use std::path::PathBuf;

/// How a new array is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options<'a> {
    /// Version of OME-NGFF.
    pub format: Format,
    /// A letter for each axis: `czyx`.
    pub axes: &'a str,
    /// The largest width and height of a chunk.
    pub chunk_size: usize,
    /// Level of zlib in version 0.4 and of gzip in 0.5, from 0 (none) to 9. `None` for Blosc with
    /// LZ4 in version 0.4, as Fractal's tasks write it, and level 1 in 0.5.
    pub compression_level: Option<u32>,
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
    /// Memory for the bytes of a chunk, which is not cleared for each of them.
    buffer: RefCell<Vec<u8>>,
}

impl Array {
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

    /// Level of zlib or gzip for new arrays that are made from this one; `None` if this one has
    /// another compression.
    pub fn compression_level(&self) -> Option<u32> {
        self.codec.level()
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
}

/// The position of an index in an array of this shape, row after row.
fn flat(shape: &[usize], index: impl Iterator<Item = usize>) -> usize {
    shape
        .iter()
        .zip(index)
        .fold(0, |position, (n, index)| position * n + index)
}
