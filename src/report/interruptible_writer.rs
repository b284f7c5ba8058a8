//! A stream of data whose reader can delay the run, but not its cancellation.

use std::io::{self, Write};
use std::time::Duration;

use super::outlet::Outlet;
use crate::model::CancelToken;

/// Bytes that can wait for the reader before the run waits too.
const ROOM: usize = 1 << 20;
/// Time without progress after which a cancelled run does not wait for the reader any more.
const STALL: Duration = Duration::from_millis(300);

/// Writer that writes all bytes in order, on a thread of its own. A slow reader slows the run down,
/// and a reader that has stopped blocks it. Once the run is cancelled, a reader that has stopped is
/// an error.
pub struct InterruptibleWriter {
    outlet: Outlet,
    cancel: CancelToken,
}

impl InterruptibleWriter {
    /// Starts the thread.
    ///
    /// * `writer`: a pipe, a terminal, or another stream that can be full.
    /// * `cancel`: cancel token of the run.
    ///
    /// # Errors
    /// The operating system's error if it cannot start a thread.
    pub fn start(writer: impl Write + Send + 'static, cancel: CancelToken) -> io::Result<Self> {
        Ok(Self {
            outlet: Outlet::start("mandelbox-events", writer)?,
            cancel,
        })
    }

    fn gives_up(&self) -> impl FnMut(Duration) -> bool {
        |stalled| self.cancel.is_cancelled() && stalled >= STALL
    }
}

impl Write for InterruptibleWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.outlet.push(bytes, ROOM, self.gives_up())? {
            return Ok(bytes.len());
        }
        Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the reader has stopped reading",
        ))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for InterruptibleWriter {
    fn drop(&mut self) {
        // The records in the work directory are complete, whatever the reader received.
        let _ = self.outlet.drain(self.gives_up());
    }
}
