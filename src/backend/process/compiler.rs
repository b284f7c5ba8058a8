//! Compiling in a child process, whose memory is limited and which is killed when its time is over.
//!
//! A compiler cannot be interrupted, its threads go on after nobody waits for them any more, and
//! how much memory it takes depends on the module: some hundred bytes a byte of it, and far more
//! for one that is made for that. In a child all of this has an end. [`Compiler`] is the parent's
//! side, [`compile_for_parent`] the child's.
//!
//! The parent writes a head (its length in 4 bytes, then JSON) and the module to the child's stdin,
//! and reads the child's stdout until it ends: the answer, then one byte for its kind. If the child
//! has died, the answer is the message of the runtime.

use std::io::{self, Read, Write};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, setrlimit};
use serde::{Deserialize, Serialize};

use super::WorkerCommand;
use super::confine::confine;
use super::layers::Layer;
use crate::clock::RunningClock;
use crate::model::ModuleFile;
use crate::sandbox::{CompiledModule, Sandbox, SandboxOptions, compile_alone, takes_too_long};
use crate::text::bytes_text;

/// Interval between two checks of the timeout.
const POLL: Duration = Duration::from_millis(50);
/// Bytes of the head.
const MAX_HEAD: usize = 64 << 10;
/// Last byte of the child's output: it marks code, or a sentence with the reason why there is none.
const CODE: u8 = b'C';
const REFUSAL: u8 = b'R';
/// Message that the runtime prints when memory runs out.
const OUT_OF_MEMORY: &str = "memory allocation of";

/// Compiles modules in child processes, one at a time.
pub(in super::super) struct Compiler {
    command: WorkerCommand,
    memory_bytes: u64,
    /// Held while a child compiles: the bound on memory is one for all of them.
    turn: Mutex<()>,
}

/// Parameters of a child.
#[derive(Serialize, Deserialize)]
struct Head {
    version: String,
    options: CompileOptions,
    memory_bytes: u64,
}

/// Options of a sandbox that compiled code depends on.
#[derive(Serialize, Deserialize)]
struct CompileOptions {
    deterministic: bool,
    reservation: crate::sandbox::Reservation,
    interruption: crate::sandbox::Interruption,
}

impl Compiler {
    /// * `command`: starts a program that calls [`compile_for_parent`].
    /// * `memory_bytes`: memory that it may have.
    pub(in super::super) fn new(command: WorkerCommand, memory_bytes: u64) -> Self {
        Self {
            command,
            memory_bytes,
            turn: Mutex::default(),
        }
    }

    /// Compiles a module for a sandbox; the error is a sentence for the user.
    ///
    /// * `time`: what it may take, from when it is this module's turn.
    pub(in super::super) fn compile(
        &self,
        sandbox: &Sandbox,
        module: &ModuleFile,
        time: Duration,
    ) -> Result<CompiledModule, String> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let head = Head {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            options: CompileOptions {
                deterministic: sandbox.is_deterministic(),
                reservation: sandbox.reservation(),
                interruption: sandbox.interruption(),
            },
            memory_bytes: self.memory_bytes,
        };
        let failed =
            |err: io::Error| format!("cannot be compiled: failed to start a process for it: {err}");
        let head = serde_json::to_vec(&head).map_err(|err| failed(err.into()))?;
        let (status, output) = self
            .run(head, &module.bytes, time, sandbox.clock())
            .map_err(failed)?;
        let Some(status) = status else {
            return Err(takes_too_long(time));
        };
        self.result(status, output)
    }

    /// Runs a child to its end. Returns how it ended and what it gave; `None`: it was killed when
    /// its time was over.
    #[expect(
        clippy::disallowed_methods,
        reason = "this program itself is started: see `child.rs`"
    )]
    fn run(
        &self,
        head: Vec<u8>,
        module: &Arc<[u8]>,
        time: Duration,
        clock: &RunningClock,
    ) -> io::Result<(Option<ExitStatus>, Vec<u8>)> {
        let (output, of_child) = io::pipe()?;
        let mut command = Command::new(&self.command.program);
        command
            .args(&self.command.arguments)
            .env_clear()
            .current_dir("/");
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(of_child.try_clone()?)
            .stderr(of_child)
            .spawn()?;
        // The parent's own ends of the pipe, without which its reader would never see the end.
        drop(command);
        let input = child.stdin.take();
        let (module, max_bytes) = (Arc::clone(module), self.memory_bytes);
        // A child that does not read or write for long must not keep its parent from killing it.
        let writer = std::thread::Builder::new().spawn(move || {
            let Some(mut input) = input else { return };
            let length = u32::try_from(head.len()).unwrap_or(u32::MAX).to_le_bytes();
            // The exit status of a child that has died is more precise.
            let _ = [&length[..], &head[..], &module[..]]
                .into_iter()
                .try_for_each(|bytes| input.write_all(bytes));
        });
        let (send, received) = channel();
        let reader = std::thread::Builder::new().spawn(move || {
            let mut bytes = Vec::new();
            let read = output.take(max_bytes).read_to_end(&mut bytes);
            // Nobody waits any more if the time is over.
            let _ = send.send(read.map(|_| bytes));
        });
        let deadline = clock.now().saturating_add(time);
        let read = loop {
            if writer.is_err() || reader.is_err() || clock.now() >= deadline {
                break None;
            }
            match received.recv_timeout(POLL) {
                Ok(read) => break Some(read),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break None,
            }
        };
        if read.is_none() {
            // It may have ended by now; there is nothing to save in it.
            let _ = child.kill();
        }
        let status = child.wait()?;
        writer?;
        reader?;
        match read {
            None => Ok((None, Vec::new())),
            Some(read) => Ok((Some(status), read?)),
        }
    }

    fn result(&self, status: ExitStatus, mut output: Vec<u8>) -> Result<CompiledModule, String> {
        match output.pop().filter(|_| status.success()) {
            Some(CODE) => return Ok(CompiledModule::Memory(output.into())),
            Some(REFUSAL) => return Err(String::from_utf8_lossy(&output).into_owned()),
            _ => {}
        }
        let memory = bytes_text(self.memory_bytes);
        if String::from_utf8_lossy(&output).contains(OUT_OF_MEMORY) {
            return Err(format!(
                "needs more memory to compile than the {memory} that it may have; \
                 `compile_memory` in the policy's \
                 [host] sets that"
            ));
        }
        Err(format!(
            "cannot be compiled: the compiler's process died ({status}), of the module or for \
             want of memory ({memory}; \
             `compile_memory` in the policy's [host] sets that)"
        ))
    }
}

/// Compiles the module that a parent sends, and returns.
///
/// Only a parent that is this same program may be served, since it runs what it gets back.
///
/// # Errors
/// The pipes', or [`io::ErrorKind::InvalidData`] for a parent of another version.
pub fn compile_for_parent(mut from_parent: impl Read, mut to_parent: impl Write) -> io::Result<()> {
    let head = read_head(&mut from_parent)?;
    // Why it has panicked does not belong into what the parent reads.
    std::panic::set_hook(Box::new(|_| {}));
    limit_memory(head.memory_bytes)?;
    confine(&[], &Layer::ALL);
    let mut bytes = Vec::new();
    from_parent.read_to_end(&mut bytes)?;
    let CompileOptions {
        deterministic,
        reservation,
        interruption,
    } = head.options;
    let options = SandboxOptions {
        deterministic,
        reservation,
        interruption,
        ..SandboxOptions::default()
    };
    let module = ModuleFile::from_bytes("module".into(), bytes);
    match compile_alone(&options, &module) {
        Ok(compiled) => {
            to_parent.write_all(&compiled.bytes()?)?;
            to_parent.write_all(&[CODE])?;
        }
        Err(text) => {
            to_parent.write_all(text.as_bytes())?;
            to_parent.write_all(&[REFUSAL])?;
        }
    }
    to_parent.flush()
}

fn read_head(from_parent: &mut impl Read) -> io::Result<Head> {
    let mut length = [0; 4];
    from_parent.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_HEAD {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut head = vec![0; length];
    from_parent.read_exact(&mut head)?;
    let head: Head = serde_json::from_slice(&head)?;
    if head.version == env!("CARGO_PKG_VERSION") {
        Ok(head)
    } else {
        Err(io::ErrorKind::InvalidData.into())
    }
}

/// Limits the memory of this process: all that it writes to and that is no file's. Addresses alone
/// are not counted.
fn limit_memory(bytes: u64) -> io::Result<()> {
    let limit = |bytes| Rlimit {
        current: Some(bytes),
        maximum: Some(bytes),
    };
    // A process that dies for want of memory leaves no image of it.
    setrlimit(Resource::Core, limit(0))?;
    let hard = rustix::process::getrlimit(Resource::Data).maximum;
    Ok(setrlimit(
        Resource::Data,
        limit(hard.map_or(bytes, |hard| hard.min(bytes))),
    )?)
}
