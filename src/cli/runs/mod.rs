//! `mandelbox runs`: the runs below a folder, and the removal of those that have ended.

mod clean;
mod entry;
mod find;
mod table;

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use serde_json::Value;

use super::Answer;
use super::arguments::{RunsArguments, StateArgument};
use super::documents::absolute;
use super::shared_arguments::FormatArgument;
use crate::json::build_json;
use crate::run::exit_code;
use crate::text::{escaped, span, unreadable};
use entry::{RunEntry, RunState};
use find::{FoundFolder, Search, find};

/// Maximum number of threads that read logs. More of them wait for the disk.
const MAX_THREADS: usize = 4;

pub(super) fn runs(arguments: &RunsArguments) -> Answer {
    let folder = absolute(&arguments.folder);
    let search = match find(&folder) {
        Ok(search) => search,
        Err(err) => return Answer::text(no_folder(&folder, &err), exit_code::WRONG_INPUT),
    };
    let (is_whole, mut entries) = (search.is_whole, read_all(search));
    entry::note_data_inside(&mut entries);
    entries.sort_by(|a, b| {
        let newest_first = b.started().cmp(&a.started());
        newest_first.then_with(|| a.path.cmp(&b.path))
    });
    let now = Timestamp::now();
    entries.retain(|entry| is_wanted(entry, arguments, now));
    let mut answer = if arguments.clean {
        clean::clean(entries, &folder, arguments, now)
    } else {
        list(&entries, &folder, arguments.format, now)
    };
    if !is_whole {
        answer.stderr.push_str(&format!(
            "warning: {} contains too many folders, so some were not searched; name a folder \
             inside it\n",
            escaped(&folder.to_string_lossy())
        ));
    }
    answer
}

fn list(entries: &[RunEntry], folder: &Path, format: FormatArgument, now: Timestamp) -> Answer {
    match format {
        FormatArgument::Text => Answer::text(table::text(entries, folder, now), exit_code::SUCCESS),
        FormatArgument::Json => {
            let facts = entries.iter().map(|entry| table::facts(entry, now));
            Answer {
                stdout: json_text(facts.collect()),
                ..Answer::default()
            }
        }
    }
}

fn json_text(entries: Vec<Value>) -> Vec<u8> {
    let mut text = build_json(&Value::Array(entries), 2);
    text.push(b'\n');
    text
}

fn no_folder(folder: &Path, err: &io::Error) -> String {
    let shown = escaped(&folder.to_string_lossy());
    let text = match err.kind() {
        io::ErrorKind::NotFound => "there is no such folder".to_owned(),
        io::ErrorKind::NotADirectory => "is not a folder".to_owned(),
        _ => unreadable(err),
    };
    format!("error: {shown}: {text}; name the folder that contains the work directories\n")
}

/// Returns true if the options select a run.
fn is_wanted(entry: &RunEntry, arguments: &RunsArguments, now: Timestamp) -> bool {
    let is_state = arguments.states.is_empty()
        || arguments.states.iter().any(|state| {
            entry.state
                == match state {
                    StateArgument::Finished => RunState::Finished,
                    StateArgument::Failed => RunState::Failed,
                    StateArgument::Stopped => RunState::Stopped,
                }
        });
    let is_age = match (arguments.older_than, &entry.facts) {
        (None, _) => true,
        (Some(age), Some(facts)) => span(facts.last_event, now) > age,
        (Some(_), None) => false,
    };
    // A removal that has begun is completed whatever the run was.
    entry.state == RunState::PartlyRemoved || is_state && is_age
}

/// Reads all runs that were found, with a few threads. Each has the events of one run in memory.
fn read_all(search: Search) -> Vec<RunEntry> {
    let found = search.found;
    let n_threads = std::thread::available_parallelism().map_or(1, usize::from);
    let n_threads = n_threads.min(MAX_THREADS).min(found.len());
    let (next, entries) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let read = || {
        while let Some(found) = found.get(next.fetch_add(1, Ordering::Relaxed)) {
            let entry = RunEntry::read(found);
            let mut entries = entries.lock().unwrap_or_else(PoisonError::into_inner);
            entries.push(entry);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..n_threads {
            // This thread reads what threads that cannot be started do not.
            let _ = std::thread::Builder::new().spawn_scoped(scope, read);
        }
        read();
    });
    entries.into_inner().unwrap_or_else(PoisonError::into_inner)
}
