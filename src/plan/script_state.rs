//! Digests of what the result of a script can depend on: the script, those next to it, and the
//! folders of its interpreter.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::folder::open_plain_file;

/// Maximum number of entries of a folder that count.
const MAX_ENTRIES: usize = 200_000;
/// Maximum size of a script, in bytes.
const MAX_SCRIPT_BYTES: u64 = 64 << 20;

/// Digests of folders, each taken once.
#[derive(Debug, Default)]
pub(crate) struct ScriptStates {
    /// By folder, and by the suffix of the scripts that count; empty: all files count.
    folders: HashMap<(PathBuf, String), blake3::Hash>,
}

impl ScriptStates {
    /// Returns the digest of the paths, kinds, sizes and times of modification of all that is below
    /// a folder. Reading the contents of an environment would take longer than many calls.
    pub(super) fn tree(&mut self, folder: &Path) -> blake3::Hash {
        self.of(folder, "", |digest| digest_of_tree(folder, digest))
    }

    /// Returns the digest of the paths and contents of the scripts below the folder of a package,
    /// which a script can import. Other files, such as results in the same folder, do not count.
    ///
    /// * `suffix`: end of the names of scripts.
    pub(super) fn scripts(&mut self, folder: &Path, suffix: &str) -> blake3::Hash {
        self.of(folder, suffix, |digest| {
            digest_of_scripts(folder, suffix, digest)
        })
    }

    fn of(
        &mut self,
        folder: &Path,
        suffix: &str,
        add: impl FnOnce(&mut blake3::Hasher),
    ) -> blake3::Hash {
        let key = (folder.to_owned(), suffix.to_owned());
        *self.folders.entry(key).or_insert_with(|| {
            let mut digest = blake3::Hasher::new();
            add(&mut digest);
            digest.finalize()
        })
    }
}

/// Returns the SHA-256 of a file, as 64 lower-case hexadecimal digits.
///
/// # Errors
/// The end of a sentence for the user.
pub(crate) fn digest_of_file(path: &Path) -> Result<String, String> {
    let failed = |err: io::Error| format!("cannot be read: {err}");
    let file = File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(MAX_SCRIPT_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > MAX_SCRIPT_BYTES {
        return Err(format!("has more than {MAX_SCRIPT_BYTES} bytes"));
    }
    let digest = Sha256::digest(&bytes);
    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn digest_of_tree(folder: &Path, digest: &mut blake3::Hasher) {
    let mut n_left = MAX_ENTRIES;
    walk(folder, Path::new(""), &mut n_left, &mut |path, metadata| {
        add_bytes(path.as_os_str().as_bytes(), digest);
        digest.update(&(metadata.mode() & 0o170_000).to_le_bytes());
        if !metadata.is_dir() {
            digest.update(&metadata.size().to_le_bytes());
            digest.update(&metadata.mtime().to_le_bytes());
            digest.update(&metadata.mtime_nsec().to_le_bytes());
        }
    });
}

fn digest_of_scripts(folder: &Path, suffix: &str, digest: &mut blake3::Hasher) {
    let mut n_left = MAX_ENTRIES;
    walk(folder, Path::new(""), &mut n_left, &mut |path, metadata| {
        let name = path.as_os_str().as_bytes();
        if !metadata.is_file() || !name.ends_with(suffix.as_bytes()) {
            return;
        }
        add_bytes(name, digest);
        let mut bytes = Vec::new();
        let read = open_plain_file(&folder.join(path))
            .and_then(|file| file.take(MAX_SCRIPT_BYTES).read_to_end(&mut bytes));
        if read.is_ok() {
            add_bytes(&bytes, digest);
        }
    });
}

fn add_bytes(bytes: &[u8], digest: &mut blake3::Hasher) {
    digest.update(&(bytes.len() as u64).to_le_bytes());
    digest.update(bytes);
}

/// Visits all that is below a folder in the order of names, without following links.
fn walk(
    root: &Path,
    below: &Path,
    n_left: &mut usize,
    visit: &mut dyn FnMut(&Path, &std::fs::Metadata),
) {
    let entries = std::fs::read_dir(root.join(below)).into_iter().flatten();
    let mut names: Vec<OsString> = entries
        .flatten()
        .map(|entry| entry.file_name())
        .take(*n_left)
        .collect();
    names.sort_unstable();
    for name in names {
        if *n_left == 0 {
            return;
        }
        *n_left -= 1;
        let path = below.join(name);
        let Ok(metadata) = root.join(&path).symlink_metadata() else {
            continue;
        };
        visit(&path, &metadata);
        if metadata.is_dir() {
            walk(root, &path, n_left, visit);
        }
    }
}
