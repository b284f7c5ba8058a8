//! Decides which calls may start now, by the memory that they may have and the CPUs that they count
//! as.
//!
//! A call counts as one CPU, or as the number that its task requests, at most as all of them. Calls
//! start while those that run count as no more CPUs than the backend has threads.
//!
//! A memory limit that is set explicitly (`--memory`, the policy, a document) is a reservation:
//! calls start while the limits of those that run fit into the memory together. The default limit
//! is more than most calls use, and holding calls back by it would leave small machines idle. Such
//! calls start until memory is short. If the operator sets how much memory calls may have, all
//! limits are reservations. A call starts in any case if none else runs.
//!
//! Processes can share all this, see `shared`.

use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::memory::{Memory, machine_memory};
use super::shared::{Claims, ProcessClaims};
use crate::model::TaskSpec;
use crate::text::bytes_text;

/// Interval between two checks of the machine's memory.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// Interval between two attempts to start a call that waits for another process.
const OTHERS_CHECK_INTERVAL: Duration = Duration::from_millis(5);
/// Memory is short when less than this part of it is available.
const SHORT_PART: u64 = 16;
/// Memory is not short when at least this many bytes are available.
const ENOUGH_BYTES: u64 = 1 << 30;

/// Lets calls of all runs of a backend start.
pub(super) struct Admission {
    /// CPUs that calls may count as together.
    n_cpus: usize,
    /// Bytes that the operator lets calls have together.
    operator_limit_bytes: Option<u64>,
    /// Bytes of memory, of the machine or of its control group.
    total_bytes: OnceLock<Option<u64>>,
    read_memory: fn() -> Option<Memory>,
    /// Claims of all processes; `None`: this one has the machine for itself.
    shared: Option<ProcessClaims>,
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Default)]
struct State {
    n_running: usize,
    /// Threads that wait for the end of a call.
    n_waiting: usize,
    reserved_cpus: usize,
    reserved_bytes: u64,
    /// Time of the last check, and true if memory was short then.
    last_check: Option<(Instant, bool)>,
}

/// CallShare of the machine that a call takes.
#[derive(Clone, Copy)]
pub(super) struct CallShare {
    /// CPUs that it counts as.
    n_cpus: usize,
    /// Bytes of the budget; `None`: what it uses.
    bytes: Option<u64>,
}

impl CallShare {
    fn claims(self) -> Claims {
        Claims {
            n_calls: 1,
            n_cpus: self.n_cpus as u64,
            bytes: self.bytes.unwrap_or(0),
        }
    }
}

/// A call that may run; its share is given back when this is dropped.
pub(super) struct Admitted<'a> {
    admission: &'a Admission,
    share: CallShare,
    /// True if the other processes count it.
    is_claimed: bool,
}

impl Admission {
    /// * `n_cpus`: CPUs that calls may count as together, at least 1.
    /// * `operator_limit_bytes`: bytes that calls may have together; `None`: those of the machine.
    pub(super) fn new(n_cpus: usize, operator_limit_bytes: Option<u64>) -> Self {
        Self {
            n_cpus,
            operator_limit_bytes,
            total_bytes: OnceLock::new(),
            read_memory: machine_memory,
            shared: None,
            state: Mutex::default(),
            ended: Condvar::new(),
        }
    }

    /// Counts the calls of other processes as well.
    pub(super) fn sharing_with(mut self, shared: ProcessClaims) -> Self {
        self.shared = Some(shared);
        self
    }

    /// Bytes that calls may have together; `None` if the memory of the machine is unknown.
    pub(super) fn budget_bytes(&self) -> Option<u64> {
        let of_machine = || (self.read_memory)().map(|memory| memory.total_bytes);
        self.operator_limit_bytes
            .or_else(|| *self.total_bytes.get_or_init(of_machine))
    }

    /// Calls of a task that fit together, at least 1.
    pub(super) fn n_fitting(&self, task: &TaskSpec) -> usize {
        let n_by_memory = self.n_fitting_memory(task).unwrap_or(usize::MAX);
        n_by_memory.min(self.n_fitting_cpus(task))
    }

    fn n_fitting_cpus(&self, task: &TaskSpec) -> usize {
        self.n_cpus / self.share(task).n_cpus
    }

    /// Calls of a task that fit into the memory together, at least 1; `None`: any number.
    fn n_fitting_memory(&self, task: &TaskSpec) -> Option<usize> {
        let reserved = self.share(task).bytes?;
        let n = self.budget_bytes()? / reserved.max(1);
        Some(usize::try_from(n).unwrap_or(usize::MAX).max(1))
    }

    /// Returns the reason why no more than [`Self::n_fitting`] calls run at a time: a sentence for
    /// the user.
    ///
    /// * `n_calls`: how many would run otherwise.
    pub(super) fn concurrency_limit_reason(
        &self,
        task: &TaskSpec,
        n_calls: usize,
    ) -> Option<String> {
        let n_by_cpus = self.n_fitting_cpus(task);
        let n_by_memory = self.n_fitting_memory(task).unwrap_or(usize::MAX);
        if n_by_cpus < n_calls.min(n_by_memory) {
            return Some(format!(
                "at most {} at a time, not {n_calls}: each counts as {} CPUs (`cpus_per_task`), \
                 and there are {} for all calls; lower `cpus_per_task`, since a call computes in \
                 one thread",
                calls_run(n_by_cpus),
                task.n_cpus,
                self.n_cpus,
            ));
        }
        self.memory_limit_reason(task, n_calls)
    }

    fn memory_limit_reason(&self, task: &TaskSpec, n_calls: usize) -> Option<String> {
        let (reserved, budget) = (self.share(task).bytes?, self.budget_bytes()?);
        let (each, all) = (bytes_text(reserved), bytes_text(budget));
        let advice = "lower the memory limit of a call, or set `memory` in the policy's [host]";
        if reserved > budget {
            return Some(format!(
                "a call may have {each} of memory, more than the {all} for all calls, so one runs \
                 at a time; {advice}"
            ));
        }
        let n_fitting = self.n_fitting_memory(task).filter(|n| *n < n_calls)?;
        let calls = calls_run(n_fitting);
        Some(format!(
            "at most {calls} at a time, not {n_calls}: each may have {each} of memory, and there \
             are {all} for all calls; \
             {advice}"
        ))
    }

    /// Waits until a call may start. Returns `None` if `gives_up` returned true.
    ///
    /// * `share`: as [`Self::share`] gives it for the task.
    /// * `gives_up`: true to stop waiting; called repeatedly.
    /// * `waits`: called at most once, with a sentence for the user: the call has to wait because
    ///   memory is short, or starts without regard to other processes because the shared folder
    ///   cannot be used.
    pub(super) fn admit(
        &self,
        share: CallShare,
        gives_up: impl Fn() -> bool,
        waits: impl FnOnce(String),
    ) -> Option<Admitted<'_>> {
        let mut waits = Some(waits);
        let since = ProcessClaims::now();
        let mut state = self.lock();
        loop {
            let is_short =
                share.bytes.is_none() && state.n_running > 0 && self.is_short(&mut state);
            let may_start = state.n_running == 0 || !is_short && self.fits(&state, share);
            if may_start {
                match self.claim(share, since) {
                    Ok(true) => return Some(self.start(&mut state, share, true)),
                    Ok(false) => {}
                    Err(text) => {
                        if let Some(waits) = waits.take() {
                            waits(text);
                        }
                        return Some(self.start(&mut state, share, false));
                    }
                }
            }
            if gives_up() {
                if let Some(shared) = &self.shared {
                    shared.give_up(since);
                }
                return None;
            }
            if let Some(waits) = waits.take_if(|_| is_short) {
                waits(
                    "memory is short: calls start again when there is more, or when no other runs"
                        .to_owned(),
                );
            }
            let pause = if may_start {
                OTHERS_CHECK_INTERVAL
            } else {
                CHECK_INTERVAL
            };
            state.n_waiting += 1;
            state = self
                .ended
                .wait_timeout(state, pause)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
            state.n_waiting -= 1;
        }
    }

    fn start(&self, state: &mut State, share: CallShare, is_claimed: bool) -> Admitted<'_> {
        state.n_running += 1;
        state.reserved_cpus += share.n_cpus;
        state.reserved_bytes = state
            .reserved_bytes
            .saturating_add(share.bytes.unwrap_or(0));
        Admitted {
            admission: self,
            share,
            is_claimed,
        }
    }

    /// Claims the share of a call from that of all processes. Returns false if it has to wait.
    ///
    /// # Errors
    /// A sentence for the user if the folder of the claims cannot be used.
    fn claim(&self, share: CallShare, since: u64) -> Result<bool, String> {
        let Some(shared) = &self.shared else {
            return Ok(true);
        };
        let budget = self.budget_bytes();
        let fits = |all: Claims| {
            all.n_cpus <= self.n_cpus as u64
                && (share.bytes.is_none() || budget.is_none_or(|budget| all.bytes <= budget))
        };
        shared
            .claim(share.claims(), since, fits)
            .map_err(|err| format!("--share: {err}; calls start without regard to other processes"))
    }

    /// CallShare that a call of a task takes.
    pub(super) fn share(&self, task: &TaskSpec) -> CallShare {
        let reserves_memory = task.reserves_memory || self.operator_limit_bytes.is_some();
        CallShare {
            n_cpus: task.n_cpus.get().min(self.n_cpus),
            bytes: reserves_memory.then_some(task.limits.memory_bytes),
        }
    }

    fn fits(&self, state: &State, share: CallShare) -> bool {
        if state.reserved_cpus + share.n_cpus > self.n_cpus {
            return false;
        }
        let (Some(reserved), Some(budget)) = (share.bytes, self.budget_bytes()) else {
            return true;
        };
        state.reserved_bytes.saturating_add(reserved) <= budget
    }

    fn is_short(&self, state: &mut State) -> bool {
        if let Some((when, is_short)) = state.last_check
            && when.elapsed() < CHECK_INTERVAL
        {
            return is_short;
        }
        let is_short = (self.read_memory)().is_some_and(|memory| {
            memory.available_bytes < (memory.total_bytes / SHORT_PART).min(ENOUGH_BYTES)
        });
        state.last_check = Some((Instant::now(), is_short));
        is_short
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn calls_run(n_calls: usize) -> String {
    match n_calls {
        1 => "1 call runs".to_owned(),
        n_calls => format!("{n_calls} calls run"),
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        let mut state = self.admission.lock();
        state.n_running -= 1;
        state.reserved_cpus -= self.share.n_cpus;
        state.reserved_bytes = state
            .reserved_bytes
            .saturating_sub(self.share.bytes.unwrap_or(0));
        if let Some(shared) = self.admission.shared.as_ref().filter(|_| self.is_claimed) {
            shared.release(self.share.claims());
        }
        // A notification is a system call, which costs a short call 1 us even if nobody waits.
        let is_awaited = state.n_waiting > 0;
        drop(state);
        if is_awaited {
            self.admission.ended.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;
    use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

    use super::*;
    use crate::model::{Limits, ModuleKind, ModuleRef};

    const MIB: u64 = 1 << 20;

    fn bytes(bytes: u64) -> CallShare {
        CallShare {
            n_cpus: 1,
            bytes: Some(bytes),
        }
    }

    fn task(n_cpus: usize) -> TaskSpec {
        TaskSpec {
            order: 0,
            name: "t".to_owned(),
            id: None,
            module: ModuleRef {
                path: "t.wasm".into(),
                sha256: String::new(),
            },
            kind: ModuleKind::Typed,
            script: None,
            fixed_args: Vec::new(),
            is_single: false,
            max_parallel: None,
            limits: Limits::default(),
            reserves_memory: false,
            n_cpus: NonZeroUsize::new(n_cpus).expect("above 0"),
            env: Vec::new(),
            mounts: Vec::new(),
            resources: Vec::new(),
            snapshot: None,
        }
    }

    /// Admits calls with these CPUs until one has to wait. Returns how many may run.
    fn n_admitted(admission: &Admission, n_cpus: &[usize]) -> usize {
        let calls: Vec<_> = n_cpus
            .iter()
            .map_while(|n| admission.admit(admission.share(&task(*n)), || true, |_| {}))
            .collect();
        calls.len()
    }

    #[test]
    fn calls_count_as_the_cpus_that_they_request() {
        let admission = Admission::new(8, None);
        assert_eq!(n_admitted(&admission, &[1; 9]), 8);
        assert_eq!(n_admitted(&admission, &[4; 3]), 2);
        assert_eq!(n_admitted(&admission, &[3; 4]), 2);
        assert_eq!(n_admitted(&admission, &[4, 3, 1, 1]), 3);
        assert_eq!(n_admitted(&admission, &[4, 5]), 1);
        // More than all CPUs counts as all of them.
        assert_eq!(n_admitted(&admission, &[usize::MAX, 1]), 1);
        assert_eq!(n_admitted(&admission, &[1, usize::MAX]), 1);
        assert_eq!(n_admitted(&admission, &[8]), 1, "all was given back");
        let fitting = |n_cpus| admission.n_fitting(&task(n_cpus));
        assert_eq!([1, 3, 4, 5, 8, 9].map(fitting), [8, 2, 2, 1, 1, 1]);
    }

    #[test]
    fn the_tighter_of_cpus_and_memory_is_the_reason() {
        let gib = |gib: u64| Admission::new(8, Some(gib << 30));
        let of_4_gib = task(4);
        let why =
            |admission: &Admission, n_calls| admission.concurrency_limit_reason(&of_4_gib, n_calls);
        let by_cpus = why(&gib(100), 8).expect("held back");
        assert!(
            by_cpus.starts_with("at most 2 calls run at a time, not 8: each counts as 4 CPUs"),
            "{by_cpus}"
        );
        let by_memory = why(&gib(5), 8).expect("held back");
        assert!(
            by_memory.starts_with("at most 1 call runs at a time, not 8: each may have 4 GiB"),
            "{by_memory}"
        );
        assert_eq!(why(&gib(100), 2), None);
        assert_eq!(gib(100).concurrency_limit_reason(&task(16), 1), None);
    }

    #[test]
    fn reservations_of_all_calls_fit_together() {
        let admission = Admission::new(8, Some(300 * MIB));
        let admit = |mib: u64| admission.admit(bytes(mib * MIB), || true, |_| {});
        let first = admit(200).expect("none runs");
        let second = admit(100).expect("fits to the last byte");
        assert!(admit(1).is_none());
        drop(first);
        assert!(admit(201).is_none());
        let third = admit(200).expect("its memory was given back");
        drop((second, third));
        let more_than_all = admit(1000).expect("one call always runs");
        assert!(admit(1).is_none());
        drop(more_than_all);
    }

    #[test]
    fn a_call_that_waits_starts_when_another_ends() {
        let admission = Admission::new(8, Some(100));
        let (n_running, n_most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let admitted = admission.admit(bytes(40), || false, |_| {});
                    n_most.fetch_max(
                        1 + n_running.fetch_add(1, Ordering::SeqCst),
                        Ordering::SeqCst,
                    );
                    std::thread::sleep(Duration::from_millis(20));
                    n_running.fetch_sub(1, Ordering::SeqCst);
                    drop(admitted);
                });
            }
        });
        assert_eq!(n_most.into_inner(), 2);
    }

    #[test]
    fn without_a_reservation_calls_start_until_memory_is_short() {
        static AVAILABLE_MIB: AtomicU64 = AtomicU64::new(101);
        let mut admission = Admission::new(8, None);
        admission.read_memory = || {
            let available_bytes = AVAILABLE_MIB.load(Ordering::SeqCst) * MIB;
            Some(Memory {
                total_bytes: 1600 * MIB,
                available_bytes,
            })
        };
        let mut reports = Vec::new();
        let unlimited = CallShare {
            n_cpus: 1,
            bytes: None,
        };
        let mut admit = || admission.admit(unlimited, || true, |text| reports.push(text));
        let calls = [admit(), admit(), admit()];
        assert!(calls.iter().all(Option::is_some));
        AVAILABLE_MIB.store(99, Ordering::SeqCst);
        std::thread::sleep(CHECK_INTERVAL);
        assert!(admit().is_none());
        drop(calls);
        let alone = admit();
        assert!(alone.is_some(), "one call always runs");
        assert!(admit().is_none());
        AVAILABLE_MIB.store(500, Ordering::SeqCst);
        std::thread::sleep(CHECK_INTERVAL);
        assert!(admit().is_some());
    }
}
