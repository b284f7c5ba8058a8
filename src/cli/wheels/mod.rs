//! Wheels: published task packages, each a ZIP file, which are unpacked into the user's cache.
//!
//! A wheel is unpacked once, into a folder whose name has the digest of the wheel. The wheel stays
//! the truth: at each use, the files of this folder are compared with the checksums in the wheel,
//! and a folder that differs is replaced. So the folder needs no record of its own, and a crash or
//! a second process at the same time can at most cause a wheel to be unpacked again.

mod archive;
mod entry;

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use self::archive::{UnpackError, Wheel};
use super::environment;
use super::temporary::TemporaryFolder;
use crate::problem::Problems;
use crate::sandbox::open_private;

/// Start of the names of folders that are being filled.
const NEW_PREFIX: &str = ".new-";
/// Age from which on such a folder was left behind by a killed process.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);
/// Maximum length of the readable part of a folder's name, in characters.
const MAX_NAME_CHARS: usize = 48;
/// Number of hexadecimal digits of the digest in a folder's name.
const N_DIGITS: usize = 32;

/// Use of the user's cache of unpacked wheels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CacheUse {
    /// Use the files in the cache, and add those that are missing.
    ReadWrite,
    /// Use the files in the cache, and add none.
    ReadOnly,
    /// Leave the cache alone.
    Nothing,
}

/// The unpacked wheels of one command. Those that are not in the cache are in temporary folders,
/// which are removed when this is dropped.
pub(super) struct Wheels {
    cache_use: CacheUse,
    unpacked: RefCell<Vec<Unpacked>>,
    temporaries: RefCell<Vec<TemporaryFolder>>,
}

/// A wheel that was unpacked.
struct Unpacked {
    folder: PathBuf,
    wheel: PathBuf,
    /// Name of a folder with these contents.
    name: String,
}

/// Returns true if a file is a wheel, by its name or its first bytes.
pub(super) fn is_wheel(path: &Path) -> bool {
    const START_OF_ZIP: &[u8] = b"PK\x03\x04";
    let has_name = path
        .extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("whl"));
    let starts_as_zip = || {
        let mut start = [0; START_OF_ZIP.len()];
        let read =
            fs::File::open(path).and_then(|mut file| io::Read::read_exact(&mut file, &mut start));
        read.is_ok() && start == START_OF_ZIP
    };
    path.is_file() && (has_name || starts_as_zip())
}

impl Wheels {
    pub(super) fn new(cache_use: CacheUse) -> Self {
        Self {
            cache_use,
            unpacked: RefCell::default(),
            temporaries: RefCell::default(),
        }
    }

    /// Returns the folder with the contents of a wheel, which is like a folder of installed
    /// packages. It exists as long as `self`.
    ///
    /// # Errors
    /// A sentence for the user.
    pub(super) fn unpack(&self, path: &Path) -> Result<PathBuf, String> {
        let mut wheel = Wheel::open(path)?;
        let name = folder_name(path, wheel.digest());
        let folder = self.unpack_into_folder(&mut wheel, &name)?;
        self.unpacked.borrow_mut().push(Unpacked {
            folder: folder.clone(),
            wheel: path.to_owned(),
            name,
        });
        Ok(folder)
    }

    /// Returns the folder of each wheel, and a name that only folders with these contents have.
    pub(super) fn folders(&self) -> Vec<(PathBuf, String)> {
        let unpacked = self.unpacked.borrow();
        let folders = unpacked.iter();
        folders
            .map(|unpacked| (unpacked.folder.clone(), unpacked.name.clone()))
            .collect()
    }

    /// Names files of wheels as parts of the wheels that the user named.
    pub(super) fn rename_in(&self, problems: &mut Problems) {
        for unpacked in &*self.unpacked.borrow() {
            problems.rename(&unpacked.folder, &unpacked.wheel);
        }
    }

    fn unpack_into_folder(&self, wheel: &mut Wheel, name: &str) -> Result<PathBuf, String> {
        if let Some(folder) = environment::packages_folder()
            && let Some(unpacked) = self.unpack_into_cache(name, wheel, &folder)?
        {
            return Ok(unpacked);
        }
        let failed = |err: String| format!("cannot be unpacked into a temporary folder: {err}");
        let temporary =
            TemporaryFolder::new("mandelbox-wheel-").map_err(|err| failed(err.chain()))?;
        let unpacked = temporary.path().to_owned();
        match wheel.unpack(&unpacked) {
            Ok(()) => {
                self.temporaries.borrow_mut().push(temporary);
                Ok(unpacked)
            }
            Err(UnpackError::Wheel(text)) => Err(text),
            Err(UnpackError::Write(err)) => Err(failed(err.to_string())),
        }
    }

    /// Returns the folder of a wheel in the cache; `None` if the cache is not used, or cannot be.
    ///
    /// * `name`: name of the folder.
    /// * `cache`: folder of all unpacked wheels.
    ///
    /// # Errors
    /// A sentence for the user, if there is something wrong with the wheel.
    fn unpack_into_cache(
        &self,
        name: &str,
        wheel: &mut Wheel,
        cache: &Path,
    ) -> Result<Option<PathBuf>, String> {
        let target = cache.join(name);
        let is_used = match self.cache_use {
            CacheUse::ReadWrite => true,
            CacheUse::ReadOnly => target.is_dir(),
            CacheUse::Nothing => false,
        };
        // Others must not be able to change a module after it was compared with the wheel.
        if !is_used || open_private(cache).is_err() {
            return Ok(None);
        }
        if wheel.is_unpacked_in(&target) {
            return Ok(Some(target));
        }
        if self.cache_use == CacheUse::ReadOnly {
            return Ok(None);
        }
        remove_abandoned(cache);
        match unpack_and_move(wheel, cache, &target) {
            Ok(()) => Ok(Some(target)),
            Err(UnpackError::Wheel(text)) => Err(text),
            // A full or read-only cache. A temporary folder may be on another disk.
            Err(UnpackError::Write(_)) => Ok(None),
        }
    }
}

/// Unpacks a wheel next to its folder and moves it there, so that the folder is complete as soon as
/// it exists. A folder with other contents is replaced.
fn unpack_and_move(wheel: &mut Wheel, cache: &Path, target: &Path) -> Result<(), UnpackError> {
    let temporary = new_folder(cache)?;
    let unpacked = temporary.path().join("unpacked");
    fs::create_dir(&unpacked)?;
    wheel.unpack(&unpacked)?;
    // A folder cannot be moved to that of another process, unless that one is empty.
    if fs::rename(&unpacked, target).is_ok() {
        return Ok(());
    }
    if wheel.is_unpacked_in(target) {
        return Ok(());
    }
    let damaged = temporary.path().join("damaged");
    fs::rename(target, damaged)?;
    match fs::rename(&unpacked, target) {
        // Another process replaced it first.
        Err(_) if wheel.is_unpacked_in(target) => Ok(()),
        result => Ok(result?),
    }
}

fn new_folder(cache: &Path) -> io::Result<TempDir> {
    tempfile::Builder::new()
        .prefix(NEW_PREFIX)
        .tempdir_in(cache)
}

/// Removes folders that killed processes were filling.
fn remove_abandoned(cache: &Path) {
    let entries = fs::read_dir(cache).into_iter().flatten().flatten();
    for entry in entries {
        let is_new = entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(NEW_PREFIX.as_bytes());
        let changed = entry.metadata().and_then(|metadata| metadata.modified());
        let is_old = changed.is_ok_and(|time| {
            SystemTime::now()
                .duration_since(time)
                .is_ok_and(|age| age > ABANDONED)
        });
        if is_new && is_old {
            // What cannot be removed only takes space.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Returns the name of a wheel's folder: the start of the wheel's name, for people, and the digest.
fn folder_name(path: &Path, digest: &str) -> String {
    let name = path.file_stem().unwrap_or(OsStr::new("")).to_string_lossy();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_.+-".contains(c);
    let mut readable: String = name
        .chars()
        .take(MAX_NAME_CHARS)
        .map(|c| if is_plain(c) { c } else { '_' })
        .collect();
    if readable.is_empty() || readable.starts_with('.') {
        readable.insert(0, '_');
    }
    format!("{readable}-{}", &digest[..N_DIGITS])
}
