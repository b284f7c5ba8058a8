//! Lines of `--calls` as calls for the backend, and their results.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::done::Indices;
use super::form::Form;
use super::line_reader::{LineReader, Taken};
use super::request::{Label, Request};
use super::results::Results;
use crate::backend::CallSource;
use crate::model::{CallSpec, CancelToken, Ended, Outcome};
use crate::report::print_text;
use crate::text::escaped;

/// Interval between two checks of the cancel token while no input comes.
const POLL: Duration = Duration::from_millis(50);

/// The lines of `--calls` that need a result. Several threads can take lines at a time.
pub(super) struct Requests {
    input: Mutex<Input>,
    /// Calls that have a result.
    done: Indices,
    results: Arc<Results>,
    cancel: CancelToken,
}

struct Input {
    reader: LineReader,
    /// Number of lines so far.
    n_lines: u64,
    /// Number of calls so far.
    n_calls: u64,
    /// Error after which no line is read.
    error: Option<io::Error>,
}

/// A line that needs a result.
pub(super) struct Numbered {
    /// Index of the call.
    pub(super) index: u64,
    /// Number of the line, from 1.
    line: u64,
    pub(super) request: Request,
}

impl Requests {
    pub(super) fn new(
        reader: LineReader,
        done: Indices,
        results: &Arc<Results>,
        cancel: &CancelToken,
    ) -> Self {
        Self {
            input: Mutex::new(Input {
                reader,
                n_lines: 0,
                n_calls: 0,
                error: None,
            }),
            done,
            results: Arc::clone(results),
            cancel: cancel.clone(),
        }
    }

    /// Waits for the next line that requests a call, and refuses the lines before it that do not.
    /// Returns `None` at the end of the input, after an error, or if the calls are cancelled.
    pub(super) fn next(&self) -> Option<Numbered> {
        loop {
            // Other threads can take the next line while this one is parsed.
            let (index, line, text) = self.take_line()?;
            let request = match text {
                Some(text) => Request::parse(&text),
                None => Request::too_long(),
            };
            let numbered = Numbered {
                index,
                line,
                request,
            };
            match numbered.request.call {
                Ok(_) => return Some(numbered),
                Err(_) => self.refuse(numbered),
            }
        }
    }

    /// Takes the next line that needs a result: index of the call, number of the line, and its
    /// text, which is `None` if it is too long.
    fn take_line(&self) -> Option<(u64, u64, Option<Vec<u8>>)> {
        let mut input = self.lock();
        loop {
            if self.cancel.is_cancelled() || input.error.is_some() {
                return None;
            }
            let text = match input.reader.take() {
                Taken::End => return None,
                Taken::Nothing => {
                    if let Err(err) = self.read(&mut input.reader) {
                        input.error = Some(err);
                    }
                    continue;
                }
                Taken::TooLong => None,
                Taken::Line(text) => Some(text),
            };
            input.n_lines += 1;
            if text
                .as_ref()
                .is_some_and(|text| text.trim_ascii().is_empty())
            {
                continue;
            }
            let index = input.n_calls;
            input.n_calls += 1;
            if !self.results.wait_for_room(index) {
                return None;
            }
            if !self.done.contains(index) {
                return Some((index, input.n_lines, text));
            }
            self.results.skip(index);
        }
    }

    /// Reads more input. Waits for it until the calls are cancelled.
    fn read(&self, reader: &mut LineReader) -> io::Result<()> {
        let is_ready = reader.wait(Duration::ZERO)?
            || self.results.while_idle(|| {
                while !self.cancel.is_cancelled() {
                    if reader.wait(POLL)? {
                        return Ok(true);
                    }
                }
                Ok::<_, io::Error>(false)
            })?;
        match is_ready {
            true => reader.read(),
            false => Ok(()),
        }
    }

    /// Answers a line that is not called.
    pub(super) fn refuse(&self, numbered: Numbered) {
        if let Err(problem) = numbered.request.call {
            let message = format!("line {} of the calls: {problem}", numbered.line);
            let refused = Ended::without_guest(Outcome::Refused { message });
            self.results
                .add(numbered.index, &numbered.request.label, &refused);
        }
    }

    /// Returns the error that ended the input, if one did.
    pub(super) fn take_error(&self) -> Option<io::Error> {
        self.lock().error.take()
    }

    fn lock(&self) -> MutexGuard<'_, Input> {
        self.input.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The calls that lines request, in the form of the batch.
pub(super) struct RequestedCalls {
    pub(super) requests: Arc<Requests>,
    pub(super) form: Form,
    /// First call, which decided the form.
    pub(super) first: Mutex<Option<Numbered>>,
    /// True to print warnings.
    pub(super) shows_warnings: bool,
}

impl RequestedCalls {
    fn next_request(&self) -> Option<Numbered> {
        let first = self
            .first
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        first.or_else(|| self.requests.next())
    }
}

impl CallSource for RequestedCalls {
    type Tag = Label;

    fn next(&self) -> Option<(CallSpec, Label)> {
        loop {
            let Numbered {
                index,
                line,
                request: Request { call, label },
            } = self.next_request()?;
            let item = label.item.clone();
            match call.and_then(|call| self.form.call(index, item, call)) {
                Ok(call) => return Some((call, label)),
                Err(problem) => self.requests.refuse(Numbered {
                    index,
                    line,
                    request: Request {
                        call: Err(problem),
                        label,
                    },
                }),
            }
        }
    }

    fn ended(&self, call: &CallSpec, label: Label, ended: Ended) {
        // A call that was cancelled has no result, so that `--resume` makes it.
        if matches!(ended.outcome, Outcome::Cancelled) {
            return;
        }
        let index = call.attempt.call_index as u64;
        self.requests.results.add(index, &label, &ended);
    }

    fn warn(&self, message: String) {
        if self.shows_warnings {
            print_text(&format!("warning: {}\n", escaped(&message)));
        }
    }
}
