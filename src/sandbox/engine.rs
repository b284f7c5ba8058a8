//! The engine, its epoch ticker, and the modules compiled so far.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use wasmtime::{Config, Engine, ModuleVersionStrategy};

use super::cache::ModuleCache;
use super::compile::{CompiledModule, compile};
use super::host::Linkers;
use super::module::PreparedModule;
use super::reservation::Reservation;
use super::worker::Worker;
use super::{features, pool};
use crate::clock::{RunningClock, Ticker};
use crate::model::{HostError, ModuleFile, ModuleKind};
use crate::trace;

/// Time between two looks at a running guest's limits.
const EPOCH: Duration = Duration::from_millis(10);
/// Time between two ticks of the clock where guests do not look at their limits.
const CLOCK_TICK: Duration = Duration::from_millis(100);
/// Stack of a guest; C code that walks nested data needs more than wasmtime's 512 KiB.
const GUEST_STACK_BYTES: usize = 8 << 20;
/// Stack of the host's functions that a guest calls, on the same fiber.
const HOST_STACK_BYTES: usize = 2 << 20;

/// How a sandbox is set up.
#[derive(Clone, Debug, Default)]
pub struct SandboxOptions {
    /// Folder for compiled modules, which must be the user's own; `None`: each is compiled anew.
    pub cache_folder: Option<PathBuf>,
    /// Gives guests fixed clocks and random numbers, and one bit pattern for NaN; default off.
    pub deterministic: bool,
    /// Addresses that each memory of a guest gets; default [`Reservation::Fitting`].
    pub reservation: Reservation,
    /// Calls that run at a time at most, for which places in memory are made beforehand; default 0:
    /// each call makes its own, which takes longer. There are none either where addresses are few.
    pub n_workers: usize,
    /// No such places at all, which have a size: calls that are made one at a time can then have
    /// all that their limits let through, such as tables of millions of entries; default off.
    pub on_demand: bool,
    /// What ends a guest that computes; default [`Interruption::Epochs`].
    pub interruption: Interruption,
}

/// What ends a guest that computes when its time is over or its run is cancelled. One that waits is
/// ended in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interruption {
    /// Its code looks at a counter at every turn of a loop and every call of a function, which
    /// tight loops are slower for.
    #[default]
    Epochs,
    /// Nothing but the end of its process.
    Process,
}

/// What calls share: one engine, its linkers and the compiled modules.
pub struct Sandbox {
    pub(super) engine: Engine,
    pub(super) deterministic: bool,
    reservation: Reservation,
    on_demand: bool,
    pub(super) linkers: Linkers,
    cache: Result<Option<ModuleCache>, String>,
    /// By digest.
    modules: Mutex<HashMap<String, KnownModule>>,
    /// Digests of modules that the cache does not have yet.
    unsaved: Mutex<Vec<String>>,
    pub(super) interruption: Interruption,
    clock: OnceLock<Clock>,
}

/// The clock of calls, and what makes it go: also the engine's epoch, where guests look at it.
type Clock = (RunningClock, Option<Ticker>);

/// A module that was compiled, and its code for others.
struct KnownModule {
    prepared: Arc<PreparedModule>,
    compiled: CompiledModule,
}

/// Keeps the runtime of this process from capturing a backtrace of the host with each of its
/// errors, as it does where `RUST_BACKTRACE` is set: most are answers to guests, such as a file
/// that is not there, and no user sees a backtrace.
pub fn capture_no_backtraces() {
    wasmtime::error::disable_backtrace();
}

impl Sandbox {
    /// Sets up the engine and starts the thread that looks at running guests' limits.
    ///
    /// A cache folder that cannot be used is no error: see [`Self::warning`].
    ///
    /// # Errors
    /// [`HostError::Setup`] if the machine has no memory, no thread or no known processor for it.
    pub fn new(options: &SandboxOptions) -> Result<Self, HostError> {
        let engine =
            new_engine(options).map_err(HostError::setup("set up the WebAssembly engine"))?;
        let linkers = Linkers::new(&engine).map_err(HostError::setup("link WASI"))?;
        let clock = OnceLock::new();
        if options.interruption == Interruption::Epochs {
            let started = start_epochs(&engine)
                .map_err(HostError::setup("start the thread for time limits"))?;
            clock.get_or_init(|| started);
        }
        let open = |folder: &PathBuf| {
            ModuleCache::open(folder, &engine).map_err(|err| {
                format!(
                    "modules are compiled anew each time: the cache {} cannot be used: {err}",
                    folder.display()
                )
            })
        };
        let cache = options.cache_folder.as_ref().map(open).transpose();
        Ok(Self {
            engine,
            deterministic: options.deterministic,
            reservation: options.reservation.resolve(),
            on_demand: options.on_demand,
            linkers,
            cache,
            modules: Mutex::default(),
            unsaved: Mutex::default(),
            interruption: options.interruption,
            clock,
        })
    }

    /// What does not work as it was asked for, in one line.
    pub fn warning(&self) -> Option<&str> {
        self.cache.as_ref().err().map(String::as_str)
    }

    /// Compiles a module, or takes it from the cache, and checks its imports and exports. What is
    /// done for a digest once is kept in memory, and in the cache folder from
    /// [`Self::write_cache`] on.
    ///
    /// * `time`: what compiling may take; past it the module is refused.
    ///
    /// # Errors
    /// A sentence for the user that says why the module cannot be called.
    pub fn prepare(&self, module: &ModuleFile, time: Duration) -> Result<ModuleKind, String> {
        self.prepare_with(module, || compile(&self.engine, module, time))
    }

    /// [`Self::prepare`] with another way to compile.
    ///
    /// * `compile`: gives what this version of the program compiled with the settings of this
    ///   sandbox.
    pub(crate) fn prepare_with(
        &self,
        module: &ModuleFile,
        compile: impl FnOnce() -> Result<CompiledModule, String>,
    ) -> Result<ModuleKind, String> {
        if let Some(known) = self.prepared(&module.sha256) {
            return Ok(known.kind());
        }
        let _span = trace::compile(module).entered();
        let cached = self.adopt_cached(&module.sha256);
        let from_cache = cached.is_some();
        let kind = cached.map_or_else(|| self.compile(module, compile), Ok);
        trace::compiled(from_cache, &kind);
        kind
    }

    /// [`Self::prepare`] for a module that is neither known nor in the cache.
    fn compile(
        &self,
        module: &ModuleFile,
        compile: impl FnOnce() -> Result<CompiledModule, String>,
    ) -> Result<ModuleKind, String> {
        #[cfg(feature = "compiler")]
        self.refuse_at_once(module)?;
        // Not under the lock: large modules take seconds, and others can be compiled meanwhile.
        let compiled = compile()?;
        #[expect(unsafe_code, reason = "the code was compiled a line before")]
        // SAFETY: this program has just compiled it, here or in a child process; loading checks
        // that the settings fit.
        let kind = unsafe {
            self.load(
                &module.sha256,
                compiled,
                "asks for more than a call may have",
            )?
        };
        lock(&self.unsaved).push(module.sha256.clone());
        Ok(kind)
    }

    /// Writes what was compiled to the cache folder, if there is one: once all documents were found
    /// good.
    pub fn write_cache(&self) {
        let unsaved = std::mem::take(&mut *lock(&self.unsaved));
        // Without the compiler there is none to write.
        #[cfg(feature = "compiler")]
        for sha256 in &unsaved {
            if let (Some(cache), Some(CompiledModule::Memory(code))) =
                (self.cache(), self.compiled(sha256))
            {
                cache.write(sha256, &code);
            }
        }
        drop(unsaved);
    }

    /// Makes a module known under its digest.
    pub(super) fn keep(
        &self,
        sha256: &str,
        prepared: PreparedModule,
        compiled: CompiledModule,
    ) -> ModuleKind {
        let kind = prepared.kind();
        let known = KnownModule {
            prepared: Arc::new(prepared),
            compiled,
        };
        lock(&self.modules).insert(sha256.to_owned(), known);
        kind
    }

    /// The native code of a module that was prepared, for another process of this program.
    pub(crate) fn compiled(&self, sha256: &str) -> Option<CompiledModule> {
        lock(&self.modules)
            .get(sha256)
            .map(|known| known.compiled.clone())
    }

    /// The cache of compiled modules, if it can be used.
    pub(super) fn cache(&self) -> Option<&ModuleCache> {
        self.cache.as_ref().ok().and_then(Option::as_ref)
    }

    /// The clock that measures the wall time of calls: it stands still while this process is
    /// stopped. Its thread is started when it is first used, if there is none yet: a worker process
    /// is confined before it has threads.
    pub(crate) fn clock(&self) -> &RunningClock {
        let (clock, _) = self.clock.get_or_init(|| {
            match RunningClock::start("mandelbox-clock", CLOCK_TICK, || {}) {
                Ok((clock, ticker)) => (clock, Some(ticker)),
                Err(_) => (RunningClock::without_ticks(), None),
            }
        });
        clock
    }

    /// Whether guests get fixed clocks and random numbers.
    pub(crate) fn is_deterministic(&self) -> bool {
        self.deterministic
    }

    /// What ends a guest that computes.
    #[cfg(feature = "compiler")]
    pub(crate) fn interruption(&self) -> Interruption {
        self.interruption
    }

    /// Whether each call makes its own place in memory.
    pub(crate) fn is_on_demand(&self) -> bool {
        self.on_demand
    }

    /// Addresses that each memory of a guest gets, and that precompiled code must be made for.
    pub fn reservation(&self) -> Reservation {
        self.reservation
    }

    /// Whether a module's guests can do anything with files, as all can that were not prepared.
    pub(crate) fn has_files(&self, sha256: &str) -> bool {
        self.prepared(sha256)
            .is_none_or(|prepared| prepared.has_files())
    }

    /// A worker for the calling thread.
    ///
    /// # Errors
    /// [`HostError::Setup`] if its runtime cannot be made.
    pub fn worker(&self) -> Result<Worker<'_>, HostError> {
        Worker::new(self)
    }

    /// The compiled module of a digest, if [`Self::prepare`] was called for it.
    pub(super) fn prepared(&self, sha256: &str) -> Option<Arc<PreparedModule>> {
        lock(&self.modules)
            .get(sha256)
            .map(|known| Arc::clone(&known.prepared))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Compiles a module without a sandbox that could run it, for as long as it takes.
///
/// * `options`: those of the sandbox that will run it, as far as code depends on them.
#[cfg(feature = "compiler")]
pub(crate) fn compile_alone(
    options: &SandboxOptions,
    module: &ModuleFile,
) -> Result<CompiledModule, String> {
    let engine = engine_config(options).and_then(|config| Engine::new(&config));
    let engine = engine
        .map_err(|err| format!("cannot be compiled: the engine cannot be set up: {err:#}"))?;
    compile(&engine, module, Duration::MAX)
}

/// An engine with places for its calls, or one without where there are not enough addresses for
/// them.
fn new_engine(options: &SandboxOptions) -> wasmtime::Result<Engine> {
    let config = engine_config(options)?;
    if options.n_workers > 0
        && !options.on_demand
        && options.reservation.resolve() == Reservation::Whole
    {
        let mut config = config.clone();
        pool::configure(&mut config, options.n_workers);
        if let Ok(engine) = Engine::new(&config) {
            return Ok(engine);
        }
    }
    Engine::new(&config)
}

fn engine_config(options: &SandboxOptions) -> wasmtime::Result<Config> {
    let mut config = Config::new();
    config.module_version(ModuleVersionStrategy::Custom(code_version(options)))?;
    config.epoch_interruption(options.interruption == Interruption::Epochs);
    config.max_wasm_stack(GUEST_STACK_BYTES);
    config.async_stack_size(GUEST_STACK_BYTES + HOST_STACK_BYTES);
    options.reservation.configure(&mut config);
    // C++ and Python guests need exceptions.
    config.wasm_exceptions(true);
    features::configure(&mut config);
    if options.deterministic {
        // Code that is loaded has it already.
        #[cfg(feature = "compiler")]
        config.cranelift_nan_canonicalization(true);
        config.relaxed_simd_deterministic(true);
    }
    Ok(config)
}

/// What compiled code says of itself, and must say to be loaded: beside this, loading checks the
/// processor and all settings but for NaN.
fn code_version(options: &SandboxOptions) -> String {
    use std::hash::{Hash, Hasher};
    let mut runtime = std::hash::DefaultHasher::new();
    ModuleVersionStrategy::WasmtimeVersion.hash(&mut runtime);
    let deterministic = if options.deterministic {
        " deterministic"
    } else {
        ""
    };
    format!(
        "mandelbox {} {:016x}{deterministic}",
        env!("CARGO_PKG_VERSION"),
        runtime.finish()
    )
}

/// Starts the clock of calls, which also moves the engine's epoch on, so that guests in a loop look
/// at their limits.
fn start_epochs(engine: &Engine) -> std::io::Result<Clock> {
    let engine = engine.weak();
    let (clock, ticker) = RunningClock::start("mandelbox-epoch", EPOCH, move || {
        if let Some(engine) = engine.upgrade() {
            engine.increment_epoch();
        }
    })?;
    Ok((clock, Some(ticker)))
}
