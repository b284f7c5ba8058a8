//! Files of a round: what its jobs have to run. The run writes them, jobs read them.
//!
//! A round is one submission of calls of a batch. Its folder has `batch.json`, `calls.jsonl` with a
//! call in each line, and for slice N of the calls the results of its worker in `N.results`.
//!
//! Arguments of calls can be large and nearly the same: in version 1 of Fractal each has all
//! metadata, with the list of all items. A line therefore has only the part of the arguments that
//! differs from those of the first call.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::folder::open_plain_file;
use crate::json::{Map, Value};
use crate::model::{Attempt, Batch, CallFiles, CallList, CallSpec, HostError};
use crate::workdir::JobFolder;

/// Name of the file with the batch.
pub(super) const BATCH_FILE: &str = "batch.json";
/// Name of the file with the calls.
const CALLS_FILE: &str = "calls.jsonl";
/// Name of the file that stops the workers of a round: they start no further call.
pub(super) const STOP_FILE: &str = "stop";
/// Format of these files.
const FORMAT_VERSION: u32 = 1;

/// Returns the name of the file with the results of a slice.
pub(super) fn results_file(slice: usize) -> String {
    format!("{slice}.results")
}

/// Returns the name of the file that closes a slice: its calls run elsewhere, and a worker that
/// starts late runs none of them.
pub(super) fn closed_file(slice: usize) -> String {
    format!("{slice}.closed")
}

/// Returns the name of the file that the first worker of a slice creates.
pub(super) fn claimed_file(slice: usize) -> String {
    format!("{slice}.claimed")
}

/// Settings of the program that runs the calls.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerSettings {
    /// True if guests run in processes of their own.
    pub isolates_in_processes: bool,
    /// True if guests get fixed clocks and random numbers.
    pub deterministic: bool,
    /// Folder of compiled modules; `None`: modules are compiled for each job.
    pub cache_folder: Option<PathBuf>,
    /// Longest time for compiling a module.
    pub compile_time: Duration,
    /// Memory for compiling a module, in bytes.
    pub compile_memory_bytes: u64,
    /// True if code has checks for interruption although a task has no time limit.
    pub interrupts_all: bool,
}

/// Data that all jobs of a round have in common.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct BatchFile {
    format_version: u32,
    /// Version of mandelbox.
    version: String,
    pub(super) batch: Batch,
    /// Start of the run, as its events count it.
    pub(super) session: u32,
    /// Name of the check of outputs.
    pub(super) check: String,
    /// Calls of a job that run at the same time.
    pub(super) parallel: usize,
    pub(super) settings: WorkerSettings,
    /// Arguments of the first call.
    first_args: String,
    /// The slices of the calls.
    pub(super) slices: Vec<SliceIndex>,
}

/// A line of the file of calls.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct StoredCall {
    /// Number of bytes at the start and at the end that the arguments have in common with those of
    /// the first call.
    common: [usize; 2],
    /// The call, with the rest of its arguments.
    pub(super) call: CallSpec,
}

impl StoredCall {
    fn new(mut call: CallSpec, first_args: &str) -> Self {
        let args = std::mem::take(&mut call.args);
        let common = common_ends(&args, first_args);
        args[common[0]..args.len() - common[1]].clone_into(&mut call.args);
        Self { common, call }
    }

    /// Returns the call with its arguments.
    ///
    /// * `first_args`: those of the first call.
    pub(super) fn to_call(&self, first_args: &str) -> CallSpec {
        let [start, end] = self.common;
        let start = first_args.get(..start).unwrap_or_default();
        let end = first_args.len().checked_sub(end);
        let end = end
            .and_then(|end| first_args.get(end..))
            .unwrap_or_default();
        CallSpec {
            args: [start, &self.call.args, end].concat(),
            ..self.call.clone()
        }
    }
}

/// Number of bytes that two texts have in common at the start, and at the end of what follows. Both
/// parts end at characters.
fn common_ends(text: &str, other: &str) -> [usize; 2] {
    let same = |(a, b): &(u8, u8)| a == b;
    let n_start = text.bytes().zip(other.bytes()).take_while(same).count();
    let n_start = (0..=n_start)
        .rev()
        .find(|n| text.is_char_boundary(*n))
        .unwrap_or_default();
    let (rest, other_rest) = (&text.as_bytes()[n_start..], &other.as_bytes()[n_start..]);
    let ends = rest.iter().rev().zip(other_rest.iter().rev());
    let n_end = ends.take_while(|(a, b)| a == b).count();
    let n_end = (0..=n_end)
        .rev()
        .find(|n| text.is_char_boundary(text.len() - n))
        .unwrap_or_default();
    [n_start, n_end]
}

/// Location of the calls of a slice in the file of calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SliceIndex {
    /// Offset of the first one, in bytes.
    offset: u64,
    /// Number of calls.
    pub(super) n_calls: usize,
}

impl BatchFile {
    /// Creates the contents of the file; the slices are added by [`write_round`].
    pub(super) fn new(
        batch: &Batch,
        session: u32,
        check: &str,
        parallel: usize,
        settings: &WorkerSettings,
    ) -> Self {
        let mut batch = batch.clone();
        // The slots of a job bound its calls, and SLURM has reserved its CPUs.
        batch.task.max_parallel = None;
        batch.task.n_cpus = std::num::NonZeroUsize::MIN;
        batch.task.resources = Vec::new();
        Self {
            format_version: FORMAT_VERSION,
            version: version(),
            batch,
            session,
            check: check.to_owned(),
            parallel,
            settings: settings.clone(),
            first_args: String::new(),
            slices: Vec::new(),
        }
    }

    /// Returns true if a job of this file gives the same results as one of another file.
    pub(super) fn is_same_work(&self, other: &Self) -> bool {
        let comparable = |file: &Self| Self {
            session: 0,
            parallel: 0,
            first_args: String::new(),
            slices: Vec::new(),
            ..file.clone()
        };
        comparable(self) == comparable(other)
    }

    /// Arguments of the first call, for [`StoredCall::to_call`].
    pub(super) fn first_args(&self) -> &str {
        &self.first_args
    }

    /// Reads the file.
    ///
    /// # Errors
    /// A sentence for the user.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let mut bytes = Vec::new();
        let read = open_plain_file(path).and_then(|mut file| file.read_to_end(&mut bytes));
        let text = path.display();
        read.map_err(|err| {
            format!("{text}: cannot be read: {err}; all nodes must see the work directory")
        })?;
        let file: Value = serde_json::from_slice(&bytes)
            .map_err(|err| format!("{text}: is not valid JSON: {err}"))?;
        let own = version();
        match file.get("version").and_then(Value::as_str) {
            Some(version) if version == own => {}
            Some(version) => {
                return Err(format!(
                    "{text}: is from mandelbox {version}, and this program is mandelbox {own}; use \
                     the same program for the run and its jobs"
                ));
            }
            None => return Err(format!("{text}: missing key `version`")),
        }
        // Not from the value: serde would not keep the text of numbers in it.
        serde_json::from_slice(&bytes).map_err(|err| format!("{text}: {err}"))
    }
}

/// Returns the version of this program; another build of the same version may give other results.
fn version() -> String {
    env!("CARGO_PKG_VERSION").to_owned()
}

/// Writes the files of a round.
///
/// * `slices`: indices of the calls of each slice.
/// * `call`: creates a call.
///
/// # Errors
/// [`HostError`].
pub(super) fn write_round(
    folder: &JobFolder,
    file: &mut BatchFile,
    slices: &[&[usize]],
    call: impl Fn(usize) -> CallSpec,
) -> Result<(), HostError> {
    let mut calls = Vec::new();
    file.slices.clear();
    for slice in slices {
        file.slices.push(SliceIndex {
            offset: calls.len() as u64,
            n_calls: slice.len(),
        });
        for call_index in *slice {
            let call = call(*call_index);
            if calls.is_empty() {
                file.first_args.clone_from(&call.args);
            }
            let stored = StoredCall::new(call, &file.first_args);
            serde_json::to_writer(&mut calls, &stored).expect("writing to memory cannot fail");
            calls.push(b'\n');
        }
    }
    folder.create()?;
    folder.write(CALLS_FILE, &calls)?;
    let text = serde_json::to_vec(&file).expect("writing to memory cannot fail");
    folder.write(BATCH_FILE, &text)
}

/// Reads the calls of a slice.
///
/// * `folder`: folder of the round.
///
/// # Errors
/// A sentence for the user.
pub(super) fn read_calls(folder: &Path, index: SliceIndex) -> Result<Vec<StoredCall>, String> {
    let path = folder.join(CALLS_FILE);
    let failed = |text: String| format!("{}: {text}", path.display());
    let mut file = open_plain_file(&path).map_err(|err| failed(err.to_string()))?;
    file.seek(SeekFrom::Start(index.offset))
        .map_err(|err| failed(err.to_string()))?;
    let mut calls = Vec::new();
    for line in BufReader::new(file).lines().take(index.n_calls) {
        let line = line.map_err(|err| failed(err.to_string()))?;
        let call = serde_json::from_str(&line);
        calls.push(call.map_err(|err| failed(err.to_string()))?);
    }
    if calls.len() < index.n_calls {
        return Err(failed("is shorter than it should be".to_owned()));
    }
    Ok(calls)
}

/// Check of an output; see [`CallList::check_output`].
pub type CheckOutput = dyn Fn(Value) -> Result<Option<Map<String, Value>>, String> + Send + Sync;

/// The calls of a slice, for the local backend.
pub(super) struct SliceCalls {
    calls: BTreeMap<usize, StoredCall>,
    first_args: String,
    /// More than the largest index.
    len: usize,
    check: Box<CheckOutput>,
    check_name: &'static str,
}

impl SliceCalls {
    /// * `first_args`: arguments of the first call of the round.
    pub(super) fn new(calls: Vec<StoredCall>, first_args: String, check: Box<CheckOutput>) -> Self {
        let calls: BTreeMap<_, _> = calls
            .into_iter()
            .map(|stored| (stored.call.attempt.call_index, stored))
            .collect();
        Self {
            first_args,
            len: calls.keys().next_back().map_or(0, |index| index + 1),
            calls,
            check,
            check_name: "slice",
        }
    }

    fn get(&self, call_index: usize) -> &StoredCall {
        &self.calls[&call_index]
    }
}

impl CallList for SliceCalls {
    fn len(&self) -> usize {
        self.len
    }

    fn item(&self, call_index: usize) -> Option<&Value> {
        self.calls.get(&call_index)?.call.item.as_ref()
    }

    fn files(&self, _: &Batch, call_index: usize) -> CallFiles {
        self.get(call_index).call.files.clone()
    }

    fn call(&self, _: &Batch, attempt: Attempt, replaces_files: bool) -> CallSpec {
        let call = self.get(attempt.call_index).to_call(&self.first_args);
        let replaces_files = replaces_files || call.replaces_files;
        CallSpec {
            attempt,
            replaces_files,
            ..call
        }
    }

    fn shared_args(&self) -> &str {
        ""
    }

    fn check_output(&self, output: Value) -> Result<Option<Map<String, Value>>, String> {
        (self.check)(output)
    }

    fn check_name(&self) -> &'static str {
        self.check_name
    }
}

/// Returns the name of the folder of a batch, below the folder of all jobs.
pub(super) fn batch_folder_name(batch: &Batch) -> String {
    let mut name = batch.task.order.to_string();
    if batch.index > 0 {
        // Writing to a string cannot fail.
        let _ = write!(name, "-{}", batch.index);
    }
    name
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::FileSuffixes;

    fn call(args: &str) -> CallSpec {
        let suffix = || "".into();
        CallSpec {
            attempt: Attempt {
                call_index: 0,
                number: 1,
            },
            item: None,
            stdin: None,
            args: args.to_owned(),
            argv: Vec::new(),
            files: CallFiles {
                folder: PathBuf::new(),
                stem: String::new(),
                suffixes: FileSuffixes {
                    args: suffix(),
                    output: suffix(),
                    out: suffix(),
                    err: suffix(),
                },
            },
            replaces_files: false,
        }
    }

    proptest! {
        #[test]
        fn arguments_are_restored(first in "[aä€]{0,6}", args in "[aä€b]{0,6}") {
            let stored = StoredCall::new(call(&args), &first);
            prop_assert_eq!(stored.to_call(&first), call(&args));
        }
    }

    #[test]
    fn only_what_differs_is_stored() {
        let first = r#"{"component":"B/03","metadata":{"list":[1,2,3]}}"#;
        let second = r#"{"component":"B/047","metadata":{"list":[1,2,3]}}"#;
        let stored = StoredCall::new(call(second), first);
        assert_eq!(stored.call.args, "47");
        assert_eq!(stored.to_call(first).args, second);
    }
}
