//! What takes long, said while it does.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use super::say;

/// A line on stderr that is due after some time, unless this is dropped before.
pub struct Notice {
    _dropped: Sender<()>,
}

impl Notice {
    /// * `text`: one line, safe to show.
    pub fn after(time: Duration, text: String) -> Self {
        let (sender, dropped) = channel();
        // Without a thread nothing is said, which harms nothing.
        let _ = std::thread::Builder::new()
            .name("mandelbox-notice".to_owned())
            .spawn(move || {
                if dropped.recv_timeout(time) == Err(RecvTimeoutError::Timeout) {
                    say(&format!("{text}\n"));
                }
            });
        Self { _dropped: sender }
    }
}
