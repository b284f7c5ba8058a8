//! Events a second into the event log and into each reader of events.

#![allow(
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "benches read the environment and start programs"
)]

#[allow(dead_code, reason = "each bench uses what it needs")]
mod measure;

use std::fs::File;
use std::io::{BufWriter, sink};

use mandelbox::event::{CallLimits, Event, EventKind, EventLog, Recorder, Reporter, Reused};
use mandelbox::model::{CallRef, LogLevel, Outcome, Usage};
use mandelbox::report::{JsonLines, LogFile, Progress, ProgressStyle};
use serde_json::json;

use measure::{cost, median, say, size};

fn main() {
    let n = size(100_000, 100);
    let started: Vec<_> = (0..n).map(|index| event(index, started(index))).collect();
    let finished: Vec<_> = (0..n).map(|index| event(index, finished(index))).collect();
    let logged: Vec<_> = (0..n).map(|index| event(index, logged(index))).collect();
    for (kind, events) in [
        ("call_started", &started),
        ("call_finished", &finished),
        ("call_logged", &logged),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let json = |n: usize| File::create(folder.path().join(format!("json{n}"))).expect("a file");
        let progress = |style| Progress::new(style, 1, false);
        tell(kind, "the event log", events, |n| {
            let log = EventLog::create(&new_folder(&folder, n)).expect("a log");
            Box::new(Log(Recorder::new(log, Vec::new())))
        });
        tell(kind, "JSON lines, dropped", events, |_| {
            Box::new(JsonLines::new(sink()))
        });
        tell(kind, "JSON lines, file", events, |n| {
            Box::new(JsonLines::new(json(n)))
        });
        tell(kind, "JSON lines, buffered file", events, |n| {
            Box::new(JsonLines::new(BufWriter::new(json(n + 100))))
        });
        tell(kind, "workflow.log", events, |n| {
            Box::new(LogFile::create(&new_folder(&folder, n + 100), "bench").expect("a log"))
        });
        // A bar draws only on a terminal.
        tell(kind, "progress, lines", events, |_| {
            Box::new(progress(ProgressStyle::Lines))
        });
        tell(kind, "progress, bar", events, |_| {
            Box::new(progress(ProgressStyle::Bar))
        });
    }
}

/// Events a second into a reporter, created for each round.
fn tell(
    kind: &str,
    reader: &str,
    events: &[Event],
    mut make: impl FnMut(usize) -> Box<dyn Reporter>,
) {
    let rounds = (0..size(5, 1)).map(|round| {
        let mut reporter = make(round);
        // A bar is made when its task starts.
        reporter
            .report(&event(0, task_started(events.len())))
            .expect("told");
        let cost = cost(|| {
            events
                .iter()
                .for_each(|event| reporter.report(event).expect("told"))
        });
        events.len() as f64 / cost.wall_s
    });
    say(&format!(
        "{kind} into {reader}: {:.0} events a second",
        median(rounds)
    ));
}

/// The log as one more reader.
struct Log(Recorder);

impl Reporter for Log {
    fn report(&mut self, event: &Event) -> std::io::Result<()> {
        self.0
            .record(event.kind.clone())
            .map_err(std::io::Error::other)
    }
}

fn new_folder(folder: &tempfile::TempDir, n: usize) -> std::path::PathBuf {
    let path = folder.path().join(n.to_string());
    std::fs::create_dir(&path).expect("made");
    path
}

fn event(index: usize, kind: EventKind) -> Event {
    Event {
        seq: index as u64,
        time: jiff::Timestamp::UNIX_EPOCH,
        kind,
    }
}

fn call(index: usize) -> CallRef {
    let component = Some(json!(format!("plate.zarr/B/{}/{index}", index % 24)));
    CallRef {
        task: 0,
        batch: 0,
        call_index: index,
        item: component,
        attempt: 1,
    }
}

fn task_started(n_calls: usize) -> EventKind {
    let (name, level) = ("t".to_owned(), Some("image".to_owned()));
    EventKind::TaskStarted {
        task: 0,
        batch: 0,
        name,
        n_calls,
        items: level,
        module_sha256: "0".repeat(64),
        args_digest: "0".repeat(64),
        limits: CallLimits::default(),
        reused: Reused::None,
        n_reused: 0,
        n_available: None,
        script: None,
        files: None,
    }
}

fn started(index: usize) -> EventKind {
    EventKind::CallStarted {
        call: call(index),
        files: None,
    }
}

fn finished(index: usize) -> EventKind {
    let metadiff = json!({ "n_pixels": 4_194_304, "path": "plate.zarr/B/03/0" })
        .as_object()
        .cloned();
    let (outcome, usage) = (Outcome::Succeeded { output: metadiff }, Usage::default());
    EventKind::CallFinished {
        call: call(index),
        outcome,
        usage,
        retry_in_s: None,
        stderr: None,
        item_urls: None,
    }
}

fn logged(index: usize) -> EventKind {
    EventKind::CallLogged {
        call: call(index),
        level: LogLevel::Info,
        message: "wrote level 2 of 5".to_owned(),
    }
}
