//! WebAssembly → native code.

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use wasmtime::component::Component;
use wasmtime::{Engine, Module, Precompiled};

use crate::model::FileIdentity;

/// A module as native code of this program's engine. Clones share it.
#[derive(Clone, Debug)]
pub(crate) enum CompiledModule {
    Memory(Arc<[u8]>),
    /// A file of the cache, which is mapped into memory and not read.
    File(CacheFile),
}

/// An open file of the cache. Its code stays readable when the cache is emptied or the entry
/// replaced during a run.
#[derive(Clone, Debug)]
pub(crate) struct CacheFile {
    /// Its name in the cache.
    pub(super) name: Arc<str>,
    pub(super) file: Arc<File>,
    /// Identity of the file when its contents were verified.
    pub(super) identity: FileIdentity,
}

impl CacheFile {
    fn read(&self) -> io::Result<Vec<u8>> {
        let of = |identity: FileIdentity| (identity.bytes, identity.modified_ns);
        if FileIdentity::of(&self.file.metadata()?).map(of) != Some(of(self.identity)) {
            let name = &self.name;
            return Err(io::Error::other(format!(
                "cache of compiled modules: {name} was modified during the run; run again"
            )));
        }
        let mut code = vec![0; usize::try_from(self.identity.bytes).map_err(io::Error::other)?];
        self.file.read_exact_at(&mut code, 0)?;
        Ok(code)
    }
}

/// Compiled code that was loaded.
pub(super) enum CompiledCode {
    Core(Module),
    Component(Component),
}

impl CompiledModule {
    /// The code.
    ///
    /// # Errors
    /// The operating system's, for code in a file.
    pub(crate) fn bytes(&self) -> io::Result<Cow<'_, [u8]>> {
        match self {
            Self::Memory(code) => Ok(Cow::Borrowed(code)),
            Self::File(file) => Ok(Cow::Owned(file.read()?)),
        }
    }

    /// Loads the code into an engine; fails if it is for another version, other settings or another
    /// machine.
    ///
    /// # Safety
    /// The code must be what an engine gave that compiled a module.
    #[expect(unsafe_code, reason = "the caller vouches for the code")]
    pub(super) unsafe fn load(&self, engine: &Engine) -> wasmtime::Result<CompiledCode> {
        match self {
            // SAFETY: the same as this function's.
            Self::Memory(code) => unsafe { load_bytes(engine, code) },
            Self::File(file) => {
                let path = path_of(&file.file);
                let mapped = match Engine::detect_precompiled_file(&path) {
                    // SAFETY: the same as this function's.
                    Ok(Some(Precompiled::Module)) => {
                        unsafe { Module::deserialize_file(engine, path) }.map(CompiledCode::Core)
                    }
                    // SAFETY: the same as this function's.
                    Ok(Some(Precompiled::Component)) => {
                        unsafe { Component::deserialize_file(engine, path) }
                            .map(CompiledCode::Component)
                    }
                    Ok(None) => wasmtime::bail!("it is no compiled code"),
                    Err(err) => Err(err),
                };
                // Without `/proc` the file has no such path, and where it is mounted noexec, it
                // cannot be mapped. SAFETY: the same as this function's.
                mapped.or_else(|_| unsafe { load_bytes(engine, &self.bytes()?) })
            }
        }
    }
}

/// Loads code that is in memory.
///
/// # Safety
/// As [`CompiledModule::load`].
#[expect(unsafe_code, reason = "the caller vouches for the code")]
unsafe fn load_bytes(engine: &Engine, code: &[u8]) -> wasmtime::Result<CompiledCode> {
    // SAFETY: the same as this function's.
    Ok(unsafe {
        match Engine::detect_precompiled(code) {
            Some(Precompiled::Module) => CompiledCode::Core(Module::deserialize(engine, code)?),
            Some(Precompiled::Component) => {
                CompiledCode::Component(Component::deserialize(engine, code)?)
            }
            None => wasmtime::bail!("it is no compiled code"),
        }
    })
}

/// A path that leads to an open file whatever has its name by now. Where there is none, as without
/// `/proc`, it is read.
fn path_of(file: &File) -> PathBuf {
    let folder = if cfg!(target_os = "linux") {
        "/proc/self/fd"
    } else {
        "/dev/fd"
    };
    Path::new(folder).join(file.as_raw_fd().to_string())
}

/// Compiles a module; the error is a sentence for the user.
///
/// * `time`: what compiling may take; a compiler cannot be interrupted, so its threads are left to
///   themselves after that.
#[cfg(feature = "compiler")]
pub(super) fn compile(
    engine: &Engine,
    module: &crate::model::ModuleFile,
    time: std::time::Duration,
) -> Result<CompiledModule, String> {
    use std::sync::mpsc::{RecvTimeoutError, channel};

    use super::module::ModuleFormat;

    let format = ModuleFormat::of(&module.bytes)?;
    let (send, receive) = channel();
    let (engine, bytes) = (engine.clone(), Arc::clone(&module.bytes));
    let threads = start_threads()
        .map_err(|err| format!("cannot be compiled: no thread can be started: {err}"))?;
    threads.spawn(move || {
        let code = match format {
            ModuleFormat::Core => engine.precompile_module(&bytes),
            ModuleFormat::Component => engine.precompile_component(&bytes),
        };
        // Nobody waits any more if the time is over.
        let _ = send.send(code);
    });
    match receive.recv_timeout(time) {
        Ok(Ok(code)) => Ok(CompiledModule::Memory(code.into())),
        Ok(Err(err)) => Err(why_invalid(&module.bytes, err.root_cause())),
        Err(RecvTimeoutError::Timeout) => Err(takes_too_long(time)),
        Err(RecvTimeoutError::Disconnected) => {
            Err("cannot be compiled: the compiler panicked".to_owned())
        }
    }
}

/// Why a module is refused whose time is over: a sentence for the user.
#[cfg(feature = "compiler")]
pub(crate) fn takes_too_long(time: std::time::Duration) -> String {
    let seconds = time.as_secs_f64();
    format!(
        "takes longer to compile than the {seconds} s that it may; `compile` in the policy's \
         [host] sets that"
    )
}

/// Why a module does not compile: a sentence for the user.
#[cfg(feature = "compiler")]
pub(super) fn why_invalid(bytes: &[u8], cause: &dyn std::error::Error) -> String {
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
/// Without them it would start those of the whole process, which stay, and panic where they cannot
/// be had.
#[cfg(feature = "compiler")]
fn start_threads() -> Result<rayon::ThreadPool, rayon::ThreadPoolBuildError> {
    let start = |n| {
        let threads = rayon::ThreadPoolBuilder::new().num_threads(n);
        // Whoever waits for the code is told by its absence.
        threads
            .thread_name(|index| format!("mandelbox-compile-{index}"))
            .panic_handler(|_| {})
            .build()
    };
    start(std::thread::available_parallelism().map_or(1, usize::from)).or_else(|_| start(1))
}

/// Says that there is no compiler, for a module that is neither in the cache nor was adopted.
#[cfg(not(feature = "compiler"))]
pub(super) fn compile(
    _: &Engine,
    module: &crate::model::ModuleFile,
    _: std::time::Duration,
) -> Result<CompiledModule, String> {
    super::module::ModuleFormat::of(&module.bytes)?;
    Err(
        "was not compiled: this program is built without the compiler, so a module must be in the \
        cache of compiled \
         modules, or its precompiled code be given to the sandbox first"
            .to_owned(),
    )
}
