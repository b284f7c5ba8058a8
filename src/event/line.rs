//! Parser of one line of `events.jsonl`.
//!
//! Fields are taken from the parsed value one by one: serde's own handling of tagged enums and
//! flattened fields would lose the text of numbers.

use jiff::Timestamp;

use super::fields::Fields;
use super::outcome_fields::read_outcome;
use super::{Event, EventKind, FORMAT_VERSION};
use crate::json::{Entries, MAX_DATASET_DEPTH, Value, parse_entries, type_name};
use crate::model::CallRef;

/// Contents of a line.
pub(super) struct Line {
    pub(super) seq: u64,
    /// Session number: the start of the run that wrote the line.
    pub(super) session: u32,
    /// The event; `None` if it is of a kind that this version does not know.
    pub(super) event: Option<Event>,
}

/// Parses a line whose checksum is correct.
///
/// * `line`: its entries if it is an object, otherwise its value.
/// * `is_first`: true for the first line of a log.
pub(super) fn read_line(line: Result<Entries<'_>, Value>, is_first: bool) -> Result<Line, String> {
    let mut fields =
        Fields(line.map_err(|value| format!("must be an object, not {}", type_name(&value)))?);
    if is_first {
        check_version(&fields)?;
    }
    let event: String = fields.take("event")?;
    if is_first && event != "run_started" {
        return Err(format!("must be the event `run_started`, not `{event}`"));
    }
    let (seq, session) = (fields.take("seq")?, fields.take("session")?);
    let time: String = fields.take("time")?;
    let time: Timestamp = time.parse().map_err(|err| format!("`time`: {err}"))?;
    let event = read_kind(&event, fields)?.map(|kind| Event { seq, time, kind });
    Ok(Line {
        seq,
        session,
        event,
    })
}

/// Parses a fact from the text of [`super::Fact`]: an event without its number and its time.
pub(crate) fn parse_fact(text: &[u8]) -> Result<EventKind, String> {
    let entries = parse_entries(text, MAX_DATASET_DEPTH).map_err(|err| err.to_string())?;
    let mut fields = Fields(entries.map_err(|_| "must be an object".to_owned())?);
    let event: String = fields.take("event")?;
    read_kind(&event, fields)?.ok_or_else(|| format!("unknown event `{event}`"))
}

/// Checks the format version of a first line without a correct checksum: other versions have no
/// checksum, or another one.
pub(super) fn check_foreign_version(line: Result<Entries<'_>, Value>) -> Result<(), String> {
    match line {
        Ok(entries) if entries.iter().any(|(key, _)| key == FORMAT_VERSION_KEY) => {
            check_version(&Fields(entries))
        }
        _ => Ok(()),
    }
}

const FORMAT_VERSION_KEY: &str = "format_version";

fn check_version(fields: &Fields<'_>) -> Result<(), String> {
    match fields.get(FORMAT_VERSION_KEY) {
        Some(Value::Number(version)) if version.as_u64() == Some(FORMAT_VERSION.into()) => Ok(()),
        Some(version) => Err(format!(
            "has format version {version}; this version of mandelbox reads {FORMAT_VERSION}"
        )),
        None => Err(format!("missing key `{FORMAT_VERSION_KEY}`")),
    }
}

fn read_call(fields: &mut Fields<'_>) -> Result<CallRef, String> {
    Ok(CallRef {
        task: fields.take("task")?,
        batch: fields.take_optional("batch")?.unwrap_or_default(),
        call_index: fields.take("call_index")?,
        item: fields.remove("item"),
        attempt: fields.take("attempt")?,
    })
}

fn read_kind(event: &str, mut fields: Fields<'_>) -> Result<Option<EventKind>, String> {
    Ok(Some(match event {
        "run_started" => EventKind::RunStarted(fields.into_all()?),
        "run_resumed" => EventKind::RunResumed(fields.into_all()?),
        "warning" => EventKind::Warning {
            message: fields.take("message")?,
        },
        "note" => EventKind::Note {
            message: fields.take("message")?,
        },
        "rerun" => EventKind::Rerun {
            message: fields.take("message")?,
        },
        "snapshot_started" => EventKind::SnapshotStarted {
            task: fields.take("task")?,
            module: fields.take("module")?,
        },
        "snapshot_made" => EventKind::SnapshotMade {
            task: fields.take("task")?,
            init_time_s: fields.take("init_time_s")?,
            memory_bytes: fields.take("memory_bytes")?,
        },
        "task_started" => EventKind::TaskStarted {
            task: fields.take("task")?,
            batch: fields.take_optional("batch")?.unwrap_or_default(),
            name: fields.take("name")?,
            n_calls: fields.take("n_calls")?,
            items: fields.take_optional("items")?,
            module_sha256: fields.take("module_sha256")?,
            script: fields.take_optional("script")?,
            args_digest: fields.take_optional("args_digest")?.unwrap_or_default(),
            limits: fields.take_optional("limits")?.unwrap_or_default(),
            reused: fields.take_optional("reused")?.unwrap_or_default(),
            n_reused: fields.take_optional("n_reused")?.unwrap_or_default(),
            n_available: fields.take_optional("n_available_images")?,
            files: fields.take_optional("files")?,
        },
        "call_reused" => EventKind::CallReused {
            call: read_call(&mut fields)?,
            output: fields.take_object_or_null("output")?,
        },
        "call_started" => EventKind::CallStarted {
            call: read_call(&mut fields)?,
            files: fields.take_optional("files")?,
        },
        "call_logged" => EventKind::CallLogged {
            call: read_call(&mut fields)?,
            level: fields.take("level")?,
            message: fields.take("message")?,
        },
        "call_progress" => EventKind::CallProgress {
            call: read_call(&mut fields)?,
            permille: fields.take("permille")?,
            message: fields.take("message")?,
        },
        "call_finished" => EventKind::CallFinished {
            call: read_call(&mut fields)?,
            outcome: read_outcome(&mut fields)?,
            retry_in_s: fields.take_optional("retry_in_s")?,
            stderr: fields.take_optional("stderr")?,
            item_urls: fields.take_optional("zarr_urls")?,
            usage: fields.into_all()?,
        },
        "jobs_counted" => EventKind::JobsCounted {
            task: fields.take("task")?,
            n_queued: fields.take("n_queued")?,
            n_running: fields.take("n_running")?,
            n_ended: fields.take("n_ended")?,
            reason: fields.take_optional("reason")?,
        },
        "job_ended" => EventKind::JobEnded {
            task: fields.take("task")?,
            job: fields.take("job")?,
            node: fields.take("node")?,
            state: fields.take("state")?,
            n_calls: fields.take("n_calls")?,
            queued_s: fields.take_optional("queued_s")?,
            ran_s: fields.take_optional("ran_s")?,
        },
        "dataset_updated" => EventKind::DatasetUpdated {
            task: fields.take("task")?,
            message: fields.take("message")?,
        },
        "items_changed" => EventKind::ItemsChanged {
            task: fields.take("task")?,
            changes: fields.into_all()?,
        },
        "task_finished" => EventKind::TaskFinished {
            task: fields.take("task")?,
            name: fields.take("name")?,
            status: fields.take("status")?,
            n_failed: fields.take("n_failed")?,
            output_is_empty: fields.take_optional("output_is_empty")?,
        },
        "run_finished" => EventKind::RunFinished {
            status: fields.take("status")?,
            error: fields.take_optional("error")?,
        },
        _ => return Ok(None),
    }))
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use proptest::collection::vec;
    use proptest::option::of;
    use proptest::prelude::*;

    use super::*;
    use crate::event::{CallLimits, FolderId, Reused, RunStarted, RunTask, Status, seal_lines};
    use crate::json::{DuplicateKeys, Map, parse_json};
    use crate::model::{
        BatchFiles, FileSuffixes, ItemChanges, LogLevel, Outcome, ScriptRef, TaskFiles, Usage,
    };

    /// Returns the text of a log with these events.
    pub(in crate::event) fn write(events: &[Event]) -> Vec<u8> {
        let line = |event| [serde_json::to_vec(event).expect("JSON"), b"\n".to_vec()].concat();
        seal_lines(&events.iter().flat_map(line).collect::<Vec<_>>())
    }

    fn value() -> impl Strategy<Value = Value> {
        let number = prop_oneof![
            "-?(0|[1-9][0-9]{0,40})",
            "-?[0-9]\\.[0-9]{1,20}",
            "[1-9]e[+-][0-9]{1,2}"
        ];
        let parsed =
            |text: String| parse_json(text.as_bytes(), DuplicateKeys::Refuse).expect("a number");
        let key = prop_oneof![
            "[a-c]{0,2}",
            Just("$serde_json::private::Number".to_owned()),
            "outcome|event|seq|message"
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            number.prop_map(parsed),
            text()
        ];
        leaf.prop_recursive(3, 8, 3, move |inner| {
            let object = vec((key.clone(), inner.clone()), 0..3);
            let object = object.prop_map(|entries| Value::Object(entries.into_iter().collect()));
            prop_oneof![vec(inner, 0..3).prop_map(Value::Array), object]
        })
    }

    fn text() -> impl Strategy<Value = Value> {
        prop_oneof![".{0,4}", "12345678901234567890"].prop_map(Value::String)
    }

    fn output() -> impl Strategy<Value = Option<Map<String, Value>>> {
        of(vec((".{0,2}", value()), 0..3).prop_map(|entries| entries.into_iter().collect()))
    }

    fn outcome() -> impl Strategy<Value = Outcome> {
        // A new outcome must be added below and in the reader.
        let _ = |outcome: Outcome| match outcome {
            Outcome::Succeeded { .. }
            | Outcome::Exited { .. }
            | Outcome::Failed { .. }
            | Outcome::Trapped { .. } => {}
            Outcome::TimedOut { .. } => {}
            Outcome::MemoryExceeded { .. } | Outcome::OutputsExceeded { .. } => {}
            Outcome::BadOutput { .. } | Outcome::Refused { .. } => {}
            Outcome::Cancelled
            | Outcome::HostFailed { .. }
            | Outcome::Lost { .. }
            | Outcome::Panicked { .. } => {}
        };
        prop_oneof![
            4 => output().prop_map(|output| Outcome::Succeeded { output }),
            1 => any::<i32>().prop_map(|code| Outcome::Exited { code }),
            1 => ".{0,4}".prop_map(|message| Outcome::Failed { message }),
            1 => ".{0,4}".prop_map(|message| Outcome::Trapped { message }),
            1 => (0.0..1e30).prop_map(|limit_s| Outcome::TimedOut { limit_s }),
            1 => any::<(u64, u64)>()
                .prop_map(|(limit_bytes, asked_bytes)| Outcome::MemoryExceeded { limit_bytes, asked_bytes }),
            1 => any::<(u64, u64)>()
                .prop_map(|(limit_bytes, asked_bytes)| Outcome::OutputsExceeded { limit_bytes, asked_bytes }),
            1 => ".{0,4}".prop_map(|message| Outcome::BadOutput { message }),
            1 => ".{0,4}".prop_map(|message| Outcome::Refused { message }),
            1 => Just(Outcome::Cancelled),
            1 => ".{0,4}".prop_map(|message| Outcome::HostFailed { message }),
            1 => ".{0,4}".prop_map(|message| Outcome::Lost { message }),
            1 => ".{0,4}".prop_map(|message| Outcome::Panicked { message }),
        ]
    }

    fn run_started() -> impl Strategy<Value = RunStarted> {
        (
            ".{0,3}",
            vec("(/[a-z]{1,3}){1,2}", 0..3),
            of(any::<usize>()),
        )
            .prop_map(|(workflow, paths, index)| RunStarted {
                format_version: FORMAT_VERSION,
                mandelbox_version: "0.1.0".into(),
                backend: "local".into(),
                logger_name: workflow.clone(),
                workflow,
                work_dir: "/w".into(),
                item_kind: "item".into(),
                only: paths.clone(),
                input_metadata_keys: paths.clone(),
                input_paths: paths.into_iter().map(Into::into).collect(),
                output_path: "/o".into(),
                first_task_index: index,
                last_task_index: index,
                tasks: index
                    .into_iter()
                    .map(|index| RunTask {
                        task: index as u64,
                        name: "n".into(),
                        workflow_task: None,
                    })
                    .collect(),
                output: index.map(|inode| FolderId {
                    device: 1,
                    inode: inode as u64,
                    created: None,
                }),
                inputs: Vec::new(),
            })
    }

    fn task_started() -> impl Strategy<Value = EventKind> {
        let reused = prop_oneof![Just(Reused::None), Just(Reused::All), Just(Reused::Listed)];
        let time = of((0_u32..1000).prop_map(f64::from));
        let limits = (any::<u64>(), time).prop_map(|(memory_bytes, wall_time_s)| CallLimits {
            memory_bytes,
            wall_time_s,
            ..CallLimits::default()
        });
        (
            any::<u64>(),
            ".{0,4}",
            any::<usize>(),
            of(".{0,2}"),
            limits,
            reused,
        )
            .prop_map(|(task, name, n_calls, items, limits, reused)| {
                EventKind::TaskStarted {
                    task,
                    batch: u32::from(n_calls % 2 == 0),
                    n_calls,
                    items,
                    module_sha256: name.clone(),
                    script: (n_calls % 5 == 0).then(|| {
                        Box::new(ScriptRef {
                            path: name.clone().into(),
                            sha256: name.clone(),
                            environment: name.clone(),
                        })
                    }),
                    args_digest: name.clone(),
                    name,
                    limits,
                    reused,
                    n_reused: if reused == Reused::None { 0 } else { n_calls },
                    n_available: (n_calls % 3 == 0).then_some(n_calls),
                    files: (n_calls % 3 == 0).then(|| {
                        Box::new(BatchFiles {
                            kept: TaskFiles::Packed,
                            suffixes: FileSuffixes {
                                args: ".args.json".into(),
                                output: ".metadiff.json".into(),
                                out: ".out".into(),
                                err: ".err".into(),
                            },
                        })
                    }),
                }
            })
    }

    fn kind() -> impl Strategy<Value = EventKind> {
        // A new kind must be added below and in the reader.
        let _ = |kind: EventKind| match kind {
            EventKind::RunStarted(_) | EventKind::RunResumed(_) => {}
            EventKind::Warning { .. }
            | EventKind::Note { .. }
            | EventKind::Rerun { .. }
            | EventKind::CallReused { .. } => {}
            EventKind::SnapshotStarted { .. } | EventKind::SnapshotMade { .. } => {}
            EventKind::TaskStarted { .. }
            | EventKind::CallStarted { .. }
            | EventKind::CallFinished { .. } => {}
            EventKind::CallLogged { .. } | EventKind::CallProgress { .. } => {}
            EventKind::DatasetUpdated { .. } | EventKind::ItemsChanged { .. } => {}
            EventKind::JobsCounted { .. } | EventKind::JobEnded { .. } => {}
            EventKind::TaskFinished { .. } | EventKind::RunFinished { .. } => {}
        };
        let usage =
            (0..1_u64 << 50, any::<u64>(), any::<u64>()).prop_map(|(micros, memory, output)| {
                Usage {
                    wall_time: Duration::from_micros(micros),
                    cpu_time: (output % 2 == 1).then(|| Duration::from_micros(micros / 2)),
                    peak_memory_bytes: memory,
                    stdout_bytes: output,
                    stderr_bytes: output,
                    has_warnings: (output % 3 > 0).then_some(output % 3 == 1),
                }
            });
        let status = prop_oneof![Just(Status::Done), Just(Status::Failed)];
        let call = || {
            let call = (
                any::<u64>(),
                0_u32..2,
                any::<usize>(),
                of(value()),
                any::<u32>(),
            );
            call.prop_map(|(task, batch, call_index, item, attempt)| CallRef {
                task,
                batch,
                call_index,
                item,
                attempt,
            })
        };
        prop_oneof![
            run_started().prop_map(|run| EventKind::RunStarted(Box::new(run))),
            run_started().prop_map(|run| EventKind::RunResumed(Box::new(run))),
            ".{0,4}".prop_map(|message| EventKind::Warning { message }),
            ".{0,4}".prop_map(|message| EventKind::Note { message }),
            ".{0,4}".prop_map(|message| EventKind::Rerun { message }),
            (any::<u64>(), ".{0,4}")
                .prop_map(|(task, module)| EventKind::SnapshotStarted { task, module }),
            (any::<u64>(), 0_u32..1000, any::<u64>()).prop_map(|(task, time, memory_bytes)| {
                EventKind::SnapshotMade {
                    task,
                    init_time_s: f64::from(time) / 8.0,
                    memory_bytes,
                }
            }),
            task_started(),
            (call(), output()).prop_map(|(call, output)| EventKind::CallReused { call, output }),
            (call(), of(".{0,3}")).prop_map(|(call, files)| EventKind::CallStarted { call, files }),
            (call(), ".{0,4}").prop_map(|(call, message)| EventKind::CallLogged {
                call,
                level: LogLevel::Warn,
                message
            }),
            (call(), any::<u16>()).prop_map(|(call, permille)| EventKind::CallProgress {
                call,
                permille,
                message: String::new()
            }),
            (
                call(),
                outcome(),
                usage,
                of((0_u32..99).prop_map(f64::from)),
                of(".{0,3}"),
                of(proptest::collection::vec(".{0,3}", 0..3)),
            )
                .prop_map(|(call, outcome, usage, retry_in_s, stderr, item_urls)| {
                    EventKind::CallFinished {
                        call,
                        outcome,
                        usage,
                        retry_in_s,
                        stderr,
                        item_urls,
                    }
                }),
            (any::<u64>(), any::<[usize; 4]>()).prop_map(|(task, n)| EventKind::ItemsChanged {
                task,
                changes: ItemChanges {
                    n_new: n[0],
                    n_changed: n[1],
                    n_removed: n[2],
                    n_items: n[3],
                },
            }),
            (any::<u64>(), ".{0,4}")
                .prop_map(|(task, message)| EventKind::DatasetUpdated { task, message }),
            (any::<u64>(), any::<[usize; 3]>(), of(".{0,4}")).prop_map(|(task, n, reason)| {
                EventKind::JobsCounted {
                    task,
                    n_queued: n[0],
                    n_running: n[1],
                    n_ended: n[2],
                    reason,
                }
            }),
            (
                any::<(u64, usize)>(),
                [".{0,4}", ".{0,4}", ".{0,4}"],
                of(0.0..1e9)
            )
                .prop_map(|((task, n_calls), [job, node, state], time)| {
                    EventKind::JobEnded {
                        task,
                        job,
                        node,
                        state,
                        n_calls,
                        queued_s: time,
                        ran_s: time,
                    }
                }),
            (
                any::<u64>(),
                ".{0,3}",
                status.clone(),
                any::<usize>(),
                any::<Option<bool>>()
            )
                .prop_map(|(task, name, status, n_failed, output_is_empty)| {
                    EventKind::TaskFinished {
                        task,
                        name,
                        status,
                        n_failed,
                        output_is_empty,
                    }
                }),
            (status, of("[a-zA-Z]{0,3}".prop_map(Into::into)))
                .prop_map(|(status, error)| EventKind::RunFinished { status, error }),
        ]
    }

    /// Generates logs of 1 to `n` events.
    pub(in crate::event) fn events(n: usize) -> impl Strategy<Value = Vec<Event>> {
        let time = -377_000_000_000_000_000..253_000_000_000_000_000_i64;
        (run_started(), vec(kind(), 0..n), time).prop_map(|(first, rest, time)| {
            let time = Timestamp::from_microsecond(time).expect("in range");
            let kinds = std::iter::once(EventKind::RunStarted(Box::new(first)))
                .chain(rest)
                .zip(0..);
            kinds.map(|(kind, seq)| Event { seq, time, kind }).collect()
        })
    }
}
