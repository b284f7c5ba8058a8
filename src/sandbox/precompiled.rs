//! Native code that comes from elsewhere: from another process of this program, from the cache of
//! compiled modules, or from an embedder who vouches for it.
#![expect(
    unsafe_code,
    reason = "loading native code, for which each caller vouches"
)]

use std::borrow::Cow;
use std::time::Duration;

use wasmtime::{Engine, Precompiled};

use super::compile::CompiledModule;
use super::engine::Sandbox;
use super::module::{ModuleFormat, PreparedModule};
use crate::model::{ModuleFile, ModuleKind};

impl Sandbox {
    /// Compiles a module for a program that does without the compiler; see
    /// [`Self::adopt_precompiled`].
    ///
    /// * `time`: what compiling may take.
    ///
    /// Returns native code of this machine's architecture and processor, for sandboxes with these
    /// settings and this
    /// [`Self::reservation`]. It is no secret, but whoever can change it can do what the program that adopts it can.
    ///
    /// # Errors
    /// A sentence for the user that says why the module cannot be called.
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

    /// Takes the code of a module from [`Self::precompile`] in place of compiling it. After that,
    /// the module is prepared.
    ///
    /// * `module`: the module as workflows name it; only its digest and its format count.
    /// * `code`: its code.
    ///
    /// # Errors
    /// A sentence for the user if the code is none, is of another format than the module, or says
    /// that it is for another version of mandelbox, another machine or other settings; or why the
    /// module cannot be called.
    ///
    /// # Safety
    /// `code` runs outside the sandbox, with all rights of this program. It must be, byte for byte,
    /// what
    /// [`Self::precompile`] returned for this very module. What is checked here finds mistakes, not malice.
    pub unsafe fn adopt_precompiled(
        &self,
        module: &ModuleFile,
        code: &[u8],
    ) -> Result<ModuleKind, String> {
        let format = ModuleFormat::of(&module.bytes)?;
        let of_code = match Engine::detect_precompiled(code) {
            Some(Precompiled::Module) => ModuleFormat::Core,
            Some(Precompiled::Component) => ModuleFormat::Component,
            None => return Err("what should be its precompiled code is none".to_owned()),
        };
        if format != of_code {
            return Err(format!(
                "is a {format}, and its precompiled code is that of a {of_code}"
            ));
        }
        // SAFETY: the same as this function's.
        unsafe { self.adopt(&module.sha256, CompiledModule::Memory(code.into())) }
    }

    /// Takes a module's code from the cache, if it is there and fits.
    pub(super) fn adopt_cached(&self, sha256: &str) -> Option<ModuleKind> {
        let codes = self.cache()?.read_all(sha256);
        // SAFETY: the cache returns only what was written to it under the user's key and for this
        // digest, and only compiled modules are written to it; loading checks that they are for
        // this version and these settings.
        codes
            .into_iter()
            .find_map(|code| unsafe { self.adopt(sha256, code) }.ok())
    }

    /// Takes a module that another sandbox has compiled.
    ///
    /// # Safety
    /// `compiled` must be what [`Self::compiled`] gave in a sandbox of this version with the same
    /// settings.
    pub(crate) unsafe fn adopt(
        &self,
        sha256: &str,
        compiled: CompiledModule,
    ) -> Result<ModuleKind, String> {
        // SAFETY: the same as this function's.
        unsafe {
            self.load(
                sha256,
                compiled,
                "its compiled code does not fit this sandbox",
            )
        }
    }

    /// Loads compiled code and makes it known under its digest.
    ///
    /// * `unfit`: what it means if the code does not load.
    ///
    /// # Safety
    /// As [`Self::adopt`].
    pub(super) unsafe fn load(
        &self,
        sha256: &str,
        compiled: CompiledModule,
        unfit: &str,
    ) -> Result<ModuleKind, String> {
        // SAFETY: the same as this function's.
        let code =
            unsafe { compiled.load(&self.engine) }.map_err(|err| format!("{unfit}: {err:#}"))?;
        let prepared = PreparedModule::new(&self.engine, &self.linkers, &code)?;
        Ok(self.keep(sha256, prepared, compiled))
    }
}
