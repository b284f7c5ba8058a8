//! Bounded stdout and stderr of a guest.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

use crate::outcome::bytes_text;

/// Bytes of the end of a stream that are kept for messages.
const TAIL_BYTES: usize = 4096;
/// Bytes that a guest may hand over in one write of a WASI 0.2 stream.
const WRITE_PERMIT: usize = 64 << 10;

/// Takes what a guest writes to one stream: the first bytes go to a writer, all are counted, the last are kept.
///
/// Clones are handles of one stream.
#[derive(Clone)]
pub struct GuestOutput(Arc<Mutex<State>>);

struct State {
    writer: Option<Box<dyn Write + Send>>,
    limit_bytes: u64,
    seen_bytes: u64,
    tail: VecDeque<u8>,
    error: Option<io::Error>,
    /// Whether a guest whose output cannot be written has no reason to go on.
    ends_with_writer: bool,
}

/// What a guest writes goes nowhere any more; ends the guest.
#[derive(Debug, thiserror::Error)]
#[error("its output cannot be written any more")]
pub(super) struct OutputFailed;

impl GuestOutput {
    /// * `writer`: gets the first `limit_bytes` bytes, then one line that says so; `None`: nothing is kept but the
    ///   tail.
    pub fn new(writer: Option<Box<dyn Write + Send>>, limit_bytes: u64) -> Self {
        let (tail, error) = (VecDeque::new(), None);
        let state = State { writer, limit_bytes, seen_bytes: 0, tail, error, ends_with_writer: false };
        Self(Arc::new(Mutex::new(state)))
    }

    /// All of the output, at once and as it is; a guest ends when the writer fails, as a program does whose reader has
    /// gone away.
    pub fn handed_on(writer: Box<dyn Write + Send>) -> Self {
        let output = Self::new(Some(writer), u64::MAX);
        output.lock().ends_with_writer = true;
        output
    }

    /// Whether the guest has no reason to go on: see [`Self::handed_on`].
    pub(crate) fn has_failed(&self) -> bool {
        self.lock().has_failed()
    }

    /// Bytes that the guest wrote, those cut off included.
    pub fn seen_bytes(&self) -> u64 {
        self.lock().seen_bytes
    }

    /// The last bytes, at most 4 KiB, as text.
    pub fn tail(&self) -> String {
        let mut state = self.lock();
        String::from_utf8_lossy(state.tail.make_contiguous()).into_owned()
    }

    /// Drops the writer; the first error that it gave, if it gave one.
    pub fn finish(&self) -> Option<io::Error> {
        let mut state = self.lock();
        state.writer = None;
        state.error.take()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a piece of the stream.
    pub(crate) fn take(&self, bytes: &[u8]) {
        self.lock().take(bytes);
    }
}

impl State {
    fn has_failed(&self) -> bool {
        self.ends_with_writer && self.error.is_some()
    }

    fn take(&mut self, bytes: &[u8]) {
        let room = if super::WEAKENED { u64::MAX } else { self.limit_bytes.saturating_sub(self.seen_bytes) };
        let kept = usize::try_from(room).map_or(bytes.len(), |room| room.min(bytes.len()));
        self.seen_bytes += bytes.len() as u64;
        let last = &bytes[bytes.len().saturating_sub(TAIL_BYTES)..];
        let overflow = (self.tail.len() + last.len()).saturating_sub(TAIL_BYTES);
        self.tail.drain(..overflow);
        self.tail.extend(last);
        let Some(writer) = &mut self.writer else { return };
        let mut written = writer.write_all(&bytes[..kept]);
        if kept < bytes.len() {
            let note = format!("\n[mandelbox: cut after {}]\n", bytes_text(self.limit_bytes));
            written = written.and_then(|()| writer.write_all(note.as_bytes()));
            self.writer = None;
        }
        if let Err(err) = written {
            self.error = Some(err);
            self.writer = None;
        }
    }
}

impl IsTerminal for GuestOutput {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for GuestOutput {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

impl OutputStream for GuestOutput {
    fn write(&mut self, bytes: bytes::Bytes) -> StreamResult<()> {
        self.take(&bytes);
        if self.has_failed() { Err(StreamError::Trap(OutputFailed.into())) } else { Ok(()) }
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_PERMIT)
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for GuestOutput {
    async fn ready(&mut self) {}
}

impl AsyncWrite for GuestOutput {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.take(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("not poisoned").extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn output_is_cut_one_past_its_limit() {
        let kept = Shared::default();
        let output = GuestOutput::new(Some(Box::new(kept.clone())), 10);
        output.take(b"01234");
        output.take(b"56789");
        assert_eq!(*kept.0.lock().expect("not poisoned"), b"0123456789");
        output.take(b"x");
        output.take(b"y");
        assert_eq!(*kept.0.lock().expect("not poisoned"), b"0123456789\n[mandelbox: cut after 10 bytes]\n");
        assert_eq!(output.seen_bytes(), 12);
        assert_eq!(output.tail(), "0123456789xy");
    }

    #[test]
    fn tail_is_the_last_4_kib() {
        let output = GuestOutput::new(None, 0);
        output.take(&[b'a'; 3000]);
        output.take(&[b'b'; 3000]);
        assert_eq!(output.tail(), "a".repeat(1096) + &"b".repeat(3000));
        output.take(&[b'c'; 9000]);
        assert_eq!(output.tail(), "c".repeat(4096));
    }
}
