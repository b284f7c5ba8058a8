//! A token that ends a run from another thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// Cancels a run: no call starts any more, and running guests end within a moment. Clones are the
/// same token.
#[derive(Clone, Debug, Default)]
pub struct CancelToken(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    cancelled: AtomicBool,
    changed: Notify,
}

impl CancelToken {
    /// A token that is not cancelled.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancels; a second time changes nothing.
    pub fn cancel(&self) {
        self.0.cancelled.store(true, Ordering::SeqCst);
        self.0.changed.notify_waiters();
    }

    /// Whether [`Self::cancel`] was called.
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::SeqCst)
    }

    /// Waits on this thread, until the token is cancelled at most. Returns whether it is.
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
        // From here on a notification is not missed, so the flag cannot change unseen.
        changed.as_mut().enable();
        if !self.is_cancelled() {
            changed.await;
        }
    }
}
