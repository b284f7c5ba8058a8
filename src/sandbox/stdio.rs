//! Bounded stdout and stderr of a guest.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

use super::passthrough::Passthrough;
use crate::text::bytes_text;

/// Number of bytes at the end of a stream that are kept for messages by default.
pub(crate) const TAIL_BYTES: usize = 4096;
/// Maximum number of bytes in one write to a stream of WASI 0.2.
const WRITE_PERMIT: usize = 64 << 10;
/// Interval between two attempts to write to a stream that accepts nothing.
const RETRY: Duration = Duration::from_millis(5);

/// Destination of one output stream of a guest. The first bytes go to a writer, all bytes are
/// counted, and the last ones are kept.
///
/// Clones are handles of the same stream. The two streams of [`Self::shared`] have one destination.
#[derive(Clone)]
pub struct GuestOutput {
    state: Arc<Mutex<State>>,
    /// Index of the stream among those of the destination.
    stream: usize,
}

struct State {
    writer: Option<Writer>,
    limit_bytes: u64,
    /// Number of bytes of each stream.
    seen_bytes: [u64; 2],
    tail: VecDeque<u8>,
    /// Maximum number of bytes in `tail`.
    tail_bytes: usize,
    error: Option<io::Error>,
    /// True if an error of the writer ends the guest.
    ends_guest: bool,
    /// Search for warnings; `None` if they are not looked for.
    warnings: Option<WarningSearch>,
}

enum Writer {
    /// File or memory of the host, which accepts all bytes at once.
    Capture(Box<dyn Write + Send>),
    /// Stream of this process, which may accept bytes later.
    Passthrough(Passthrough),
}

/// Error of a guest whose output can no longer be written; it ends the guest.
#[derive(Debug, thiserror::Error)]
#[error("its output cannot be written any more")]
pub(super) struct OutputFailed;

impl GuestOutput {
    /// Creates a stream whose output is bounded.
    ///
    /// * `writer`: receives the first `limit_bytes` bytes, followed by a line about the cut;
    ///   `None`: only the last bytes are kept.
    pub fn new(writer: Option<Box<dyn Write + Send>>, limit_bytes: u64) -> Self {
        Self::with(writer.map(Writer::Capture), limit_bytes)
    }

    /// Creates stdout and stderr of a guest with one writer, which receives the bytes of both in
    /// the order in which the guest wrote them. They have one limit and one end. Warnings are
    /// looked for.
    pub fn shared(writer: Option<Box<dyn Write + Send>>, limit_bytes: u64) -> [Self; 2] {
        let stdout = Self::new(writer, limit_bytes);
        stdout.lock().warnings = Some(WarningSearch::default());
        let state = Arc::clone(&stdout.state);
        [stdout, Self { state, stream: 1 }]
    }

    /// Creates a stream that passes all output through, immediately and unchanged. While the
    /// destination accepts nothing, the guest waits, and its limits can end it. The guest ends when
    /// the destination fails, as a program ends whose reader is gone.
    pub fn handed_on(stream: File) -> Self {
        Self::with(
            Some(Writer::Passthrough(Passthrough::new(stream))),
            u64::MAX,
        )
    }

    fn with(writer: Option<Writer>, limit_bytes: u64) -> Self {
        let (tail, error, ends_guest) = (
            VecDeque::new(),
            None,
            matches!(writer, Some(Writer::Passthrough(_))),
        );
        let state = State {
            writer,
            limit_bytes,
            seen_bytes: [0; 2],
            tail,
            tail_bytes: TAIL_BYTES,
            error,
            ends_guest,
            warnings: None,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            stream: 0,
        }
    }

    /// Returns true if the destination has accepted everything, so that the guest can write more.
    pub(crate) fn is_ready(&self) -> bool {
        self.lock().is_ready()
    }

    /// Waits until the reader has accepted what the guest wrote before it ended.
    pub fn deliver(&self) {
        let mut state = self.lock();
        if let Some(Writer::Passthrough(stream)) = &mut state.writer {
            let written = stream.write_all();
            state.note(written.map(|()| true));
        }
    }

    /// Returns true if the output has failed and the guest must end, see [`Self::handed_on`].
    pub(crate) fn has_failed(&self) -> bool {
        self.lock().has_failed()
    }

    /// Returns the number of bytes that the guest wrote, including those that were cut.
    pub fn seen_bytes(&self) -> u64 {
        self.lock().seen_bytes[self.stream]
    }

    /// Returns true if the guest wrote the word "warning", in any case; `None` if it was not looked
    /// for.
    pub fn has_warnings(&self) -> Option<bool> {
        self.lock().warnings.as_ref().map(WarningSearch::is_found)
    }

    /// Keeps this number of bytes at the end of the destination for [`Self::tail`], instead of 4
    /// KiB. Called before the guest writes.
    pub(crate) fn keep_tail(&self, bytes: usize) {
        self.lock().tail_bytes = bytes;
    }

    /// Returns the last bytes of the destination as text, at most 4 KiB by default.
    pub fn tail(&self) -> String {
        let mut state = self.lock();
        let is_cut = state.seen_bytes.iter().sum::<u64>() > state.tail.len() as u64;
        let tail: &[u8] = state.tail.make_contiguous();
        // The cut can be inside a character.
        let is_inside = |byte: &&u8| (**byte as i8) < -64;
        let n_cut = tail.iter().take(3).take_while(is_inside).count();
        String::from_utf8_lossy(&tail[if is_cut { n_cut } else { 0 }..]).into_owned()
    }

    /// Drops the writer, and returns its first error if it had one.
    pub fn finish(&self) -> Option<io::Error> {
        let mut state = self.lock();
        state.writer = None;
        state.error.take()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Receives a piece of the stream.
    pub(crate) fn take(&self, bytes: &[u8]) {
        self.lock().take(self.stream, bytes);
    }
}

impl State {
    fn has_failed(&self) -> bool {
        self.ends_guest && self.error.is_some()
    }

    fn is_ready(&mut self) -> bool {
        let Some(Writer::Passthrough(stream)) = &mut self.writer else {
            return true;
        };
        let written = stream.write_some();
        self.note(written)
    }

    /// Stores an error, after which nothing more is written. Returns true if nothing is left to
    /// write.
    fn note(&mut self, written: io::Result<bool>) -> bool {
        written.unwrap_or_else(|err| {
            self.error = Some(err);
            self.writer = None;
            true
        })
    }

    fn take(&mut self, stream: usize, bytes: &[u8]) {
        let room = if crate::model::WEAKENED {
            u64::MAX
        } else {
            let seen_bytes = self.seen_bytes.iter().sum();
            self.limit_bytes.saturating_sub(seen_bytes)
        };
        let kept = usize::try_from(room).map_or(bytes.len(), |room| room.min(bytes.len()));
        self.seen_bytes[stream] += bytes.len() as u64;
        if let Some(warnings) = &mut self.warnings {
            warnings.search(bytes);
        }
        let last = &bytes[bytes.len().saturating_sub(self.tail_bytes)..];
        let overflow = (self.tail.len() + last.len()).saturating_sub(self.tail_bytes);
        self.tail.drain(..overflow);
        self.tail.extend(last);
        let writer = match &mut self.writer {
            None => return,
            Some(Writer::Passthrough(stream)) => {
                let written = stream.take(bytes);
                self.note(written.map(|()| true));
                return;
            }
            Some(Writer::Capture(writer)) => writer,
        };
        let mut written = writer.write_all(&bytes[..kept]);
        if kept < bytes.len() {
            let note = format!(
                "\n[mandelbox: cut after {}]\n",
                bytes_text(self.limit_bytes)
            );
            written = written.and_then(|()| writer.write_all(note.as_bytes()));
            self.writer = None;
        }
        self.note(written.map(|()| true));
    }
}

/// Search for the word "warning" in a stream, in any case.
#[derive(Default)]
struct WarningSearch {
    /// Number of its letters that the last bytes match.
    n_matched: usize,
}

impl WarningSearch {
    const WORD: &[u8] = b"warning";

    fn is_found(&self) -> bool {
        self.n_matched == Self::WORD.len()
    }

    fn search(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if self.is_found() {
                return;
            }
            let byte = byte.to_ascii_lowercase();
            // The first letter occurs only once in the word.
            self.n_matched = if byte == Self::WORD[self.n_matched] {
                self.n_matched + 1
            } else {
                usize::from(byte == Self::WORD[0])
            };
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
        if self.has_failed() {
            Err(StreamError::Trap(OutputFailed.into()))
        } else {
            Ok(())
        }
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(if self.is_ready() { WRITE_PERMIT } else { 0 })
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for GuestOutput {
    async fn ready(&mut self) {
        while !self.is_ready() {
            tokio::time::sleep(RETRY).await;
        }
    }
}

impl AsyncWrite for GuestOutput {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
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
        assert_eq!(
            *kept.0.lock().expect("not poisoned"),
            b"0123456789\n[mandelbox: cut after 10 bytes]\n"
        );
        assert_eq!(output.seen_bytes(), 12);
        assert_eq!(output.tail(), "0123456789xy");
    }

    #[test]
    fn streams_with_one_writer_keep_their_order_and_have_one_limit() {
        let kept = Shared::default();
        let [stdout, stderr] = GuestOutput::shared(Some(Box::new(kept.clone())), 10);
        stdout.take(b"one ");
        stderr.take(b"two ");
        stdout.take(b"th");
        assert_eq!(*kept.0.lock().expect("not poisoned"), b"one two th");
        stderr.take(b"ree");
        stdout.take(b"x");
        assert_eq!(
            *kept.0.lock().expect("not poisoned"),
            b"one two th\n[mandelbox: cut after 10 bytes]\n"
        );
        assert_eq!((stdout.seen_bytes(), stderr.seen_bytes()), (7, 7));
        for stream in [&stdout, &stderr] {
            assert_eq!(stream.tail(), "one two threex");
        }
    }

    #[test]
    fn a_tail_starts_with_a_whole_character() {
        let output = GuestOutput::new(None, 0);
        output.keep_tail(5);
        output.take(&[0x80, b'a']);
        assert_eq!(output.tail(), "\u{fffd}a", "nothing was cut");
        output.take("€€".as_bytes());
        assert_eq!(output.tail(), "€");
        output.take("b".as_bytes());
        assert_eq!(output.tail(), "€b");
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
