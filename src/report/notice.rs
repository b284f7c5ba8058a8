//! Notices about slow operations, printed while they run.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use super::print_text;

/// A line that is printed on stderr after some time, unless the notice is dropped before.
pub struct Notice {
    _dropped: Sender<()>,
}

impl Notice {
    /// Starts the wait.
    ///
    /// * `text`: one line, safe to show.
    pub fn after(time: Duration, text: String) -> Self {
        let (sender, dropped) = channel();
        // Without a thread the notice is not printed, which is harmless.
        let _ = std::thread::Builder::new()
            .name("mandelbox-notice".to_owned())
            .spawn(move || {
                if dropped.recv_timeout(time) == Err(RecvTimeoutError::Timeout) {
                    print_text(&format!("{text}\n"));
                }
            });
        Self { _dropped: sender }
    }
}
