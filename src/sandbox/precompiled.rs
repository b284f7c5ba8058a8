//! Native code that comes from elsewhere: from another process of this program, from the cache of a build that has the
//! compiler, or from an embedder who vouches for it.
#![expect(unsafe_code, reason = "loading native code, for which each caller vouches")]

use std::sync::Arc;

use wasmtime::{Engine, Precompiled};

use super::compile::{CompiledCode, CompiledModule};
use super::engine::Sandbox;
use super::module::{ModuleKind, PreparedModule};
use crate::workflow::ModuleFile;

/// Code of the modules that a sandbox without the compiler has loaded: a loaded module does not give it back.
#[cfg(not(feature = "compiler"))]
pub(super) type Codes = std::sync::Mutex<std::collections::HashMap<String, Vec<u8>>>;

impl Sandbox {
    /// Compiles a module for a program that does without the compiler; see [`Self::adopt_precompiled`].
    ///
    /// Returns native code of this machine's architecture and processor, for sandboxes with these settings and this
    /// [`Self::reservation`]. It is no secret, but whoever can change it can do what the program that adopts it can.
    ///
    /// # Errors
    /// A sentence for the user that says why the module cannot be called.
    #[cfg(feature = "compiler")]
    pub fn precompile(&self, module: &ModuleFile) -> Result<Vec<u8>, String> {
        self.prepare(module)?;
        Ok(self.compiled(&module.sha256).ok_or("the compiled module cannot be written down")?.code)
    }

    /// Takes the code of a module from [`Self::precompile`] in place of compiling it. After that, the module is
    /// prepared.
    ///
    /// * `module`: the module as workflows name it; only its digest and its kind count.
    /// * `code`: its code.
    ///
    /// # Errors
    /// A sentence for the user if the code is none, is of another kind than the module, or says that it is for another
    /// version of mandelbox, another machine or other settings; or why the module cannot be called.
    ///
    /// # Safety
    /// `code` runs outside the sandbox, with all rights of this program. It must be, byte for byte, what
    /// [`Self::precompile`] returned for this very module. What is checked here finds mistakes, not malice.
    pub unsafe fn adopt_precompiled(&self, module: &ModuleFile, code: &[u8]) -> Result<ModuleKind, String> {
        let kind = ModuleKind::of(&module.bytes)?;
        let of_code = match Engine::detect_precompiled(code) {
            Some(Precompiled::Module) => ModuleKind::CommandP1,
            Some(Precompiled::Component) => ModuleKind::CommandP2,
            None => return Err("what should be its precompiled code is none".to_owned()),
        };
        if kind != of_code {
            return Err(format!("is a {kind}, and its precompiled code is that of a {of_code}"));
        }
        // SAFETY: the same as this function's.
        unsafe { self.adopt(&module.sha256, CompiledModule { kind, code: code.to_vec() }) }
    }

    /// The native code of a module that was prepared, for another process of this program.
    #[cfg(feature = "compiler")]
    pub(crate) fn compiled(&self, sha256: &str) -> Option<CompiledModule> {
        self.prepared(sha256)?.compiled().ok()
    }

    /// The native code of a module that was prepared, for another process of this program.
    #[cfg(not(feature = "compiler"))]
    pub(crate) fn compiled(&self, sha256: &str) -> Option<CompiledModule> {
        let kind = self.prepared(sha256)?.kind();
        Some(CompiledModule { kind, code: self.codes().get(sha256)?.clone() })
    }

    /// Takes a module that another sandbox has compiled.
    ///
    /// # Safety
    /// `compiled` must be what [`Self::compiled`] gave in a sandbox of this version with the same settings.
    pub(crate) unsafe fn adopt(&self, sha256: &str, compiled: CompiledModule) -> Result<ModuleKind, String> {
        // SAFETY: the same as this function's.
        let code = unsafe { CompiledCode::read(&self.engine, &compiled) };
        let code = code.map_err(|err| format!("its compiled code does not fit this sandbox: {err:#}"))?;
        let prepared = PreparedModule::from_code(&self.engine, &self.linkers, &code)?;
        #[cfg(not(feature = "compiler"))]
        self.codes().insert(sha256.to_owned(), compiled.code);
        let kind = prepared.kind();
        self.modules().insert(sha256.to_owned(), Arc::new(prepared));
        Ok(kind)
    }

    /// Takes a module's code from the cache, where a program with the compiler has put it, unless it was adopted
    /// before; what is done for a digest once is kept.
    ///
    /// # Errors
    /// A sentence for the user that says why the module cannot be called.
    #[cfg(not(feature = "compiler"))]
    pub fn prepare(&self, module: &ModuleFile) -> Result<ModuleKind, String> {
        if let Some(prepared) = self.prepared(&module.sha256) {
            return Ok(prepared.kind());
        }
        let kind = ModuleKind::of(&module.bytes)?;
        for code in self.cache().into_iter().flat_map(|cache| cache.read_all(&module.sha256)) {
            // SAFETY: the cache returns only what was written to it under the user's key and for this digest; loading
            // checks that it was for this version and these settings.
            if let Ok(kind) = unsafe { self.adopt(&module.sha256, CompiledModule { kind, code }) } {
                return Ok(kind);
            }
        }
        Err("was not compiled: this program is built without the compiler, so a module must be in the cache of compiled \
             modules, or its precompiled code be given to the sandbox first"
            .to_owned())
    }

    #[cfg(not(feature = "compiler"))]
    fn codes(&self) -> std::sync::MutexGuard<'_, std::collections::HashMap<String, Vec<u8>>> {
        self.codes.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
