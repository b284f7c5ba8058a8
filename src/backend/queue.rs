//! State that the threads of one batch share: the next call, and whether they stop.

use std::any::Any;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Mutex, PoisonError};

use super::CallEvent;
use crate::event::{EventKind, Fact};

/// The position of the next call. All loops of a task take their calls here.
pub(super) struct Queue {
    next: AtomicUsize,
    stopped: AtomicBool,
    has_warned: AtomicBool,
    panic: Mutex<Option<Panic>>,
}

/// The payload of a panic.
type Panic = Box<dyn Any + Send>;

impl Queue {
    /// * `next`: position of the first call that no loop has yet.
    pub(super) fn starting_at(next: usize) -> Self {
        let (stopped, has_warned) = (AtomicBool::new(false), AtomicBool::new(false));
        Self {
            next: AtomicUsize::new(next),
            stopped,
            has_warned,
            panic: Mutex::default(),
        }
    }

    /// Position of the next call, which no other loop gets.
    pub(super) fn next(&self) -> usize {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Lets no further call start.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
    }

    /// Returns true if no further call starts.
    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    /// Sends a warning, once for each task.
    pub(super) fn warn(&self, message: String, events: &SyncSender<CallEvent>) {
        if !self.has_warned.swap(true, Ordering::SeqCst) {
            // The receiver is gone only if the run does not wait for its calls.
            let _ = events.send(CallEvent::Happened(Fact::new(EventKind::Warning {
                message,
            })));
        }
    }

    /// Keeps the panic of a loop for the thread of the run.
    pub(super) fn keep_panic(&self, panic: Option<Panic>) {
        if panic.is_some() {
            *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = panic;
        }
    }

    /// Takes the panic that a loop had, if one had any.
    pub(super) fn take_panic(&self) -> Option<Panic> {
        self.panic
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}
