//! Shards of Zarr version 3: files of many chunks, with an index of them at one end.
//!
//! Source: Zarr 3, codec `sharding_indexed` 1.0.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// Offset and size of a chunk that is not stored, whose values are all the fill value.
const ABSENT: (u64, u64) = (u64::MAX, u64::MAX);
const ENTRY_BYTES: usize = 16;
const CHECKSUM_BYTES: usize = 4;

/// A shard that is written, chunk by chunk in any order.
#[derive(Debug)]
pub(crate) struct ShardWriter {
    file: File,
    index: Vec<(u64, u64)>,
    end: u64,
}

impl ShardWriter {
    pub(crate) fn create(path: &Path, n_chunks: usize) -> io::Result<Self> {
        Ok(Self {
            file: File::create(path)?,
            index: vec![ABSENT; n_chunks],
            end: 0,
        })
    }

    /// Appends a chunk, compressed.
    pub(crate) fn add(&mut self, chunk: usize, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.index[chunk] = (self.end, bytes.len() as u64);
        self.end += bytes.len() as u64;
        Ok(())
    }

    /// Writes the index after the last chunk.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        let entries = self
            .index
            .iter()
            .flat_map(|(offset, n_bytes)| [*offset, *n_bytes]);
        let mut bytes: Vec<u8> = entries.flat_map(u64::to_le_bytes).collect();
        bytes.extend(crc32c(&bytes).to_le_bytes());
        self.file.write_all(&bytes)
    }
}

/// Where the index of a shard is, and if it has a checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IndexForm {
    pub(crate) is_at_end: bool,
    pub(crate) has_checksum: bool,
}

/// A shard whose chunks are read.
pub(crate) struct ShardReader {
    file: File,
    index: Vec<(u64, u64)>,
    max_bytes: u64,
}

impl ShardReader {
    /// * `max_bytes`: the largest chunk that is read.
    pub(crate) fn open(
        path: &Path,
        n_chunks: usize,
        form: IndexForm,
        max_bytes: usize,
    ) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let n_bytes = n_chunks * ENTRY_BYTES + if form.has_checksum { CHECKSUM_BYTES } else { 0 };
        let length = file.metadata()?.len();
        let start = length
            .checked_sub(n_bytes as u64)
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        file.seek(SeekFrom::Start(if form.is_at_end { start } else { 0 }))?;
        let mut bytes = vec![0; n_bytes];
        file.read_exact(&mut bytes)?;
        let (entries, checksum) = bytes.split_at(n_chunks * ENTRY_BYTES);
        if form.has_checksum && checksum != crc32c(entries).to_le_bytes() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the checksum of its index is wrong",
            ));
        }
        let numbers = entries
            .as_chunks::<8>()
            .0
            .iter()
            .map(|bytes| u64::from_le_bytes(*bytes));
        let numbers: Vec<u64> = numbers.collect();
        let index = numbers
            .as_chunks::<2>()
            .0
            .iter()
            .map(|[offset, n_bytes]| (*offset, *n_bytes))
            .collect();
        Ok(Self {
            file,
            index,
            max_bytes: length.min(max_bytes as u64),
        })
    }

    /// Reads a chunk, compressed; `None` for one that is not stored.
    pub(crate) fn read(&mut self, chunk: usize) -> io::Result<Option<Vec<u8>>> {
        let (offset, n_bytes) = self.index[chunk];
        if (offset, n_bytes) == ABSENT {
            return Ok(None);
        }
        if n_bytes > self.max_bytes {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "its index is damaged",
            ));
        }
        self.file.seek(SeekFrom::Start(offset))?;
        let mut bytes = vec![0; n_bytes as usize];
        self.file.read_exact(&mut bytes)?;
        Ok(Some(bytes))
    }
}

/// Checksum of Castagnoli's polynomial. Bit by bit, since only indices have it.
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let mut sum = u32::MAX;
    for byte in bytes {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = if sum & 1 == 1 {
                sum >> 1 ^ POLYNOMIAL
            } else {
                sum >> 1
            };
        }
    }
    !sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_found_by_the_index() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        let path = std::env::temp_dir().join(format!("ome-zarr-shard-{}", std::process::id()));
        let mut writer = ShardWriter::create(&path, 3).unwrap();
        writer.add(2, b"last").unwrap();
        writer.add(0, b"first").unwrap();
        writer.finish().unwrap();
        let form = IndexForm {
            is_at_end: true,
            has_checksum: true,
        };
        let mut reader = ShardReader::open(&path, 3, form, 100).unwrap();
        assert_eq!(reader.read(0).unwrap().as_deref(), Some(&b"first"[..]));
        assert_eq!(reader.read(1).unwrap(), None);
        assert_eq!(reader.read(2).unwrap().as_deref(), Some(&b"last"[..]));
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[1..]).unwrap();
        let mut reader = ShardReader::open(&path, 3, form, 100).unwrap();
        assert!(
            reader
                .read(0)
                .unwrap()
                .is_some_and(|bytes| bytes != b"first")
        );
        std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert!(ShardReader::open(&path, 3, form, 100).is_err());
        std::fs::remove_file(&path).unwrap();
    }
}
