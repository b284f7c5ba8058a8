//! Snapshots: a guest is started once, without a call's data, and each call starts from its memory.
//!
//! A snapshot consists of two modules. The code is the guest's module with an imported memory
//! (`split`). The image is a module that contains only a memory and the values of the globals
//! (`image`). wasmtime maps the memory of the image copy-on-write, so a call pays only for pages
//! that it changes. `init` runs the start of the guest, `instance` starts a call, `kept` starts the
//! next one in the same instance, and `mounts` computes the digest of the files that the start
//! could read.

mod image;
mod init;
mod instance;
mod kept;
mod mounts;
mod split;
#[cfg(feature = "cli")]
mod whole;

use std::fs::File;
use std::sync::{MutexGuard, TryLockError};
use std::time::Duration;

use super::compile::{CompiledModule, compile, is_small};
use super::engine::Sandbox;
use super::precompiled::ModuleForm;
use crate::model::{Grant, ModuleFile, ModuleKind};

pub(super) use image::check_image;
pub(super) use instance::{Snapshot, SnapshotCode};
pub(super) use kept::{InstanceParts, KeptInstance, PageMap};
pub(super) use split::{SplitModule, offers_snapshot};

/// Version of the form of snapshots, which their keys depend on.
const FORM: u32 = 1;
/// Names of the import of the memory in the code of a snapshot.
const MEMORY_MODULE: &str = "mandelbox:snapshot";
const MEMORY: &str = "memory";
/// Export that prepares the libraries of a guest, if it exists.
const INITIALIZE: &str = "_initialize";
/// Export that starts a guest without a call's data. Guests that were built for wizer have it.
const WIZER_INITIALIZE: &str = "wizer.initialize";
/// Entries of commands, and of modules that return an exit code.
const START: &str = "_start";
const RUN: &str = "run";
/// Exports that a call can run, in the order of preference. `wizer.resume` is the entry of commands
/// that were built with wizer's header: their `_start` would start the libraries again.
const ENTRIES: [(&str, Signature); 3] = [
    ("wizer.resume", Signature::Plain),
    (START, Signature::Plain),
    (RUN, Signature::ExitCode),
];

/// Type of an exported function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signature {
    /// Neither parameters nor results.
    Plain,
    /// No parameters, and an exit code as the result.
    ExitCode,
    Other,
}

/// Key of the code of a module's snapshots in a sandbox.
fn code_key(module_sha256: &str) -> String {
    format!("snapshot {FORM} code of {module_sha256}")
}

impl Sandbox {
    /// Prepares a module for snapshots, like [`Self::prepare_with`] prepares it for plain calls.
    ///
    /// * `compile`: compiles the code, which is a module without data.
    ///
    /// # Errors
    /// A sentence for the user: the module cannot be called, or no snapshot of it is possible.
    pub(crate) fn prepare_snapshots_with(
        &self,
        module: &ModuleFile,
        compile: impl FnOnce(&ModuleFile) -> Result<CompiledModule, String>,
    ) -> Result<ModuleKind, String> {
        if let Some(kind) = self.prepare_snapshots_unchanged(&module.sha256) {
            return Ok(kind);
        }
        self.refuse_at_once(module)?;
        if module.bytes.get(4..8) != Some(&[1, 0, 0, 0]) {
            return Err("a snapshot of it is not possible: it is not a core module".to_owned());
        }
        // A large module was validated a line before. An invalid one gets the message of the
        // compiler, which gives better advice.
        if is_small(module) {
            super::features::validate(&module.bytes)
                .map_err(|err| super::compile::why_invalid(&module.bytes, &err))?;
        }
        let code = SplitModule::read(&module.bytes)?.code()?;
        let key = code_key(&module.sha256);
        let compiled = compile(&ModuleFile {
            path: module.path.clone(),
            sha256: key.clone(),
            bytes: code.into(),
            identity: None,
        })?;
        #[expect(unsafe_code, reason = "the code was compiled a line before")]
        // SAFETY: this program has just compiled the code, here or in a child process.
        let kind = unsafe {
            self.load(
                &key,
                compiled,
                &ModuleForm::SnapshotCode,
                "needs more than a call may have",
            )?
        };
        self.note_unsaved(key);
        Ok(kind)
    }

    /// Prepares a module for snapshots if its code is in memory or in the cache.
    pub(crate) fn prepare_snapshots_unchanged(&self, module_sha256: &str) -> Option<ModuleKind> {
        let key = code_key(module_sha256);
        match self.prepared(&key) {
            Some(known) => Some(known.kind()),
            None => self.adopt_cached_as(&key, &ModuleForm::SnapshotCode),
        }
    }

    /// Returns the key of the snapshot of a module for these mounts.
    ///
    /// # Errors
    /// A sentence for the user if a file cannot be read, or if there are too many files.
    pub(crate) fn snapshot_key(
        &self,
        module_sha256: &str,
        mounts: &[Grant],
    ) -> Result<String, String> {
        let files = mounts::digest(mounts, self.cache())?;
        let text = format!("{module_sha256} {}", files.to_hex());
        Ok(format!(
            "snapshot {FORM} {}",
            blake3::hash(text.as_bytes()).to_hex()
        ))
    }

    /// Returns the size of the memory of a snapshot in bytes, if it is in memory or in the cache.
    pub(crate) fn find_snapshot(&self, key: &str, module_sha256: &str) -> Option<u64> {
        if self.prepared(key).is_none() {
            self.adopt_cached_as(key, &ModuleForm::SnapshotImage(code_key(module_sha256)))?;
        }
        Some(self.prepared(key)?.snapshot_bytes())
    }

    /// Prepares the memory with which a module starts, from which its initialization runs.
    ///
    /// Returns the key of the snapshot, for [`Self::forget`].
    ///
    /// # Errors
    /// A sentence for the user.
    pub(crate) fn prepare_initial_image(&self, module: &ModuleFile) -> Result<String, String> {
        let key = format!("snapshot {FORM} start of {}", module.sha256);
        let image = SplitModule::read_checked(&module.bytes)?.initial_image();
        self.compile_image(&key, &module.sha256, image)?;
        Ok(key)
    }

    /// Prepares a snapshot from the image that the initialization has left, and writes it to the
    /// cache.
    ///
    /// * `max_bytes`: memory limit of the initialization.
    ///
    /// # Errors
    /// A sentence for the user.
    pub(crate) fn prepare_image(
        &self,
        key: &str,
        module_sha256: &str,
        image: Vec<u8>,
        max_bytes: u64,
    ) -> Result<u64, String> {
        check_image(&image, max_bytes)?;
        let compiled = self.compile_image(key, module_sha256, image)?;
        if let (Some(cache), CompiledModule::Memory(code)) = (self.cache(), &compiled) {
            cache.write(key, code);
            // A file of the cache is mapped, and shared with the other processes that use it.
            let _ = self.adopt_cached_as(key, &ModuleForm::SnapshotImage(code_key(module_sha256)));
        }
        self.find_snapshot(key, module_sha256)
            .ok_or_else(|| "the snapshot was not prepared".to_owned())
    }

    /// Returns a module as a command that starts with the memory of an image.
    ///
    /// * `max_bytes`: memory limit of the initialization.
    ///
    /// # Errors
    /// A sentence for the user.
    #[cfg(feature = "cli")]
    pub(crate) fn whole_module(
        &self,
        module: &ModuleFile,
        image: &[u8],
        max_bytes: u64,
    ) -> Result<Vec<u8>, String> {
        check_image(image, max_bytes)?;
        let whole = SplitModule::read_checked(&module.bytes)?.whole(image)?;
        super::features::validate(&whole)
            .map_err(|err| super::compile::why_invalid(&whole, &err))?;
        Ok(whole)
    }

    fn compile_image(
        &self,
        key: &str,
        module_sha256: &str,
        image: Vec<u8>,
    ) -> Result<CompiledModule, String> {
        let module = ModuleFile {
            path: "image".into(),
            sha256: key.to_owned(),
            bytes: image.into(),
            identity: None,
        };
        // Data is only copied, so this is quick whatever the limit for compiling is.
        let compiled = compile(&self.engine, &module, Duration::MAX)?;
        #[expect(unsafe_code, reason = "the image was compiled a line before")]
        // SAFETY: this program has just compiled the image.
        unsafe {
            let form = ModuleForm::SnapshotImage(code_key(module_sha256));
            self.load(key, compiled.clone(), &form, "cannot be loaded")?;
        }
        Ok(compiled)
    }

    /// Waits until no other thread makes a snapshot, and no other run one with this key in the same
    /// cache. Whoever holds the returned lock makes the snapshot. `None` if `gives_up` returned
    /// true.
    pub(crate) fn lock_snapshot(
        &self,
        key: &str,
        mut gives_up: impl FnMut() -> bool,
    ) -> Option<SnapshotLock<'_>> {
        const POLL: Duration = Duration::from_millis(20);
        let own = loop {
            match self.making_snapshot.try_lock() {
                Ok(own) => break own,
                Err(TryLockError::Poisoned(own)) => break own.into_inner(),
                Err(TryLockError::WouldBlock) if gives_up() => return None,
                Err(TryLockError::WouldBlock) => std::thread::sleep(POLL),
            }
        };
        let file = self
            .cache()
            .and_then(|cache| cache.lock(key, &mut gives_up));
        Some(SnapshotLock {
            _file: file,
            _own: own,
        })
    }
}

/// Right to make a snapshot, until it is dropped.
pub(crate) struct SnapshotLock<'s> {
    _file: Option<File>,
    _own: MutexGuard<'s, ()>,
}

/// Returns true if a module offers the initialization that a snapshot needs, and the reason if a
/// snapshot is not possible all the same.
pub(super) fn inspect(bytes: &[u8]) -> Option<Result<&'static str, String>> {
    offers_snapshot(bytes).then(|| SplitModule::read(bytes).map(|module| module.entry))
}
