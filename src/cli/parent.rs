//! End of the parent process, as a reason to stop.

use std::io;
use std::time::Duration;

use rustix::process::{Pid, Signal, getpid, getppid, kill_process};

use crate::clock::Ticker;
use crate::model::HostError;

/// Time between two looks at the parent.
const INTERVAL: Duration = Duration::from_millis(100);

/// Stops this program, as SIGTERM does, when its parent process ends. Ends when it is dropped.
///
/// The kernel could send the signal (`PR_SET_PDEATHSIG`), but it sends it at the end of the thread
/// that started the program.
///
/// * `parent`: process ID of the parent; `None` to do nothing. If another process is the parent
///   already, the parent has ended.
///
/// # Errors
/// [`HostError::Setup`] if no thread can be started.
pub(super) fn stop_with(parent: Option<u32>) -> Result<Option<Ticker>, HostError> {
    parent
        .map(watch)
        .transpose()
        .map_err(HostError::setup("watch the parent process"))
}

fn watch(parent: u32) -> io::Result<Ticker> {
    let mut has_ended = false;
    Ticker::start("mandelbox-parent", INTERVAL, move || {
        let now = getppid().map(Pid::as_raw_nonzero);
        if !has_ended && now.is_none_or(|now| u32::try_from(now.get()) != Ok(parent)) {
            has_ended = true;
            let _ = kill_process(getpid(), Signal::TERM);
        }
    })
}
