//! Entries of a wheel, checked before anything is unpacked: no path leads out of the folder, two
//! entries never share a file on any file system, and sizes are bounded.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use rawzip::{
    CompressionMethod, ReaderAt, ZipArchive, ZipArchiveEntryWayfinder, ZipFileHeaderRecord,
};
use rustix::fs::FileType;

use crate::fractal::package::MANIFEST;
use crate::text::wording::shortened;
use crate::text::{bytes_text, is_misleading};

/// Maximum number of entries. The largest public wheels have about 20,000.
const MAX_ENTRIES: usize = 50_000;
/// Maximum number of entries and of the folders above them.
const MAX_PATHS: usize = 2 * MAX_ENTRIES;
/// Maximum size of a file, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 30;
/// Maximum size of all files, in bytes.
const MAX_TOTAL_BYTES: u64 = 2 << 30;
/// Maximum length of a path, in bytes.
const MAX_PATH_BYTES: usize = 1024;
/// Maximum length of a name in a path, in bytes.
const MAX_NAME_BYTES: usize = 255;
/// Maximum number of characters of an entry's path in a message.
const MAX_SHOWN_CHARS: usize = 200;

/// A file or a folder of a wheel.
#[derive(Debug)]
pub(super) struct Entry {
    /// Location of its contents in the wheel.
    pub(super) location: ZipArchiveEntryWayfinder,
    pub(super) compression: CompressionMethod,
    /// Path below the folder into which the wheel is unpacked.
    pub(super) path: PathBuf,
    pub(super) is_folder: bool,
    /// Size of the file.
    pub(super) bytes: u64,
    pub(super) crc32: u32,
}

/// Returns the checked entries of a wheel.
///
/// * `buffer`: memory for one entry of the wheel's directory.
///
/// # Errors
/// A sentence for the user.
pub(super) fn checked_entries<R: ReaderAt>(
    archive: &ZipArchive<R>,
    buffer: &mut [u8],
) -> Result<Vec<Entry>, String> {
    let n_expected = archive.entries_hint();
    if n_expected > MAX_ENTRIES as u64 {
        return Err(format!(
            "has {n_expected} entries; at most {MAX_ENTRIES} are allowed"
        ));
    }
    let damaged = |err| format!("is a damaged wheel: {err}");
    let mut entries = Vec::new();
    let mut paths = Paths::default();
    let mut total_bytes = 0;
    let mut directory = archive.entries(buffer);
    while let Some(found) = directory.next_entry().map_err(damaged)? {
        let entry = checked_entry(&found)?;
        paths.add(&entry.path, entry.is_folder)?;
        total_bytes += entry.bytes;
        if total_bytes > MAX_TOTAL_BYTES {
            return Err(format!(
                "has files of more than {} together",
                bytes_text(MAX_TOTAL_BYTES)
            ));
        }
        entries.push(entry);
    }
    if entries.len() as u64 != n_expected {
        return Err(format!(
            "is a damaged wheel: it has {} entries instead of {n_expected}",
            entries.len()
        ));
    }
    check_manifests(&entries)?;
    Ok(entries)
}

fn checked_entry(found: &ZipFileHeaderRecord<'_>) -> Result<Entry, String> {
    let path = found.file_path();
    let raw_name = path.as_bytes();
    let name = String::from_utf8_lossy(raw_name);
    let refuse = |why: &str| {
        let name = shortened(&name, MAX_SHOWN_CHARS);
        Err(format!("contains the entry `{name}`, {why}"))
    };
    let is_folder = name.ends_with('/');
    let path = match checked_path(raw_name) {
        Ok(path) => path,
        Err(why) => return refuse(why),
    };
    // Some writers leave the type empty.
    let file_type = FileType::from_raw_mode(found.mode().value());
    let is_plain = match file_type {
        FileType::RegularFile => !is_folder,
        FileType::Directory => is_folder,
        FileType::Unknown => found.mode().value() & 0o170_000 == 0,
        _ => false,
    };
    if file_type == FileType::Symlink {
        return refuse("which is a link");
    }
    if !is_plain {
        return refuse("which is neither a file nor a folder");
    }
    if found.flags().is_encrypted() {
        return refuse("which is encrypted");
    }
    let compression = found.compression_method();
    let is_supported =
        [CompressionMethod::STORE, CompressionMethod::DEFLATE].contains(&compression);
    if !is_supported {
        return refuse("whose compression is neither `stored` nor `deflated`");
    }
    let bytes = found.uncompressed_size_hint();
    if bytes > MAX_FILE_BYTES {
        let why = format!("which is larger than {}", bytes_text(MAX_FILE_BYTES));
        return refuse(&why);
    }
    if is_folder && bytes > 0 {
        return refuse("which is a folder with contents");
    }
    Ok(Entry {
        location: found.wayfinder(),
        compression,
        path,
        is_folder,
        bytes,
        crc32: found.crc32(),
    })
}

/// Returns a path as it is in a wheel: relative, with `/` between the names.
///
/// # Errors
/// The end of a sentence for the user.
fn checked_path(raw: &[u8]) -> Result<PathBuf, &'static str> {
    let text = str::from_utf8(raw).map_err(|_| "whose path is not UTF-8")?;
    if text.len() > MAX_PATH_BYTES {
        return Err("whose path is too long");
    }
    if text.starts_with('/') {
        return Err("whose path is absolute");
    }
    // A drive, or a separator of another system.
    if text.contains(['\\', ':']) || text.chars().any(is_misleading) {
        return Err("whose path has characters that are not allowed");
    }
    let mut path = PathBuf::new();
    for name in text.strip_suffix('/').unwrap_or(text).split('/') {
        match name {
            "" => return Err("whose path has an empty name"),
            "." | ".." => return Err("whose path has `.` or `..` in it"),
            _ if name.len() > MAX_NAME_BYTES => return Err("whose path is too long"),
            _ => path.push(name),
        }
    }
    Ok(path)
}

/// Paths of a wheel, with the folders above them. Some file systems ignore case.
#[derive(Default)]
struct Paths {
    /// For a path in lower case: the path, and true for a folder.
    seen: HashMap<String, (PathBuf, bool)>,
}

impl Paths {
    /// # Errors
    /// A sentence for the user if another entry would have the same path.
    fn add(&mut self, path: &Path, is_folder: bool) -> Result<(), String> {
        self.add_path(path, is_folder)?;
        for folder in path.ancestors().skip(1) {
            let is_new = !folder.as_os_str().is_empty() && self.add_path(folder, true)?;
            if !is_new {
                break;
            }
        }
        Ok(())
    }

    /// Returns true if the path was not known.
    fn add_path(&mut self, path: &Path, is_folder: bool) -> Result<bool, String> {
        let key = path.to_string_lossy().to_lowercase();
        let new = (path.to_owned(), is_folder);
        match self.seen.get(&key) {
            None if self.seen.len() == MAX_PATHS => {
                Err(format!("has more than {MAX_PATHS} files and folders"))
            }
            None => {
                self.seen.insert(key, new);
                Ok(true)
            }
            Some(known) if is_folder && *known == new => Ok(false),
            Some((known, _)) => Err(format!(
                "contains two entries of the same path: `{}` and `{}`",
                shortened(known.display(), MAX_SHOWN_CHARS),
                shortened(path.display(), MAX_SHOWN_CHARS)
            )),
        }
    }
}

/// Checks that a wheel has a task package, and only in a folder.
fn check_manifests(entries: &[Entry]) -> Result<(), String> {
    let manifests = entries
        .iter()
        .filter(|entry| entry.path.ends_with(MANIFEST));
    let mut depths = manifests.map(|entry| entry.path.iter().count()).peekable();
    if depths.peek().is_none() {
        return Err(format!(
            "contains no task package: no folder in it has a {MANIFEST}; name another wheel"
        ));
    }
    if depths.clone().any(|depth| depth == 1) {
        return Err(format!(
            "has a {MANIFEST} that is in no folder; it must be in that of the package"
        ));
    }
    if depths.all(|depth| depth > 2) {
        return Err(format!(
            "contains no task package: no folder directly in it has a {MANIFEST}"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_in_the_folder() {
        for good in ["a", "a/b.py", "a/", "..a/b..", "a b/é"] {
            assert!(checked_path(good.as_bytes()).is_ok(), "{good}");
        }
        let long = format!("{}/x", "a".repeat(MAX_NAME_BYTES + 1));
        let deep = "a/".repeat(MAX_PATH_BYTES / 2 + 1);
        for bad in [
            "", "/", "/a", "a//b", "a/../b", "..", "./a", "a/.", "c:a", "a\\b", "a\0b", "a\nb",
            &long, &deep,
        ] {
            assert!(checked_path(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(checked_path(b"a\xff").is_err());
    }

    #[test]
    fn no_two_entries_share_a_path() {
        let check = |paths: &[&str], expected: bool| {
            let mut seen = Paths::default();
            let added = paths.iter().try_for_each(|path| {
                let is_folder = path.ends_with('/');
                seen.add(Path::new(path.trim_end_matches('/')), is_folder)
            });
            assert_eq!(added.is_ok(), expected, "{paths:?}");
        };
        check(&["a/b", "a/c", "a/", "b"], true);
        check(&["a/b", "a/B"], false);
        check(&["a/b", "A/c"], false);
        check(&["a", "a/b"], false);
        check(&["a/b", "a"], false);
        check(&["É", "é"], false);
    }
}
