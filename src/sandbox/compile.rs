//! WebAssembly → native code, or the same code from the cache.
#![expect(unsafe_code, reason = "reading back what this program has compiled")]

use wasmtime::component::Component;
use wasmtime::{Engine, Module};

use super::module::ModuleKind;
#[cfg(feature = "compiler")]
use {super::cache::ModuleCache, crate::workflow::ModuleFile};

/// A module as native code of this program's engine.
#[derive(Debug)]
pub(crate) struct CompiledModule {
    /// What it was compiled from.
    pub(crate) kind: ModuleKind,
    /// The code.
    pub(crate) code: Vec<u8>,
}

/// Compiled code that was loaded.
pub(super) enum CompiledCode {
    Core(Module),
    Component(Component),
}

impl CompiledCode {
    /// # Safety
    /// `compiled` must be what an engine with the same settings gave.
    pub(super) unsafe fn read(engine: &Engine, compiled: &CompiledModule) -> wasmtime::Result<Self> {
        // SAFETY: the same as this function's.
        unsafe {
            Ok(match compiled.kind {
                ModuleKind::CommandP1 => Self::Core(Module::from_code(engine, &compiled.code)?),
                ModuleKind::CommandP2 => Self::Component(Component::from_code(engine, &compiled.code)?),
            })
        }
    }
}

/// The two kinds of compiled code.
pub(super) trait Compiled: Sized + Send {
    #[cfg(feature = "compiler")]
    fn compile(engine: &Engine, bytes: &[u8]) -> wasmtime::Result<Self>;
    #[cfg(feature = "compiler")]
    fn code(&self) -> wasmtime::Result<Vec<u8>>;
    /// # Safety
    /// `code` must be what [`Self::code`] gave for an engine with the same settings.
    unsafe fn from_code(engine: &Engine, code: &[u8]) -> wasmtime::Result<Self>;
}

impl Compiled for Module {
    #[cfg(feature = "compiler")]
    fn compile(engine: &Engine, bytes: &[u8]) -> wasmtime::Result<Self> {
        Self::from_binary(engine, bytes)
    }

    #[cfg(feature = "compiler")]
    fn code(&self) -> wasmtime::Result<Vec<u8>> {
        self.serialize()
    }

    unsafe fn from_code(engine: &Engine, code: &[u8]) -> wasmtime::Result<Self> {
        // SAFETY: the same as this function's.
        unsafe { Self::deserialize(engine, code) }
    }
}

impl Compiled for Component {
    #[cfg(feature = "compiler")]
    fn compile(engine: &Engine, bytes: &[u8]) -> wasmtime::Result<Self> {
        Self::from_binary(engine, bytes)
    }

    #[cfg(feature = "compiler")]
    fn code(&self) -> wasmtime::Result<Vec<u8>> {
        self.serialize()
    }

    unsafe fn from_code(engine: &Engine, code: &[u8]) -> wasmtime::Result<Self> {
        // SAFETY: the same as this function's.
        unsafe { Self::deserialize(engine, code) }
    }
}

/// Takes compiled code from the cache, or compiles and keeps it there.
#[cfg(feature = "compiler")]
pub(super) fn compile<C: Compiled>(
    engine: &Engine,
    module: &ModuleFile,
    cache: Option<&ModuleCache>,
) -> Result<C, String> {
    if let Some(code) = cache.and_then(|cache| cache.read(&module.sha256)) {
        // SAFETY: the cache returns only what was written to it under the user's key, for this digest and an engine
        // of this version and these settings, and only `code` below is written to it.
        if let Ok(compiled) = unsafe { C::from_code(engine, &code) } {
            return Ok(compiled);
        }
    }
    let compiled = in_threads(|| C::compile(engine, &module.bytes))?
        .map_err(|err| format!("is no valid WebAssembly module: {}", err.root_cause()))?;
    if let (Some(cache), Ok(code)) = (cache, compiled.code()) {
        cache.write(&module.sha256, &code);
    }
    Ok(compiled)
}

/// Runs the compiler with threads of its own, as many as there are CPUs, or with one if that is all there is.
///
/// Without this it would start those of the whole process, which stay, and panic where they cannot be had.
#[cfg(feature = "compiler")]
fn in_threads<T: Send>(compile: impl FnOnce() -> T + Send) -> Result<T, String> {
    let start = |n| {
        let name = |index| format!("mandelbox-compile-{index}");
        rayon::ThreadPoolBuilder::new().num_threads(n).thread_name(name).build()
    };
    let n = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = start(n).or_else(|_| start(1));
    let threads = threads.map_err(|err| format!("cannot be compiled: no thread can be started: {err}"))?;
    Ok(threads.install(compile))
}
