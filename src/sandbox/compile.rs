//! WebAssembly → native code, or the same code from the cache.
#![expect(unsafe_code, reason = "reading back what this program has compiled")]

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use wasmtime::component::Component;
use wasmtime::{Engine, Module};

use super::cache::ModuleCache;
use super::module::ModuleKind;
use crate::workflow::ModuleFile;

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
pub(super) trait Compiled: Sized + Send + 'static {
    fn compile(engine: &Engine, bytes: &[u8]) -> wasmtime::Result<Self>;
    /// # Safety
    /// `code` must be what an engine with the same settings gave.
    unsafe fn from_code(engine: &Engine, code: &[u8]) -> wasmtime::Result<Self>;
}

impl Compiled for Module {
    fn compile(engine: &Engine, bytes: &[u8]) -> wasmtime::Result<Self> {
        Self::from_binary(engine, bytes)
    }

    unsafe fn from_code(engine: &Engine, code: &[u8]) -> wasmtime::Result<Self> {
        // SAFETY: the same as this function's.
        unsafe { Self::deserialize(engine, code) }
    }
}

impl Compiled for Component {
    fn compile(engine: &Engine, bytes: &[u8]) -> wasmtime::Result<Self> {
        Self::from_binary(engine, bytes)
    }

    unsafe fn from_code(engine: &Engine, code: &[u8]) -> wasmtime::Result<Self> {
        // SAFETY: the same as this function's.
        unsafe { Self::deserialize(engine, code) }
    }
}

/// Code that was compiled, and whether that was now.
pub(super) struct Loaded<C> {
    pub(super) code: C,
    /// Compiled now: the cache does not have it.
    pub(super) is_new: bool,
}

/// Takes compiled code from the cache, or compiles.
///
/// * `time`: what compiling may take; a compiler cannot be interrupted, so its thread is left to itself after that.
pub(super) fn compile<C: Compiled>(
    engine: &Engine,
    module: &ModuleFile,
    cache: Option<&ModuleCache>,
    time: Duration,
) -> Result<Loaded<C>, String> {
    if let Some(code) = cache.and_then(|cache| cache.read(&module.sha256)) {
        // SAFETY: the cache returns only what was written to it under the user's key, for this digest and an engine
        // of this version and these settings, and only serialized modules of such an engine are written to it.
        if let Ok(code) = unsafe { C::from_code(engine, &code) } {
            return Ok(Loaded { code, is_new: false });
        }
    }
    let (send, receive) = channel();
    let (engine, bytes) = (engine.clone(), Arc::clone(&module.bytes));
    let thread = std::thread::Builder::new().name("mandelbox-compile".to_owned());
    let thread = thread.spawn(move || {
        // Nobody waits any more if the time is over.
        let _ = send.send(C::compile(&engine, &bytes));
    });
    thread.map_err(|err| format!("cannot be compiled: no thread can be started: {err}"))?;
    match receive.recv_timeout(time) {
        Ok(Ok(code)) => Ok(Loaded { code, is_new: true }),
        Ok(Err(err)) => Err(format!("is no valid WebAssembly module: {}", err.root_cause())),
        Err(RecvTimeoutError::Timeout) => Err(format!(
            "takes longer to compile than the {} s that it may; `compile` in the policy's [host] sets that",
            time.as_secs_f64()
        )),
        Err(RecvTimeoutError::Disconnected) => Err("cannot be compiled: the compiler panicked".to_owned()),
    }
}
