//! The container of TIFF and BigTIFF files: pages and their tags. Pixels are decoded in
//! [`super::pixels`].
//!
//! Own code, since the crate `tiff` decodes whole pages only: it does not hand out compressed
//! strips (zstd, LZMA), nor the planes behind the only page of a large ImageJ file. All positions
//! and lengths are checked against the length of the file before anything is allocated.

use crate::about;
use fractal_task::TaskError;
use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// The most pages that a file may have.
const MAX_PAGES: usize = 1 << 20;
/// The longest value of a tag, in bytes.
const MAX_TAG_BYTES: u64 = 64 << 20;

/// Tags that are read.
///
/// Source: TIFF 6.0, sections 8 and 15, and TIFF Technical Note 1 (trees of pages).
pub(super) mod tag {
    pub(in super::super) const SUBFILE_TYPE: u16 = 254;
    pub(in super::super) const WIDTH: u16 = 256;
    pub(in super::super) const HEIGHT: u16 = 257;
    pub(in super::super) const BITS: u16 = 258;
    pub(in super::super) const COMPRESSION: u16 = 259;
    pub(in super::super) const PHOTOMETRIC: u16 = 262;
    pub(in super::super) const ORIENTATION: u16 = 274;
    pub(in super::super) const FILL_ORDER: u16 = 266;
    pub(in super::super) const DESCRIPTION: u16 = 270;
    pub(in super::super) const STRIP_OFFSETS: u16 = 273;
    pub(in super::super) const SAMPLES: u16 = 277;
    pub(in super::super) const ROWS_PER_STRIP: u16 = 278;
    pub(in super::super) const STRIP_LENGTHS: u16 = 279;
    pub(in super::super) const X_RESOLUTION: u16 = 282;
    pub(in super::super) const Y_RESOLUTION: u16 = 283;
    pub(in super::super) const PLANAR: u16 = 284;
    pub(in super::super) const RESOLUTION_UNIT: u16 = 296;
    pub(in super::super) const PREDICTOR: u16 = 317;
    pub(in super::super) const TILE_WIDTH: u16 = 322;
    pub(in super::super) const TILE_HEIGHT: u16 = 323;
    pub(in super::super) const TILE_OFFSETS: u16 = 324;
    pub(in super::super) const TILE_LENGTHS: u16 = 325;
    pub(in super::super) const SAMPLE_FORMAT: u16 = 339;
    pub(in super::super) const JPEG_TABLES: u16 = 347;
    pub(in super::super) const IMAGE_DEPTH: u16 = 32997;
    /// MetaMorph's descriptions of planes, one for each.
    pub(in super::super) const METAMORPH_PLANES: u16 = 33629;
    /// GDAL's value of pixels without data, as text.
    pub(in super::super) const NO_DATA: u16 = 42113;
    /// Micro-Manager's description of a page, as JSON.
    pub(in super::super) const MICRO_MANAGER: u16 = 51123;
}

/// Value of a tag, in the page or at an offset.
#[derive(Debug, Clone, Copy)]
struct Entry {
    tag: u16,
    kind: u16,
    count: u64,
    value: [u8; 8],
}

/// An open file.
pub(super) struct Tiff {
    path: PathBuf,
    file: File,
    n_bytes: u64,
    pub(super) big_endian: bool,
    is_big_tiff: bool,
    pages: Vec<Vec<Entry>>,
}

impl Tiff {
    /// Reads the pages of a file, without their pixels.
    ///
    /// # Errors
    /// If the file cannot be read, is no TIFF file, or is damaged.
    pub(super) fn open(path: &Path, file: File) -> Result<Self, TaskError> {
        let n_bytes = file.metadata().map_err(about("cannot read", path))?.len();
        let path = path.to_owned();
        let mut tiff = Self {
            path,
            file,
            n_bytes,
            big_endian: false,
            is_big_tiff: false,
            pages: Vec::new(),
        };
        let start = tiff.bytes(0, 8.min(n_bytes))?;
        tiff.big_endian = match start.get(..2) {
            Some(b"II") => false,
            Some(b"MM") => true,
            _ => return Err(tiff.damaged("it does not begin like a TIFF or PNG file")),
        };
        if start.len() < 8 {
            return Err(tiff.damaged("it ends too early"));
        }
        let first = match tiff.u16(&start[2..]) {
            42 => u64::from(tiff.u32(&start[4..])),
            43 => {
                tiff.is_big_tiff = true;
                let offset = tiff.bytes(8, 8)?;
                tiff.u64(&offset)
            }
            other => {
                return Err(tiff.damaged(format!(
                    "its version is {other}, not 42 (TIFF) or 43 (BigTIFF)"
                )));
            }
        };
        tiff.read_pages(first)?;
        Ok(tiff)
    }

    fn read_pages(&mut self, first: u64) -> Result<(), TaskError> {
        let (mut offset, mut known) = (first, BTreeSet::new());
        while offset != 0 {
            if !known.insert(offset) {
                return Err(self.damaged(format!(
                    "page {} points back to an earlier page",
                    known.len()
                )));
            }
            if known.len() > MAX_PAGES {
                return Err(
                    self.unsupported(format!("it has more than {MAX_PAGES} pages; split it"))
                );
            }
            let (page, next) = self.read_page(offset)?;
            self.pages.push(page);
            offset = next;
        }
        if self.pages.is_empty() {
            return Err(self.damaged("it has no page"));
        }
        Ok(())
    }

    /// Returns the tags of a page and the offset of the next page.
    fn read_page(&mut self, offset: u64) -> Result<(Vec<Entry>, u64), TaskError> {
        let (n_count, n_entry, n_offset) = if self.is_big_tiff {
            (8, 20, 8)
        } else {
            (2, 12, 4)
        };
        let count = self.bytes(offset, n_count)?;
        let count = if self.is_big_tiff {
            self.u64(&count)
        } else {
            self.u16(&count).into()
        };
        if count > u64::from(u16::MAX) {
            return Err(self.damaged(format!("a page has {count} tags")));
        }
        let bytes = self.bytes(offset + n_count, count * n_entry + n_offset)?;
        let (entries, next) = bytes.split_at((count * n_entry) as usize);
        let page = entries
            .chunks_exact(n_entry as usize)
            .map(|bytes| self.entry(bytes))
            .collect();
        let next = if self.is_big_tiff {
            self.u64(next)
        } else {
            self.u32(next).into()
        };
        Ok((page, next))
    }

    fn entry(&self, bytes: &[u8]) -> Entry {
        let (tag, kind) = (self.u16(bytes), self.u16(&bytes[2..]));
        let mut value = [0; 8];
        if self.is_big_tiff {
            value.copy_from_slice(&bytes[12..20]);
            return Entry {
                tag,
                kind,
                count: self.u64(&bytes[4..]),
                value,
            };
        }
        value[..4].copy_from_slice(&bytes[8..12]);
        Entry {
            tag,
            kind,
            count: self.u32(&bytes[4..]).into(),
            value,
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn n_pages(&self) -> usize {
        self.pages.len()
    }

    pub(super) fn n_bytes(&self) -> u64 {
        self.n_bytes
    }

    /// Reads the whole numbers of a tag; none if the page has no such tag.
    pub(super) fn numbers(&mut self, page: usize, tag: u16) -> Result<Vec<u64>, TaskError> {
        let Some((entry, bytes)) = self.value(page, tag)? else {
            return Ok(Vec::new());
        };
        let size = match entry.kind {
            1 | 7 => 1,
            3 => 2,
            4 | 13 => 4,
            16 | 18 => 8,
            other => {
                return Err(self.damaged(format!(
                    "tag {tag} has the type {other}, not a whole number"
                )));
            }
        };
        let number = |bytes: &[u8]| match size {
            1 => bytes[0].into(),
            2 => self.u16(bytes).into(),
            4 => self.u32(bytes).into(),
            _ => self.u64(bytes),
        };
        Ok(bytes.chunks_exact(size).map(number).collect())
    }

    /// Reads the first whole number of a tag.
    pub(super) fn number(&mut self, page: usize, tag: u16) -> Result<Option<u64>, TaskError> {
        Ok(self.numbers(page, tag)?.first().copied())
    }

    /// Reads the text of a tag, up to its first zero byte. Bytes that are not UTF-8 are read as
    /// Latin-1.
    pub(super) fn text(&mut self, page: usize, tag: u16) -> Result<Option<String>, TaskError> {
        let Some((_, mut bytes)) = self.value(page, tag)? else {
            return Ok(None);
        };
        bytes.truncate(
            bytes
                .iter()
                .position(|&byte| byte == 0)
                .unwrap_or(bytes.len()),
        );
        Ok(Some(String::from_utf8(bytes).unwrap_or_else(|err| {
            err.into_bytes().into_iter().map(char::from).collect()
        })))
    }

    /// Number of values of a tag; 0 if the page has no such tag.
    pub(super) fn count(&self, page: usize, tag: u16) -> u64 {
        let entry = self.pages[page].iter().find(|entry| entry.tag == tag);
        entry.map_or(0, |entry| entry.count)
    }

    /// Reads the bytes of a tag as they are stored; none if the page has no such tag.
    pub(super) fn raw(&mut self, page: usize, tag: u16) -> Result<Vec<u8>, TaskError> {
        Ok(self
            .value(page, tag)?
            .map_or(Vec::new(), |(_, bytes)| bytes))
    }

    /// Reads 1 divided by the first fraction of a tag; `None` also if a part of the fraction is 0.
    pub(super) fn inverse_fraction(
        &mut self,
        page: usize,
        tag: u16,
    ) -> Result<Option<f64>, TaskError> {
        let Some((entry, bytes)) = self.value(page, tag)? else {
            return Ok(None);
        };
        if entry.kind != 5 || bytes.len() < 8 {
            return Ok(None);
        }
        let (above, below) = (self.u32(&bytes), self.u32(&bytes[4..]));
        Ok((above != 0 && below != 0).then(|| f64::from(below) / f64::from(above)))
    }

    fn value(&mut self, page: usize, tag: u16) -> Result<Option<(Entry, Vec<u8>)>, TaskError> {
        let Some(entry) = self.pages[page]
            .iter()
            .find(|entry| entry.tag == tag)
            .copied()
        else {
            return Ok(None);
        };
        let size = match entry.kind {
            1 | 2 | 6 | 7 => 1,
            3 | 8 => 2,
            4 | 9 | 11 | 13 => 4,
            5 | 10 | 12 | 16..=18 => 8,
            other => return Err(self.damaged(format!("tag {tag} has the unknown type {other}"))),
        };
        let n_bytes = entry.count.saturating_mul(size);
        if n_bytes <= if self.is_big_tiff { 8 } else { 4 } {
            return Ok(Some((entry, entry.value[..n_bytes as usize].to_vec())));
        }
        if n_bytes > MAX_TAG_BYTES {
            return Err(self.damaged(format!("tag {tag} has {n_bytes} bytes")));
        }
        let offset = if self.is_big_tiff {
            self.u64(&entry.value)
        } else {
            self.u32(&entry.value).into()
        };
        Ok(Some((entry, self.bytes(offset, n_bytes)?)))
    }

    /// Reads a part of the file.
    pub(super) fn bytes(&mut self, offset: u64, n_bytes: u64) -> Result<Vec<u8>, TaskError> {
        if offset
            .checked_add(n_bytes)
            .is_none_or(|end| end > self.n_bytes)
        {
            return Err(self.damaged("it ends too early"));
        }
        let mut bytes = vec![0; n_bytes as usize];
        let read = self
            .file
            .seek(SeekFrom::Start(offset))
            .and_then(|_| self.file.read_exact(&mut bytes));
        read.map_err(about("cannot read", &self.path))?;
        Ok(bytes)
    }

    pub(super) fn u16(&self, bytes: &[u8]) -> u16 {
        let bytes = [bytes[0], bytes[1]];
        if self.big_endian {
            u16::from_be_bytes(bytes)
        } else {
            u16::from_le_bytes(bytes)
        }
    }

    pub(super) fn u32(&self, bytes: &[u8]) -> u32 {
        let bytes = [bytes[0], bytes[1], bytes[2], bytes[3]];
        if self.big_endian {
            u32::from_be_bytes(bytes)
        } else {
            u32::from_le_bytes(bytes)
        }
    }

    fn u64(&self, bytes: &[u8]) -> u64 {
        let (one, two) = (self.u32(bytes).into(), self.u32(&bytes[4..]).into());
        let (high, low): (u64, u64) = if self.big_endian {
            (one, two)
        } else {
            (two, one)
        };
        high << 32 | low
    }

    /// Error about a file that is damaged.
    pub(super) fn damaged(&self, cause: impl fmt::Display) -> TaskError {
        super::damaged(&self.path, cause)
    }

    /// Error about a file that is not damaged. `cause` says what to do.
    pub(super) fn unsupported(&self, cause: impl fmt::Display) -> TaskError {
        TaskError::about("cannot convert", &self.path, cause)
    }
}
