//! Signals: the first ends the work and lets it be saved, the second ends the program.
//!
//! Taken are all signals that end a program and that somebody sends on purpose: a user, a terminal
//! that is closed, a batch system that gives a warning, the kernel when the limit on CPU time is
//! near. SIGKILL cannot be taken; SIGTSTP and SIGCONT do what they always do, and time for which
//! the program is stopped is not counted (`running_clock.rs`). SIGPIPE is ignored by Rust's
//! runtime, and SIGXFSZ by [`ignore_file_size_signal`]: the write that is too large fails, for a
//! guest or for the host, and only that one.

use std::io;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{
    SIGALRM, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGXCPU, SIGXFSZ,
};
use signal_hook::{flag, iterator, low_level};

use super::Answer;
use crate::model::{CancelToken, HostError};
use crate::report::{drain_stderr, say};
use crate::run::exit_code;

/// Time that calls have to end, after which they are not waited for.
pub(super) const GRACE_PERIOD: Duration = Duration::from_secs(2);
/// Time within which a second signal is the first one again: what ends a program often tells its
/// group too.
const SAME_SIGNAL: Duration = Duration::from_millis(100);
/// Time after which a person is told that the program has heard.
const SILENCE: Duration = Duration::from_millis(400);
/// Time that saving has in all.
const SAVING_TIME: Duration = Duration::from_millis(4500);
/// Seconds of CPU time on each CPU that saving needs at most: guests may compute for [`GRACE_PERIOD`]
/// more.
const SAVING_CPU_SECONDS: u64 = 5;
/// Stack of the thread that waits for signals.
const STACK_BYTES: usize = 128 << 10;

/// A signal that ends the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    /// The terminal was closed.
    HangUp,
    Interrupt,
    Quit,
    Terminate,
    /// The soft limit on CPU time is reached.
    CpuTime,
    /// Warnings of batch systems before they end a job.
    User1,
    User2,
    Alarm,
}

impl Signal {
    const ALL: [Self; 8] = [
        Self::HangUp,
        Self::Interrupt,
        Self::Quit,
        Self::Terminate,
        Self::CpuTime,
        Self::User1,
        Self::User2,
        Self::Alarm,
    ];

    fn number(self) -> i32 {
        match self {
            Self::HangUp => SIGHUP,
            Self::Interrupt => SIGINT,
            Self::Quit => SIGQUIT,
            Self::Terminate => SIGTERM,
            Self::CpuTime => SIGXCPU,
            Self::User1 => SIGUSR1,
            Self::User2 => SIGUSR2,
            Self::Alarm => SIGALRM,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::HangUp => "SIGHUP",
            Self::Interrupt => "SIGINT",
            Self::Quit => "SIGQUIT",
            Self::Terminate => "SIGTERM",
            Self::CpuTime => "SIGXCPU (the limit on CPU time, `ulimit -t`)",
            Self::User1 => "SIGUSR1",
            Self::User2 => "SIGUSR2",
            Self::Alarm => "SIGALRM",
        }
    }

    /// As of a program that the signal ends by itself.
    pub(super) fn exit_code(self) -> u8 {
        match self {
            Self::HangUp => exit_code::STOPPED_BY_SIGHUP,
            Self::Interrupt => exit_code::STOPPED_BY_SIGINT,
            Self::Terminate => exit_code::STOPPED_BY_SIGTERM,
            other => 128 + other.number().to_le_bytes()[0],
        }
    }

    /// Whether a second one means that somebody insists. The kernel sends SIGXCPU every second, and
    /// a batch system may repeat its warnings.
    fn insists(self) -> bool {
        matches!(
            self,
            Self::HangUp | Self::Interrupt | Self::Quit | Self::Terminate
        )
    }

    /// The signals that this program takes: all, but SIGHUP where `nohup` lets the program outlive
    /// its terminal.
    fn taken() -> impl Iterator<Item = Self> {
        Self::ALL
            .into_iter()
            .filter(|signal| *signal != Self::HangUp || !is_ignored(SIGHUP))
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
    /// A guest of its own runs, which may go on when it is told to end: the program ends a moment
    /// later.
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
            state: Arc::new(Mutex::new(State {
                work: Work::Nothing,
                received: None,
            })),
        };
        let (cancel, state) = (signals.cancel.clone(), Arc::clone(&signals.state));
        signal_before_cpu_limit();
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

/// Keeps the signals that a terminal or a service manager sends to all processes of a run from this
/// one, which its parent ends. But for SIGXCPU: the limit on CPU time is one of each process.
pub(super) fn ignore() -> io::Result<()> {
    for signal in Signal::taken().filter(|signal| *signal != Signal::CpuTime) {
        flag::register(signal.number(), Arc::default())?;
    }
    Ok(())
}

/// Lets a write above the limit on file sizes (`ulimit -f`) fail, in place of ending the program: a
/// guest chooses the size of its files.
pub(super) fn ignore_file_size_signal() -> io::Result<()> {
    flag::register(SIGXFSZ, Arc::default()).map(|_| ())
}

/// Lowers the soft limit on CPU time below the hard one, at which the kernel kills the program:
/// saving needs some. Worker processes inherit it.
fn signal_before_cpu_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Cpu);
    let Some(hard) = maximum else { return };
    let n_cpus = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    // A limit of some seconds is not all for saving.
    let reserve = (SAVING_CPU_SECONDS * n_cpus).min(hard / 2).max(1);
    let soft = current
        .unwrap_or(hard)
        .min(hard.saturating_sub(reserve))
        .max(1);
    // Where it cannot be lowered, the limit that is there counts.
    let _ = setrlimit(
        Resource::Cpu,
        Rlimit {
            current: Some(soft),
            maximum,
        },
    );
}

/// Whether whoever started this program lets it ignore a signal.
#[expect(
    unsafe_code,
    reason = "the system call that looks at the disposition of a signal"
)]
fn is_ignored(signal: i32) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: without a new action, the call changes nothing and writes the present one to where it
    // is told.
    let looked = unsafe { libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) };
    // SAFETY: the bytes are an action, whether or not the call has written them: all of them 0 is
    // one too.
    let action = unsafe { action.assume_init() };
    looked == 0 && action.sa_sigaction == libc::SIG_IGN
}

/// * `stop`: called with the first signal, on a thread of its own, and with what makes the next one
///   end the program.
fn install(stop: impl FnOnce(Signal, &AtomicBool) + Send + 'static) -> io::Result<()> {
    let next_ends = Arc::new(AtomicBool::new(false));
    let taken: Vec<_> = Signal::taken().collect();
    for signal in taken.iter().filter(|signal| signal.insists()) {
        let exit_code = i32::from(signal.exit_code());
        flag::register_conditional_shutdown(signal.number(), exit_code, Arc::clone(&next_ends))?;
    }
    let mut signals = iterator::Signals::new(taken.into_iter().map(Signal::number))?;
    let thread = std::thread::Builder::new()
        .name("mandelbox-signals".to_owned())
        .stack_size(STACK_BYTES);
    thread.spawn(move || {
        let first = signals.forever().next();
        if let Some(signal) = Signal::ALL
            .into_iter()
            .find(|signal| Some(signal.number()) == first)
        {
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
    say(&format!(
        "{name}: stopping; once more ends the program at once\n"
    ));
    std::thread::sleep(SAVING_TIME - SILENCE);
    say(&format!(
        "error: stopped by {name}, but not all could be saved in {SAVING_TIME:?}\n"
    ));
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
