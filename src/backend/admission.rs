//! Which calls may start now, by the memory that they may have.
//!
//! A memory limit that somebody asked for (`--memory`, the policy, a document) is a reservation:
//! calls start while the limits of those that run fit into the memory together. The default limit
//! is more than most calls use, and holding calls back by it would leave small machines idle. Such
//! calls start until memory is short. Where the operator says how much memory calls may have, all
//! limits are reservations. A call starts in any case if none else runs.

use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::memory::{Memory, machine_memory};
use crate::model::TaskSpec;
use crate::text::bytes_text;

/// Time between two looks at the machine's memory.
const LOOK: Duration = Duration::from_millis(100);
/// Memory is short when less than this part of it is available.
const SHORT_PART: u64 = 16;
/// Memory is not short when so many bytes are available.
const ENOUGH_BYTES: u64 = 1 << 30;

/// Lets calls of all runs of a backend start.
pub(super) struct Admission {
    /// Bytes that the operator lets calls have together.
    given_bytes: Option<u64>,
    /// Bytes of memory, of the machine or of its control group.
    total_bytes: OnceLock<Option<u64>>,
    look: fn() -> Option<Memory>,
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Default)]
struct State {
    n_running: usize,
    reserved_bytes: u64,
    /// Time of the last check, and true if memory was short then.
    looked: Option<(Instant, bool)>,
}

/// A call that may run; its memory is given back when this is dropped.
pub(super) struct Admitted<'a> {
    admission: &'a Admission,
    reserved_bytes: u64,
}

impl Admission {
    /// * `given_bytes`: bytes that calls may have together; `None`: those of the machine.
    pub(super) fn new(given_bytes: Option<u64>) -> Self {
        Self {
            given_bytes,
            total_bytes: OnceLock::new(),
            look: machine_memory,
            state: Mutex::default(),
            ended: Condvar::new(),
        }
    }

    /// Bytes that calls may have together; `None`: nobody knows.
    pub(super) fn budget_bytes(&self) -> Option<u64> {
        let of_machine = || (self.look)().map(|memory| memory.total_bytes);
        self.given_bytes
            .or_else(|| *self.total_bytes.get_or_init(of_machine))
    }

    /// Calls of a task that fit into the memory together, at least 1; `None`: any number.
    pub(super) fn n_fitting(&self, task: &TaskSpec) -> Option<usize> {
        let reserved = self.reserved_bytes(task)?;
        let n = self.budget_bytes()? / reserved.max(1);
        Some(usize::try_from(n).unwrap_or(usize::MAX).max(1))
    }

    /// Why no more than [`Self::n_fitting`] calls run at a time: a sentence for the user.
    ///
    /// * `n_calls`: how many would run otherwise.
    pub(super) fn why_held_back(&self, task: &TaskSpec, n_calls: usize) -> Option<String> {
        let (reserved, budget) = (self.reserved_bytes(task)?, self.budget_bytes()?);
        let (each, all) = (bytes_text(reserved), bytes_text(budget));
        let advice = "lower the memory limit of a call, or set `memory` in the policy's [host]";
        if reserved > budget {
            return Some(format!(
                "a call may have {each} of memory, more than the {all} for all calls, so one runs \
                 at a time; {advice}"
            ));
        }
        let n_fitting = self.n_fitting(task).filter(|n| *n < n_calls)?;
        let calls = if n_fitting == 1 {
            "1 call runs".to_owned()
        } else {
            format!("{n_fitting} calls run")
        };
        Some(format!(
            "at most {calls} at a time, not {n_calls}: each may have {each} of memory, and there \
             are {all} for all calls; \
             {advice}"
        ))
    }

    /// Waits until a call may start; `None`: it gave up.
    ///
    /// * `reserved`: as [`Self::reserved_bytes`] gives it for the task.
    /// * `gives_up`: true to stop waiting; called repeatedly.
    /// * `waits`: called once if the call has to wait because memory is short, with a sentence for
    ///   the user.
    pub(super) fn admit(
        &self,
        reserved: Option<u64>,
        gives_up: impl Fn() -> bool,
        waits: impl FnOnce(String),
    ) -> Option<Admitted<'_>> {
        let mut waits = Some(waits);
        let mut state = self.lock();
        loop {
            let is_short = reserved.is_none() && state.n_running > 0 && self.is_short(&mut state);
            if state.n_running == 0 || !is_short && self.fits(&state, reserved) {
                let reserved_bytes = reserved.unwrap_or(0);
                state.n_running += 1;
                state.reserved_bytes = state.reserved_bytes.saturating_add(reserved_bytes);
                return Some(Admitted {
                    admission: self,
                    reserved_bytes,
                });
            }
            if gives_up() {
                return None;
            }
            if let Some(waits) = waits.take_if(|_| is_short) {
                waits(
                    "memory is short: calls start again when there is more, or when no other runs"
                        .to_owned(),
                );
            }
            state = self
                .ended
                .wait_timeout(state, LOOK)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Bytes that a call of a task takes of the budget; `None`: what it uses.
    pub(super) fn reserved_bytes(&self, task: &TaskSpec) -> Option<u64> {
        (task.reserves_memory || self.given_bytes.is_some()).then_some(task.limits.memory_bytes)
    }

    fn fits(&self, state: &State, reserved: Option<u64>) -> bool {
        let (Some(reserved), Some(budget)) = (reserved, self.budget_bytes()) else {
            return true;
        };
        state.reserved_bytes.saturating_add(reserved) <= budget
    }

    fn is_short(&self, state: &mut State) -> bool {
        if let Some((when, is_short)) = state.looked
            && when.elapsed() < LOOK
        {
            return is_short;
        }
        let is_short = (self.look)().is_some_and(|memory| {
            memory.available_bytes < (memory.total_bytes / SHORT_PART).min(ENOUGH_BYTES)
        });
        state.looked = Some((Instant::now(), is_short));
        is_short
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        let mut state = self.admission.lock();
        state.n_running -= 1;
        state.reserved_bytes = state.reserved_bytes.saturating_sub(self.reserved_bytes);
        self.admission.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn reservations_of_all_calls_fit_together() {
        let admission = Admission::new(Some(300 * MIB));
        let admit = |mib: u64| admission.admit(Some(mib * MIB), || true, |_| {});
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
        let admission = Admission::new(Some(100));
        let (n_running, n_most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let admitted = admission.admit(Some(40), || false, |_| {});
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
        let mut admission = Admission::new(None);
        admission.look = || {
            let available_bytes = AVAILABLE_MIB.load(Ordering::SeqCst) * MIB;
            Some(Memory {
                total_bytes: 1600 * MIB,
                available_bytes,
            })
        };
        let mut said = Vec::new();
        let mut admit = || admission.admit(None, || true, |text| said.push(text));
        let calls = [admit(), admit(), admit()];
        assert!(calls.iter().all(Option::is_some));
        AVAILABLE_MIB.store(99, Ordering::SeqCst);
        std::thread::sleep(LOOK);
        assert!(admit().is_none());
        drop(calls);
        let alone = admit();
        assert!(alone.is_some(), "one call always runs");
        assert!(admit().is_none());
        AVAILABLE_MIB.store(500, Ordering::SeqCst);
        std::thread::sleep(LOOK);
        assert!(admit().is_some());
    }
}
