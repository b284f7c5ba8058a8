//! Warnings for the user about one call: restrictions of the sandbox that the guest itself cannot
//! notice.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::reports::cut;

/// Maximum number of warnings for a call; further ones are dropped.
const MAX_WARNINGS: usize = 20;
/// Maximum size in bytes of a warning.
const MAX_WARNING_BYTES: usize = 4 << 10;

/// Receiver of warnings, which forwards those within the bounds.
///
/// Clones belong to the same call.
#[derive(Clone)]
pub struct GuestWarnings(Option<Arc<State>>);

struct State {
    n_taken: AtomicUsize,
    send: Mutex<Box<dyn FnMut(String) + Send>>,
}

impl GuestWarnings {
    /// Creates the receiver of one call.
    ///
    /// * `send`: called on the thread of the guest with each warning. The file names in it are
    ///   untrusted text.
    pub fn new(send: impl FnMut(String) + Send + 'static) -> Self {
        Self(Some(Arc::new(State {
            n_taken: AtomicUsize::new(0),
            send: Mutex::new(Box::new(send)),
        })))
    }

    /// Creates a receiver that drops all warnings.
    pub fn dropped() -> Self {
        Self(None)
    }

    /// Receives a warning; one from a child process may have any length.
    pub(crate) fn warn(&self, message: &str) {
        let Some(state) = &self.0 else { return };
        if state.n_taken.fetch_add(1, Ordering::Relaxed) < MAX_WARNINGS {
            let mut send = state.send.lock().unwrap_or_else(PoisonError::into_inner);
            send(cut(message, MAX_WARNING_BYTES));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_bounded_in_number_and_length() {
        let sent = Arc::new(Mutex::new(Vec::new()));
        let received = Arc::clone(&sent);
        let warnings =
            GuestWarnings::new(move |text| received.lock().expect("not poisoned").push(text));
        for _ in 0..MAX_WARNINGS + 5 {
            warnings.warn(&"a".repeat(MAX_WARNING_BYTES + 1));
        }
        let sent = sent.lock().expect("not poisoned");
        assert_eq!(sent.len(), MAX_WARNINGS);
        assert!(sent.iter().all(|text| text.len() == MAX_WARNING_BYTES));
    }
}
