//! Compiled modules on disk.
//!
//! What is read back is native code that runs outside the sandbox. So the folder must be the user's own and closed to
//! others, and every entry carries a keyed digest of its name and its contents: an entry that was changed, moved or cut
//! short is no entry, and the module is compiled again. Nothing that a workflow names ever gets here.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use wasmtime::Engine;

/// Bytes of all entries together; the ones not used for longest go first.
#[cfg(feature = "compiler")]
const MAX_BYTES: u64 = 4 << 30;
const KEY_BYTES: usize = blake3::KEY_LEN;
const DIGEST_BYTES: usize = blake3::OUT_LEN;
/// Name of the file with the key.
const KEY_FILE: &str = "key";
#[cfg(feature = "compiler")]
const ENTRY_SUFFIX: &str = ".compiled";

/// A folder of compiled modules for one engine.
#[derive(Debug)]
pub(super) struct ModuleCache {
    folder: PathBuf,
    key: [u8; KEY_BYTES],
    /// What an entry depends on beside its module, as far as the compiler knows it.
    #[cfg(feature = "compiler")]
    engine: String,
}

impl ModuleCache {
    /// Opens the cache in `folder`, which is made if it is not there.
    ///
    /// # Errors
    /// The operating system's; also if the folder belongs to somebody else or others can write to it.
    pub(super) fn open(folder: &Path, engine: &Engine) -> io::Result<Self> {
        create_private_folder(folder)?;
        check_private(folder)?;
        #[cfg(not(feature = "compiler"))]
        let _ = engine;
        Ok(Self {
            folder: folder.to_owned(),
            key: read_or_make_key(folder)?,
            #[cfg(feature = "compiler")]
            engine: engine_text(engine),
        })
    }

    /// The compiled forms of a module that are as they were written; loading one tells whether it is for this engine
    /// and machine.
    pub(super) fn read_all(&self, sha256: &str) -> Vec<Vec<u8>> {
        #[cfg(feature = "compiler")]
        let paths = [self.path(sha256)];
        #[cfg(not(feature = "compiler"))]
        let paths = {
            let prefix = prefix(sha256);
            let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
            entries
                .map(|entry| entry.path())
                .filter(move |path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix)))
        };
        paths.into_iter().filter_map(|path| self.read_entry(&path)).collect()
    }

    fn read_entry(&self, path: &Path) -> Option<Vec<u8>> {
        let mut file = open_private_file(path).ok()?;
        let mut entry = Vec::new();
        file.read_to_end(&mut entry).ok()?;
        let (digest, code) = entry.split_at_checked(DIGEST_BYTES)?;
        let expected = self.digest(path, code);
        // The comparison of `blake3::Hash` takes the same time whatever differs.
        if blake3::Hash::from_bytes(digest.try_into().ok()?) != expected {
            return None;
        }
        // Only for choosing what goes when the cache is full.
        let _ = file.set_modified(SystemTime::now());
        entry.drain(..DIGEST_BYTES);
        Some(entry)
    }

    /// Keeps the compiled form of a module; a cache that cannot be written is one that is slow.
    #[cfg(feature = "compiler")]
    pub(super) fn write(&self, sha256: &str, code: &[u8]) {
        let written = (|| {
            let path = self.path(sha256);
            let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(&self.folder)?;
            file.write_all(self.digest(&path, code).as_bytes())?;
            file.write_all(code)?;
            file.persist(path).map_err(|err| err.error)?;
            self.remove_oldest(MAX_BYTES)
        })();
        let _: io::Result<()> = written;
    }

    #[cfg(feature = "compiler")]
    fn path(&self, sha256: &str) -> PathBuf {
        self.folder.join(format!("{}{}{ENTRY_SUFFIX}", prefix(sha256), self.engine))
    }

    fn digest(&self, path: &Path, code: &[u8]) -> blake3::Hash {
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(blake3::hash(name).as_bytes());
        hasher.update(code);
        hasher.finalize()
    }

    #[cfg(feature = "compiler")]
    fn remove_oldest(&self, max_bytes: u64) -> io::Result<()> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().ends_with(ENTRY_SUFFIX) {
                let metadata = entry.metadata()?;
                entries.push((metadata.modified()?, metadata.len(), entry.path()));
            }
        }
        entries.sort();
        let mut total: u64 = entries.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, bytes, path) in entries {
            if total <= max_bytes {
                break;
            }
            fs::remove_file(path)?;
            total -= bytes;
        }
        Ok(())
    }
}

/// How the names of a module's entries begin.
fn prefix(sha256: &str) -> String {
    format!("{}-", blake3::hash(sha256.as_bytes()).to_hex())
}

/// Version and settings of the engine and the processor, as far as compiled code depends on them.
#[cfg(feature = "compiler")]
fn engine_text(engine: &Engine) -> String {
    use std::hash::{Hash, Hasher};
    // The same program gives the same value; another one may not, which is a miss.
    let mut hasher = std::hash::DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

fn create_private_folder(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// The folder is the user's, no link, and nobody else can write to it.
#[cfg(unix)]
fn check_private(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::symlink_metadata(path)?;
    let refuse = |why: &str| Err(io::Error::new(io::ErrorKind::PermissionDenied, why.to_owned()));
    if !metadata.is_dir() {
        return refuse("it is not a folder");
    }
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return refuse("it belongs to another user");
    }
    if metadata.mode() & 0o077 != 0 {
        return refuse("other users can get into it; make its mode 0700");
    }
    Ok(())
}

#[cfg(not(unix))]
fn check_private(_: &Path) -> io::Result<()> {
    Ok(())
}

fn open_private_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use rustix::fs::OFlags;
        use std::os::unix::fs::OpenOptionsExt;
        options.custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32);
    }
    let file = options.open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// The key of this cache; a new one makes all older entries worthless.
fn read_or_make_key(folder: &Path) -> io::Result<[u8; KEY_BYTES]> {
    let path = folder.join(KEY_FILE);
    let read = || -> io::Result<[u8; KEY_BYTES]> {
        let mut key = [0; KEY_BYTES];
        open_private_file(&path)?.read_exact(&mut key)?;
        Ok(key)
    };
    if let Ok(key) = read() {
        return Ok(key);
    }
    let mut key = [0; KEY_BYTES];
    getrandom::fill(&mut key).map_err(io::Error::other)?;
    let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(folder)?;
    file.write_all(&key)?;
    match file.persist_noclobber(&path) {
        Ok(_) => Ok(key),
        // Another process was first, or the file that is there holds no key.
        Err(err) if err.error.kind() == io::ErrorKind::AlreadyExists => read().or_else(|_| {
            fs::remove_file(&path)?;
            read_or_make_key(folder)
        }),
        Err(err) => Err(err.error),
    }
}

#[cfg(all(test, unix, feature = "compiler"))]
mod tests {
    const NOTHING: [Vec<u8>; 0] = [];

    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn cache(folder: &Path) -> ModuleCache {
        ModuleCache::open(folder, &Engine::default()).expect("a cache")
    }

    #[test]
    fn an_entry_is_read_back_as_it_was_written_or_not_at_all() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("modules");
        let code = b"native code".to_vec();
        cache(&path).write("a", &code);
        assert_eq!(cache(&path).read_all("a"), std::slice::from_ref(&code));
        assert_eq!(cache(&path).read_all("b"), NOTHING);

        let entry = cache(&path).path("a");
        let bytes = fs::read(&entry).expect("an entry");
        for index in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[index] ^= 1;
            fs::write(&entry, changed).expect("written");
            assert_eq!(cache(&path).read_all("a"), NOTHING, "byte {index}");
        }
        fs::write(&entry, &bytes[..bytes.len() - 1]).expect("written");
        assert_eq!(cache(&path).read_all("a"), NOTHING);
        fs::write(cache(&path).path("b"), &bytes).expect("written");
        assert_eq!(cache(&path).read_all("b"), NOTHING, "another module's entry under this name");
        fs::write(&entry, &bytes).expect("written");
        assert_eq!(cache(&path).read_all("a"), [code]);
        fs::write(path.join(KEY_FILE), "short").expect("written");
        assert_eq!(cache(&path).read_all("a"), NOTHING, "another key");
    }

    #[test]
    fn a_folder_that_others_can_reach_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("modules");
        cache(&path);
        for mode in [0o770, 0o707, 0o750] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("changed");
            assert!(ModuleCache::open(&path, &Engine::default()).is_err(), "{mode:o}");
        }
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).expect("made");
        assert!(ModuleCache::open(&link, &Engine::default()).is_err());
    }

    #[test]
    fn the_oldest_entries_go_first() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = cache(&folder.path().join("modules"));
        for (age, name) in ["a", "b", "c"].iter().rev().enumerate() {
            cache.write(name, &[0; 100]);
            let time = SystemTime::now() - std::time::Duration::from_secs(60 * age as u64);
            File::open(cache.path(name)).and_then(|file| file.set_modified(time)).expect("changed");
        }
        cache.remove_oldest(2 * (100 + DIGEST_BYTES as u64)).expect("removed");
        let there = ["a", "b", "c"].map(|name| cache.path(name).exists());
        assert_eq!(there, [false, true, true]);
    }
}
