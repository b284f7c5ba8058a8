//! A thread that writes to a stream whose reader may stop reading: a pager, a hung terminal, a
//! stopped `tee`.
//!
//! A write to a full pipe blocks for as long as its reader likes, and nothing but a signal handler
//! ends it. So the write happens on a thread of its own, which is left behind if need be, and
//! others hand it bytes through a bounded buffer. They wait for room only while they want to: each
//! gives a function that is asked again and again whether to give up, and is told for how long the
//! stream has taken nothing. A slow reader is thereby told from one that has stopped.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Longest wait before it is asked again whether to give up.
const POLL: Duration = Duration::from_millis(20);
/// Bytes of one write: little enough to see that a reader goes on.
const WRITE_BYTES: usize = 16 << 10;
/// Stack of the thread.
const STACK_BYTES: usize = 128 << 10;

/// The buffer in front of a stream, and its thread, which ends some time after this is dropped.
pub(super) struct Outlet(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// That there is something to write, that something was written, or that this is the end.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Bytes for the thread to take.
    waiting: Vec<u8>,
    /// Bytes that were handed over and are not written.
    unwritten: usize,
    /// Bytes that were written.
    written: u64,
    /// Why nothing can be written any more.
    error: Option<io::ErrorKind>,
    is_closed: bool,
}

impl Outlet {
    /// Starts the thread.
    ///
    /// # Errors
    /// The operating system's, if there can be no other thread.
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

    /// Hands over bytes once fewer than `room` are unwritten with them, or none but them. Returns
    /// false if they were not taken.
    ///
    /// * `gives_up`: whether to wait no more, when the stream has taken nothing for so long.
    ///
    /// # Errors
    /// What the stream gave; the bytes are lost.
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

    /// Waits until all is written. Returns false if it is not.
    ///
    /// * `gives_up`: as that of [`Self::push`].
    ///
    /// # Errors
    /// What the stream gave.
    pub(super) fn drain(&self, gives_up: impl FnMut(Duration) -> bool) -> io::Result<bool> {
        Ok(self
            .wait_until(|state| state.unwritten == 0, gives_up)?
            .is_some())
    }

    /// Bytes that were written so far, and those that are not.
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
    /// What the thread does: writes what comes until this is closed and nothing is left.
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

    /// Bytes that no pipe holds.
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
    fn nobody_waits_for_a_reader_that_has_stopped() {
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
