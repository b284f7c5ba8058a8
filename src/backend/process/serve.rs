//! The child's side: confines itself, then runs one call after the other until its parent closes
//! the pipe.
#![expect(
    unsafe_code,
    reason = "the parent is this program, and vouches for the code it sends"
)]

use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::confine::confine;
use super::layers::Layer;
use super::protocol::{FromChild, Hello, SharedCode, ToChild, WireEntry, WireInvocation};
use crate::clock::CpuLaps;
use crate::model::{CancelToken, TaskMetadata};
#[cfg(feature = "compiler")]
use crate::sandbox::ImageSlot;
use crate::sandbox::{
    CompiledModule, Entry, GuestEnd, GuestOutput, GuestReports, GuestWarnings, Interruption,
    Invocation, Sandbox, SandboxOptions, TypedCall, Worker,
};

/// Serves a parent over two pipes and returns when it closes the first.
///
/// Only a parent that is this same program may be served: it sends compiled code, which runs as it
/// is.
///
/// # Errors
/// The pipes', or [`io::ErrorKind::InvalidData`] for a parent of another version.
pub fn serve(from_parent: impl Read, to_parent: impl Write + Send + 'static) -> io::Result<()> {
    serve_with(&Layer::ALL, from_parent, to_parent)
}

/// [`serve`] with a subset of the layers, for tests.
pub(super) fn serve_with(
    layers: &[Layer],
    mut from_parent: impl Read,
    to_parent: impl Write + Send + 'static,
) -> io::Result<()> {
    let to_parent: Answers = Arc::new(Mutex::new(Box::new(to_parent)));
    let ToChild::Hello(hello) = ToChild::read(&mut from_parent)? else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let version = env!("CARGO_PKG_VERSION").to_owned();
    if hello.version != version {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let unable = |reason: String| {
        // A parent that has gone away needs no answer.
        let _ = send(
            &to_parent,
            &FromChild::Unable {
                reason: reason.clone(),
            },
        );
        io::Error::other(reason)
    };
    let Hello {
        deterministic,
        reservation,
        on_demand,
        folders,
        files,
        ..
    } = hello;
    let interruption = Interruption::Process;
    let options = SandboxOptions {
        cache_folder: None,
        deterministic,
        reservation,
        n_workers: 1,
        on_demand,
        interruption,
    };
    // Before confinement: these ask the system what it supports. They start no thread, which would
    // not be confined.
    let sandbox = Sandbox::new(&options).map_err(|err| unable(err.chain()))?;
    let mut worker = sandbox.worker().map_err(|err| unable(err.chain()))?;
    // A confined process cannot open these files.
    let loaded = load_shared(&sandbox, &files);
    // No guest code has run yet.
    let confinement = confine(&folders, layers);
    send(
        &to_parent,
        &FromChild::Ready {
            version,
            confinement,
            loaded,
        },
    )?;
    let mut metadata = TaskMetadata::default();
    let mut cpu = CpuLaps::start();
    loop {
        match ToChild::read(&mut from_parent) {
            Ok(ToChild::Module { sha256, form, code }) => {
                let compiled = CompiledModule::Memory(code.into());
                // SAFETY: the parent is the same version of this program, as its hello said over a
                // pipe that only it has, and sends what its own sandbox of the same settings
                // compiled.
                let adopted = unsafe { sandbox.adopt(&sha256, compiled, &form) };
                adopted.map_err(unable)?;
            }
            Ok(ToChild::Metadata(texts)) => metadata = texts,
            Ok(ToChild::Call(call)) => {
                let started = Instant::now();
                let (end, peak_memory_bytes) = run(&mut worker, &call, &metadata, &to_parent)?;
                let end = send_returned(end, &to_parent)?;
                let cpu_time = cpu.lap(started.elapsed()).unwrap_or_default();
                let cpu_time_ns = u64::try_from(cpu_time.as_nanos()).unwrap_or(u64::MAX);
                send(
                    &to_parent,
                    &FromChild::Ended {
                        end,
                        peak_memory_bytes,
                        cpu_time_ns,
                    },
                )?;
            }
            Ok(ToChild::Hello(_)) => return Err(io::ErrorKind::InvalidData.into()),
            Err(err) if err.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(err) => return Err(err),
        }
    }
}

/// Loads compiled code from the files of the parent, up to the first one that cannot be loaded: the
/// parent sends the rest. Returns the keys of what was loaded.
fn load_shared(sandbox: &Sandbox, files: &[SharedCode]) -> Vec<String> {
    let loaded = files.iter().map_while(|shared| {
        let compiled = shared.file.open()?;
        // SAFETY: as for code that the parent sends: it is the same version of this program, and
        // has loaded the code of this file itself.
        unsafe { sandbox.adopt(&shared.sha256, compiled, &shared.form) }.ok()?;
        Some(shared.sha256.clone())
    });
    loaded.collect()
}

type Answers = Arc<Mutex<Box<dyn Write + Send>>>;

fn send(to_parent: &Answers, message: &FromChild) -> io::Result<()> {
    message.write(&mut *lock(to_parent))
}

fn lock(to_parent: &Answers) -> MutexGuard<'_, Box<dyn Write + Send>> {
    to_parent.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends what a typed task returned in pieces, as messages are short; what is left is how it ended.
fn send_returned(end: GuestEnd, to_parent: &Answers) -> io::Result<GuestEnd> {
    let GuestEnd::Returned(Some(text)) = end else {
        return Ok(end);
    };
    send_pieces(text.as_bytes(), to_parent)?;
    Ok(GuestEnd::Returned(Some(String::new())))
}

fn send_pieces(bytes: &[u8], to_parent: &Answers) -> io::Result<()> {
    for piece in bytes.chunks(MAX_PIECE) {
        send(to_parent, &FromChild::Returned(piece.to_vec()))?;
    }
    Ok(())
}

fn run(
    worker: &mut Worker<'_>,
    call: &WireInvocation,
    metadata: &TaskMetadata,
    to_parent: &Answers,
) -> io::Result<(GuestEnd, u64)> {
    #[cfg(all(feature = "weakened-for-tests", target_os = "linux"))]
    if let Some(report) = super::attempts::instead_of_guest(call) {
        send(to_parent, &FromChild::Stdout(report.into_bytes()))?;
        return Ok((GuestEnd::Exited(0), 0));
    }
    let (limits, cancel) = (call.limits(), &CancelToken::new());
    #[cfg(feature = "compiler")]
    let slot = ImageSlot::default();
    let output = |message: fn(Vec<u8>) -> FromChild| {
        let forward = Forward {
            to_parent: Arc::clone(to_parent),
            message,
        };
        GuestOutput::new(Some(Box::new(forward)), limits.output_bytes)
    };
    let entry = match call.entry {
        WireEntry::Command => Entry::Command,
        WireEntry::Describe => Entry::Describe,
        #[cfg(feature = "compiler")]
        WireEntry::Initialize => Entry::Initialize(&slot),
        WireEntry::Run => {
            let answers = Arc::clone(to_parent);
            // The parent counts and cuts.
            let reports = GuestReports::new(u64::MAX, 0, move |report| {
                // A parent that has gone away needs no report.
                let _ = send(&answers, &FromChild::Report(report));
            });
            let args = std::str::from_utf8(&call.args).map_err(|_| io::ErrorKind::InvalidData)?;
            Entry::Run(TypedCall {
                args,
                metadata,
                reports,
            })
        }
    };
    let answers = Arc::clone(to_parent);
    let warnings = GuestWarnings::new(move |message| {
        // A parent that has gone away needs no warning.
        let _ = send(&answers, &FromChild::Warning(message));
    });
    let invocation = Invocation {
        module_sha256: &call.module_sha256,
        entry,
        argv: &call.argv,
        env: &call.env,
        grants: &call.grants,
        stdin: call.stdin.clone(),
        stdout: output(FromChild::Stdout),
        stderr: output(FromChild::Stderr),
        warnings,
        limits: &limits,
        seed: call.seed,
        cancel,
    };
    let ended = worker.run(&invocation);
    if let Entry::Run(TypedCall { reports, .. }) = &invocation.entry {
        reports.finish();
    }
    #[cfg(feature = "compiler")]
    if let Some(image) = slot.take() {
        send_pieces(&image, to_parent)?;
    }
    Ok(ended)
}

/// Bytes of a guest's output in one message.
const MAX_PIECE: usize = 256 << 10;

/// Forwards a guest's output to the parent, which counts and truncates it.
struct Forward {
    to_parent: Answers,
    message: fn(Vec<u8>) -> FromChild,
}

impl Write for Forward {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = &bytes[..bytes.len().min(MAX_PIECE)];
        send(&self.to_parent, &(self.message)(piece.to_vec()))?;
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
