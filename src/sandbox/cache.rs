//! Compiled modules on disk.
//!
//! What is read back is native code that runs outside the sandbox. So the folder must be the user's
//! own and closed to others, as must be those above it to be replaced; it is opened once, and all
//! that is read and written goes by its descriptor. Beside every entry is its seal: a keyed digest
//! of its name and its contents. An entry that was changed, moved or cut short is no entry, and the
//! module is compiled again. Nothing that a workflow names ever gets here.
//!
//! Large entries are not read, which would take longer than to start what is in them: their seal
//! has a second digest, of the file's identity, and while that is the same the contents are those
//! that were sealed.

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

/// Bytes of all entries together; the ones not used for longest go first.
#[cfg(feature = "compiler")]
const MAX_BYTES: u64 = 4 << 30;
const KEY_BYTES: usize = blake3::KEY_LEN;
pub(super) const DIGEST_BYTES: usize = blake3::OUT_LEN;
/// Name of the file with the key.
const KEY_FILE: &str = "key";
const ENTRY_SUFFIX: &str = ".compiled";
/// A seal, in place of its entry's suffix.
const SEAL_SUFFIX: &str = "seal";
/// Bytes of an entry from which on reading it takes longer than looking at its identity.
const LARGE_BYTES: u64 = 1 << 20;
/// How names of files begin that are being written, and their mode.
const NEW_PREFIX: &str = ".new-";
const NEW_MODE: u32 = 0o600;
/// Age from which on such a file is left of a process that was killed.
#[cfg(feature = "compiler")]
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);

/// A folder of compiled modules for one engine.
#[derive(Debug)]
pub(super) struct ModuleCache {
    folder: Folder,
    key: [u8; KEY_BYTES],
    /// What an entry depends on beside its module, as far as the compiler knows it.
    #[cfg(feature = "compiler")]
    engine: String,
}

impl ModuleCache {
    /// Opens the cache in `folder`, which is made if it is not there.
    ///
    /// # Errors
    /// The operating system's; also if the folder belongs to somebody else or others can write to
    /// it, or to one above it.
    pub(super) fn open(folder: &Path, engine: &Engine) -> io::Result<Self> {
        let folder = open_private(folder)?;
        #[cfg(not(feature = "compiler"))]
        let _ = engine;
        Ok(Self {
            key: read_or_make_key(&folder)?,
            folder,
            #[cfg(feature = "compiler")]
            engine: engine_text(engine),
        })
    }

    /// The compiled forms of a module that are as they were written; loading one tells whether it
    /// is for this engine and machine.
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
            // It was copied here, say, and is as good as new.
            if large.is_some() {
                let _ = self.write_seal(name, &code, identity.as_ref());
            }
            CompiledModule::Memory(code.into())
        };
        // Only for choosing what goes when the cache is full.
        let _ = seal_file.set_modified(SystemTime::now());
        Some(code)
    }

    /// Keeps the compiled form of a module; a cache that cannot be written is one that is slow.
    #[cfg(feature = "compiler")]
    pub(super) fn write(&self, sha256: &str, code: &[u8]) {
        let written = (|| {
            let name = self.name(sha256);
            let mut new = self.folder.create_file(NEW_PREFIX, NEW_MODE)?;
            new.file.write_all(code)?;
            if code.len() as u64 >= LARGE_BYTES {
                // Its identity stays when its contents are lost with the machine's power.
                new.file.sync_all()?;
            }
            let file = new.persist(&*name)?;
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

    /// Reads a small file, or what it begins with.
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

    /// Name of the entry of a module.
    #[cfg(feature = "compiler")]
    fn name(&self, sha256: &str) -> String {
        format!("{}{}{ENTRY_SUFFIX}", prefix(sha256), self.engine)
    }

    /// The keyed digest of what a file of the cache holds, or should hold.
    pub(super) fn digest(&self, name: &str, contents: &[u8]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(blake3::hash(name.as_bytes()).as_bytes());
        hasher.update(contents);
        hasher.finalize()
    }

    /// Makes room for what is new, and removes what processes that were killed have left.
    #[cfg(feature = "compiler")]
    fn remove_oldest(&self, max_bytes: u64) -> io::Result<()> {
        let mut entries = Vec::new();
        for (name, _) in self.folder.entries()? {
            let Some(name) = name.to_str() else { continue };
            if name.ends_with(ENTRY_SUFFIX) {
                let (written, bytes) = self.time_and_bytes(name)?;
                // An entry that is being written has no seal yet.
                let used = self
                    .time_and_bytes(&seal_name(name))
                    .map_or(written, |(used, _)| used);
                entries.push((used, bytes, name.to_owned()));
            } else if name.starts_with(NEW_PREFIX) {
                let (written, _) = self.time_and_bytes(name)?;
                if SystemTime::now()
                    .duration_since(written)
                    .is_ok_and(|age| age > ABANDONED)
                {
                    self.folder.remove_file(name)?;
                }
            }
        }
        entries.sort();
        let mut total: u64 = entries.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, bytes, name) in entries {
            if total <= max_bytes {
                break;
            }
            self.folder.remove_file(&name)?;
            // Without its entry it is of no use, and of no harm.
            let _ = self.folder.remove_file(&*seal_name(&name));
            total -= bytes;
        }
        Ok(())
    }

    /// When a file was last written, and its size.
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

/// Name of the seal of an entry.
fn seal_name(entry: &str) -> String {
    format!(
        "{}.{SEAL_SUFFIX}",
        entry.strip_suffix(ENTRY_SUFFIX).unwrap_or(entry)
    )
}

/// Compares in the same time whatever differs.
pub(super) fn is_same(digest: &[u8], expected: blake3::Hash) -> bool {
    digest
        .try_into()
        .is_ok_and(|digest: [u8; DIGEST_BYTES]| blake3::Hash::from_bytes(digest) == expected)
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

/// The key of this cache; a new one makes all older entries worthless.
fn read_or_make_key(folder: &Folder) -> io::Result<[u8; KEY_BYTES]> {
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
        // Another process was first, or the file that is there holds no key.
        Err(err) if err.kind() == io::ErrorKind::AlreadyExists => read().or_else(|_| {
            folder.remove_file(KEY_FILE)?;
            read_or_make_key(folder)
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
        // The same bytes in another file are read, and then known again.
        let entry = path.join(cache(&path).name("a"));
        fs::copy(&entry, folder.path().join("copy")).expect("copied");
        fs::rename(folder.path().join("copy"), &entry).expect("moved");
        assert!(matches!(
            cache(&path).read_all("a")[..],
            [CompiledModule::Memory(_)]
        ));
        assert!(is_mapped());
        // Other bytes are no entry, whatever times the file is given.
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

    /// What was opened stays what it is, whatever is put in place of the folder.
    #[test]
    fn all_goes_by_the_folder_that_was_opened() {
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
