//! The engine, its epoch ticker, and the modules compiled so far.
//!
//! All workers share one [`Sandbox`]. It looks for a module in three places: in memory under its
//! digest, in the cache folder, and finally by compiling it. New code is written to the cache
//! folder only by [`Sandbox::write_cache`], once all documents have passed their checks.
//!
//! With [`Interruption::Epochs`], a ticker thread increments the epoch of the engine every 10 ms.
//! Compiled code compares the epoch in every loop iteration and yields to its worker, which checks
//! the limits of the call. The same thread drives the clock that measures the wall time of calls.
//! With [`Interruption::Process`], compiled code has no such checks, and the thread is started when
//! the clock is first used.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use wasmtime::{Config, Engine, ModuleVersionStrategy};

use super::cache::ModuleCache;
use super::compile::{CompiledModule, compile};
use super::linkers::Linkers;
use super::module::PreparedModule;
use super::precompiled::ModuleForm;
use super::reservation::Reservation;
#[cfg(feature = "compiler")]
use super::snapshot::PageMap;
use super::worker::Worker;
use super::{features, pool};
use crate::clock::{RunningClock, Ticker};
use crate::model::{HostError, ModuleFile, ModuleKind};
use crate::trace;

/// Interval between two checks of a running guest's limits.
const EPOCH: Duration = Duration::from_millis(10);
/// Interval between two ticks of the clock if guests do not check their limits.
const CLOCK_TICK: Duration = Duration::from_millis(100);
/// Stack size of a guest. C code that walks nested data needs more than wasmtime's default of 512
/// KiB.
const GUEST_STACK_BYTES: usize = 8 << 20;
/// Stack size of host functions that a guest calls, which run on the same fiber.
const HOST_STACK_BYTES: usize = 2 << 20;

/// Settings of a sandbox.
#[derive(Clone, Debug, Default)]
pub struct SandboxOptions {
    /// Folder for compiled modules, which must belong to the user and be closed to others. `None`:
    /// each module is compiled from scratch.
    pub cache_folder: Option<PathBuf>,
    /// True to give guests fixed clocks and random numbers, and a single bit pattern for NaN;
    /// default false.
    pub deterministic: bool,
    /// Address space that each memory of a guest reserves; default [`Reservation::Fitting`].
    pub reservation: Reservation,
    /// Maximum number of concurrent calls, for which a pool reserves memory in advance; default 0.
    /// Without a pool, each call allocates its own memory, which takes longer. There is no pool if
    /// the address space of the process is limited.
    pub n_workers: usize,
    /// True to use no pool, whose parts have a fixed size; default false. Each call can then use
    /// everything that its limits allow, such as tables with millions of entries.
    pub on_demand: bool,
    /// Way to end a guest that computes; default [`Interruption::Epochs`].
    pub interruption: Interruption,
}

/// Way to end a guest that computes when its time limit expires or its run is cancelled. A guest
/// that waits in the host can always be ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interruption {
    /// The code of the guest checks a counter in every loop iteration and every function call. This
    /// slows tight loops.
    #[default]
    Epochs,
    /// Only the end of its process ends the guest.
    Process,
}

/// State that calls share: one engine, its linkers and the compiled modules.
pub struct Sandbox {
    pub(super) engine: Engine,
    pub(super) deterministic: bool,
    reservation: Reservation,
    on_demand: bool,
    pub(super) linkers: Linkers,
    cache: Result<Option<ModuleCache>, String>,
    /// Modules by digest.
    modules: Mutex<HashMap<String, KnownModule>>,
    /// Digests of modules that are not in the cache yet.
    unsaved: Mutex<Vec<String>>,
    /// Held while a snapshot is made, so that threads do not make the same one.
    #[cfg(feature = "compiler")]
    pub(super) making_snapshot: Mutex<()>,
    /// Report about the pages of this process. Instances of snapshots are kept if it exists.
    #[cfg(feature = "compiler")]
    pub(super) pages: Option<PageMap>,
    pub(super) interruption: Interruption,
    clock: OnceLock<Clock>,
}

/// Clock of calls, and the thread that drives it. If guests check epochs, the thread also
/// increments the epoch of the engine.
type Clock = (RunningClock, Option<Ticker>);

/// Compiled module that is ready to be instantiated, and its code for other processes.
struct KnownModule {
    prepared: Arc<PreparedModule>,
    form: ModuleForm,
    compiled: CompiledModule,
}

/// Stops the runtime of this process from capturing a host backtrace with each of its errors, as it
/// does if `RUST_BACKTRACE` is set. Most of these errors are answers to guests, such as a missing
/// file, and no user sees the backtrace.
pub fn capture_no_backtraces() {
    wasmtime::error::disable_backtrace();
}

impl Sandbox {
    /// Creates the engine and starts the thread that makes running guests check their limits.
    ///
    /// A cache folder that cannot be used is not an error: see [`Self::warning`].
    ///
    /// # Errors
    /// [`HostError::Setup`] if the machine has too little memory, cannot start the thread or has an
    /// unknown processor.
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
                    "modules are compiled from scratch each time: the cache {} cannot be used: \
                     {err}",
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
            #[cfg(feature = "compiler")]
            making_snapshot: Mutex::default(),
            #[cfg(feature = "compiler")]
            pages: PageMap::open(),
            interruption: options.interruption,
            clock,
        })
    }

    /// Returns a warning in one line if the cache folder cannot be used.
    pub fn warning(&self) -> Option<&str> {
        self.cache.as_ref().err().map(String::as_str)
    }

    /// Compiles a module, or loads it from the cache, and checks its imports and exports. The
    /// result for a digest is kept in memory. [`Self::write_cache`] also writes it to the cache
    /// folder.
    ///
    /// * `time`: time limit for compiling. A module that takes longer is refused.
    ///
    /// # Errors
    /// A sentence for the user with the reason why the module cannot be called.
    pub fn prepare(&self, module: &ModuleFile, time: Duration) -> Result<ModuleKind, String> {
        self.prepare_with(module, || compile(&self.engine, module, time))
    }

    /// Prepares a module like [`Self::prepare`], with another way to compile it.
    ///
    /// * `compile`: returns code that this version of the program has compiled with the settings of
    ///   this sandbox.
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
        let kind = match cached {
            Some(kind) => Ok(kind),
            None => self.compile(module, compile),
        };
        trace::compiled(from_cache, &kind);
        kind
    }

    /// Prepares a module that is neither in memory nor in the cache.
    fn compile(
        &self,
        module: &ModuleFile,
        compile: impl FnOnce() -> Result<CompiledModule, String>,
    ) -> Result<ModuleKind, String> {
        #[cfg(feature = "compiler")]
        self.refuse_at_once(module)?;
        // Do not hold the lock here: a large module takes seconds, and others can be compiled at
        // the same time.
        let compiled = compile()?;
        #[expect(unsafe_code, reason = "the code was compiled a line before")]
        // SAFETY: this program has just compiled the code, here or in a child process. Loading
        // checks that the settings match.
        let kind = unsafe {
            self.load(
                &module.sha256,
                compiled,
                &ModuleForm::Whole,
                "needs more than a call may have",
            )?
        };
        self.note_unsaved(module.sha256.clone());
        Ok(kind)
    }

    /// Compiles a module in threads of this process.
    #[cfg(feature = "compiler")]
    pub(crate) fn compile_code(
        &self,
        module: &ModuleFile,
        time: Duration,
    ) -> Result<CompiledModule, String> {
        compile(&self.engine, module, time)
    }

    /// Notes that a module is not in the cache folder yet, for [`Self::write_cache`].
    pub(super) fn note_unsaved(&self, sha256: String) {
        lock(&self.unsaved).push(sha256);
    }

    /// Writes newly compiled code to the cache folder, if there is one. Call it once all documents
    /// have passed their checks.
    pub fn write_cache(&self) {
        let unsaved = std::mem::take(&mut *lock(&self.unsaved));
        // A build without the compiler has no new code.
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

    /// Stores a module under its digest.
    pub(super) fn keep(
        &self,
        sha256: &str,
        prepared: PreparedModule,
        form: &ModuleForm,
        compiled: CompiledModule,
    ) -> ModuleKind {
        let kind = prepared.kind();
        let known = KnownModule {
            prepared: Arc::new(prepared),
            form: form.clone(),
            compiled,
        };
        lock(&self.modules).insert(sha256.to_owned(), known);
        kind
    }

    /// Returns the native code of a prepared module, for another process of this program.
    pub(crate) fn compiled(&self, sha256: &str) -> Option<CompiledModule> {
        lock(&self.modules)
            .get(sha256)
            .map(|known| known.compiled.clone())
    }

    /// Returns a prepared module for another process of this program: its keys, forms and native
    /// code, in the order in which the process needs them. A snapshot has two parts. Empty if the
    /// module was not prepared.
    pub(crate) fn parts(&self, sha256: &str) -> Vec<(String, ModuleForm, CompiledModule)> {
        let modules = lock(&self.modules);
        let mut parts = Vec::new();
        let mut next = Some(sha256.to_owned());
        while let Some((key, known)) = next.and_then(|key| {
            let known = modules.get(&key)?;
            Some((key, known))
        }) {
            next = known.form.needs().map(str::to_owned);
            parts.push((key, known.form.clone(), known.compiled.clone()));
        }
        parts.reverse();
        parts
    }

    /// Forgets a module that no call needs any more.
    #[cfg(feature = "compiler")]
    pub(crate) fn forget(&self, sha256: &str) {
        lock(&self.modules).remove(sha256);
    }

    /// Returns the cache of compiled modules, if it can be used.
    pub(super) fn cache(&self) -> Option<&ModuleCache> {
        self.cache.as_ref().ok().and_then(Option::as_ref)
    }

    /// Returns the clock that measures the wall time of calls. It stops while this process is
    /// stopped.
    ///
    /// If no thread drives the clock yet, the first use starts one. It must not be started earlier,
    /// because a worker process is confined before it has threads.
    pub(crate) fn clock(&self) -> &RunningClock {
        let (clock, _) = self.clock.get_or_init(|| {
            match RunningClock::start("mandelbox-clock", CLOCK_TICK, || {}) {
                Ok((clock, ticker)) => (clock, Some(ticker)),
                Err(_) => (RunningClock::without_ticks(), None),
            }
        });
        clock
    }

    /// Returns true if guests get fixed clocks and random numbers.
    pub(crate) fn is_deterministic(&self) -> bool {
        self.deterministic
    }

    /// Returns the way to end a guest that computes.
    #[cfg(feature = "compiler")]
    pub(crate) fn interruption(&self) -> Interruption {
        self.interruption
    }

    /// Returns true if each call allocates its own memory instead of using the pool.
    pub(crate) fn is_on_demand(&self) -> bool {
        self.on_demand
    }

    /// Returns the address space that each memory of a guest reserves. Precompiled code must be
    /// compiled for the same reservation.
    pub fn reservation(&self) -> Reservation {
        self.reservation
    }

    /// Returns true if the guests of a module can access files. A module that was not prepared
    /// counts as one that can.
    pub(crate) fn has_files(&self, sha256: &str) -> bool {
        self.prepared(sha256)
            .is_none_or(|prepared| prepared.has_files())
    }

    /// Creates a worker for the calling thread.
    ///
    /// # Errors
    /// [`HostError::Setup`] if its runtime cannot be created.
    pub fn worker(&self) -> Result<Worker<'_>, HostError> {
        Worker::new(self)
    }

    /// Returns the prepared module with a digest, if [`Self::prepare`] was called for it.
    pub(super) fn prepared(&self, sha256: &str) -> Option<Arc<PreparedModule>> {
        lock(&self.modules)
            .get(sha256)
            .map(|known| Arc::clone(&known.prepared))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Compiles a module without a sandbox to run it in, and without a time limit.
///
/// * `options`: options of the sandbox that will run the code. Only those that the code depends on
///   are used.
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

/// Creates an engine with a pool for its calls, or without one if the address space is too small.
fn new_engine(options: &SandboxOptions) -> wasmtime::Result<Engine> {
    let config = engine_config(options)?;
    if options.n_workers > 0
        && !options.on_demand
        && options.reservation.resolve() == Reservation::Whole
    {
        let mut config = config.clone();
        pool::configure(&mut config, options.n_workers);
        // This fails if the address space of the pool cannot be reserved.
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
        // Code that is loaded was compiled with this setting.
        #[cfg(feature = "compiler")]
        config.cranelift_nan_canonicalization(true);
        config.relaxed_simd_deterministic(true);
    }
    Ok(config)
}

/// Returns the version that compiled code carries and must carry to be loaded. Loading also checks
/// the processor and all settings except the one for NaN, so the version covers that setting.
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

/// Starts the clock of calls. Its thread also increments the epoch of the engine, so that guests in
/// a loop check their limits.
fn start_epochs(engine: &Engine) -> std::io::Result<Clock> {
    let engine = engine.weak();
    let (clock, ticker) = RunningClock::start("mandelbox-epoch", EPOCH, move || {
        if let Some(engine) = engine.upgrade() {
            engine.increment_epoch();
        }
    })?;
    Ok((clock, Some(ticker)))
}
