//! Signals: the first one stops the work and lets it be saved, the second one ends the program.
//!
//! [`Signals::install`] registers the handlers and starts one thread, `mandelbox-signals`. Handlers
//! run on any thread and at any point of the code, even while that thread holds a lock. They
//! therefore call only what is async-signal-safe: they set atomic flags, write a byte to the pipe
//! that wakes the signal thread, or call `_exit`. Everything else happens on the signal thread,
//! which may lock, allocate and print.
//!
//! The first signal wakes the signal thread, which runs [`stop`]. If no work is going on, the
//! program ends at once. Otherwise the thread cancels the [`CancelToken`]. The main thread and the
//! threads of the backend notice this: guests end, the records are written, and the main thread
//! exits with the code of the signal. Meanwhile the signal thread only watches the time. It prints
//! a notice if the program still runs after [`NOTICE_DELAY`], and ends the program if saving takes
//! longer than [`SAVING_TIME`].
//!
//! The second signal never reaches the signal thread, which reads one signal only. Its handler
//! calls `_exit`, so it works whatever the other threads do. This is enabled [`DUPLICATE_WINDOW`]
//! after the first signal, and only for signals that a person repeats
//! ([`Signal::exits_on_repeat`]).
//!
//! The handled signals are those that end a program and are sent on purpose: by a user, by a
//! terminal that closes, by a batch system as a warning, and by the kernel near the limit on CPU
//! time. SIGKILL cannot be handled. SIGTSTP and SIGCONT keep their default actions, and time for
//! which the program is stopped does not count toward time limits. SIGPIPE is ignored by Rust's
//! runtime, and SIGXFSZ by [`ignore_file_size_signal`], so that only the write fails that is too
//! large. Worker processes ignore all but SIGXCPU ([`ignore`]), because their parent ends them.

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
use crate::report::{drain_stderr, print_text};
use crate::run::exit_code;

/// Grace period of running calls after a cancellation. Calls that still run are then abandoned.
pub(super) const GRACE_PERIOD: Duration = Duration::from_secs(1);
/// Time after the first signal in which a further one is a duplicate: programs such as `timeout`
/// send a signal to a process and also to its group.
const DUPLICATE_WINDOW: Duration = Duration::from_millis(100);
/// Time after the first signal at which a notice confirms it, if the program has not ended by then.
const NOTICE_DELAY: Duration = Duration::from_millis(400);
/// Time after the first signal at which the program ends, even if not everything is saved.
const SAVING_TIME: Duration = Duration::from_millis(4500);
/// Seconds of CPU time per CPU reserved for saving. Guests may compute for [`GRACE_PERIOD`] of
/// them.
const SAVING_CPU_SECONDS: u64 = 5;
/// Stack size of the signal thread.
const STACK_BYTES: usize = 128 << 10;

/// Handled signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    /// The terminal closed.
    HangUp,
    Interrupt,
    Quit,
    Terminate,
    /// The soft limit on CPU time is reached.
    CpuTime,
    /// Warning of a batch system before it ends a job, as [`Self::User2`] and [`Self::Alarm`].
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

    /// Returns the exit code that a shell reports for a program ended by the signal: 128 + its
    /// number.
    pub(super) fn exit_code(self) -> u8 {
        match self {
            Self::HangUp => exit_code::STOPPED_BY_SIGHUP,
            Self::Interrupt => exit_code::STOPPED_BY_SIGINT,
            Self::Terminate => exit_code::STOPPED_BY_SIGTERM,
            other => 128 + other.number().to_le_bytes()[0],
        }
    }

    /// Returns true if a second signal ends the program at once. The others are repeated without
    /// such an intention: the kernel sends SIGXCPU every second, and a batch system may repeat a
    /// warning.
    fn exits_on_repeat(self) -> bool {
        matches!(
            self,
            Self::HangUp | Self::Interrupt | Self::Quit | Self::Terminate
        )
    }

    /// Returns the signals to handle: all of them, except SIGHUP if it is ignored. `nohup` ignores
    /// it, so that a program outlives its terminal.
    fn handled() -> impl Iterator<Item = Self> {
        Self::ALL
            .into_iter()
            .filter(|signal| *signal != Self::HangUp || !is_ignored(SIGHUP))
    }

    /// Returns the answer of a command that the signal stopped.
    pub(super) fn answer(self) -> Answer {
        Answer::text(format!("stopped by {}\n", self.name()), self.exit_code())
    }
}

/// Current work of the program, which determines the effect of the first signal.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Work {
    /// No work that has to be saved. The program ends at once.
    Nothing,
    /// A guest of `exec` runs. Its cancellation may have no effect, so the program ends after
    /// [`NOTICE_DELAY`].
    Guest,
    /// Work that has to be saved. The program ends when it is saved, at most [`SAVING_TIME`] later.
    Saving,
}

/// Installed signal handlers, shared by the main thread and the signal thread.
pub(super) struct Signals {
    cancel: CancelToken,
    state: Arc<Mutex<State>>,
}

struct State {
    work: Work,
    received: Option<Signal>,
}

impl Signals {
    /// Installs the handlers and starts the signal thread.
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
        install(move |signal, exit_on_next| stop(signal, &cancel, &state, exit_on_next))
            .map_err(HostError::setup("install signal handlers"))?;
        Ok(signals)
    }

    /// Returns the token that the first signal cancels.
    pub(super) fn cancel(&self) -> &CancelToken {
        &self.cancel
    }

    /// Declares work that has to be saved, until the returned guard is dropped.
    pub(super) fn saving(&self) -> Working<'_> {
        lock(&self.state).work = Work::Saving;
        Working(self)
    }

    /// Declares a guest that can be ended without saving, until the returned guard is dropped.
    pub(super) fn running_guest(&self) -> Working<'_> {
        lock(&self.state).work = Work::Guest;
        Working(self)
    }

    /// Returns the signal that stopped the work, if any.
    pub(super) fn received(&self) -> Option<Signal> {
        lock(&self.state).received
    }
}

/// Guard of [`Signals::saving`] and [`Signals::running_guest`].
pub(super) struct Working<'a>(&'a Signals);

impl Drop for Working<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).work = Work::Nothing;
    }
}

/// Ignores the signals that a terminal or a service manager sends to all processes of a run: this
/// is a child process, which its parent ends. SIGXCPU keeps its default action, because each
/// process has its own limit on CPU time.
pub(super) fn ignore() -> io::Result<()> {
    for signal in Signal::handled().filter(|signal| *signal != Signal::CpuTime) {
        // The handler sets a flag that is never read.
        flag::register(signal.number(), Arc::default())?;
    }
    Ok(())
}

/// Ignores SIGXFSZ, so that a write above `ulimit -f` fails instead of ending the program: guests
/// choose the sizes of their files.
pub(super) fn ignore_file_size_signal() -> io::Result<()> {
    flag::register(SIGXFSZ, Arc::default()).map(|_| ())
}

/// Lowers the soft limit on CPU time, at which the kernel sends SIGXCPU, below the hard limit, at
/// which it kills the program. The difference is the time for saving. Worker processes inherit the
/// limit.
fn signal_before_cpu_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Cpu);
    let Some(hard) = maximum else { return };
    let n_cpus = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    // Leave at least half of a small limit to the run itself.
    let reserve = (SAVING_CPU_SECONDS * n_cpus).min(hard / 2).max(1);
    let soft = current
        .unwrap_or(hard)
        .min(hard.saturating_sub(reserve))
        .max(1);
    // If the limit cannot be lowered, the old one applies.
    let _ = setrlimit(
        Resource::Cpu,
        Rlimit {
            current: Some(soft),
            maximum,
        },
    );
}

/// Returns true if the parent process made this program ignore a signal.
#[expect(
    unsafe_code,
    reason = "the system call that reads the action of a signal"
)]
fn is_ignored(signal: i32) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: with a null pointer for the new action, the call changes nothing. It writes the
    // current action to the other pointer, which is valid.
    let result = unsafe { libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) };
    // SAFETY: the bytes are initialized even if the call failed, because they were zeroed, and
    // all-zero bytes are a valid `sigaction`.
    let action = unsafe { action.assume_init() };
    result == 0 && action.sa_sigaction == libc::SIG_IGN
}

/// Registers the handlers and starts the signal thread.
///
/// * `stop`: called on the signal thread, with the first signal and a flag. While the flag is true,
///   a further signal ends the program.
fn install(stop: impl FnOnce(Signal, &AtomicBool) + Send + 'static) -> io::Result<()> {
    let exit_on_next = Arc::new(AtomicBool::new(false));
    let handled: Vec<_> = Signal::handled().collect();
    for signal in handled.iter().filter(|signal| signal.exits_on_repeat()) {
        let exit_code = i32::from(signal.exit_code());
        // The handler itself reads the flag and calls `_exit`.
        flag::register_conditional_shutdown(signal.number(), exit_code, Arc::clone(&exit_on_next))?;
    }
    // One more handler for each signal: it notes the signal, and wakes the iterator through a pipe.
    let mut signals = iterator::Signals::new(handled.into_iter().map(Signal::number))?;
    let thread = std::thread::Builder::new()
        .name("mandelbox-signals".to_owned())
        .stack_size(STACK_BYTES);
    thread.spawn(move || {
        // Only the first signal is read. Further ones have no effect but that of the flag.
        let first = signals.forever().next();
        if let Some(signal) = Signal::ALL
            .into_iter()
            .find(|signal| Some(signal.number()) == first)
        {
            stop(signal, &exit_on_next);
        }
    })?;
    Ok(())
}

/// Cancels the work, and ends the program if saving takes too long. Runs on the signal thread; the
/// main thread usually ends the program earlier, during one of the waits.
fn stop(signal: Signal, cancel: &CancelToken, state: &Mutex<State>, exit_on_next: &AtomicBool) {
    let work = {
        let mut state = lock(state);
        if state.work == Work::Nothing {
            // The lock is held until the process has ended, so no work can begin in the meantime.
            end(signal);
        }
        // Set before the token is cancelled: a cancelled command reads its exit code from here.
        state.received = Some(signal);
        state.work
    };
    cancel.cancel();
    std::thread::sleep(DUPLICATE_WINDOW);
    exit_on_next.store(true, Ordering::SeqCst);
    std::thread::sleep(NOTICE_DELAY - DUPLICATE_WINDOW);
    let name = signal.name();
    if work == Work::Guest {
        // The guest did not end when it was cancelled, and nothing has to be saved.
        print_text(&format!("stopped by {name}\n"));
        end(signal);
    }
    print_text(&format!(
        "{name}: stopping; a second signal ends the program at once\n"
    ));
    std::thread::sleep(SAVING_TIME - NOTICE_DELAY);
    print_text(&format!(
        "error: stopped by {name}; not everything could be saved within {SAVING_TIME:?}\n"
    ));
    end(signal);
}

/// Ends the program at once, without destructors and without waiting for guests.
fn end(signal: Signal) -> ! {
    // stderr is written by a thread, which `_exit` would end before the last lines are out.
    drain_stderr();
    low_level::exit(i32::from(signal.exit_code()))
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // A thread that panicked cannot leave the state inconsistent: its fields are independent.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
