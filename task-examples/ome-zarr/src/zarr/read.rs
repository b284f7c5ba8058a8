//! Reads the planes of an array.

use super::open::MAX_CHUNK_BYTES;
use super::{Array, Layout, flat};
use crate::each_type;
use crate::pixel::{AnyPlane, Pixel};
use crate::plane::Plane;
use crate::shard::{IndexForm, ShardReader, crc32c};
use fractal_task::TaskError;
use std::fs;
use std::io;
use std::ops::Range;
use std::path::PathBuf;

impl Array {
    /// Reads one plane. A chunk that is not there is 0, as Zarr has it.
    ///
    /// # Errors
    /// If a file cannot be read or is damaged, or the array has other pixels.
    pub fn read_plane<T: Pixel>(&self, index: &[usize]) -> Result<Plane<T>, TaskError> {
        self.check_type(T::TYPE)?;
        let (width, height) = self.size;
        let (mut open, mut buffer) = (None, self.buffer.borrow_mut());
        if self.chunk_size == self.size && self.read_chunk(&mut open, index, 0, 0, &mut buffer)? {
            let bytes = buffer[self.range_in_chunk(index)].chunks_exact(T::TYPE.n_bytes());
            let values = bytes.map(T::take).collect();
            return Ok(Plane {
                width,
                height,
                values,
            });
        }
        let mut plane = Plane {
            width,
            height,
            values: vec![T::default(); width * height],
        };
        for (row, y) in (0..height).step_by(self.chunk_size.1).enumerate() {
            for (column, x) in (0..width).step_by(self.chunk_size.0).enumerate() {
                if self.read_chunk(&mut open, index, row, column, &mut buffer)? {
                    let bytes = &buffer[self.range_in_chunk(index)];
                    put_chunk(&mut plane, (x, y), self.chunk_size.0, bytes);
                }
            }
        }
        Ok(plane)
    }

    /// Reads the bytes of a chunk into `buffer`; false if it is not there. The code of this function
    /// does not depend on the pixels, so it is in a module once.
    fn read_chunk(
        &self,
        open: &mut Option<(PathBuf, Option<ShardReader>)>,
        index: &[usize],
        row: usize,
        column: usize,
        buffer: &mut Vec<u8>,
    ) -> Result<bool, TaskError> {
        let place = self.chunk_place(index, row, column);
        let bytes = match &self.layout {
            Layout::Files { .. } => not_found_is_none(fs::read(self.file(&place))),
            Layout::Shards { n_chunks, form, .. } => {
                self.read_from_shard(open, &place, n_chunks, *form)
            }
        };
        bytes
            .and_then(|bytes| match bytes {
                Some(bytes) => self.decode(bytes, buffer).map(|()| true),
                None => Ok(false),
            })
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

    fn decode(&self, mut bytes: Vec<u8>, values: &mut Vec<u8>) -> io::Result<()> {
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
            .decode_into(bytes, n_pixels * self.pixel_type.n_bytes(), values)
    }
}

fn not_found_is_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(err) => Err(err),
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
