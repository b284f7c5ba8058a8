//! A wheel file: its digest, its checked entries, and unpacking them.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

use flate2::read::DeflateDecoder;
use rawzip::{CompressionMethod, FileReader, RECOMMENDED_BUFFER_SIZE, ZipArchive};

use super::entry::{Entry, checked_entries};
use crate::folder::open_plain_file;
use crate::text::{bytes_text, unreadable};

/// Maximum size of a wheel, in bytes.
const MAX_WHEEL_BYTES: u64 = 2 << 30;
/// Number of bytes that are unpacked or compared at a time.
const CHUNK_BYTES: usize = 64 << 10;

/// An open wheel whose entries were checked.
pub(super) struct Wheel {
    archive: ZipArchive<FileReader>,
    entries: Vec<Entry>,
    digest: String,
}

/// Reason why a wheel was not unpacked.
#[derive(Debug)]
pub(super) enum UnpackError {
    /// A sentence for the user about the wheel.
    Wheel(String),
    /// The files could not be written.
    Write(io::Error),
}

impl From<io::Error> for UnpackError {
    fn from(err: io::Error) -> Self {
        Self::Write(err)
    }
}

impl Wheel {
    /// Opens a wheel and checks its entries.
    ///
    /// # Errors
    /// A sentence for the user.
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        let file = File::open(path).map_err(|err| unreadable(&err))?;
        let metadata = file.metadata().map_err(|err| unreadable(&err))?;
        if metadata.len() > MAX_WHEEL_BYTES {
            return Err(format!(
                "is larger than {}, the maximum size of a wheel",
                bytes_text(MAX_WHEEL_BYTES)
            ));
        }
        let mut hasher = blake3::Hasher::new();
        hasher
            .update_reader(&file)
            .map_err(|err| unreadable(&err))?;
        let digest = hasher.finalize().to_hex().to_string();

        let mut buffer = vec![0; RECOMMENDED_BUFFER_SIZE];
        let archive = ZipArchive::from_file(file, &mut buffer).map_err(|err| {
            format!("is not a wheel: it is no complete ZIP file ({err}); download it again")
        })?;
        Ok(Self {
            entries: checked_entries(&archive, &mut buffer)?,
            archive,
            digest,
        })
    }

    /// Returns the BLAKE3 digest of the file, hexadecimal.
    pub(super) fn digest(&self) -> &str {
        &self.digest
    }

    /// Unpacks all files into an empty folder.
    pub(super) fn unpack(&self, folder: &Path) -> Result<(), UnpackError> {
        let mut buffer = vec![0; CHUNK_BYTES];
        for entry in &self.entries {
            let target = folder.join(&entry.path);
            if entry.is_folder {
                fs::create_dir_all(&target)?;
                continue;
            }
            fs::create_dir_all(target.parent().unwrap_or(folder))?;
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(&target)?;
            let damaged = |err: &dyn std::fmt::Display| {
                let path = entry.path.display();
                UnpackError::Wheel(format!("is a damaged wheel: `{path}`: {err}"))
            };
            let packed = self
                .archive
                .get_entry(entry.location)
                .map_err(|err| damaged(&err))?;
            let contents: Box<dyn Read> = match entry.compression {
                CompressionMethod::DEFLATE => Box::new(DeflateDecoder::new(packed.reader())),
                _ => Box::new(packed.reader()),
            };
            let mut contents = packed.verifying_reader(contents);
            let mut n_bytes = 0;
            loop {
                let n_read = contents.read(&mut buffer).map_err(|err| damaged(&err))?;
                if n_read == 0 {
                    break;
                }
                n_bytes += n_read as u64;
                if n_bytes > entry.bytes {
                    break;
                }
                file.write_all(&buffer[..n_read])?;
            }
            if n_bytes != entry.bytes {
                return Err(damaged(&"its size differs from that in its header"));
            }
        }
        Ok(())
    }

    /// Returns true if a folder has the files of this wheel, unchanged, and no others.
    pub(super) fn is_unpacked_in(&self, folder: &Path) -> bool {
        let files = self.entries.iter().filter(|entry| !entry.is_folder);
        let expected: HashMap<_, _> = files.map(|entry| (entry.path.as_path(), entry)).collect();
        let mut n_found = 0;
        let mut folders = vec![folder.to_owned()];
        while let Some(at) = folders.pop() {
            // The folder itself may not exist, or be a link.
            let is_folder = fs::symlink_metadata(&at).is_ok_and(|metadata| metadata.is_dir());
            let entries = fs::read_dir(&at).and_then(Iterator::collect::<io::Result<Vec<_>>>);
            let Some(entries) = entries.ok().filter(|_| is_folder) else {
                return false;
            };
            for entry in entries {
                let path = entry.path();
                if entry.file_type().is_ok_and(|file_type| file_type.is_dir()) {
                    folders.push(path);
                    continue;
                }
                let below = path.strip_prefix(folder).unwrap_or(&path);
                let is_same = expected
                    .get(below)
                    .is_some_and(|entry| is_unchanged(&path, entry).unwrap_or(false));
                if !is_same {
                    return false;
                }
                n_found += 1;
            }
        }
        n_found == expected.len()
    }
}

/// Returns true if a file has the contents of an entry.
fn is_unchanged(path: &Path, entry: &Entry) -> io::Result<bool> {
    let mut file = open_plain_file(path)?;
    if file.metadata()?.len() != entry.bytes {
        return Ok(false);
    }
    let mut hasher = crc32fast::Hasher::new();
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finalize() == entry.crc32),
            n_read => hasher.update(&buffer[..n_read]),
        }
    }
}
