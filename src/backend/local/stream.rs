//! Calls that come one at a time from a source that can block, as those of `mandelbox batch`.
//!
//! Each thread of the pool takes its next call from the source and hands it the result. No other
//! thread is involved, so a single call starts and ends as soon as it can, and calls are taken only
//! as fast as they are made.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use super::{EventSink, Guests, Local, run_caught};
use crate::backend::queue::Queue;
use crate::backend::{BatchCalls, CallEvent};
use crate::event::EventKind;
use crate::model::{CallSpec, Ended, HostError};
use crate::trace;

/// Interval between two checks of the cancel token while calls run.
const POLL: Duration = Duration::from_millis(50);

/// Source of calls, and receiver of their results. Several threads call its methods at a time.
pub trait CallSource: Send + Sync + 'static {
    /// Data that the source needs with the result of a call.
    type Tag;

    /// Waits for the next call; `None`: there are no more calls. Returns `None` within a moment
    /// after the cancel token of the calls is cancelled.
    fn next(&self) -> Option<(CallSpec, Self::Tag)>;

    /// Receives the result of a call, on the thread that made it. The next call of this thread
    /// starts after this has returned.
    fn ended(&self, call: &CallSpec, tag: Self::Tag, ended: Ended);

    /// Receives a warning for the user.
    fn warn(&self, message: String);
}

impl Local {
    /// Runs calls as a source gives them, until it has no more or the calls are cancelled. Calls
    /// that still run after the grace period of a cancellation are not waited for.
    ///
    /// * `calls`: what the calls share; its list gives no call, but checks their outputs.
    ///
    /// # Errors
    /// As [`crate::backend::Backend::run_calls`].
    pub fn run_stream<S: CallSource>(
        &self,
        calls: &Arc<BatchCalls>,
        source: &Arc<S>,
    ) -> Result<(), HostError> {
        let task = &calls.batch().task;
        let window = task.max_parallel.map_or(usize::MAX, usize::from);
        let n_loops = window
            .min(self.admission.n_fitting(task))
            .min(self.pool.current_num_threads());
        // Nobody waits for the events of the start, which is part of the first call's time.
        let guests = self.guests_with_start(calls, &mut |_| Ok(()))?;
        if calls.cancel().is_cancelled() {
            return Ok(());
        }
        let guests = Arc::new(guests);
        let queue = Arc::new(Queue::starting_at(0));
        let (running, ended) = sync_channel::<Infallible>(0);
        for _ in 0..n_loops {
            let (calls, source, queue) = (Arc::clone(calls), Arc::clone(source), queue.clone());
            let (guests, running) = (guests.clone(), running.clone());
            self.pool.spawn(move || {
                let result = catch_unwind(AssertUnwindSafe(|| {
                    trace::within(&calls.context().span, || {
                        guests.run_stream_loop(&calls, &source);
                    });
                }));
                queue.keep_panic(result.err());
                // Once the last sender is gone, nothing of the calls is in use any more.
                drop((calls, source, queue));
                drop(running);
            });
        }
        drop(running);
        self.wait_for_loops(&ended, calls);
        if let Some(panic) = queue.take_panic() {
            resume_unwind(panic);
        }
        Ok(())
    }

    /// Waits until no loop runs any more, or the grace period of a cancellation is over.
    fn wait_for_loops(&self, ended: &Receiver<Infallible>, calls: &BatchCalls) {
        let mut deadline = None;
        while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(POLL) {
            if !calls.cancel().is_cancelled() {
                continue;
            }
            let Some(grace_period) = self.grace_period else {
                continue;
            };
            let now = Instant::now();
            if now >= *deadline.get_or_insert(now + grace_period) {
                return;
            }
        }
    }
}

impl Guests {
    /// Makes the calls of a source one after the other, until there are no more.
    fn run_stream_loop<S: CallSource>(&self, calls: &BatchCalls, source: &Arc<S>) {
        let receiver = Arc::clone(source);
        let sink: EventSink = Arc::new(move |event| {
            if let CallEvent::Happened(fact) = event
                && let EventKind::Warning { message } = fact.into_kind()
            {
                receiver.warn(message);
            }
        });
        let share = self.admission.share(&calls.batch().task);
        let gives_up = || calls.cancel().is_cancelled();
        let mut runner = None;
        while let Some((call, tag)) = source.next() {
            let waits = |message| {
                if let Some(message) = calls.context().seen_warnings.first(message) {
                    source.warn(message);
                }
            };
            let Some(_admitted) = self.admission.admit(share, gives_up, waits) else {
                return;
            };
            // Created with the first call: many threads may never get one.
            let runner = runner.get_or_insert_with(|| self.runner(calls, sink.clone()));
            let span = trace::call(&calls.context().span, || call.call_ref(calls.batch()));
            let ended = span.in_scope(|| match self.common_failure() {
                Some(outcome) => Ended::without_guest(outcome.clone()),
                None => run_caught(runner, |runner| runner.run(&call)),
            });
            trace::call_ended(&span, &ended);
            drop(span);
            source.ended(&call, tag, ended);
        }
    }
}
