//! A guest's output that goes to a stream of this process as it is, without blocking the guest's
//! thread.
//!
//! A write to a pipe that nobody reads blocks, and then no limit could end the guest. So bytes that
//! the stream does not take wait here, and the guest gets no permit to write more: it waits
//! asynchronously, where limits and the cancel token end it as they end a guest that sleeps.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags};

/// Bytes that a pipe takes without blocking where it can be written to at all (`PIPE_BUF` of
/// Linux).
const PIPE_BYTES: usize = 4096;

/// The stream, and what it has not taken yet.
pub(super) struct HandedOn {
    file: File,
    /// Whether a write returns at once, in any case.
    never_blocks: bool,
    waiting: Vec<u8>,
}

impl HandedOn {
    pub(super) fn new(file: File) -> Self {
        match opened_again(&file) {
            Some(file) => Self {
                file,
                never_blocks: true,
                waiting: Vec::new(),
            },
            None => Self {
                file,
                never_blocks: false,
                waiting: Vec::new(),
            },
        }
    }

    /// Takes bytes, whether or not the stream does.
    pub(super) fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.waiting.extend_from_slice(bytes);
        self.write_some().map(|_| ())
    }

    /// Writes what the stream takes. Returns whether that is all.
    pub(super) fn write_some(&mut self) -> io::Result<bool> {
        let mut written = 0;
        let result = loop {
            let rest = &self.waiting[written..];
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
        self.waiting.drain(..written);
        result
    }

    /// Waits until all is written.
    pub(super) fn write_all(&mut self) -> io::Result<()> {
        while !self.write_some()? {
            can_write(&self.file, None);
        }
        Ok(())
    }
}

/// Whether a write would take some bytes or fail, after a wait at most as long as `timeout`.
fn can_write(file: &File, timeout: Option<&Timespec>) -> bool {
    // A descriptor that cannot be asked gets its write, whose error says more.
    poll(&mut [PollFd::new(file, PollFlags::OUT)], timeout).map_or(true, |n_ready| n_ready > 0)
}

/// The same pipe or terminal, opened again so that writes do not block. Setting that on the
/// descriptor itself would also change it for the other processes that have it. `None`: a file of
/// another type, or one that may not be opened.
fn opened_again(file: &File) -> Option<File> {
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
    fn what_nobody_reads_waits_and_comes_whole() {
        for never_blocks in [true, false] {
            let (mut reader, writer) = io::pipe().expect("a pipe");
            let mut output = HandedOn::new(File::from(OwnedFd::from(writer)));
            output.never_blocks &= never_blocks;
            if !never_blocks {
                // As if it could not have been opened again.
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
