//! Cache of compiled modules on disk.
//!
//! An entry of the cache is native code that runs outside the sandbox. Whoever can write an entry
//! can therefore run any code as this user, and the cache accepts only its own entries:
//!
//! * The folder belongs to this user and is closed to others, and nobody else can replace the
//!   folder or one above it. It is opened once. All reads and writes go through its descriptor.
//! * Next to every entry is its seal, a keyed digest of the entry's name and contents. The key is
//!   random and stored in the same folder. An entry that was modified, renamed or truncated does
//!   not match its seal. It counts as missing, and the module is compiled again.
//! * Only code that this program has compiled is written. A workflow cannot name a file that ends
//!   up in the cache.
//!
//! Reading and hashing a large entry would take longer than starting its code. The seal therefore
//! contains a second digest, of the identity of the file: device, inode, size and times. While the
//! identity is unchanged, the contents are those that were sealed, and the file is mapped into
//! memory instead of being read.

#[cfg(feature = "compiler")]
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use wasmtime::Engine;

use super::compile::{CacheFile, CompiledModule};
use super::private_folder::open_private;
use crate::folder::Folder;
use crate::model::FileIdentity;

#[cfg(feature = "compiler")]
use std::time::{Duration, UNIX_EPOCH};

/// Maximum size of all entries together. The least recently used entries are removed first.
#[cfg(feature = "compiler")]
const MAX_BYTES: u64 = 4 << 30;
/// Number of lock files.
#[cfg(feature = "compiler")]
const N_LOCKS: u8 = 16;
const KEY_BYTES: usize = blake3::KEY_LEN;
pub(super) const DIGEST_BYTES: usize = blake3::OUT_LEN;
/// Name of the file that contains the key.
const KEY_FILE: &str = "key";
const ENTRY_SUFFIX: &str = ".compiled";
/// Suffix of a seal, in place of the suffix of its entry.
const SEAL_SUFFIX: &str = "seal";
/// Size from which on an entry is verified by its identity, since reading it would take longer.
const LARGE_BYTES: u64 = 1 << 20;
/// Prefix of the name of a file that is being written, and mode of the file.
const NEW_PREFIX: &str = ".new-";
const NEW_MODE: u32 = 0o600;
/// Age from which on such a file was left behind by a killed process.
#[cfg(feature = "compiler")]
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);

/// Folder of compiled modules for one engine.
#[derive(Debug)]
pub(super) struct ModuleCache {
    folder: Folder,
    key: [u8; KEY_BYTES],
    /// Hash of what an entry depends on in addition to its module, as far as the compiler knows it.
    #[cfg(feature = "compiler")]
    engine: String,
}

impl ModuleCache {
    /// Opens the cache in `folder`, which is created if it does not exist.
    ///
    /// # Errors
    /// The operating system's error. Also an error if the folder belongs to another user, or if
    /// others can write to it or to a folder above it.
    pub(super) fn open(folder: &Path, engine: &Engine) -> io::Result<Self> {
        let folder = open_private(folder)?;
        #[cfg(not(feature = "compiler"))]
        let _ = engine;
        Ok(Self {
            key: read_or_create_key(&folder)?,
            folder,
            #[cfg(feature = "compiler")]
            engine: engine_text(engine),
        })
    }

    /// Returns the compiled forms of a module that match their seals. Loading one checks that it is
    /// for this engine and machine.
    pub(super) fn read_all(&self, sha256: &str) -> Vec<CompiledModule> {
        #[cfg(feature = "compiler")]
        let names = [self.name(sha256)];
        #[cfg(not(feature = "compiler"))]
        let names = {
            let is_entry =
                |name: &str| name.starts_with(&prefix(sha256)) && name.ends_with(ENTRY_SUFFIX);
            let entries = self.folder.entries().unwrap_or_default();
            let names = entries
                .into_iter()
                .filter_map(|(name, _)| name.into_string().ok());
            names.filter(move |name| is_entry(name))
        };
        names
            .into_iter()
            .filter_map(|name| self.read_entry(&name))
            .collect()
    }

    fn read_entry(&self, name: &str) -> Option<CompiledModule> {
        let mut file = self.folder.open_file(name).ok()?;
        let mut seal_file = self.folder.open_file(&*seal_name(name)).ok()?;
        let mut seal = [0; 2 * DIGEST_BYTES];
        seal_file.read_exact(&mut seal).ok()?;
        let (of_contents, of_identity) = seal.split_at(DIGEST_BYTES);
        let identity = FileIdentity::of(&file.metadata().ok()?);
        let large = identity.filter(|identity| identity.bytes >= LARGE_BYTES);
        let known = large
            .filter(|identity| is_same(of_identity, self.identity_digest(name, Some(identity))));
        let code = if let Some(identity) = known {
            CompiledModule::File(CacheFile {
                name: name.into(),
                file: Arc::new(file),
                identity,
            })
        } else {
            let mut code = Vec::new();
            file.read_to_end(&mut code).ok()?;
            if !is_same(of_contents, self.digest(name, &code)) {
                return None;
            }
            // The contents are intact but the file is another one, for example because it was
            // copied. Seal its new identity, so that it need not be read again.
            if large.is_some() {
                let _ = self.write_seal(name, &code, identity.as_ref());
            }
            CompiledModule::Memory(code.into())
        };
        // The time of the seal is the time of the last use, by which entries are removed when the
        // cache is full.
        let _ = seal_file.set_modified(SystemTime::now());
        Some(code)
    }

    /// Stores the compiled form of a module. Errors are ignored, since a cache that cannot be
    /// written only makes the program slower.
    #[cfg(feature = "compiler")]
    pub(super) fn write(&self, sha256: &str, code: &[u8]) {
        let written = (|| {
            let name = self.name(sha256);
            let mut new = self.folder.create_file(NEW_PREFIX, NEW_MODE)?;
            new.file.write_all(code)?;
            if code.len() as u64 >= LARGE_BYTES {
                // A power failure could lose the contents of the file and keep its identity.
                new.file.sync_all()?;
            }
            let file = new.persist(&*name)?;
            // Write the seal last: without one, the entry counts as missing.
            self.write_seal(&name, code, FileIdentity::of(&file.metadata()?).as_ref())?;
            self.remove_oldest(MAX_BYTES)
        })();
        let _: io::Result<()> = written;
    }

    fn write_seal(
        &self,
        name: &str,
        code: &[u8],
        identity: Option<&FileIdentity>,
    ) -> io::Result<()> {
        let of_identity = self.identity_digest(name, identity);
        let seal = [
            self.digest(name, code).as_bytes().as_slice(),
            of_identity.as_bytes(),
        ]
        .concat();
        self.write_file(&seal_name(name), &seal)
    }

    /// Waits for the lock that belongs to a key, so that only one of several runs writes an entry.
    ///
    /// Returns `None` if `gives_up` returns true meanwhile, or if files cannot be locked here. Two
    /// runs may then write the same entry, which is wasteful but harmless.
    #[cfg(feature = "compiler")]
    pub(super) fn lock(&self, key: &str, gives_up: &mut dyn FnMut() -> bool) -> Option<File> {
        use rustix::fs::FlockOperation::NonBlockingLockExclusive;
        use rustix::io::Errno;

        const POLL: Duration = Duration::from_millis(20);
        // A lock file is never removed, since another run may wait for it. Keys share a few of
        // them.
        let index = blake3::hash(key.as_bytes()).as_bytes()[0] % N_LOCKS;
        let name = format!("lock-{index}");
        let file = match self.folder.open_file(&*name) {
            Ok(file) => file,
            Err(_) => {
                let new = self.folder.create_file(NEW_PREFIX, NEW_MODE).ok()?;
                // Another run may be first.
                let _ = new.persist_new(&*name);
                self.folder.open_file(&*name).ok()?
            }
        };
        loop {
            match rustix::fs::flock(&file, NonBlockingLockExclusive) {
                Ok(()) => return Some(file),
                Err(Errno::WOULDBLOCK | Errno::INTR) if !gives_up() => std::thread::sleep(POLL),
                Err(_) => return None,
            }
        }
    }

    /// Reads at most `max_bytes` bytes of a file.
    pub(super) fn read_file(&self, name: &str, max_bytes: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.folder
            .open_file(name)?
            .take(max_bytes)
            .read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    pub(super) fn write_file(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut new = self.folder.create_file(NEW_PREFIX, NEW_MODE)?;
        new.file.write_all(bytes)?;
        new.persist(name).map(drop)
    }

    pub(super) fn identity_digest(
        &self,
        name: &str,
        identity: Option<&FileIdentity>,
    ) -> blake3::Hash {
        self.digest(name, format!("{identity:?}").as_bytes())
    }

    /// Returns the name of the entry of a module.
    #[cfg(feature = "compiler")]
    fn name(&self, sha256: &str) -> String {
        format!("{}{}{ENTRY_SUFFIX}", prefix(sha256), self.engine)
    }

    /// Returns the keyed digest of a file of the cache with these contents.
    pub(super) fn digest(&self, name: &str, contents: &[u8]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(blake3::hash(name.as_bytes()).as_bytes());
        hasher.update(contents);
        hasher.finalize()
    }

    /// Removes the least recently used entries until the others fit, and files that killed
    /// processes have left behind.
    #[cfg(feature = "compiler")]
    fn remove_oldest(&self, max_bytes: u64) -> io::Result<()> {
        let mut entries = Vec::new();
        for (name, _) in self.folder.entries()? {
            let Some(name) = name.to_str() else { continue };
            if name.ends_with(ENTRY_SUFFIX) {
                // Another process may remove entries at the same time.
                let Some((written, bytes)) = if_present(self.time_and_bytes(name))? else {
                    continue;
                };
                // An entry that is being written has no seal yet.
                let used = self
                    .time_and_bytes(&seal_name(name))
                    .map_or(written, |(used, _)| used);
                entries.push((used, bytes, name.to_owned()));
            } else if name.starts_with(NEW_PREFIX) {
                let Some((written, _)) = if_present(self.time_and_bytes(name))? else {
                    continue;
                };
                if SystemTime::now()
                    .duration_since(written)
                    .is_ok_and(|age| age > ABANDONED)
                {
                    if_present(self.folder.remove_file(name))?;
                }
            }
        }
        entries.sort();
        let mut total: u64 = entries.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, bytes, name) in entries {
            if total <= max_bytes {
                break;
            }
            if_present(self.folder.remove_file(&name))?;
            // A seal without its entry is useless, but it does no harm.
            let _ = self.folder.remove_file(&*seal_name(&name));
            total -= bytes;
        }
        Ok(())
    }

    /// Returns the time at which a file was last written, and its size.
    #[cfg(feature = "compiler")]
    fn time_and_bytes(&self, name: &str) -> io::Result<(SystemTime, u64)> {
        let stat = rustix::fs::statat(&self.folder, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
        let seconds = u64::try_from(stat.st_mtime).unwrap_or(0);
        Ok((
            UNIX_EPOCH + Duration::from_secs(seconds),
            u64::try_from(stat.st_size).unwrap_or(0),
        ))
    }
}

/// Returns `None` instead of the error that a file does not exist.
#[cfg(feature = "compiler")]
fn if_present<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(err) => Err(err),
    }
}

/// Returns the name of the seal of an entry.
fn seal_name(entry: &str) -> String {
    format!(
        "{}.{SEAL_SUFFIX}",
        entry.strip_suffix(ENTRY_SUFFIX).unwrap_or(entry)
    )
}

/// Compares digests in constant time.
pub(super) fn is_same(digest: &[u8], expected: blake3::Hash) -> bool {
    digest
        .try_into()
        .is_ok_and(|digest: [u8; DIGEST_BYTES]| blake3::Hash::from_bytes(digest) == expected)
}

/// Returns the prefix of the names of a module's entries.
fn prefix(sha256: &str) -> String {
    format!("{}-", blake3::hash(sha256.as_bytes()).to_hex())
}

/// Returns a hash of the version and settings of the engine and of the processor, as far as
/// compiled code depends on them.
#[cfg(feature = "compiler")]
fn engine_text(engine: &Engine) -> String {
    use std::hash::{Hash, Hasher};
    // The same program computes the same hash. Another program may compute another one, which only
    // causes a cache miss.
    let mut hasher = std::hash::DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// Reads the key of the cache, or creates one. A new key invalidates all older entries.
fn read_or_create_key(folder: &Folder) -> io::Result<[u8; KEY_BYTES]> {
    let read = || -> io::Result<[u8; KEY_BYTES]> {
        let mut key = [0; KEY_BYTES];
        folder.open_file(KEY_FILE)?.read_exact(&mut key)?;
        Ok(key)
    };
    if let Ok(key) = read() {
        return Ok(key);
    }
    let mut key = [0; KEY_BYTES];
    getrandom::fill(&mut key).map_err(io::Error::other)?;
    let mut new = folder.create_file(NEW_PREFIX, NEW_MODE)?;
    new.file.write_all(&key)?;
    match new.persist_new(KEY_FILE) {
        Ok(()) => Ok(key),
        // Another process was first, or the existing file does not contain a key.
        Err(err) if err.kind() == io::ErrorKind::AlreadyExists => read().or_else(|_| {
            folder.remove_file(KEY_FILE)?;
            read_or_create_key(folder)
        }),
        Err(err) => Err(err),
    }
}

#[cfg(all(test, unix, feature = "compiler"))]
mod tests {
    const NOTHING: [Vec<u8>; 0] = [];

    use std::fs::{self, File};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn cache(folder: &Path) -> ModuleCache {
        ModuleCache::open(folder, &Engine::default()).expect("a cache")
    }

    fn read(folder: &Path, sha256: &str) -> Vec<Vec<u8>> {
        let entries = cache(folder).read_all(sha256);
        entries
            .iter()
            .map(|entry| entry.bytes().expect("read").into_owned())
            .collect()
    }

    #[test]
    fn an_entry_is_read_back_as_it_was_written_or_not_at_all() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("modules");
        let code = b"native code".to_vec();
        cache(&path).write("a", &code);
        assert_eq!(read(&path, "a"), std::slice::from_ref(&code));
        assert_eq!(read(&path, "b"), NOTHING);

        let entry = cache(&path).name("a");
        for file in [path.join(&entry), path.join(seal_name(&entry))] {
            let bytes = fs::read(&file).expect("an entry");
            for index in 0..bytes.len().min(DIGEST_BYTES) {
                let mut changed = bytes.clone();
                changed[index] ^= 1;
                fs::write(&file, changed).expect("written");
                assert_eq!(read(&path, "a"), NOTHING, "byte {index}");
            }
            fs::write(&file, &bytes[..bytes.len() - 1]).expect("written");
            assert_eq!(read(&path, "a"), NOTHING);
            fs::write(&file, &bytes).expect("written");
        }
        for suffix in ["compiled", SEAL_SUFFIX] {
            let of = |name: &str| path.join(cache(&path).name(name)).with_extension(suffix);
            fs::copy(of("a"), of("b")).expect("copied");
        }
        assert_eq!(
            read(&path, "b"),
            NOTHING,
            "another module's entry under this name"
        );
        assert_eq!(read(&path, "a"), [code]);
        fs::write(path.join(KEY_FILE), "short").expect("written");
        assert_eq!(read(&path, "a"), NOTHING, "another key");
    }

    #[test]
    fn a_large_entry_is_not_read_while_it_is_the_same_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("modules");
        let code = vec![7; LARGE_BYTES as usize];
        cache(&path).write("a", &code);
        let is_mapped = || matches!(cache(&path).read_all("a")[..], [CompiledModule::File(_)]);
        assert!(is_mapped() && is_mapped());
        // The same bytes in another file are read once, and then known by their new identity.
        let entry = path.join(cache(&path).name("a"));
        fs::copy(&entry, folder.path().join("copy")).expect("copied");
        fs::rename(folder.path().join("copy"), &entry).expect("moved");
        assert!(matches!(
            cache(&path).read_all("a")[..],
            [CompiledModule::Memory(_)]
        ));
        assert!(is_mapped());
        // An entry with other bytes is refused, even if the file gets its old time back.
        let times = fs::metadata(&entry)
            .expect("there")
            .modified()
            .expect("a time");
        let mut changed = code;
        changed[9] ^= 1;
        fs::write(&entry, changed).expect("written");
        File::open(&entry)
            .and_then(|file| file.set_modified(times))
            .expect("changed");
        assert_eq!(read(&path, "a"), NOTHING);
    }

    #[test]
    fn a_folder_that_others_can_reach_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("modules");
        cache(&path);
        for mode in [0o770, 0o707, 0o750] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("changed");
            assert!(
                ModuleCache::open(&path, &Engine::default()).is_err(),
                "{mode:o}"
            );
        }
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).expect("made");
        assert!(ModuleCache::open(&link, &Engine::default()).is_err());
    }

    #[test]
    fn the_oldest_entries_go_first_and_what_was_left_too() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("modules");
        let cache = cache(&path);
        let seal = |name: &str| path.join(seal_name(&cache.name(name)));
        let make_old = |path: &Path, age: Duration| {
            File::open(path)
                .and_then(|file| file.set_modified(SystemTime::now() - age))
                .expect("changed");
        };
        for (age, name) in ["a", "b", "c"].iter().rev().enumerate() {
            cache.write(name, &[0; 100]);
            make_old(&seal(name), Duration::from_secs(60 * age as u64));
        }
        for (name, age) in [(".new-old", 2 * ABANDONED), (".new-now", Duration::ZERO)] {
            fs::write(path.join(name), "part").expect("written");
            make_old(&path.join(name), age);
        }
        cache.remove_oldest(200).expect("removed");
        assert_eq!(
            ["a", "b", "c"].map(|name| path.join(cache.name(name)).exists()),
            [false, true, true]
        );
        assert_eq!(
            ["a", "b", "c"].map(|name| seal(name).exists()),
            [false, true, true]
        );
        assert_eq!(
            [".new-old", ".new-now"].map(|name| path.join(name).exists()),
            [false, true]
        );
    }

    /// Checks that a cache keeps using the folder that it has opened, even if another folder takes
    /// its path.
    #[test]
    fn everything_uses_the_folder_that_was_opened() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("modules");
        let opened = cache(&path);
        let code = vec![7; LARGE_BYTES as usize];
        opened.write("a", &code);
        let entries = opened.read_all("a");
        fs::rename(&path, folder.path().join("moved")).expect("moved");
        fs::create_dir(&path).expect("made");
        assert!(matches!(entries[..], [CompiledModule::File(_)]));
        assert_eq!(entries[0].bytes().expect("read"), code);
        assert_eq!(opened.read_all("a").len(), 1);
        opened.write("b", b"native code");
        assert_eq!(fs::read_dir(&path).expect("a folder").count(), 0);
        assert!(folder.path().join("moved").join(opened.name("b")).exists());
    }
}
