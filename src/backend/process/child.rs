//! The parent's handle of one child.

use std::collections::HashSet;
use std::io::Read;
use std::os::fd::AsFd;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::WorkerCommand;
use super::protocol::{FromChild, Hello, ToChild};
use crate::sandbox::{GuestInput, TaskMetadata};

/// Time that a child has to say that it is ready.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// Bytes that are read from a child at a time.
const READ_BYTES: usize = 64 << 10;

/// A running child; dropping it kills it.
pub(super) struct Child {
    process: std::process::Child,
    stdin: ChildStdin,
    stdout: ChildStdout,
    received: Vec<u8>,
    /// Modules that the child has.
    pub(super) modules: HashSet<String>,
    /// Metadata that the child has for typed calls.
    pub(super) metadata: Option<TaskMetadata>,
    /// How it is confined, in its own words.
    pub(super) confinement: String,
}

/// What came within the time that was waited.
pub(super) enum Received {
    Message(FromChild),
    Nothing,
}

impl Child {
    /// Starts a child and waits until it is confined and ready.
    ///
    /// * `stdin`: what its guests read. The child finds it where others have stderr, since its own stdin is the pipe.
    #[expect(clippy::disallowed_methods, reason = "the one place where a process is started: this program itself")]
    pub(super) fn start(command: &WorkerCommand, hello: Hello, stdin: GuestInput) -> Result<Self, String> {
        let version = hello.version.clone();
        let failed = |err: std::io::Error| format!("failed to start a worker process: {err}");
        let guest_input = match stdin {
            GuestInput::Empty => Stdio::null(),
            GuestInput::Inherited => Stdio::from(std::io::stdin().as_fd().try_clone_to_owned().map_err(failed)?),
        };
        let mut process = Command::new(&command.program)
            .args(&command.arguments)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(guest_input)
            .spawn()
            .map_err(failed)?;
        let (Some(stdin), Some(stdout)) = (process.stdin.take(), process.stdout.take()) else {
            return Err("failed to start a worker process: it has no pipes".to_owned());
        };
        let received = Vec::new();
        let mut child = Self {
            process,
            stdin,
            stdout,
            received,
            modules: HashSet::new(),
            metadata: None,
            confinement: String::new(),
        };
        child.send(ToChild::Hello(hello))?;
        let started = Instant::now();
        while started.elapsed() < START_PATIENCE {
            match child.receive(Duration::from_millis(100))? {
                Received::Nothing => {}
                Received::Message(FromChild::Ready { version: theirs, confinement }) if theirs == version => {
                    child.confinement = confinement;
                    return Ok(child);
                }
                Received::Message(FromChild::Unable { reason }) => {
                    return Err(format!("failed to start a worker process: {reason}"));
                }
                Received::Message(_) => return Err("the worker process is of another version".to_owned()),
            }
        }
        Err("the worker process did not get ready".to_owned())
    }

    pub(super) fn send(&mut self, message: ToChild) -> Result<(), String> {
        message.write(&mut self.stdin).map_err(|err| self.death(&err.to_string()))
    }

    /// Waits for a message, at most `patience`.
    pub(super) fn receive(&mut self, patience: Duration) -> Result<Received, String> {
        if let Some(message) = self.take()? {
            return Ok(Received::Message(message));
        }
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::try_from(patience.as_nanos()).unwrap_or(i64::MAX) };
        let mut fds = [PollFd::new(&self.stdout, PollFlags::IN)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(Received::Nothing),
            Ok(_) => {}
            Err(err) => return Err(format!("failed to wait for the worker process: {err}")),
        }
        let start = self.received.len();
        self.received.resize(start + READ_BYTES, 0);
        let n = self.stdout.read(&mut self.received[start..]);
        self.received.truncate(start + *n.as_ref().unwrap_or(&0));
        match n {
            Ok(0) => Err(self.death("it closed its pipe")),
            Err(err) => Err(self.death(&err.to_string())),
            Ok(_) => Ok(self.take()?.map_or(Received::Nothing, Received::Message)),
        }
    }

    fn take(&mut self) -> Result<Option<FromChild>, String> {
        FromChild::take(&mut self.received).map_err(|err| format!("the worker process sent no valid message: {err}"))
    }

    /// Why the child is gone, as far as its exit status tells.
    fn death(&mut self, otherwise: &str) -> String {
        let _ = self.process.kill();
        match self.process.wait() {
            Ok(status) => format!("the worker process died ({status})"),
            Err(_) => format!("the worker process died ({otherwise})"),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It has ended already, or it is ended now; there is nothing to save in it.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
