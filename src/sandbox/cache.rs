//! Compiled modules on disk.
//!
//! What is read back is native code that runs outside the sandbox. So the folder must be the user's own and closed to
//! others, and beside every entry is its seal: a keyed digest of its name and its contents. An entry that was changed,
//! moved or cut short is no entry, and the module is compiled again. Nothing that a workflow names ever gets here.
//!
//! Large entries are not read, which would take longer than to start what is in them: their seal has a second digest,
//! of the file's identity, and while that is the same the contents are those that were sealed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use wasmtime::Engine;

use super::compile::{CacheFile, CompiledModule};
use crate::workflow::FileIdentity;

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

/// A folder of compiled modules for one engine.
#[derive(Debug)]
pub(super) struct ModuleCache {
    pub(super) folder: PathBuf,
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
    pub(super) fn read_all(&self, sha256: &str) -> Vec<CompiledModule> {
        #[cfg(feature = "compiler")]
        let paths = [self.path(sha256)];
        #[cfg(not(feature = "compiler"))]
        let paths = {
            let is_entry = |name: &str| name.starts_with(&prefix(sha256)) && name.ends_with(ENTRY_SUFFIX);
            let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
            entries
                .map(|entry| entry.path())
                .filter(move |path| path.file_name().is_some_and(|name| is_entry(&name.to_string_lossy())))
        };
        paths.into_iter().filter_map(|path| self.read_entry(&path)).collect()
    }

    fn read_entry(&self, path: &Path) -> Option<CompiledModule> {
        let mut file = open_private_file(path).ok()?;
        let mut seal_file = open_private_file(&seal_path(path)).ok()?;
        let mut seal = [0; 2 * DIGEST_BYTES];
        seal_file.read_exact(&mut seal).ok()?;
        let (of_contents, of_identity) = seal.split_at(DIGEST_BYTES);
        let identity = FileIdentity::of(&file.metadata().ok()?);
        let large = identity.filter(|identity| identity.bytes >= LARGE_BYTES);
        let known = large.filter(|identity| is_same(of_identity, self.identity_digest(path, Some(identity))));
        let code = if let Some(identity) = known {
            CompiledModule::File(CacheFile { path: path.into(), file: Arc::new(file), identity })
        } else {
            let mut code = Vec::new();
            file.read_to_end(&mut code).ok()?;
            if !is_same(of_contents, self.digest(path, &code)) {
                return None;
            }
            // It was copied here, say, and is as good as new.
            if large.is_some() {
                let _ = self.write_seal(path, &code, identity.as_ref());
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
            let path = self.path(sha256);
            let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(&self.folder)?;
            file.write_all(code)?;
            if code.len() as u64 >= LARGE_BYTES {
                // Its identity stays when its contents are lost with the machine's power.
                file.as_file().sync_all()?;
            }
            let file = file.persist(&path).map_err(|err| err.error)?;
            self.write_seal(&path, code, FileIdentity::of(&file.metadata()?).as_ref())?;
            self.remove_oldest(MAX_BYTES)
        })();
        let _: io::Result<()> = written;
    }

    fn write_seal(&self, path: &Path, code: &[u8], identity: Option<&FileIdentity>) -> io::Result<()> {
        let of_identity = self.identity_digest(path, identity);
        let seal = [self.digest(path, code).as_bytes().as_slice(), of_identity.as_bytes()].concat();
        self.write_file(&seal_path(path), &seal)
    }

    pub(super) fn write_file(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(&self.folder)?;
        file.write_all(bytes)?;
        file.persist(path).map_err(|err| err.error)?;
        Ok(())
    }

    pub(super) fn identity_digest(&self, path: &Path, identity: Option<&FileIdentity>) -> blake3::Hash {
        self.digest(path, format!("{identity:?}").as_bytes())
    }

    #[cfg(feature = "compiler")]
    fn path(&self, sha256: &str) -> PathBuf {
        self.folder.join(format!("{}{}{ENTRY_SUFFIX}", prefix(sha256), self.engine))
    }

    pub(super) fn digest(&self, path: &Path, code: &[u8]) -> blake3::Hash {
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
                // An entry that is being written has no seal yet.
                let used = seal_path(&entry.path()).metadata().or_else(|_| entry.metadata())?.modified()?;
                entries.push((used, entry.metadata()?.len(), entry.path()));
            }
        }
        entries.sort();
        let mut total: u64 = entries.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, bytes, path) in entries {
            if total <= max_bytes {
                break;
            }
            fs::remove_file(&path)?;
            // Without its entry it is of no use, and of no harm.
            let _ = fs::remove_file(seal_path(&path));
            total -= bytes;
        }
        Ok(())
    }
}

fn seal_path(entry: &Path) -> PathBuf {
    entry.with_extension(SEAL_SUFFIX)
}

/// Compares in the same time whatever differs.
pub(super) fn is_same(digest: &[u8], expected: blake3::Hash) -> bool {
    digest.try_into().is_ok_and(|digest: [u8; DIGEST_BYTES]| blake3::Hash::from_bytes(digest) == expected)
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

pub(super) fn open_private_file(path: &Path) -> io::Result<File> {
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

    fn read(folder: &Path, sha256: &str) -> Vec<Vec<u8>> {
        let entries = cache(folder).read_all(sha256);
        entries.iter().map(|entry| entry.bytes().expect("read").into_owned()).collect()
    }

    #[test]
    fn an_entry_is_read_back_as_it_was_written_or_not_at_all() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("modules");
        let code = b"native code".to_vec();
        cache(&path).write("a", &code);
        assert_eq!(read(&path, "a"), std::slice::from_ref(&code));
        assert_eq!(read(&path, "b"), NOTHING);

        let entry = cache(&path).path("a");
        for file in [entry.clone(), seal_path(&entry)] {
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
            let of = |name: &str| cache(&path).path(name).with_extension(suffix);
            fs::copy(of("a"), of("b")).expect("copied");
        }
        assert_eq!(read(&path, "b"), NOTHING, "another module's entry under this name");
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
        let entry = cache(&path).path("a");
        fs::copy(&entry, folder.path().join("copy")).expect("copied");
        fs::rename(folder.path().join("copy"), &entry).expect("moved");
        assert!(matches!(cache(&path).read_all("a")[..], [CompiledModule::Memory(_)]));
        assert!(is_mapped());
        // Other bytes are no entry, whatever times the file is given.
        let times = fs::metadata(&entry).expect("there").modified().expect("a time");
        let mut changed = code;
        changed[9] ^= 1;
        fs::write(&entry, changed).expect("written");
        File::open(&entry).and_then(|file| file.set_modified(times)).expect("changed");
        assert_eq!(read(&path, "a"), NOTHING);
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
            File::open(seal_path(&cache.path(name))).and_then(|file| file.set_modified(time)).expect("changed");
        }
        cache.remove_oldest(200).expect("removed");
        let there = |path: PathBuf| path.exists();
        assert_eq!(["a", "b", "c"].map(|name| there(cache.path(name))), [false, true, true]);
        assert_eq!(["a", "b", "c"].map(|name| there(seal_path(&cache.path(name)))), [false, true, true]);
    }
}
