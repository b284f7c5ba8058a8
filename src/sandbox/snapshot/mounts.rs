//! Digest of all files that the initialization of a guest can read.
//!
//! A snapshot contains what the guest read when it started: imported code, tables, the directory of
//! a zip file. If a file changes, the snapshot is that of another guest. So the digest covers
//! every entry of the mounts: its path in the sandbox, its kind, its time of modification, and the
//! target of a link or the contents of a file.
//!
//! Contents are hashed once. After that, a file is known by its identity, as module files are
//! (`known_files`).

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::FileType;

use crate::folder::Folder;
use crate::model::{FileIdentity, Grant};
use crate::sandbox::cache::{DIGEST_BYTES, ModuleCache, is_same};
use crate::text::bytes_text;

/// Maximum number of entries and of bytes of all mounts together. A folder of data is not what an
/// interpreter imports from.
const MAX_ENTRIES: u64 = 200_000;
const MAX_BYTES: u64 = 8 << 30;
/// Maximum number of folders inside one another.
const MAX_DEPTH: usize = 64;
/// Suffix of a file with known digests.
const SUFFIX: &str = ".digests";

type Digest = [u8; DIGEST_BYTES];

/// Returns the digest of all files in the mounts, and of the paths that a guest sees.
///
/// # Errors
/// A sentence for the user if a file cannot be read, or if there are too many.
pub(super) fn digest(
    mounts: &[Grant],
    cache: Option<&ModuleCache>,
) -> Result<blake3::Hash, String> {
    let mut hasher = blake3::Hasher::new();
    let (mut n_entries, mut n_bytes) = (0, 0);
    for mount in mounts {
        add_text(&mut hasher, b"mount", mount.guest_path.as_bytes());
        let failed = |err: io::Error| {
            format!(
                "no snapshot can be made: the mount `{}` cannot be read: {err}",
                mount.host_path.display()
            )
        };
        let mut known = KnownFiles::read(cache, &mount.host_path);
        let mut walk = Walk {
            hasher: &mut hasher,
            known: &mut known,
            n_entries: &mut n_entries,
            n_bytes: &mut n_bytes,
        };
        let folder = Folder::open(&mount.host_path).map_err(failed)?;
        walk.folder(&folder, 0).map_err(failed)?;
        known.write();
    }
    Ok(hasher.finalize())
}

/// Adds a text with its kind and its length, so that no two lists of texts have the same bytes.
fn add_text(hasher: &mut blake3::Hasher, kind: &[u8], text: &[u8]) {
    hasher.update(kind);
    hasher.update(&(text.len() as u64).to_le_bytes());
    hasher.update(text);
}

struct Walk<'w, 'c> {
    hasher: &'w mut blake3::Hasher,
    known: &'w mut KnownFiles<'c>,
    n_entries: &'w mut u64,
    n_bytes: &'w mut u64,
}

impl Walk<'_, '_> {
    fn folder(&mut self, folder: &Folder, depth: usize) -> io::Result<()> {
        if depth > MAX_DEPTH {
            return Err(io::Error::other(format!(
                "it has more than {MAX_DEPTH} folders inside one another"
            )));
        }
        let mut entries = folder.entries()?;
        entries.sort_by(|(one, _), (other, _)| one.cmp(other));
        for (name, kind) in entries {
            *self.n_entries += 1;
            if *self.n_entries > MAX_ENTRIES {
                let text = format!(
                    "the mounts have more than {MAX_ENTRIES} entries; mount only what the module \
                     imports"
                );
                return Err(io::Error::other(text));
            }
            self.entry(folder, &name, kind, depth)?;
        }
        add_text(self.hasher, b"end", b"");
        Ok(())
    }

    fn entry(
        &mut self,
        folder: &Folder,
        name: &OsStr,
        kind: FileType,
        depth: usize,
    ) -> io::Result<()> {
        match kind {
            FileType::Directory => {
                add_text(self.hasher, b"folder", name.as_bytes());
                self.folder(&folder.open_folder(name)?, depth + 1)
            }
            FileType::Symlink => {
                add_text(self.hasher, b"link", name.as_bytes());
                let target = rustix::fs::readlinkat(folder, name, Vec::new())?;
                add_text(self.hasher, b"to", target.as_bytes());
                Ok(())
            }
            FileType::RegularFile => {
                let file = folder.open_file(name)?;
                add_text(self.hasher, b"file", name.as_bytes());
                self.file(file)
            }
            // A guest cannot open any other kind.
            _ => {
                add_text(self.hasher, b"other", name.as_bytes());
                Ok(())
            }
        }
    }

    fn file(&mut self, file: File) -> io::Result<()> {
        let metadata = file.metadata()?;
        *self.n_bytes = self.n_bytes.saturating_add(metadata.len());
        if *self.n_bytes > MAX_BYTES {
            let text = format!(
                "the mounts have more than {}; mount only what the module imports",
                bytes_text(MAX_BYTES)
            );
            return Err(io::Error::other(text));
        }
        let identity = FileIdentity::of(&metadata);
        let digest = self.known.digest(file, identity)?;
        let modified_ns = identity.map_or(0, |identity| identity.modified_ns);
        add_text(self.hasher, b"modified", &modified_ns.to_le_bytes());
        add_text(self.hasher, b"contents", &digest);
        Ok(())
    }
}

/// Digests of the files of one mount, by the digests of their identities.
struct KnownFiles<'c> {
    cache: Option<(&'c ModuleCache, String)>,
    known: HashMap<Digest, Digest>,
    /// Files that exist now.
    seen: Vec<(Digest, Digest)>,
    has_new: bool,
}

impl<'c> KnownFiles<'c> {
    fn read(cache: Option<&'c ModuleCache>, mount: &Path) -> Self {
        let name = blake3::hash(mount.as_os_str().as_bytes()).to_hex();
        let cache = cache.map(|cache| (cache, format!("{name}{SUFFIX}")));
        Self {
            known: cache
                .as_ref()
                .and_then(|(cache, name)| read_known(cache, name))
                .unwrap_or_default(),
            cache,
            seen: Vec::new(),
            has_new: false,
        }
    }

    fn digest(&mut self, file: File, identity: Option<FileIdentity>) -> io::Result<Digest> {
        let identity = identity.filter(FileIdentity::is_settled);
        let known_by = self.cache.as_ref().zip(identity).map(|(cache, identity)| {
            let (cache, name) = cache;
            *cache.identity_digest(name, Some(&identity)).as_bytes()
        });
        if let Some((identity, digest)) =
            known_by.and_then(|identity| Some((identity, *self.known.get(&identity)?)))
        {
            self.seen.push((identity, digest));
            return Ok(digest);
        }
        let digest = *blake3::Hasher::new()
            .update_reader(file)?
            .finalize()
            .as_bytes();
        if let Some(identity) = known_by {
            self.seen.push((identity, digest));
            self.has_new = true;
        }
        Ok(digest)
    }

    /// Stores the digests of the files that exist. Ignores errors: the files are hashed again then.
    fn write(self) {
        if let (Some((cache, name)), true) = (self.cache, self.has_new) {
            let entries = self.seen.iter();
            let entries: Vec<u8> = entries
                .flat_map(|(identity, digest)| identity.iter().chain(digest))
                .copied()
                .collect();
            let seal = cache.digest(&name, &entries);
            let _ = cache.write_file(&name, &[seal.as_bytes().as_slice(), &entries].concat());
        }
    }
}

fn read_known(cache: &ModuleCache, name: &str) -> Option<HashMap<Digest, Digest>> {
    let max_bytes = MAX_ENTRIES * 2 * DIGEST_BYTES as u64 + DIGEST_BYTES as u64;
    let bytes = cache.read_file(name, max_bytes).ok()?;
    let (seal, entries) = bytes.split_at_checked(DIGEST_BYTES)?;
    if !is_same(seal, cache.digest(name, entries)) {
        return None;
    }
    let (entries, _) = entries.as_chunks::<DIGEST_BYTES>();
    Some(
        entries
            .chunks_exact(2)
            .map(|pair| (pair[0], pair[1]))
            .collect(),
    )
}
