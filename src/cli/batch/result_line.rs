//! Result of a call → its line in `--results`.

use std::borrow::Cow;

use serde::Serialize;

use super::request::Label;
use crate::json::{Map, Value};
use crate::model::{Ended, Outcome};

/// Bytes from the end of stdout and of stderr that a result has, each.
pub(super) const STREAM_BYTES: usize = 64 << 10;

/// Line of `--results`. Keys that are always there come first.
#[derive(Serialize)]
struct ResultLine<'a> {
    index: u64,
    id: &'a Value,
    item: &'a Value,
    outcome: &'static str,
    exit_code: Option<i32>,
    output: Option<&'a Map<String, Value>>,
    stdout: &'a str,
    stderr: &'a str,
    wall_time_s: f64,
    peak_memory_bytes: u64,
    #[serde(flatten)]
    failure: Failure<'a>,
}

/// Description of a failure; all `None` for a call that succeeded.
#[derive(Default, Serialize)]
struct Failure<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    asked_bytes: Option<u64>,
}

impl<'a> Failure<'a> {
    fn of(outcome: &'a Outcome) -> Self {
        let mut failure = Self::default();
        match outcome {
            Outcome::Succeeded { .. } => return failure,
            Outcome::Failed { message }
            | Outcome::Trapped { message }
            | Outcome::BadOutput { message }
            | Outcome::Refused { message }
            | Outcome::HostFailed { message }
            | Outcome::Lost { message }
            | Outcome::Panicked { message } => {
                failure.message = Some(Cow::Borrowed(message));
                return failure;
            }
            Outcome::TimedOut { limit_s } => failure.limit_s = Some(*limit_s),
            Outcome::MemoryExceeded {
                limit_bytes,
                asked_bytes,
            }
            | Outcome::OutputsExceeded {
                limit_bytes,
                asked_bytes,
            } => {
                failure.limit_bytes = Some(*limit_bytes);
                failure.asked_bytes = Some(*asked_bytes);
            }
            Outcome::Exited { .. } | Outcome::Cancelled => {}
        }
        failure.message = Some(Cow::Owned(outcome.describe()));
        failure
    }
}

/// Builds the line of a result, with its end.
pub(super) fn build_line(index: u64, label: &Label, ended: &Ended) -> Vec<u8> {
    let (exit_code, output) = match &ended.outcome {
        Outcome::Succeeded { output } => (Some(0), output.as_ref()),
        Outcome::Exited { code } => (Some(*code), None),
        _ => (None, None),
    };
    let line = ResultLine {
        index,
        id: label.id.as_ref().unwrap_or(&Value::Null),
        item: label.item.as_ref().unwrap_or(&Value::Null),
        outcome: ended.outcome.name(),
        exit_code,
        output,
        stdout: &ended.stdout_tail,
        stderr: &ended.stderr_tail,
        wall_time_s: (ended.usage.wall_time.as_secs_f64() * 1e6).round() / 1e6,
        peak_memory_bytes: ended.usage.peak_memory_bytes,
        failure: Failure::of(&ended.outcome),
    };
    let mut text = Vec::with_capacity(256);
    serde_json::to_writer(&mut text, &line)
        .expect("keys are strings, and writing to memory cannot fail");
    text.push(b'\n');
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::model::Usage;

    fn line(outcome: Outcome) -> String {
        let label = Label {
            id: Some(json!({ "a": 1 })),
            item: None,
        };
        let ended = Ended {
            outcome,
            usage: Usage {
                wall_time: Duration::from_micros(1500),
                peak_memory_bytes: 65536,
                ..Usage::default()
            },
            stdout_tail: "out\n".to_owned(),
            stderr_tail: String::new(),
        };
        String::from_utf8(build_line(7, &label, &ended)).expect("UTF-8")
    }

    #[test]
    fn results_have_all_keys_in_order() {
        let output = json!({ "n": 1 }).as_object().cloned();
        assert_eq!(
            line(Outcome::Succeeded { output }),
            concat!(
                r#"{"index":7,"id":{"a":1},"item":null,"outcome":"succeeded","exit_code":0,"#,
                r#""output":{"n":1},"stdout":"out\n","stderr":"","wall_time_s":0.0015,"#,
                r#""peak_memory_bytes":65536}"#,
                "\n"
            )
        );
        let exited = line(Outcome::Exited { code: 3 });
        assert!(
            exited.contains(r#""outcome":"exited","exit_code":3,"output":null"#),
            "{exited}"
        );
        assert!(
            exited.ends_with("\"message\":\"exited with code 3\"}\n"),
            "{exited}"
        );
        let memory = line(Outcome::MemoryExceeded {
            limit_bytes: 1,
            asked_bytes: 2,
        });
        assert!(memory.contains(r#""exit_code":null"#), "{memory}");
        assert!(
            memory.ends_with("\"limit_bytes\":1,\"asked_bytes\":2}\n"),
            "{memory}"
        );
    }
}
