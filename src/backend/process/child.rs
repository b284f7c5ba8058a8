//! The parent's handle of one child.

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, waitid};

use super::WorkerCommand;
use super::layers::Confinement;
use super::protocol::{FromChild, Hello, ToChild};
use crate::clock::RunningClock;
use crate::model::{CancelToken, TaskMetadata};
use crate::sandbox::GuestInput;

/// Timeout for a child to become ready, and to read more of a message.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Timeout for a child to exit after it has closed its pipes.
const EXIT_TIMEOUT: Duration = Duration::from_millis(200);
/// Interval of polling for that.
const DEATH_POLL: Duration = Duration::from_millis(2);
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
    /// Confinement that the child reported.
    pub(super) confinement: Confinement,
    clock: RunningClock,
}

/// Result of waiting for a message.
pub(super) enum Received {
    Message(FromChild),
    Nothing,
}

impl Child {
    /// Starts a child and waits until it is confined and ready.
    ///
    /// * `stdin`: what its guests read. The child finds it where others have stderr, since its own
    ///   stdin is the pipe.
    /// * `clock`: measures the time that the child has to get ready, and to read.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place where a process is started: this program itself"
    )]
    pub(super) fn start(
        command: &WorkerCommand,
        hello: Hello,
        stdin: &GuestInput,
        clock: &RunningClock,
    ) -> Result<Self, String> {
        let version = hello.version.clone();
        let failed = |err: std::io::Error| format!("failed to start a worker process: {err}");
        let guest_input = match stdin {
            // A text arrives with the call.
            GuestInput::Empty | GuestInput::Text(_) => Stdio::null(),
            GuestInput::Inherited => Stdio::from(
                std::io::stdin()
                    .as_fd()
                    .try_clone_to_owned()
                    .map_err(failed)?,
            ),
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
        // A child that does not read must not block its parent forever.
        rustix::io::ioctl_fionbio(&stdin, true).map_err(|err| failed(err.into()))?;
        let received = Vec::new();
        let mut child = Self {
            process,
            stdin,
            stdout,
            received,
            modules: HashSet::new(),
            metadata: None,
            confinement: Confinement::default(),
            clock: clock.clone(),
        };
        child.send(ToChild::Hello(hello), &CancelToken::new())?;
        let started = clock.now();
        while clock.now() - started < START_TIMEOUT {
            match child.receive(Duration::from_millis(100))? {
                Received::Nothing => {}
                Received::Message(FromChild::Ready {
                    version: theirs,
                    confinement,
                    loaded,
                }) if theirs == version => {
                    child.confinement = confinement;
                    child.modules.extend(loaded);
                    return Ok(child);
                }
                Received::Message(FromChild::Unable { reason }) => {
                    return Err(format!("failed to start a worker process: {reason}"));
                }
                Received::Message(_) => {
                    return Err("the worker process is of another version".to_owned());
                }
            }
        }
        Err("the worker process did not get ready".to_owned())
    }

    /// Sends a message.
    ///
    /// # Errors
    /// A sentence for the user if the child is dead or does not read, or the run is cancelled.
    pub(super) fn send(
        &mut self,
        message: ToChild<'_>,
        cancel: &CancelToken,
    ) -> Result<(), String> {
        let sent = message.write(&mut Patient {
            pipe: &mut self.stdin,
            cancel,
            clock: &self.clock,
        });
        sent.map_err(|err| self.death(&err.to_string()))
    }

    /// Returns true if no bytes of the child are unread. Bytes left over from one call could pass
    /// for the end of the next one, so a child that is not quiet must not get another call.
    pub(super) fn is_quiet(&self) -> bool {
        let mut fds = [PollFd::new(&self.stdout, PollFlags::IN)];
        self.received.is_empty() && poll(&mut fds, Some(&Timespec::default())) == Ok(0)
    }

    /// Waits for a message, at most `timeout`.
    pub(super) fn receive(&mut self, timeout: Duration) -> Result<Received, String> {
        if let Some(message) = self.take()? {
            return Ok(Received::Message(message));
        }
        let mut fds = [PollFd::new(&self.stdout, PollFlags::IN)];
        match poll(&mut fds, Some(&timespec(timeout))) {
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
        FromChild::take(&mut self.received)
            .map_err(|err| format!("the worker process sent no valid message: {err}"))
    }

    /// Returns true if the child is stopped, for instance by SIGSTOP: its guest does not run then.
    pub(super) fn is_stopped(&self) -> bool {
        let Some(id) = i32::try_from(self.process.id())
            .ok()
            .and_then(Pid::from_raw)
        else {
            return false;
        };
        // The state stays for others to ask for, and only a stop that has not ended is one.
        let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(id), options)
            .is_ok_and(|status| status.is_some_and(|status| status.stopped()))
    }

    /// Ends the child and returns the reason why it cannot be used: its exit status if it died by
    /// itself, else `otherwise`.
    fn death(&mut self, otherwise: &str) -> String {
        let started = Instant::now();
        loop {
            match self.process.try_wait() {
                Ok(Some(status)) if status.signal() == Some(Signal::XCPU.as_raw()) => {
                    let why = "it reached the limit on CPU time; raise `ulimit -t`";
                    return format!("the worker process died ({status}): {why}");
                }
                Ok(Some(status)) => return format!("the worker process died ({status})"),
                // The kernel closes its pipes shortly before the process has ended.
                Ok(None) if started.elapsed() < EXIT_TIMEOUT => std::thread::sleep(DEATH_POLL),
                _ => break,
            }
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
        format!("the worker process was ended: {otherwise}")
    }
}

/// A writer to a child's stdin that gives up when the child does not read or the run is cancelled.
struct Patient<'a> {
    pipe: &'a mut ChildStdin,
    cancel: &'a CancelToken,
    clock: &'a RunningClock,
}

impl Write for Patient<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let started = self.clock.now();
        loop {
            match self.pipe.write(bytes) {
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => {}
                written => return written,
            }
            if self.cancel.is_cancelled() {
                return Err(io::Error::other("the run was cancelled"));
            }
            if self.clock.now() - started > START_TIMEOUT {
                return Err(io::Error::other("it does not read its messages"));
            }
            let mut fds = [PollFd::new(&*self.pipe, PollFlags::OUT)];
            match poll(&mut fds, Some(&timespec(super::POLL))) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(err) => return Err(err.into()),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn timespec(time: Duration) -> Timespec {
    Timespec {
        tv_sec: 0,
        tv_nsec: i64::try_from(time.as_nanos()).unwrap_or(i64::MAX),
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It has ended already, or it is ended now; there is nothing to save in it.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
