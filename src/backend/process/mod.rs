//! Calls in child processes that can be killed: what `--isolation process` adds to the sandbox.
//!
//! A [`ProcessWorker`] is the parent's side: it starts a child, speaks [`protocol`] with it, and
//! kills it when a limit is over or the run is cancelled, whatever the child is waiting for.
//! [`serve`] is the child's side. One child serves one thread of the pool, one call after the
//! other, and is started again when it dies.

#[cfg(all(feature = "weakened-for-tests", target_os = "linux"))]
mod attempts;
mod child;
#[cfg(feature = "compiler")]
mod compiler;
mod confine;
mod layers;
mod protocol;
mod serve;

use std::path::PathBuf;
use std::time::Duration;

use crate::model::Grant;
use crate::sandbox::{Entry, GuestEnd, GuestInput, Invocation, Sandbox, TypedCall};
use child::{Child, Received};
use protocol::{FromChild, Hello, SharedCode, ToChild, WireInvocation};

#[cfg(feature = "compiler")]
pub(super) use compiler::Compiler;
#[cfg(feature = "compiler")]
pub use compiler::compile_for_parent;
#[cfg(feature = "cli")]
pub(crate) use confine::close_inherited_files;
pub use layers::{Confinement, Layer, LayerReport, LayerState};
#[doc(hidden)]
pub use protocol::read_from_child;
pub use serve::serve;

/// Time past a limit after which a child is killed that has not ended its guest by itself.
const GRACE: Duration = Duration::from_millis(300);
/// Maximum bytes of a child's text about how a guest ended.
const MAX_TEXT_BYTES: usize = 8 << 10;
/// Longest wait before limits are checked again.
const POLL: Duration = Duration::from_millis(20);
/// Interval between two checks of the reader of a guest's output.
const OUTPUT_POLL: Duration = Duration::from_millis(5);

/// [`serve`] with a subset of the layers.
///
/// # Errors
/// As [`serve`].
#[cfg(feature = "weakened-for-tests")]
#[doc(hidden)]
pub fn serve_with(
    layers: &[Layer],
    from_parent: impl std::io::Read,
    to_parent: impl std::io::Write + Send + 'static,
) -> std::io::Result<()> {
    serve::serve_with(layers, from_parent, to_parent)
}

/// The program that is started as a child; it must call [`serve`], or `compile_for_parent` where it
/// is to compile.
#[derive(Clone, Debug)]
pub struct WorkerCommand {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
}

/// Runs calls of a sandbox in a child process, one at a time.
pub(super) struct ProcessWorker<'a> {
    sandbox: &'a Sandbox,
    command: &'a WorkerCommand,
    /// Folders that the child may reach, whatever a call grants.
    folders: Vec<Grant>,
    child: Option<Child>,
    /// CPU time of the last call in its process.
    cpu_time: Duration,
}

impl<'a> ProcessWorker<'a> {
    pub(super) fn new(
        sandbox: &'a Sandbox,
        command: &'a WorkerCommand,
        folders: Vec<Grant>,
    ) -> Self {
        Self {
            sandbox,
            command,
            folders,
            child: None,
            cpu_time: Duration::ZERO,
        }
    }

    /// Returns the CPU time of the last call in its process; zero if the process was killed.
    pub(super) fn cpu_time(&self) -> Duration {
        self.cpu_time
    }

    /// Confinement of the children, as one of them reports it; starts a child if none runs.
    pub(super) fn confinement(&mut self) -> Result<Confinement, String> {
        self.child(&GuestInput::Empty, None)
            .map(|child| child.confinement.clone())
    }

    /// Runs one call to its end; returns how it ended and the most bytes of memory that it had.
    pub(super) fn run(&mut self, invocation: &Invocation<'_>) -> (GuestEnd, u64) {
        self.cpu_time = Duration::ZERO;
        if let Err(text) = self.start(invocation) {
            self.child = None;
            return (lost(invocation, GuestEnd::HostFailed(text)), 0);
        }
        let limit = invocation.limits.wall_time;
        let clock = self.sandbox.clock();
        let mut deadline =
            limit.and_then(|limit| clock.now().checked_add(limit.saturating_add(GRACE)));
        let mut checked_at = clock.now();
        let reports = match &invocation.entry {
            Entry::Run(TypedCall { reports, .. }) => Some(reports),
            _ => None,
        };
        let mut returned = Vec::new();
        loop {
            let Some(child) = &mut self.child else {
                return (GuestEnd::Lost("the worker process is gone".to_owned()), 0);
            };
            let received = if invocation.stdout.is_ready() && invocation.stderr.is_ready() {
                child.receive(POLL)
            } else {
                // What the child sends waits in its pipe until the reader of its output goes on.
                std::thread::sleep(OUTPUT_POLL);
                Ok(Received::Nothing)
            };
            match received {
                Ok(Received::Message(FromChild::Stdout(bytes))) => invocation.stdout.take(&bytes),
                Ok(Received::Message(FromChild::Stderr(bytes))) => invocation.stderr.take(&bytes),
                Ok(Received::Message(FromChild::Report(report))) => {
                    if let Some(reports) = reports {
                        reports.take(report);
                    }
                }
                Ok(Received::Message(FromChild::Warning(message))) => {
                    invocation.warnings.warn(&message)
                }
                Ok(Received::Message(FromChild::Returned(bytes)))
                    if (returned.len() + bytes.len()) as u64 <= max_returned_bytes(invocation) =>
                {
                    returned.extend(bytes);
                }
                Ok(Received::Message(FromChild::Ended {
                    end,
                    peak_memory_bytes,
                    cpu_time_ns,
                })) => {
                    self.cpu_time = Duration::from_nanos(cpu_time_ns);
                    #[cfg(feature = "compiler")]
                    if let Entry::Initialize(slot) = &invocation.entry
                        && !returned.is_empty()
                    {
                        slot.put(std::mem::take(&mut returned));
                    }
                    let end = with_returned(bounded(end), returned);
                    return (end, peak_memory_bytes.min(invocation.limits.memory_bytes));
                }
                Ok(Received::Message(FromChild::Unable { reason })) => {
                    self.child = None;
                    return (
                        bounded(GuestEnd::Lost(format!(
                            "the worker process cannot serve: {reason}"
                        ))),
                        0,
                    );
                }
                Ok(Received::Message(FromChild::Ready { .. } | FromChild::Returned(_))) => {
                    self.child = None;
                    return (
                        GuestEnd::Lost("the worker process spoke out of turn".to_owned()),
                        0,
                    );
                }
                Ok(Received::Nothing) => {}
                Err(text) => {
                    self.child = None;
                    return (lost(invocation, GuestEnd::Lost(text)), 0);
                }
            }
            if let Some(reports) = reports {
                reports.send_due_progress();
            }
            // Dropping a child kills it.
            if invocation.stdout.has_failed() || invocation.stderr.has_failed() {
                self.child = None;
                return (GuestEnd::OutputFailed, 0);
            }
            if let Some((limit, deadline)) = limit.zip(deadline.as_mut()) {
                let now = clock.now();
                if self.child.as_ref().is_some_and(Child::is_stopped) {
                    *deadline += now - checked_at;
                }
                checked_at = now;
                if now >= *deadline {
                    self.child = None;
                    return (GuestEnd::TimedOut(limit), 0);
                }
            }
            if invocation.cancel.is_cancelled() {
                self.child = None;
                return (GuestEnd::Cancelled, 0);
            }
        }
    }

    fn start(&mut self, invocation: &Invocation<'_>) -> Result<(), String> {
        let (sandbox, cancel) = (self.sandbox, invocation.cancel);
        if self.child.as_ref().is_some_and(|child| !child.is_quiet()) {
            self.child = None;
        }
        let sha256 = invocation.module_sha256;
        let child = self.child(&invocation.stdin, Some(sha256))?;
        if !child.modules.contains(sha256) {
            let parts = sandbox.parts(sha256);
            if parts.is_empty() {
                return Err("the module was not prepared".to_owned());
            }
            for (sha256, form, compiled) in parts {
                if child.modules.contains(&sha256) {
                    continue;
                }
                let code = compiled.bytes().map_err(|err| {
                    format!("the compiled code of the module cannot be read: {err}")
                })?;
                let message = ToChild::Module {
                    sha256: sha256.clone(),
                    form,
                    code,
                };
                child.send(message, cancel)?;
                child.modules.insert(sha256);
            }
        }
        if let Entry::Run(TypedCall { metadata, .. }) = &invocation.entry
            && !child
                .metadata
                .as_ref()
                .is_some_and(|sent| sent.is(metadata))
        {
            child.send(ToChild::Metadata((*metadata).clone()), cancel)?;
            child.metadata = Some((*metadata).clone());
        }
        child.send(ToChild::Call(WireInvocation::of(invocation)), cancel)
    }

    /// The child, or a new one.
    ///
    /// * `stdin`: what its guests read.
    /// * `first`: module of its first call, if it is known.
    fn child(&mut self, stdin: &GuestInput, first: Option<&str>) -> Result<&mut Child, String> {
        if self.child.is_none() {
            let hello = Hello {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                deterministic: self.sandbox.is_deterministic(),
                reservation: self.sandbox.reservation(),
                on_demand: self.sandbox.is_on_demand(),
                folders: self.folders.clone(),
                files: first.map(|sha256| self.shared(sha256)).unwrap_or_default(),
            };
            self.child = Some(Child::start(
                self.command,
                hello,
                stdin,
                self.sandbox.clock(),
            )?);
        }
        self.child
            .as_mut()
            .ok_or_else(|| "no worker process".to_owned())
    }
}

impl ProcessWorker<'_> {
    /// Returns the parts of a prepared module that a child can map from files, up to the first one
    /// that it has to receive.
    fn shared(&self, sha256: &str) -> Vec<SharedCode> {
        let parts = self.sandbox.parts(sha256).into_iter();
        parts
            .map_while(|(sha256, form, compiled)| {
                let file = compiled.open_file()?;
                Some(SharedCode { sha256, form, file })
            })
            .collect()
    }
}

/// Maximum bytes that a guest may return.
fn max_returned_bytes(invocation: &Invocation<'_>) -> u64 {
    match invocation.entry {
        // The image of a memory, and a few bytes for each of its pages.
        #[cfg(feature = "compiler")]
        Entry::Initialize(_) => {
            let memory_bytes = invocation.limits.memory_bytes;
            memory_bytes
                .saturating_add(memory_bytes / 64)
                .saturating_add(1 << 20)
        }
        _ => invocation.limits.call_output_bytes,
    }
}

/// Returns the end of the guest of a child that has died. A signal to all processes of the run
/// ends a child that has only just begun, and cancels the run a moment later.
fn lost(invocation: &Invocation<'_>, end: GuestEnd) -> GuestEnd {
    const MOMENT: Duration = Duration::from_millis(300);
    if invocation.cancel.wait_for(MOMENT) {
        GuestEnd::Cancelled
    } else {
        end
    }
}

/// Truncates the text in how a guest ended: it goes into the records, and a child that escaped code
/// controls can send any text.
fn bounded(mut end: GuestEnd) -> GuestEnd {
    use GuestEnd::{Failed, HostFailed, Lost, ReturnedTooMuch, Trapped};
    if let Failed(text) | HostFailed(text) | Lost(text) | ReturnedTooMuch(text) | Trapped(text) =
        &mut end
    {
        text.truncate(text.floor_char_boundary(MAX_TEXT_BYTES));
    }
    end
}

/// Returns the end of a guest with its returned value, which came in pieces before.
fn with_returned(end: GuestEnd, returned: Vec<u8>) -> GuestEnd {
    match end {
        GuestEnd::Returned(Some(_)) => match String::from_utf8(returned) {
            Ok(text) => GuestEnd::Returned(Some(text)),
            Err(_) => GuestEnd::Lost("the worker process sent a text that is none".to_owned()),
        },
        end => end,
    }
}
