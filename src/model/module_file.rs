//! The file of a module: read once, limited in size, hashed. Its contents are inspected in
//! `sandbox`.

use std::fmt::Write as _;
use std::fs::{File, Metadata, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};

use crate::text::bytes_text;

/// A module read from a file.
#[derive(Clone, Debug)]
pub struct ModuleFile {
    /// Path of the file.
    pub path: PathBuf,
    /// SHA-256 of its bytes, as 64 lower-case hexadecimal digits.
    pub sha256: String,
    /// Bytes of the file.
    pub bytes: Arc<[u8]>,
    /// Identity of the file; `None` if the file changed while it was read, or shortly before.
    pub identity: Option<FileIdentity>,
}

/// Identity of a file, for checking that it is still the file that was read.
///
/// The operating system maintains the times: `changed_ns` changes with each change of the contents,
/// and no program can set it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileIdentity {
    /// Device number.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Size of the file, in bytes.
    pub bytes: u64,
    /// Time of the last change of the contents, in nanoseconds since 1970.
    pub modified_ns: i128,
    /// Time of the last change of the contents or the metadata, in nanoseconds since 1970.
    pub changed_ns: i128,
}

impl FileIdentity {
    /// Returns the identity of an open file; `None` where the system has none.
    pub fn of(metadata: &Metadata) -> Option<Self> {
        let ns = |seconds: i64, ns: i64| i128::from(seconds) * 1_000_000_000 + i128::from(ns);
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified_ns: ns(metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: ns(metadata.ctime(), metadata.ctime_nsec()),
        })
    }

    /// Returns the identity of a file that is not open; `None` if it is not a regular file.
    pub fn of_file(path: &Path) -> Option<Self> {
        let metadata = path.metadata().ok().filter(Metadata::is_file)?;
        Self::of(&metadata)
    }

    /// Returns true if the last change is long enough ago that the next change gets another time.
    pub(crate) fn is_settled(&self) -> bool {
        const CLOCK_STEP: Duration = Duration::from_secs(2);
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let last = self.modified_ns.max(self.changed_ns);
        i128::try_from(now.saturating_sub(CLOCK_STEP).as_nanos())
            .is_ok_and(|settled| last < settled)
    }
}

impl ModuleFile {
    /// Maximum size of a module that the user names, in bytes: interpreters with their libraries
    /// have 100 MiB and more.
    pub(crate) const MAX_NAMED_BYTES: u64 = 2 << 30;

    /// Reads a module of at most `max_bytes`.
    ///
    /// # Errors
    /// A sentence for the user: the file does not exist, is not a regular file, is too large
    /// (checked before it is read), or cannot be read.
    pub fn read(path: &Path, max_bytes: u64) -> Result<Self, String> {
        let mut file = open_regular(path)?;
        let metadata = file
            .metadata()
            .map_err(|err| format!("cannot be read: {err}"))?;
        let size = metadata.len();
        if size > max_bytes {
            let (size, max) = (bytes_text(size), bytes_text(max_bytes));
            return Err(format!(
                "the module has {size}, more than the limit of {max}; raise `module` in `[default]` \
                 and `[maximum]` of the policy"
            ));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0).saturating_add(1));
        let read = Read::by_ref(&mut file)
            .take(max_bytes.saturating_add(1))
            .read_to_end(&mut bytes);
        read.map_err(|err| format!("cannot be read: {err}"))?;
        if bytes.len() as u64 > max_bytes {
            return Err(format!(
                "the module grew past {} while it was read",
                bytes_text(max_bytes)
            ));
        }
        if is_python(path) && !bytes.starts_with(b"\0asm") {
            return Err(format!(
                "`{}` is not a WebAssembly module: {PYTHON}",
                path.display()
            ));
        }
        let identity = FileIdentity::of(&metadata).filter(|before| {
            before.is_settled()
                && file
                    .metadata()
                    .is_ok_and(|after| FileIdentity::of(&after) == Some(*before))
        });
        Ok(Self {
            identity,
            ..Self::from_bytes(path.to_owned(), bytes)
        })
    }

    /// Returns the file's name without its folder, which the guest sees as its own name.
    pub fn file_name(&self) -> String {
        self.path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default()
    }

    /// Creates a module from bytes in memory.
    pub fn from_bytes(path: PathBuf, bytes: Vec<u8>) -> Self {
        let sha256 = Sha256::digest(&bytes)
            .iter()
            .fold(String::new(), |mut text, byte| {
                // Writing to a string cannot fail.
                let _ = write!(text, "{byte:02x}");
                text
            });
        Self {
            path,
            sha256,
            bytes: bytes.into(),
            identity: None,
        }
    }
}

/// Advice for a task that is a Python script, as Fractal's own tasks are.
const PYTHON: &str = "a Python script needs an environment that runs it: create one with `python -m \
                      mandelbox.env create`, and name it with `--python`";

fn is_python(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("py"))
}

/// Opens a regular file. Refuses anything else without blocking.
fn open_regular(path: &Path) -> Result<File, String> {
    let refused = |metadata: &Metadata| {
        if metadata.is_dir() {
            return Some(format!(
                "`{}` is a folder; name the .wasm file of the module",
                path.display()
            ));
        }
        (!metadata.is_file()).then(|| {
            format!(
                "`{}` is not a regular file; name a .wasm file",
                path.display()
            )
        })
    };
    // Check the kind of the file first: opening a device can have side effects.
    if let Some(text) = path.metadata().ok().as_ref().and_then(refused) {
        return Err(text);
    }
    let mut options = OpenOptions::new();
    options.read(true);
    // Opening a FIFO for reading would block until a writer opens it.
    options.custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32);
    let file = options.open(path).map_err(|err| match err.kind() {
        std::io::ErrorKind::NotFound => {
            let advice = if path
                .extension()
                .is_some_and(|extension| extension == "wasm")
            {
                "build it first, or correct the path"
            } else if is_python(path) {
                PYTHON
            } else {
                "name a task by the path of its WebAssembly module"
            };
            format!("no module at `{}`; {advice}", path.display())
        }
        _ => format!("the module `{}` cannot be opened: {err}", path.display()),
    })?;
    let metadata = file
        .metadata()
        .map_err(|err| format!("cannot be read: {err}"))?;
    refused(&metadata).map_or(Ok(file), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_is_sha256() {
        let module = ModuleFile::from_bytes(PathBuf::new(), b"abc".to_vec());
        assert_eq!(
            module.sha256,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn size_is_checked_at_the_limit() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("m.wasm");
        std::fs::write(&path, [0; 64]).expect("written");
        assert!(ModuleFile::read(&path, 64).is_ok());
        assert!(
            ModuleFile::read(&path, 63)
                .expect_err("too large")
                .contains("more than the limit of 63 bytes")
        );
        assert!(
            ModuleFile::read(folder.path(), 64)
                .expect_err("a folder")
                .contains("is a folder")
        );
        assert!(ModuleFile::read(&folder.path().join("none"), 64).is_err());
    }
}
