//! Destination of results: written together while calls end fast, and at once when no call waits.
//!
//! The threads that make calls add the results to a buffer. It is written when it is full, when a
//! thread waits for input, or a moment later by a thread of its own. A result is therefore neither
//! written alone while thousands follow, nor does it wait for the end of a long call.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::request::Label;
use super::result_line::build_line;
use crate::model::{CancelToken, Ended, HostError};

/// Size of the buffer in bytes at which it is written.
const BUFFER_BYTES: usize = 64 << 10;
/// Time in which results gather.
const GATHER: Duration = Duration::from_millis(1);
/// Interval between two checks of the reader of the results, and of the cancel token.
const POLL: Duration = Duration::from_millis(50);
/// Maximum number of calls from the oldest one without a result to the newest one, if results are
/// ordered.
const MAX_AHEAD: u64 = 1024;
/// Size in bytes of results that wait for an older one, above which no other call starts.
const MAX_AHEAD_BYTES: usize = 64 << 20;
/// Time without progress after which a reader counts as stopped, once the calls are cancelled.
const STALL: Duration = Duration::from_millis(300);
/// Number of bytes that a pipe with any room accepts at once (`PIPE_BUF` on Linux).
const PIPE_BYTES: usize = 4096;
/// Stack size of the thread that writes.
const STACK_BYTES: usize = 128 << 10;

/// Destination of results.
pub(super) struct Results {
    state: Mutex<State>,
    /// Signals that results wait in the buffer, or that there are no more.
    gathered: Condvar,
    /// Signals that the oldest result has come, for ordered results.
    advanced: Condvar,
    is_ordered: bool,
    /// True while a thread waits for input.
    is_idle: AtomicBool,
    n_succeeded: AtomicU64,
    n_failed: AtomicU64,
    /// Cancelled when results cannot be written any more.
    cancel: CancelToken,
}

struct State {
    file: File,
    /// True for a file on a disk, which accepts all bytes at once.
    is_regular: bool,
    buffer: Vec<u8>,
    order: Option<Order>,
    is_closed: bool,
    error: Option<io::Error>,
}

/// Results that are written in the order of their calls.
#[derive(Default)]
struct Order {
    /// Index of the oldest call without a result.
    next: u64,
    /// Results of later calls; empty for a call that needs none.
    waiting: BTreeMap<u64, Vec<u8>>,
    waiting_bytes: usize,
}

impl Order {
    /// Adds a result, and moves those whose turn has come to `buffer`. Returns true if there was
    /// one.
    fn add(&mut self, index: u64, line: Vec<u8>, buffer: &mut Vec<u8>) -> bool {
        self.waiting_bytes += line.len();
        self.waiting.insert(index, line);
        let before = self.next;
        while let Some(line) = self.waiting.remove(&self.next) {
            self.waiting_bytes -= line.len();
            self.next += 1;
            buffer.extend_from_slice(&line);
        }
        self.next > before
    }

    fn has_room_for(&self, index: u64) -> bool {
        index <= self.next || index - self.next < MAX_AHEAD && self.waiting_bytes < MAX_AHEAD_BYTES
    }
}

impl Results {
    /// Starts the thread that writes.
    ///
    /// * `file`: where results are appended.
    /// * `is_ordered`: true to write them in the order of their calls.
    /// * `cancel`: cancelled when results cannot be written any more.
    ///
    /// # Errors
    /// [`HostError::Setup`] if the thread cannot be started.
    pub(super) fn start(
        file: File,
        is_ordered: bool,
        cancel: &CancelToken,
    ) -> Result<Arc<Self>, HostError> {
        let is_regular = file.metadata().is_ok_and(|metadata| metadata.is_file());
        let results = Arc::new(Self {
            state: Mutex::new(State {
                file,
                is_regular,
                buffer: Vec::new(),
                order: is_ordered.then(Order::default),
                is_closed: false,
                error: None,
            }),
            gathered: Condvar::new(),
            advanced: Condvar::new(),
            is_ordered,
            is_idle: AtomicBool::new(false),
            n_succeeded: AtomicU64::new(0),
            n_failed: AtomicU64::new(0),
            cancel: cancel.clone(),
        });
        let of_thread = Arc::clone(&results);
        let thread = std::thread::Builder::new()
            .name("mandelbox-results".to_owned())
            .stack_size(STACK_BYTES);
        thread
            .spawn(move || of_thread.write_gathered())
            .map_err(HostError::setup("start the thread for results"))?;
        Ok(results)
    }

    /// Adds the result of a call. Waits while the destination accepts nothing.
    pub(super) fn add(&self, index: u64, label: &Label, ended: &Ended) {
        let count = match ended.outcome.failure_kind() {
            None => &self.n_succeeded,
            Some(_) => &self.n_failed,
        };
        let line = build_line(index, label, ended);
        self.add_line(index, line);
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// Skips a call that has its result already.
    pub(super) fn skip(&self, index: u64) {
        if self.is_ordered {
            self.add_line(index, Vec::new());
        }
    }

    fn add_line(&self, index: u64, line: Vec<u8>) {
        let mut state = self.lock();
        let State { order, buffer, .. } = &mut *state;
        let was_empty = buffer.is_empty();
        match order {
            None => buffer.extend_from_slice(&line),
            Some(order) => {
                if order.add(index, line, buffer) {
                    self.advanced.notify_all();
                }
            }
        }
        // A thread that becomes idle after this check writes the buffer itself.
        if state.buffer.len() >= BUFFER_BYTES || self.is_idle.load(Ordering::SeqCst) {
            self.write(&mut state);
        } else if was_empty && !state.buffer.is_empty() {
            self.gathered.notify_one();
        }
    }

    /// Waits until a call may start that is this far ahead of the oldest one without a result.
    /// Returns false if the calls were cancelled.
    pub(super) fn wait_for_room(&self, index: u64) -> bool {
        if !self.is_ordered {
            return true;
        }
        let mut state = self.lock();
        loop {
            if self.cancel.is_cancelled() {
                return false;
            }
            if state
                .order
                .as_ref()
                .is_none_or(|order| order.has_room_for(index))
            {
                return true;
            }
            state = self
                .advanced
                .wait_timeout(state, POLL)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Runs `wait`, a wait for input. Results are written before it, and at once during it.
    pub(super) fn while_idle<T>(&self, wait: impl FnOnce() -> T) -> T {
        self.is_idle.store(true, Ordering::SeqCst);
        self.write(&mut self.lock());
        let result = wait();
        self.is_idle.store(false, Ordering::SeqCst);
        result
    }

    /// Returns the numbers of calls that have succeeded and failed.
    pub(super) fn counts(&self) -> (u64, u64) {
        (
            self.n_succeeded.load(Ordering::Relaxed),
            self.n_failed.load(Ordering::Relaxed),
        )
    }

    /// Writes the last results.
    ///
    /// # Errors
    /// Error of the destination, now or earlier.
    pub(super) fn finish(&self) -> io::Result<()> {
        let mut state = self.lock();
        state.is_closed = true;
        self.gathered.notify_one();
        self.write(&mut state);
        state.error.take().map_or(Ok(()), Err)
    }

    /// Writes the buffer a moment after the first result in it, and notices a reader that is gone.
    /// Runs on the thread.
    fn write_gathered(&self) {
        let mut state = self.lock();
        while !state.is_closed && state.error.is_none() {
            if state.buffer.is_empty() {
                self.check_reader(&mut state);
                state = self
                    .gathered
                    .wait_timeout(state, POLL)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0;
                continue;
            }
            drop(state);
            std::thread::sleep(GATHER);
            state = self.lock();
            self.write(&mut state);
        }
    }

    /// Fails if nobody can read the results any more, also while none are written.
    fn check_reader(&self, state: &mut State) {
        let mut output = [PollFd::new(&state.file, PollFlags::empty())];
        let polled = poll(&mut output, Some(&Timespec::default()));
        if polled.is_ok_and(|n_ready| n_ready > 0)
            && output[0]
                .revents()
                .intersects(PollFlags::ERR | PollFlags::HUP)
        {
            self.fail(state, ErrorKind::BrokenPipe.into());
        }
    }

    fn write(&self, state: &mut State) {
        if state.error.is_some() {
            state.buffer.clear();
        }
        if state.buffer.is_empty() {
            return;
        }
        let written = match state.is_regular {
            true => (&state.file).write_all(&state.buffer),
            false => self.write_to_reader(&state.file, &state.buffer),
        };
        state.buffer.clear();
        if let Err(err) = written {
            self.fail(state, err);
        }
    }

    /// Writes to a stream whose reader may be slow. Once the calls are cancelled, a reader that has
    /// stopped is an error.
    fn write_to_reader(&self, mut file: &File, mut bytes: &[u8]) -> io::Result<()> {
        let mut since = Instant::now();
        while !bytes.is_empty() {
            let mut output = [PollFd::new(file, PollFlags::OUT)];
            let time = Timespec::try_from(POLL).unwrap_or_default();
            match poll(&mut output, Some(&time)) {
                Ok(0) | Err(Errno::INTR) => {
                    if self.cancel.is_cancelled() && since.elapsed() >= STALL {
                        return Err(ErrorKind::TimedOut.into());
                    }
                    continue;
                }
                Ok(_) => {}
                Err(err) => return Err(err.into()),
            }
            // A pipe that can be written to has room for this number of bytes.
            match file.write(&bytes[..bytes.len().min(PIPE_BYTES)]) {
                Ok(n) => bytes = &bytes[n..],
                Err(err) if err.kind() == ErrorKind::Interrupted => {}
                Err(err) if err.kind() == ErrorKind::WouldBlock => {}
                Err(err) => return Err(err),
            }
            since = Instant::now();
        }
        Ok(())
    }

    fn fail(&self, state: &mut State, err: io::Error) {
        state.error.get_or_insert(err);
        self.cancel.cancel();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordered_results_wait_for_older_ones() {
        let (mut order, mut buffer) = (Order::default(), Vec::new());
        assert!(!order.add(1, b"1".to_vec(), &mut buffer));
        assert!(!order.add(3, b"3".to_vec(), &mut buffer));
        assert_eq!((buffer.len(), order.waiting_bytes), (0, 2));
        assert!(order.add(0, b"0".to_vec(), &mut buffer));
        assert_eq!(buffer, b"01");
        assert!(
            order.add(2, Vec::new(), &mut buffer),
            "a call that is skipped"
        );
        assert_eq!(
            (buffer.as_slice(), order.waiting_bytes, order.next),
            (&b"013"[..], 0, 4)
        );
    }

    #[test]
    fn calls_run_ahead_of_the_oldest_one_within_a_bound() {
        let (mut order, mut buffer) = (Order::default(), Vec::new());
        assert!(order.has_room_for(0) && order.has_room_for(MAX_AHEAD - 1));
        assert!(!order.has_room_for(MAX_AHEAD));
        order.add(1, vec![b'a'; MAX_AHEAD_BYTES], &mut buffer);
        assert!(order.has_room_for(0) && !order.has_room_for(2));
        order.add(0, Vec::new(), &mut buffer);
        assert!(order.has_room_for(MAX_AHEAD + 1) && !order.has_room_for(MAX_AHEAD + 2));
    }
}
