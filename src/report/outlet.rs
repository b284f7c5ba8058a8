//! A thread that writes to a stream whose reader may stop reading: a pager, a hung terminal, a
//! stopped `tee`.
//!
//! A write to a full pipe blocks until the reader reads, and only a signal handler can interrupt
//! it. So the write happens on a thread of its own, which can be abandoned. Other threads pass it
//! bytes through a bounded buffer. They decide how long they wait for room: each gives a function
//! that is called at intervals, with the time for which the stream has accepted nothing. The
//! function returns true to give up, so it can distinguish a slow reader from one that has stopped.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Longest interval between two calls of a `gives_up` function.
const POLL: Duration = Duration::from_millis(20);
/// Bytes of one write: few enough to notice that a slow reader is still reading.
const WRITE_BYTES: usize = 16 << 10;
/// Stack size of the thread.
const STACK_BYTES: usize = 128 << 10;

/// The buffer in front of a stream, and its thread. The thread ends some time after this is
/// dropped.
pub(super) struct Outlet(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// Signals that there is something to write, that something was written, or that the outlet is
    /// closed.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Bytes that the thread has not taken yet.
    waiting: Vec<u8>,
    /// Number of bytes that were passed in and are not written yet.
    unwritten: usize,
    /// Number of bytes that were written.
    written: u64,
    /// Error after which nothing can be written.
    error: Option<io::ErrorKind>,
    is_closed: bool,
}

impl Outlet {
    /// Starts the thread.
    ///
    /// # Errors
    /// The operating system's error if it cannot start a thread.
    pub(super) fn start(name: &str, writer: impl Write + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .stack_size(STACK_BYTES);
        let of_thread = Arc::clone(&shared);
        thread.spawn(move || of_thread.write_all(writer))?;
        Ok(Self(shared))
    }

    /// Passes bytes to the thread once at most `room` bytes are unwritten including them, or once
    /// no other bytes are unwritten. Returns false if it gave up.
    ///
    /// * `gives_up`: receives the time for which the stream has accepted nothing; true to stop
    ///   waiting.
    ///
    /// # Errors
    /// Error of the stream; the bytes are lost.
    pub(super) fn push(
        &self,
        bytes: &[u8],
        room: usize,
        gives_up: impl FnMut(Duration) -> bool,
    ) -> io::Result<bool> {
        let fits = |state: &State| state.unwritten == 0 || state.unwritten + bytes.len() <= room;
        let Some(mut state) = self.wait_until(fits, gives_up)? else {
            return Ok(false);
        };
        state.waiting.extend_from_slice(bytes);
        state.unwritten += bytes.len();
        self.0.changed.notify_all();
        Ok(true)
    }

    /// Waits until everything is written. Returns false if it gave up.
    ///
    /// * `gives_up`: as for [`Self::push`].
    ///
    /// # Errors
    /// Error of the stream.
    pub(super) fn drain(&self, gives_up: impl FnMut(Duration) -> bool) -> io::Result<bool> {
        Ok(self
            .wait_until(|state| state.unwritten == 0, gives_up)?
            .is_some())
    }

    /// Returns the numbers of bytes that were written so far, and that are not written yet.
    pub(super) fn progress(&self) -> (u64, usize) {
        let state = self.0.lock();
        (state.written, state.unwritten)
    }

    fn wait_until(
        &self,
        is_reached: impl Fn(&State) -> bool,
        mut gives_up: impl FnMut(Duration) -> bool,
    ) -> io::Result<Option<MutexGuard<'_, State>>> {
        let mut state = self.0.lock();
        let (mut written, mut since) = (state.written, Instant::now());
        loop {
            if let Some(kind) = state.error {
                return Err(kind.into());
            }
            if is_reached(&state) {
                return Ok(Some(state));
            }
            if state.written != written {
                (written, since) = (state.written, Instant::now());
            }
            if gives_up(since.elapsed()) {
                return Ok(None);
            }
            state = self
                .0
                .changed
                .wait_timeout(state, POLL)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        self.0.lock().is_closed = true;
        self.0.changed.notify_all();
    }
}

impl Shared {
    /// Writes bytes until the outlet is closed and nothing is left. Runs on the thread.
    fn write_all(&self, mut writer: impl Write) {
        loop {
            let mut state = self.lock();
            while state.waiting.is_empty() {
                if state.is_closed {
                    return;
                }
                state = self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            let bytes = std::mem::take(&mut state.waiting);
            drop(state);
            for piece in bytes.chunks(WRITE_BYTES) {
                let written = writer.write_all(piece).and_then(|()| writer.flush());
                let mut state = self.lock();
                self.changed.notify_all();
                if let Err(err) = written {
                    state.error = Some(err.kind());
                    return;
                }
                state.unwritten -= piece.len();
                state.written += piece.len() as u64;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    /// More bytes than a pipe holds.
    const MORE_THAN_A_PIPE: usize = 4 << 20;

    #[test]
    fn a_reader_that_reads_gets_all_in_order() {
        let (mut reader, writer) = io::pipe().expect("a pipe");
        let outlet = Outlet::start("test", writer).expect("a thread");
        let read = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes).map(|_| bytes)
        });
        let mut expected = Vec::new();
        for n in 0..20_000_u32 {
            let line = format!("{n}\n");
            assert!(
                outlet
                    .push(line.as_bytes(), 1000, |_| false)
                    .expect("written")
            );
            expected.extend(line.into_bytes());
        }
        assert!(outlet.drain(|_| false).expect("written"));
        drop(outlet);
        assert!(read.join().expect("no panic").expect("read") == expected);
    }

    #[test]
    fn a_reader_that_has_stopped_blocks_no_one() {
        let (reader, writer) = io::pipe().expect("a pipe");
        let outlet = Outlet::start("test", writer).expect("a thread");
        let stall = Duration::from_millis(100);
        let bytes = vec![b'x'; MORE_THAN_A_PIPE];
        assert!(
            outlet
                .push(&bytes, 1, |_| false)
                .expect("taken: nothing else is there")
        );
        let started = Instant::now();
        assert!(
            !outlet
                .push(b"y", 1, |stalled| stalled >= stall)
                .expect("no error")
        );
        assert!(!outlet.drain(|stalled| stalled >= stall).expect("no error"));
        assert!(
            (stall..10 * stall).contains(&started.elapsed()),
            "{:?}",
            started.elapsed()
        );
        drop(reader);
        assert_eq!(
            outlet.drain(|_| false).expect_err("nobody reads").kind(),
            io::ErrorKind::BrokenPipe
        );
    }
}
