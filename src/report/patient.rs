//! A stream of data whose reader is waited for, but not when the run is to end.

use std::io::{self, Write};
use std::time::Duration;

use super::outlet::Outlet;
use crate::model::CancelToken;

/// Bytes that can wait for the reader before the run does.
const ROOM: usize = 1 << 20;
/// Time without any progress after which the reader of a cancelled run is not waited for.
const STALL: Duration = Duration::from_millis(300);

/// Writes all bytes in order, on a thread of its own. A reader that is slow slows the run down, and
/// one that has stopped stops it; but once the run is cancelled, one that has stopped is an error.
pub struct PatientWriter {
    outlet: Outlet,
    cancel: CancelToken,
}

impl PatientWriter {
    /// * `writer`: a pipe, a terminal, or another stream that can be full.
    /// * `cancel`: the run's.
    ///
    /// # Errors
    /// The operating system's, if there can be no other thread.
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

impl Write for PatientWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.outlet.push(bytes, ROOM, self.gives_up())? {
            return Ok(bytes.len());
        }
        Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "its reader has stopped reading",
        ))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for PatientWriter {
    fn drop(&mut self) {
        // The records in the work directory are whole, whatever the reader got.
        let _ = self.outlet.drain(self.gives_up());
    }
}
