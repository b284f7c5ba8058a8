//! Every module of `tests/hostile/`, run by the real program as four calls of a parallel task, in
//! several configurations.
//!
//! The first line of a module has the outcome of each call and what it tries. Whatever it tries:
//! the program ends in time, nothing outside the module's folders changes or is seen, the records
//! are whole, and a run with a good module goes well afterwards.
#![cfg(target_os = "linux")]

mod bombs;
mod case;
mod complaints;
mod fixture;
#[cfg(feature = "weakened-for-tests")]
mod free_code;
mod neighbours;
pub(crate) mod no_openat2;
mod records;
mod watch;
#[cfg(feature = "weakened-for-tests")]
mod weakened;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use case::{Case, cases};
use complaints::complaints;

/// How the program runs the corpus.
#[derive(Clone, Copy)]
struct Configuration {
    /// Arguments in addition to those of every run.
    arguments: &'static [&'static str],
    /// Done on the thread that starts the program.
    prepare_thread: fn(),
    /// Calls of [`fixture::COMPONENTS`] that run one after the other, of as many as there are
    /// workers.
    n_rounds: u32,
    /// Maximum delay of the end of a call on a busy machine.
    max_delay: Duration,
}

const THREADS: Configuration = Configuration {
    arguments: &["--jobs", "2"],
    prepare_thread: || {},
    n_rounds: 2,
    max_delay: Duration::from_secs(2),
};

/// All modules where `MANDELBOX_TEST_WHOLE` is set, as in CI, else every eighth: all take minutes.
fn cases_for_more_configurations() -> Vec<Case> {
    let step = if std::env::var_os("MANDELBOX_TEST_WHOLE").is_some() {
        1
    } else {
        8
    };
    cases().into_iter().step_by(step).collect()
}

/// Runs all cases, and fails with all complaints.
fn check_all(cases: Vec<Case>, configuration: Configuration) {
    // One corpus at a time: its deadlines are for a machine that does little else.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (sleeping, others): (Vec<_>, Vec<_>) = cases
        .into_iter()
        .partition(|case| case.name.starts_with("sleep_"));
    let (computing, short): (Vec<_>, Vec<_>) = others.into_iter().partition(Case::can_time_out);
    // Cases with their number of threads. Each run that computes has two workers, for two CPUs, and
    // short runs mostly wait for the disk.
    let queues = [(sleeping, 2), (computing, 1), (short, 3)]
        .map(|(cases, n_threads)| (Mutex::new(cases.into_iter()), n_threads));
    let found = Mutex::new(Vec::new());
    let work = |queue: &Mutex<std::vec::IntoIter<Case>>| {
        (configuration.prepare_thread)();
        loop {
            let Some(case) = queue.lock().expect("not poisoned").next() else {
                break;
            };
            let wrong = complaints(&case, configuration);
            if !wrong.is_empty() {
                found.lock().expect("not poisoned").push(format!(
                    "{}: {}",
                    case.name,
                    wrong.join("\n  ")
                ));
            }
        }
    };
    std::thread::scope(|scope| {
        for (queue, n_threads) in &queues {
            for _ in 0..*n_threads {
                scope.spawn(|| work(queue));
            }
        }
    });
    let found = found.into_inner().expect("not poisoned");
    assert!(
        found.is_empty(),
        "{} modules got their way:\n{}",
        found.len(),
        found.join("\n")
    );
}

#[test]
fn no_hostile_module_succeeds() {
    let cases = cases();
    assert!(cases.len() >= 60, "{}", cases.len());
    check_all(cases, THREADS);
}

#[test]
fn no_hostile_module_succeeds_with_one_worker() {
    check_all(
        cases_for_more_configurations(),
        Configuration {
            arguments: &["--jobs", "1"],
            n_rounds: 4,
            ..THREADS
        },
    );
}

#[test]
fn no_hostile_module_succeeds_in_processes() {
    let arguments = &["--jobs", "2", "--isolation", "process"];
    check_all(
        cases_for_more_configurations(),
        Configuration {
            arguments,
            max_delay: Duration::from_secs(1),
            ..THREADS
        },
    );
}

/// Where the kernel does not have `openat2`, or a container hides it, the sandbox resolves paths by
/// hand.
#[test]
fn no_hostile_module_succeeds_without_openat2() {
    fn refuse() {
        use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
        no_openat2::refuse();
        let opened = openat2(
            CWD,
            ".",
            OFlags::RDONLY,
            Mode::empty(),
            ResolveFlags::empty(),
        );
        assert_eq!(opened.err(), Some(rustix::io::Errno::NOSYS));
    }
    check_all(
        cases_for_more_configurations(),
        Configuration {
            prepare_thread: refuse,
            ..THREADS
        },
    );
}
