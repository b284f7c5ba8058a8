//! Native code from elsewhere: from another process of this program, from the cache of compiled
//! modules, or from an embedder who vouches for it.
#![expect(
    unsafe_code,
    reason = "loading native code, for which each caller vouches"
)]

use std::borrow::Cow;
use std::time::Duration;

use wasmtime::{Engine, Precompiled};

use super::compile::CompiledModule;
use super::engine::Sandbox;
use super::format::ModuleFormat;
use super::module::PreparedModule;
use crate::model::{ModuleFile, ModuleKind};

/// Form of a module that was compiled.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ModuleForm {
    /// Module as its author built it.
    Whole,
    /// Code of the snapshots of a module.
    #[cfg(feature = "compiler")]
    SnapshotCode,
    /// Image of a snapshot, for the code with this key.
    #[cfg(feature = "compiler")]
    SnapshotImage(String),
}

impl ModuleForm {
    /// Returns the key of a module that must be prepared before this one.
    pub(super) fn needs(&self) -> Option<&str> {
        match self {
            #[cfg(feature = "compiler")]
            Self::SnapshotImage(code) => Some(code),
            _ => None,
        }
    }
}

impl Sandbox {
    /// Compiles a module for a program that is built without the compiler; see
    /// [`Self::adopt_precompiled`].
    ///
    /// * `time`: time limit for compiling.
    ///
    /// Returns native code for this machine's architecture and processor, and for sandboxes with
    /// the same settings and the same [`Self::reservation`]. The code is not secret. But whoever
    /// can change it controls the program that adopts it.
    ///
    /// # Errors
    /// A sentence for the user with the reason why the module cannot be called.
    pub fn precompile(&self, module: &ModuleFile, time: Duration) -> Result<Vec<u8>, String> {
        self.prepare(module, time)?;
        let compiled = self
            .compiled(&module.sha256)
            .ok_or("the module was not prepared")?;
        compiled
            .bytes()
            .map(Cow::into_owned)
            .map_err(|err| format!("its compiled code cannot be read: {err}"))
    }

    /// Adopts the code of a module from [`Self::precompile`] instead of compiling it. After that,
    /// the module is prepared.
    ///
    /// * `module`: the module as workflows name it. Only its digest and its format are used.
    /// * `code`: code of the module.
    ///
    /// # Errors
    /// A sentence for the user if `code` is not compiled code, has another format than the module,
    /// or is for another version of mandelbox, another machine or other settings. Also an error if
    /// the module cannot be called.
    ///
    /// # Safety
    /// `code` runs outside the sandbox, with all rights of this program. It must be, byte for byte,
    /// the result of [`Self::precompile`] for this module. The checks find mistakes, not attacks.
    pub unsafe fn adopt_precompiled(
        &self,
        module: &ModuleFile,
        code: &[u8],
    ) -> Result<ModuleKind, String> {
        let format = ModuleFormat::of(&module.bytes)?;
        let of_code = match Engine::detect_precompiled(code) {
            Some(Precompiled::Module) => ModuleFormat::Core,
            Some(Precompiled::Component) => ModuleFormat::Component,
            None => return Err("the given precompiled code is not compiled code".to_owned()),
        };
        if format != of_code {
            return Err(format!(
                "is a {format}, and its precompiled code is that of a {of_code}"
            ));
        }
        // SAFETY: the caller vouches for the code.
        unsafe {
            self.adopt(
                &module.sha256,
                CompiledModule::Memory(code.into()),
                &ModuleForm::Whole,
            )
        }
    }

    /// Adopts the code of a module from the cache, if the cache contains it and it fits.
    pub(super) fn adopt_cached(&self, sha256: &str) -> Option<ModuleKind> {
        self.adopt_cached_as(sha256, &ModuleForm::Whole)
    }

    /// Adopts the code of a module of any form from the cache.
    pub(super) fn adopt_cached_as(&self, sha256: &str, form: &ModuleForm) -> Option<ModuleKind> {
        let codes = self.cache()?.read_all(sha256);
        // SAFETY: the cache returns only what was written to it under the user's key and for this
        // digest, and only compiled modules are written to it. Loading checks the version and the
        // settings.
        codes
            .into_iter()
            .find_map(|code| unsafe { self.adopt(sha256, code, form) }.ok())
    }

    /// Adopts a module that another sandbox has compiled.
    ///
    /// # Safety
    /// `compiled` must be the result of [`Self::compiled`] in a sandbox of this version with the
    /// same settings.
    pub(crate) unsafe fn adopt(
        &self,
        sha256: &str,
        compiled: CompiledModule,
        form: &ModuleForm,
    ) -> Result<ModuleKind, String> {
        // SAFETY: the caller vouches for the code.
        unsafe {
            self.load(
                sha256,
                compiled,
                form,
                "its compiled code does not fit this sandbox",
            )
        }
    }

    /// Loads compiled code and stores the module under its digest.
    ///
    /// * `unfit`: start of the message if the code cannot be loaded.
    ///
    /// # Safety
    /// As for [`Self::adopt`].
    pub(super) unsafe fn load(
        &self,
        sha256: &str,
        compiled: CompiledModule,
        form: &ModuleForm,
        unfit: &str,
    ) -> Result<ModuleKind, String> {
        // SAFETY: the caller vouches for the code.
        let code =
            unsafe { compiled.load(&self.engine) }.map_err(|err| format!("{unfit}: {err:#}"))?;
        let prepared = match form {
            ModuleForm::Whole => PreparedModule::new(&self.engine, &self.linkers, &code)?,
            #[cfg(feature = "compiler")]
            ModuleForm::SnapshotCode => PreparedModule::new_snapshot_code(&self.linkers, &code)?,
            #[cfg(feature = "compiler")]
            ModuleForm::SnapshotImage(of) => {
                let of = self.prepared(of).ok_or("the code was not prepared")?;
                PreparedModule::new_snapshot(&self.linkers, &of, &code)?
            }
        };
        Ok(self.keep(sha256, prepared, form, compiled))
    }
}
