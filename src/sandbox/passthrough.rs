//! Guest output that is passed through to a stream of this process, without blocking the thread of
//! the guest.
//!
//! A write to a pipe that nobody reads blocks, and no limit could then end the guest. So bytes that
//! the stream does not accept are buffered here, and the guest may not write more until the buffer
//! is empty. The guest waits for this asynchronously. Limits and the cancel token can end it then,
//! as they can end a guest that sleeps.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags};

/// Bytes that a pipe accepts without blocking if it is writable at all (`PIPE_BUF` of Linux).
const PIPE_BYTES: usize = 4096;

/// Destination stream, and the bytes that it has not accepted yet.
pub(super) struct Passthrough {
    file: File,
    /// True if no write to the stream can block.
    never_blocks: bool,
    pending: Vec<u8>,
}

impl Passthrough {
    pub(super) fn new(file: File) -> Self {
        let (file, never_blocks) = match reopen_nonblocking(&file) {
            Some(reopened) => (reopened, true),
            None => (file, false),
        };
        Self {
            file,
            never_blocks,
            pending: Vec::new(),
        }
    }

    /// Takes bytes, whether or not the stream accepts them.
    pub(super) fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.pending.extend_from_slice(bytes);
        self.write_some().map(|_| ())
    }

    /// Writes as much as the stream accepts. Returns true if nothing is left.
    pub(super) fn write_some(&mut self) -> io::Result<bool> {
        let mut written = 0;
        let result = loop {
            let rest = &self.pending[written..];
            if rest.is_empty() {
                break Ok(true);
            }
            let piece = if self.never_blocks {
                rest
            } else if can_write(
                &self.file,
                Some(&Timespec {
                    tv_sec: 0,
                    tv_nsec: 0,
                }),
            ) {
                &rest[..rest.len().min(PIPE_BYTES)]
            } else {
                break Ok(false);
            };
            match self.file.write(piece) {
                Ok(0) => break Err(ErrorKind::WriteZero.into()),
                Ok(n) => written += n,
                Err(err) if err.kind() == ErrorKind::WouldBlock => break Ok(false),
                Err(err) if err.kind() == ErrorKind::Interrupted => {}
                Err(err) => break Err(err),
            }
        };
        self.pending.drain(..written);
        result
    }

    /// Blocks until everything is written.
    pub(super) fn write_all(&mut self) -> io::Result<()> {
        while !self.write_some()? {
            can_write(&self.file, None);
        }
        Ok(())
    }
}

/// Returns true if a write would accept some bytes or fail. Waits for this at most as long as
/// `timeout`, or without a limit for `None`.
fn can_write(file: &File, timeout: Option<&Timespec>) -> bool {
    match poll(&mut [PollFd::new(file, PollFlags::OUT)], timeout) {
        Ok(n_ready) => n_ready > 0,
        // The caller then writes to the descriptor and gets a more precise error.
        Err(_) => true,
    }
}

/// Opens the same pipe or terminal again, so that writes do not block. Changing the mode of the
/// descriptor itself would also change it for the other processes that share it. Returns `None` for
/// a file of another type, or one that may not be opened.
fn reopen_nonblocking(file: &File) -> Option<File> {
    use std::os::fd::AsRawFd;
    let status = rustix::fs::fstat(file.as_fd()).ok()?;
    if !matches!(
        FileType::from_raw_mode(status.st_mode),
        FileType::Fifo | FileType::CharacterDevice
    ) {
        return None;
    }
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
        .ok()
        .map(File::from)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::OwnedFd;

    use super::*;

    #[test]
    fn unread_output_waits_and_is_complete() {
        for never_blocks in [true, false] {
            let (mut reader, writer) = io::pipe().expect("a pipe");
            let mut output = Passthrough::new(File::from(OwnedFd::from(writer)));
            output.never_blocks &= never_blocks;
            if !never_blocks {
                // Simulate a stream that could not be opened again.
                let flags = rustix::fs::fcntl_getfl(&output.file).expect("flags");
                rustix::fs::fcntl_setfl(&output.file, flags - OFlags::NONBLOCK).expect("set");
            }
            let bytes: Vec<u8> = (0..200_000_u32).map(|n| n.to_le_bytes()[0]).collect();
            output.take(&bytes).expect("taken");
            assert!(
                !output.write_some().expect("no error"),
                "more than a pipe holds"
            );
            let read = std::thread::spawn(move || {
                let mut bytes = Vec::new();
                reader.read_to_end(&mut bytes).map(|_| bytes)
            });
            output.write_all().expect("written");
            drop(output);
            assert!(
                read.join().expect("no panic").expect("read") == bytes,
                "{never_blocks}"
            );
        }
    }
}
