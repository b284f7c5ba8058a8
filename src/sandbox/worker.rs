//! Execution of calls, one after the other, on the thread that owns the worker.
//!
//! A guest runs on a fiber, as a future on a runtime of the thread. A guest in a loop yields at
//! each epoch, and a guest that calls an asynchronous function of the host yields while it waits.
//! Whenever the guest yields, [`until_interrupted`] checks its time limit and the cancel token. A
//! timer and the token also wake the thread while a guest waits. Dropping the future ends the
//! guest.
//!
//! A guest in a loop does not yield with [`Interruption::Process`]. Only the end of its process
//! ends it.
//!
//! Each call gets a new store, so no state of a guest survives it. Only the opened folders are kept
//! for the next call. A call from a snapshot can run in the store of the call before, after the
//! memory was restored ([`super::snapshot`]).

use std::future::{Future, poll_fn};
use std::pin::pin;
#[cfg(feature = "compiler")]
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::runtime::Runtime;
use wasmtime::{Instance, Store, UpdateDeadline, WasmBacktrace};
use wasmtime_wasi::filesystem::WasiFilesystemView;
use wasmtime_wasi::p2::pipe::MemoryInputPipe;
use wasmtime_wasi::{I32Exit, ResourceTableError, WasiCtxBuilder, WasiView};

use super::determinism::make_deterministic;
use super::engine::{Interruption, Sandbox};
use super::folders::OpenFolders;
use super::host::Host;
#[cfg(feature = "compiler")]
use super::invocation::Entry;
use super::invocation::{GuestEnd, GuestInput, Invocation};
use super::limits::{
    BudgetExceeded, MachineIsFull, MemoryBudget, is_machine_error, machine_is_full,
};
use super::linkers::Linkers;
use super::module::{CoreEntry, PreparedModule};
use super::read_directory::Listings;
#[cfg(feature = "compiler")]
use super::snapshot::{InstanceParts, KeptInstance};
use super::stdio::OutputFailed;
use super::typed::TypedHost;
use crate::clock::RunningClock;
use crate::model::{CancelToken, HostError, Limits};

/// Maximum number of handles of a component's resources in a call, in addition to those of open
/// files and streams.
const MAX_OTHER_HANDLES: usize = 1000;
/// Maximum number of random bytes that a call gets at a time.
const MAX_RANDOM_BYTES: u64 = 64 << 20;

/// Runner of a sandbox's calls, one at a time, on the calling thread.
pub struct Worker<'a> {
    sandbox: &'a Sandbox,
    runtime: Runtime,
    /// Opened folders of the previous call. The calls of a task have the same folders.
    folders: OpenFolders,
    /// Instance of the previous call, if it was a call from a snapshot that ended by itself.
    #[cfg(feature = "compiler")]
    kept: Option<KeptInstance>,
}

/// Reason for ending a guest from outside.
enum Interrupted {
    TimedOut(Duration),
    Cancelled,
}

impl<'a> Worker<'a> {
    pub(super) fn new(sandbox: &'a Sandbox) -> Result<Self, HostError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        let runtime = runtime.map_err(HostError::setup("set up a worker"))?;
        Ok(Self {
            sandbox,
            runtime,
            folders: OpenFolders::default(),
            #[cfg(feature = "compiler")]
            kept: None,
        })
    }

    /// Runs one call to its end. Returns the result and the peak memory in bytes.
    pub fn run(&mut self, invocation: &Invocation<'_>) -> (GuestEnd, u64) {
        let Some(module) = self.sandbox.prepared(invocation.module_sha256) else {
            return (
                GuestEnd::HostFailed("the module was not prepared".to_owned()),
                0,
            );
        };
        let host = match self.host(invocation) {
            Ok(host) => host,
            Err(text) => return (GuestEnd::HostFailed(text), 0),
        };
        // Reuse or drop the kept instance first: it occupies the slot of the pool that a new one
        // needs.
        #[cfg(feature = "compiler")]
        if let Some(kept) = self.restored(&module, invocation) {
            return self.run_again(kept, host, invocation);
        }
        let mut store = Store::new(&self.sandbox.engine, host);
        self.configure(&mut store, invocation.limits);
        let mut started = Started::default();
        let guest = run_guest(
            &mut store,
            &self.sandbox.linkers,
            &module,
            invocation,
            &mut started,
        );
        let end = self.run_to_its_end(guest, invocation);
        let peak_bytes = store.data().budget.peak_bytes();
        #[cfg(feature = "compiler")]
        if let (GuestEnd::Exited(_), Some((parts, start_bytes)), Some(_)) =
            (&end, started, &self.sandbox.pages)
        {
            self.kept = Some(KeptInstance::new(module, store, parts, start_bytes));
        }
        (end, peak_bytes)
    }

    /// Returns the instance of the previous call, if a call can run in it.
    #[cfg(feature = "compiler")]
    fn restored(
        &mut self,
        module: &Arc<PreparedModule>,
        invocation: &Invocation<'_>,
    ) -> Option<KeptInstance> {
        let kept = self.kept.take()?;
        let pages = self.sandbox.pages.as_ref()?;
        kept.can_run(module, invocation)
            .then(|| kept.restored(pages))?
    }

    /// Runs a call in the instance of the previous one.
    #[cfg(feature = "compiler")]
    fn run_again(
        &mut self,
        mut kept: KeptInstance,
        mut host: Host,
        invocation: &Invocation<'_>,
    ) -> (GuestEnd, u64) {
        host.budget.start_with(kept.start_bytes);
        *kept.store.data_mut() = host;
        self.configure(&mut kept.store, invocation.limits);
        let guest = async { Ok(GuestEnd::Exited(kept.call().await?)) };
        let end = self.run_to_its_end(guest, invocation);
        let peak_bytes = kept.store.data().budget.peak_bytes();
        if let GuestEnd::Exited(_) = end {
            self.kept = Some(kept.idle());
        }
        (end, peak_bytes)
    }

    fn run_to_its_end(
        &self,
        guest: impl Future<Output = wasmtime::Result<GuestEnd>>,
        invocation: &Invocation<'_>,
    ) -> GuestEnd {
        let limit = invocation
            .limits
            .wall_time
            .map(|limit| (limit, self.sandbox.clock()));
        let end = self
            .runtime
            .block_on(until_interrupted(guest, limit, invocation.cancel));
        match end {
            Ok(Ok(end)) => end,
            Ok(Err(err)) => guest_end(&err),
            Err(Interrupted::TimedOut(limit)) => GuestEnd::TimedOut(limit),
            Err(Interrupted::Cancelled) => GuestEnd::Cancelled,
        }
    }

    /// Returns the data of the store of a call.
    fn host(&mut self, invocation: &Invocation<'_>) -> Result<Host, String> {
        let mut builder = WasiCtxBuilder::new();
        builder.args(invocation.argv);
        builder.envs(invocation.env);
        builder.max_random_size(MAX_RANDOM_BYTES);
        // A snapshot depends on nothing but its module and its mounts.
        let is_deterministic = self.sandbox.deterministic || invocation.entry.is_initialization();
        if is_deterministic {
            make_deterministic(&mut builder, invocation.seed);
        }
        match &invocation.stdin {
            GuestInput::Empty => {}
            GuestInput::Inherited => {
                builder.inherit_stdin();
            }
            GuestInput::Text(text) => {
                builder.stdin(MemoryInputPipe::new(text.clone()));
            }
        }
        builder.stdout(invocation.stdout.clone());
        builder.stderr(invocation.stderr.clone());
        let typed = TypedHost::of(&invocation.entry);
        let (opened, folders) = self.folders.of(invocation.grants)?;
        let mut host = Host {
            wasi: builder.build_p1(),
            budget: MemoryBudget::new(invocation.limits),
            typed,
            folders,
            listings: Listings::new(is_deterministic),
            warnings: invocation.warnings.clone(),
        };
        *host.filesystem().ctx = opened;
        host.wasi
            .ctx()
            .table
            .set_max_capacity(invocation.limits.open_files);
        Ok(host)
    }

    /// Sets up a store for a call.
    fn configure(&self, store: &mut Store<Host>, limits: &Limits) {
        store.limiter(|host| &mut host.budget);
        if self.sandbox.interruption == Interruption::Epochs {
            store.set_epoch_deadline(1);
            store.epoch_deadline_callback(|store| {
                if let Some(typed) = &store.data().typed {
                    typed.reports.send_due_progress();
                }
                Ok(UpdateDeadline::Yield(1))
            });
        }
        // An imaging task may write all of its memory at once, and wasmtime's default limit is 128
        // MiB.
        store.set_hostcall_fuel(usize::try_from(limits.memory_bytes).unwrap_or(usize::MAX));
        store.set_max_component_handles(limits.open_files.saturating_add(MAX_OTHER_HANDLES));
    }
}

/// Instance of a snapshot before its call, and the memory that it needs.
#[cfg(feature = "compiler")]
type Started = Option<(InstanceParts, u64)>;
#[cfg(not(feature = "compiler"))]
type Started = Option<()>;

/// Initializes a module that is no command, if it exports a function for that.
async fn initialize(instance: &Instance, store: &mut Store<Host>) -> wasmtime::Result<()> {
    match instance.get_typed_func::<(), ()>(&mut *store, "_initialize") {
        Ok(initialize) => initialize.call_async(store, ()).await,
        Err(_) => Ok(()),
    }
}

/// * `started`: receives the instance of a snapshot.
async fn run_guest(
    store: &mut Store<Host>,
    linkers: &Linkers,
    module: &PreparedModule,
    invocation: &Invocation<'_>,
    started: &mut Started,
) -> wasmtime::Result<GuestEnd> {
    #[cfg(not(feature = "compiler"))]
    let (_, _) = (linkers, started);
    match module {
        PreparedModule::Core { pre, entry } => {
            let instance = pre.instantiate_async(&mut *store).await?;
            let start = match entry {
                CoreEntry::Start => "_start",
                CoreEntry::Default => {
                    initialize(&instance, store).await?;
                    ""
                }
                CoreEntry::Run => {
                    initialize(&instance, store).await?;
                    let run = instance.get_typed_func::<(), i32>(&mut *store, "run")?;
                    return Ok(GuestEnd::Exited(run.call_async(store, ()).await?));
                }
            };
            let start = instance.get_typed_func::<(), ()>(&mut *store, start)?;
            start.call_async(store, ()).await?;
        }
        PreparedModule::Component(pre) => {
            let command = pre.instantiate_async(&mut *store).await?;
            match command.wasi_cli_run().call_run(store).await? {
                Ok(()) => {}
                Err(()) => return Err(I32Exit(1).into()),
            }
        }
        #[cfg(feature = "compiler")]
        PreparedModule::Snapshot(snapshot) => {
            if let Entry::Initialize(slot) = &invocation.entry {
                return snapshot.initialize(linkers, store, invocation, slot).await;
            }
            let instance = snapshot.instantiate(linkers, store).await?;
            let start_bytes = store.data().budget.used_bytes();
            let parts = InstanceParts::of(snapshot, instance, store);
            *started = parts.map(|parts| (parts, start_bytes));
            return Ok(GuestEnd::Exited(snapshot.run(instance, store).await?));
        }
        #[cfg(feature = "compiler")]
        PreparedModule::SnapshotCode(_) => {
            return Ok(GuestEnd::HostFailed(
                "the module was prepared for snapshots, and a call needs one".to_owned(),
            ));
        }
        PreparedModule::Typed(typed) => {
            return typed.run(store, &invocation.entry, invocation.limits).await;
        }
    }
    Ok(GuestEnd::Exited(0))
}

/// Polls the guest until it ends, its time limit expires or the run is cancelled. A guest in a loop
/// yields at each epoch; one that sleeps or waits has already yielded.
///
/// * `limit`: time limit of the guest, and the clock that measures it.
async fn until_interrupted<T>(
    guest: impl Future<Output = T>,
    limit: Option<(Duration, &RunningClock)>,
    cancel: &CancelToken,
) -> Result<T, Interrupted> {
    let deadline =
        limit.and_then(|(limit, clock)| Some((limit, clock.now().checked_add(limit)?, clock)));
    let alarm = async {
        let Some((_, deadline, clock)) = deadline else {
            return std::future::pending().await;
        };
        // The timer continues while the process is stopped, but the clock does not.
        while let Some(left) = deadline
            .checked_sub(clock.now())
            .filter(|left| !left.is_zero())
        {
            tokio::time::sleep(left).await;
        }
    };
    let (mut guest, mut alarm, mut cancelled) =
        (pin!(guest), pin!(alarm), pin!(cancel.cancelled()));
    poll_fn(|cx| {
        let end = guest.as_mut().poll(cx);
        // Read the clock after the guest has run: a guest that ends too late has timed out, and so
        // has one that has used up its time before the timer fires.
        let over = deadline.filter(|(_, deadline, clock)| clock.now() >= *deadline);
        if let (Poll::Ready(end), None) = (end, over) {
            return Poll::Ready(Ok(end));
        }
        let rings = alarm.as_mut().poll(cx).is_ready();
        if let Some((limit, ..)) = over.or(deadline.filter(|_| rings)) {
            return Poll::Ready(Err(Interrupted::TimedOut(limit)));
        }
        if cancelled.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(Interrupted::Cancelled));
        }
        Poll::Pending
    })
    .await
}

fn guest_end(err: &wasmtime::Error) -> GuestEnd {
    if let Some(I32Exit(code)) = err.downcast_ref() {
        return GuestEnd::Exited(*code);
    }
    if err.is::<OutputFailed>() {
        return GuestEnd::OutputFailed;
    }
    if let Some(err) = err.downcast_ref::<BudgetExceeded>() {
        return GuestEnd::MemoryExceeded {
            limit_bytes: err.limit_bytes,
            asked_bytes: err.asked_bytes,
        };
    }
    if let Some(ResourceTableError::Full) = err.downcast_ref() {
        return GuestEnd::Trapped(
            "it had more files, folders and streams open at a time than a call may have (`open_files` \
             in the policy)"
                .to_owned(),
        );
    }
    if let Some(err) = err.downcast_ref::<MachineIsFull>() {
        return GuestEnd::HostFailed(err.to_string());
    }
    if let Some(full) = machine_is_full(err) {
        return GuestEnd::HostFailed(full.to_string());
    }
    if is_machine_error(err) {
        return GuestEnd::HostFailed(format!("the module could not be started: {err:#}"));
    }
    let frames = err.downcast_ref::<WasmBacktrace>();
    GuestEnd::Trapped(format!(
        "{}{}",
        err.root_cause(),
        frames.map(in_functions).unwrap_or_default()
    ))
}

/// Returns the innermost functions of a backtrace, as far as they have names.
fn in_functions(backtrace: &WasmBacktrace) -> String {
    const SHOWN: usize = 4;
    const MAX_NAME_CHARS: usize = 200;
    let names = backtrace
        .frames()
        .iter()
        .filter_map(|frame| frame.func_name())
        .take(SHOWN);
    // The module chooses the names of its functions, of any length.
    let names: Vec<String> = names
        .map(|name| name.chars().take(MAX_NAME_CHARS).collect())
        .collect();
    if names.is_empty() {
        String::new()
    } else {
        format!(" (in {})", names.join(", called by "))
    }
}
