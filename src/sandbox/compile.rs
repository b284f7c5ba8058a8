//! Compilation of WebAssembly to native code, and loading of this code.

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

/// Module as native code for the engine of this program. Clones share the code.
#[derive(Clone, Debug)]
pub(crate) enum CompiledModule {
    Memory(Arc<[u8]>),
    /// File of the cache, which is mapped into memory instead of being read.
    File(CacheFile),
}

/// Open file of the cache. Its code stays readable when the cache is emptied or the entry is
/// replaced during a run.
#[derive(Clone, Debug)]
pub(crate) struct CacheFile {
    /// Name of the file in the cache.
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

/// Open file of the cache in another process of this user, by its descriptor there.
///
/// A process that knows it opens the file through `/proc`, so both map the same pages.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct OpenCacheFile {
    process: u32,
    descriptor: i32,
    bytes: u64,
    /// Time of the last change, in nanoseconds since 1970.
    modified_ns: i64,
}

impl OpenCacheFile {
    /// Opens the file. `None` if the system does not allow it, or if the file has changed.
    pub(crate) fn open(&self) -> Option<CompiledModule> {
        let path = format!("/proc/{}/fd/{}", self.process, self.descriptor);
        let file = File::open(path).ok()?;
        let identity = FileIdentity::of(&file.metadata().ok()?)?;
        if (identity.bytes, identity.modified_ns) != (self.bytes, self.modified_ns.into()) {
            return None;
        }
        Some(CompiledModule::File(CacheFile {
            name: "compiled code".into(),
            file: Arc::new(file),
            identity,
        }))
    }
}

/// Compiled code that is loaded into an engine.
pub(super) enum CompiledCode {
    Core(Module),
    Component(Component),
}

impl CompiledModule {
    /// Returns the code.
    ///
    /// # Errors
    /// The operating system's error, for code in a file.
    pub(crate) fn bytes(&self) -> io::Result<Cow<'_, [u8]>> {
        match self {
            Self::Memory(code) => Ok(Cow::Borrowed(code)),
            Self::File(file) => Ok(Cow::Owned(file.read()?)),
        }
    }

    /// Returns the file with the code for another process, which can open it while this object
    /// exists. `None` for code in memory.
    pub(crate) fn open_file(&self) -> Option<OpenCacheFile> {
        match self {
            Self::Memory(_) => None,
            Self::File(file) => Some(OpenCacheFile {
                process: std::process::id(),
                descriptor: file.file.as_raw_fd(),
                bytes: file.identity.bytes,
                modified_ns: file.identity.modified_ns.try_into().ok()?,
            }),
        }
    }

    /// Loads the code into an engine. Fails if the code is for another version, other settings or
    /// another machine.
    ///
    /// # Safety
    /// The code must be the unmodified output of an engine that compiled a module.
    #[expect(unsafe_code, reason = "the caller vouches for the code")]
    pub(super) unsafe fn load(&self, engine: &Engine) -> wasmtime::Result<CompiledCode> {
        match self {
            // SAFETY: the caller vouches for the code.
            Self::Memory(code) => unsafe { load_bytes(engine, code) },
            Self::File(file) => {
                let path = path_of(&file.file);
                let mapped = match Engine::detect_precompiled_file(&path) {
                    // SAFETY: the caller vouches for the code.
                    Ok(Some(Precompiled::Module)) => {
                        unsafe { Module::deserialize_file(engine, path) }.map(CompiledCode::Core)
                    }
                    // SAFETY: the caller vouches for the code.
                    Ok(Some(Precompiled::Component)) => {
                        unsafe { Component::deserialize_file(engine, path) }
                            .map(CompiledCode::Component)
                    }
                    Ok(None) => wasmtime::bail!("it is not compiled code"),
                    Err(err) => Err(err),
                };
                // Without `/proc`, the path does not exist. On a file system that is mounted
                // `noexec`, the file cannot be mapped. Read the file instead.
                // SAFETY: the caller vouches for the code.
                mapped.or_else(|_| unsafe { load_bytes(engine, &self.bytes()?) })
            }
        }
    }
}

/// Loads code that is in memory.
///
/// # Safety
/// As for [`CompiledModule::load`].
#[expect(unsafe_code, reason = "the caller vouches for the code")]
unsafe fn load_bytes(engine: &Engine, code: &[u8]) -> wasmtime::Result<CompiledCode> {
    // SAFETY: the caller vouches for the code.
    Ok(unsafe {
        match Engine::detect_precompiled(code) {
            Some(Precompiled::Module) => CompiledCode::Core(Module::deserialize(engine, code)?),
            Some(Precompiled::Component) => {
                CompiledCode::Component(Component::deserialize(engine, code)?)
            }
            None => wasmtime::bail!("it is not compiled code"),
        }
    })
}

/// Returns a path that leads to an open file, even if the file has lost its name. On systems
/// without `/proc` the path may not exist, and the file is read instead.
fn path_of(file: &File) -> PathBuf {
    let folder = if cfg!(target_os = "linux") {
        "/proc/self/fd"
    } else {
        "/dev/fd"
    };
    Path::new(folder).join(file.as_raw_fd().to_string())
}

/// Compiles a module. The error is a sentence for the user.
///
/// * `time`: time limit. A compiler cannot be interrupted, so its threads keep running after a
///   timeout.
#[cfg(feature = "compiler")]
pub(super) fn compile(
    engine: &Engine,
    module: &crate::model::ModuleFile,
    time: std::time::Duration,
) -> Result<CompiledModule, String> {
    use std::sync::mpsc::{RecvTimeoutError, channel};

    use super::format::ModuleFormat;

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
        // After a timeout, nobody receives the code.
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

/// Returns a sentence for the user about a module that exceeds the time limit of the compiler.
#[cfg(feature = "compiler")]
pub(crate) fn takes_too_long(time: std::time::Duration) -> String {
    let seconds = time.as_secs_f64();
    format!(
        "takes longer to compile than the limit of {seconds} s; raise `compile` in the policy's \
         [host]"
    )
}

/// Returns a sentence for the user about a module that does not compile.
#[cfg(feature = "compiler")]
pub(super) fn why_invalid(bytes: &[u8], cause: &dyn std::error::Error) -> String {
    use super::{features, not_wasm};
    let why = if not_wasm::is_cut_off(bytes) {
        "it is truncated; build or download it again".to_owned()
    } else if let Some(text) = features::refusal(&features::missing(bytes)) {
        return text;
    } else {
        format!("{cause}; build or download it again, and check it with `wasm-tools validate`")
    };
    format!("is not a valid WebAssembly module: {why}")
}

/// Starts threads for the compiler: one per CPU, or a single one if more cannot be started.
///
/// Without this pool, the compiler would start the global pool of the process. Its threads never
/// end, and it panics if they cannot be started.
#[cfg(feature = "compiler")]
fn start_threads() -> Result<rayon::ThreadPool, rayon::ThreadPoolBuildError> {
    let start = |n| {
        let threads = rayon::ThreadPoolBuilder::new().num_threads(n);
        // A panic closes the channel of the result, which the waiting thread reports.
        threads
            .thread_name(|index| format!("mandelbox-compile-{index}"))
            .panic_handler(|_| {})
            .build()
    };
    start(std::thread::available_parallelism().map_or(1, usize::from)).or_else(|_| start(1))
}

/// Returns the error of a build without the compiler, for a module that is neither in the cache nor
/// was adopted.
#[cfg(not(feature = "compiler"))]
pub(super) fn compile(
    _: &Engine,
    module: &crate::model::ModuleFile,
    _: std::time::Duration,
) -> Result<CompiledModule, String> {
    super::format::ModuleFormat::of(&module.bytes)?;
    Err(
        "is not compiled: this program is built without the compiler, so a module must be in the \
         cache of compiled modules, or its precompiled code must be adopted first"
            .to_owned(),
    )
}

/// Returns true if a module compiles so quickly that inspecting it first saves nothing.
#[cfg(feature = "compiler")]
pub(super) fn is_small(module: &crate::model::ModuleFile) -> bool {
    const SMALL_MODULE_BYTES: usize = 1 << 20;
    module.bytes.len() <= SMALL_MODULE_BYTES
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn another_process_opens_the_same_file_unless_it_has_changed() {
        let mut new = tempfile::NamedTempFile::new().expect("a file");
        new.write_all(b"code").expect("written");
        let file = File::open(new.path()).expect("opened");
        let identity = FileIdentity::of(&file.metadata().expect("there")).expect("an identity");
        let compiled = CompiledModule::File(CacheFile {
            name: "code".into(),
            file: Arc::new(file),
            identity,
        });
        let shared = compiled.open_file().expect("a file");
        let opened = shared.open().expect("opened");
        assert_eq!(*opened.bytes().expect("read"), *b"code");

        new.write_all(b" of another module").expect("written");
        assert!(shared.open().is_none());
        // The process has ended, or does not exist yet.
        drop(compiled);
        assert!(shared.open().is_none());
        assert!(
            CompiledModule::Memory((*b"code").into())
                .open_file()
                .is_none()
        );
    }
}
