//! SIGINT and SIGTERM: the first ends the work and lets it be saved, the second ends the program.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, iterator, low_level};

use super::Answer;
use crate::cancel::CancelToken;
use crate::error::{HostError, exit_code};
use crate::reporter::{drain_stderr, say};

/// Time that calls have to end, after which they are not waited for.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
/// Time within which a second signal is the first one again: what ends a program often tells its group too.
const SAME_SIGNAL: Duration = Duration::from_millis(100);
/// Time after which a person is told that the program has heard.
const SILENCE: Duration = Duration::from_millis(400);
/// Time that saving has in all.
const SAVING_TIME: Duration = Duration::from_millis(4500);
/// Stack of the thread that waits for signals.
const STACK_BYTES: usize = 128 << 10;

/// A signal that ends the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    Interrupt,
    Terminate,
}

impl Signal {
    const ALL: [Self; 2] = [Self::Interrupt, Self::Terminate];

    fn number(self) -> i32 {
        match self {
            Self::Interrupt => SIGINT,
            Self::Terminate => SIGTERM,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
        }
    }

    /// As of a program that the signal ends by itself.
    pub(super) fn exit_code(self) -> u8 {
        match self {
            Self::Interrupt => exit_code::STOPPED_BY_SIGINT,
            Self::Terminate => exit_code::STOPPED_BY_SIGTERM,
        }
    }

    /// The answer of a command that the signal has ended.
    pub(super) fn answer(self) -> Answer {
        Answer::text(format!("stopped by {}\n", self.name()), self.exit_code())
    }
}

/// What is being done when a signal comes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Work {
    /// Nothing that has to be saved: the program ends.
    Nothing,
    /// A guest of its own runs, which may go on when it is told to end: the program ends a moment later.
    Guest,
    /// Something that has to be saved: the program ends by itself, within [`SAVING_TIME`].
    Saving,
}

/// What comes of signals.
pub(super) struct Signals {
    cancel: CancelToken,
    state: Arc<Mutex<State>>,
}

struct State {
    work: Work,
    received: Option<Signal>,
}

impl Signals {
    /// Takes the signals from now on.
    pub(super) fn install() -> Result<Self, HostError> {
        let signals = Self {
            cancel: CancelToken::new(),
            state: Arc::new(Mutex::new(State { work: Work::Nothing, received: None })),
        };
        let (cancel, state) = (signals.cancel.clone(), Arc::clone(&signals.state));
        install(move |signal, next_ends| stop(signal, &cancel, &state, next_ends))
            .map_err(HostError::setup("take signals"))?;
        Ok(signals)
    }

    /// The token that the first signal cancels.
    pub(super) fn cancel(&self) -> &CancelToken {
        &self.cancel
    }

    /// While this is held, a signal lets the work be saved.
    pub(super) fn saving(&self) -> Working<'_> {
        lock(&self.state).work = Work::Saving;
        Working(self)
    }

    /// While this is held, a signal ends the running guest or, a moment later, the program.
    pub(super) fn running_guest(&self) -> Working<'_> {
        lock(&self.state).work = Work::Guest;
        Working(self)
    }

    /// The signal that was received.
    pub(super) fn received(&self) -> Option<Signal> {
        lock(&self.state).received
    }
}

/// See [`Signals::saving`].
pub(super) struct Working<'a>(&'a Signals);

impl Drop for Working<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).work = Work::Nothing;
    }
}

/// Keeps the signals that a terminal or a service manager sends to all processes of a run from this one, which its parent
/// ends.
pub(super) fn ignore() -> io::Result<()> {
    for signal in Signal::ALL {
        flag::register(signal.number(), Arc::default())?;
    }
    Ok(())
}

/// * `stop`: called with the first signal, on a thread of its own, and with what makes the next one end the program.
fn install(stop: impl FnOnce(Signal, &AtomicBool) + Send + 'static) -> io::Result<()> {
    let next_ends = Arc::new(AtomicBool::new(false));
    for signal in Signal::ALL {
        let exit_code = i32::from(signal.exit_code());
        flag::register_conditional_shutdown(signal.number(), exit_code, Arc::clone(&next_ends))?;
    }
    let mut signals = iterator::Signals::new(Signal::ALL.map(Signal::number))?;
    let thread = std::thread::Builder::new().name("mandelbox-signals".to_owned()).stack_size(STACK_BYTES);
    thread.spawn(move || {
        let first = signals.forever().next();
        if let Some(signal) = Signal::ALL.into_iter().find(|signal| Some(signal.number()) == first) {
            stop(signal, &next_ends);
        }
    })?;
    Ok(())
}

/// Cancels the work, and ends the program if that takes too long.
fn stop(signal: Signal, cancel: &CancelToken, state: &Mutex<State>, next_ends: &AtomicBool) {
    let work = {
        let mut state = lock(state);
        if state.work == Work::Nothing {
            end(signal);
        }
        state.received = Some(signal);
        state.work
    };
    cancel.cancel();
    std::thread::sleep(SAME_SIGNAL);
    next_ends.store(true, Ordering::SeqCst);
    std::thread::sleep(SILENCE - SAME_SIGNAL);
    let name = signal.name();
    if work == Work::Guest {
        say(&format!("stopped by {name}\n"));
        end(signal);
    }
    say(&format!("{name}: stopping; once more ends the program at once\n"));
    std::thread::sleep(SAVING_TIME - SILENCE);
    say(&format!("error: stopped by {name}, but not all could be saved in {SAVING_TIME:?}\n"));
    end(signal);
}

/// Ends the program on the spot: what guests still do is not waited for.
fn end(signal: Signal) -> ! {
    drain_stderr();
    low_level::exit(i32::from(signal.exit_code()))
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
