//! Digests of known module files, with which a large module is found in the cache without reading
//! its file.

use std::path::Path;

use super::cache::{DIGEST_BYTES, ModuleCache, is_same};
use super::engine::Sandbox;
use crate::model::{FileIdentity, ModuleFile, ModuleKind};

/// Suffix of a file that stores the digest of a module file.
const SUFFIX: &str = ".module";
/// Number of characters of a module's digest.
const SHA256_CHARS: usize = 64;

impl Sandbox {
    /// Prepares a module without reading its file, if the cache knows the file and contains the
    /// code. Also returns the digest of the module.
    ///
    /// * `max_bytes`: maximum size of the file.
    pub fn prepare_unchanged(&self, path: &Path, max_bytes: u64) -> Option<(String, ModuleKind)> {
        let sha256 = self.known_digest(path, max_bytes)?;
        let kind = self.adopt_cached(&sha256)?;
        Some((sha256, kind))
    }

    /// Returns the digest of the module in a file, if the cache knows the file.
    pub(crate) fn known_digest(&self, path: &Path, max_bytes: u64) -> Option<String> {
        let identity =
            FileIdentity::of_file(path).filter(|identity| identity.bytes <= max_bytes)?;
        self.cache()?.digest_of(path, &identity)
    }

    /// Stores which module a file contains, for [`Self::prepare_unchanged`].
    pub fn keep_file(&self, module: &ModuleFile) {
        if let (Some(cache), Some(identity)) = (self.cache(), &module.identity) {
            cache.keep_digest(&module.path, identity, &module.sha256);
        }
    }
}

impl ModuleCache {
    /// Returns the digest of the module in a file, if it was stored for the file with this
    /// identity.
    fn digest_of(&self, path: &Path, identity: &FileIdentity) -> Option<String> {
        let known = module_name(path)?;
        let text = self.read_file(&known, 1024).ok()?;
        let (seal, sha256) = text.split_at_checked(DIGEST_BYTES)?;
        let sha256 = std::str::from_utf8(sha256)
            .ok()
            .filter(|sha256| sha256.len() == SHA256_CHARS)?;
        is_same(seal, self.module_digest(&known, identity, sha256)).then(|| sha256.to_owned())
    }

    /// Stores the digest of the module in a file.
    fn keep_digest(&self, path: &Path, identity: &FileIdentity, sha256: &str) {
        let Some(known) = module_name(path) else {
            return;
        };
        let seal = self.module_digest(&known, identity, sha256);
        // Ignore errors: a digest that is not stored is computed again.
        let _ = self.write_file(
            &known,
            &[seal.as_bytes().as_slice(), sha256.as_bytes()].concat(),
        );
    }

    fn module_digest(&self, known: &str, identity: &FileIdentity, sha256: &str) -> blake3::Hash {
        let identity = self.identity_digest(known, Some(identity));
        self.digest(
            known,
            &[identity.as_bytes().as_slice(), sha256.as_bytes()].concat(),
        )
    }
}

/// Returns the name of the file that stores the digest of a module file.
fn module_name(path: &Path) -> Option<String> {
    let path = std::path::absolute(path).ok()?;
    Some(format!(
        "{}{SUFFIX}",
        blake3::hash(path.as_os_str().as_encoded_bytes()).to_hex()
    ))
}

#[cfg(all(test, unix))]
mod tests {
    use std::fs;

    use super::*;

    fn cache(folder: &Path) -> ModuleCache {
        ModuleCache::open(folder, &wasmtime::Engine::default()).expect("a cache")
    }

    #[test]
    fn a_modules_digest_is_known_while_it_is_the_same_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("modules");
        let module = folder.path().join("m.wasm");
        let sha256 = "a".repeat(SHA256_CHARS);
        fs::write(&module, "module").expect("written");
        let identity = || FileIdentity::of_file(&module).expect("there");
        let known = || cache(&path).digest_of(&module, &identity());
        assert_eq!(known(), None);
        cache(&path).keep_digest(&module, &identity(), &sha256);
        assert_eq!(known(), Some(sha256));
        let entry = path.join(module_name(&module).expect("a name"));
        let mut bytes = fs::read(&entry).expect("there");
        *bytes.last_mut().expect("a byte") ^= 1;
        fs::write(&entry, bytes).expect("written");
        assert_eq!(known(), None, "another digest than was kept");
        cache(&path).keep_digest(&module, &identity(), &"b".repeat(SHA256_CHARS));
        assert!(known().is_some());
        fs::write(&module, "modulE+").expect("written");
        assert_eq!(known(), None, "another file");
    }
}
