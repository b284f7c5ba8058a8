//! A token that cancels a run from another thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// Token that cancels a run: no further call starts, and running guests end within a moment. Clones
/// share the same state.
#[derive(Clone, Debug, Default)]
pub struct CancelToken(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    cancelled: AtomicBool,
    changed: Notify,
}

impl CancelToken {
    /// Creates a token that is not cancelled.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancels the run. Calling it again has no effect.
    pub fn cancel(&self) {
        self.0.cancelled.store(true, Ordering::SeqCst);
        self.0.changed.notify_waiters();
    }

    /// Returns true if [`Self::cancel`] was called.
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::SeqCst)
    }

    /// Blocks this thread for `time`, or until the token is cancelled. Returns true if the token is
    /// cancelled.
    pub(crate) fn wait_for(&self, time: Duration) -> bool {
        const POLL: Duration = Duration::from_millis(20);
        let started = Instant::now();
        loop {
            let left = time.saturating_sub(started.elapsed());
            if self.is_cancelled() || left.is_zero() {
                return self.is_cancelled();
            }
            std::thread::sleep(left.min(POLL));
        }
    }

    /// Waits until the token is cancelled.
    pub async fn cancelled(&self) {
        let changed = self.0.changed.notified();
        let mut changed = std::pin::pin!(changed);
        // From here on no notification is missed, so a cancellation after the check below wakes
        // this task.
        changed.as_mut().enable();
        if !self.is_cancelled() {
            changed.await;
        }
    }
}
