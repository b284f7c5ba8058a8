//! WebAssembly → native code.

use wasmtime::component::Component;
use wasmtime::{Engine, Module, Precompiled};

/// A module as native code of this program's engine. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct CompiledModule(pub(crate) std::sync::Arc<[u8]>);

/// Compiled code that was loaded.
pub(super) enum CompiledCode {
    Core(Module),
    Component(Component),
}

impl CompiledModule {
    /// Loads the code into an engine; fails if it is for another version, other settings or another machine.
    ///
    /// # Safety
    /// The code must be what an engine gave that compiled a module.
    #[expect(unsafe_code, reason = "the caller vouches for the code")]
    pub(super) unsafe fn load(&self, engine: &Engine) -> wasmtime::Result<CompiledCode> {
        match Engine::detect_precompiled(&self.0) {
            // SAFETY: the same as this function's.
            Some(Precompiled::Module) => Ok(CompiledCode::Core(unsafe { Module::deserialize(engine, &self.0)? })),
            // SAFETY: the same as this function's.
            Some(Precompiled::Component) => {
                Ok(CompiledCode::Component(unsafe { Component::deserialize(engine, &self.0)? }))
            }
            None => wasmtime::bail!("it is no compiled code"),
        }
    }
}

/// Compiles a module; the error is a sentence for the user.
///
/// * `time`: what compiling may take; a compiler cannot be interrupted, so its threads are left to themselves after that.
#[cfg(feature = "compiler")]
pub(super) fn compile(
    engine: &Engine,
    module: &crate::workflow::ModuleFile,
    time: std::time::Duration,
) -> Result<CompiledModule, String> {
    use std::sync::mpsc::{RecvTimeoutError, channel};

    use super::module::ModuleFormat;

    let format = ModuleFormat::of(&module.bytes)?;
    let (send, receive) = channel();
    let (engine, bytes) = (engine.clone(), std::sync::Arc::clone(&module.bytes));
    let threads = start_threads().map_err(|err| format!("cannot be compiled: no thread can be started: {err}"))?;
    threads.spawn(move || {
        let code = match format {
            ModuleFormat::Core => engine.precompile_module(&bytes),
            ModuleFormat::Component => engine.precompile_component(&bytes),
        };
        // Nobody waits any more if the time is over.
        let _ = send.send(code);
    });
    match receive.recv_timeout(time) {
        Ok(Ok(code)) => Ok(CompiledModule(code.into())),
        Ok(Err(err)) => Err(why_invalid(&module.bytes, err.root_cause())),
        Err(RecvTimeoutError::Timeout) => Err(format!(
            "takes longer to compile than the {} s that it may; `compile` in the policy's [host] sets that",
            time.as_secs_f64()
        )),
        Err(RecvTimeoutError::Disconnected) => Err("cannot be compiled: the compiler panicked".to_owned()),
    }
}

/// Why a module does not compile: a sentence for the user.
#[cfg(feature = "compiler")]
fn why_invalid(bytes: &[u8], cause: &dyn std::error::Error) -> String {
    use super::{features, not_wasm};
    let why = if not_wasm::is_cut_off(bytes) {
        "it is cut off; build or download it again".to_owned()
    } else if let Some(text) = features::refusal(&features::missing(bytes)) {
        return text;
    } else {
        format!("{cause}; build or download it again, and look at it with `wasm-tools validate`")
    };
    format!("is no valid WebAssembly module: {why}")
}

/// Threads for the compiler, as many as there are CPUs, or one if that is all there is.
///
/// Without them it would start those of the whole process, which stay, and panic where they cannot be had.
#[cfg(feature = "compiler")]
fn start_threads() -> Result<rayon::ThreadPool, rayon::ThreadPoolBuildError> {
    let start = |n| {
        let threads = rayon::ThreadPoolBuilder::new().num_threads(n);
        // Whoever waits for the code is told by its absence.
        threads.thread_name(|index| format!("mandelbox-compile-{index}")).panic_handler(|_| {}).build()
    };
    start(std::thread::available_parallelism().map_or(1, usize::from)).or_else(|_| start(1))
}

/// Says that there is no compiler, for a module that is neither in the cache nor was adopted.
#[cfg(not(feature = "compiler"))]
pub(super) fn compile(
    _: &Engine,
    module: &crate::workflow::ModuleFile,
    _: std::time::Duration,
) -> Result<CompiledModule, String> {
    super::module::ModuleFormat::of(&module.bytes)?;
    Err("was not compiled: this program is built without the compiler, so a module must be in the cache of compiled \
         modules, or its precompiled code be given to the sandbox first"
        .to_owned())
}
