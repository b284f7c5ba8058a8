//! Names of files and folders in a work directory; pure.
//!
//! Fractal's names, where they are safe and no other component of the task has the same one. Else a
//! readable prefix and a suffix that only this component has: components `a/b`, `a b` and `A.B`
//! never share a file.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::event::EventLog;
use crate::json::Value;
use crate::text::is_misleading;

/// The event log.
pub const EVENT_LOG_FILE: &str = EventLog::NAME;
/// The log of the run as text.
pub const LOG_FILE: &str = "workflow.log";
/// The report of a run.
pub const REPORT_FILE: &str = "report.html";
/// The description of a run as a Workflow Run RO-Crate.
pub const RO_CRATE_FILE: &str = "ro-crate-metadata.json";
/// The workflow that ran, for [`RO_CRATE_FILE`].
pub const RO_CRATE_WORKFLOW_FILE: &str = "ro-crate-workflow.json";
/// The result of a run, failed or not.
pub const RESULT_FILE: &str = "result.json";
/// Folder for the scratch folders of calls that run.
pub(super) const SCRATCH_DIR: &str = ".scratch";

/// Bytes of a name that stays as Fractal makes it; what is added to it keeps the whole below 255.
const MAX_PLAIN_BYTES: usize = 190;
/// Bytes of the readable part of a name that gets a suffix.
const MAX_PREFIX_BYTES: usize = 100;

/// Fractal's sanitizer: lower case, then each ASCII punctuation and white-space character as `_`.
///
/// Source: fractal-server 2.9.2, `sanitize_string`.
pub fn sanitize_string(text: &str) -> String {
    let is_replaced = |c: char| c.is_ascii_punctuation() || c.is_ascii_whitespace() || c == '\u{b}';
    let replace = |c: char| if is_replaced(c) { '_' } else { c };
    if text.is_ascii() {
        return text
            .bytes()
            .map(|byte| replace(byte.to_ascii_lowercase().into()))
            .collect();
    }
    // Python lower-cases the whole string, as `to_lowercase` does (final sigma, dotted capital I).
    text.to_lowercase().chars().map(replace).collect()
}

/// Name of a task's subfolder: `{order}_{sanitized name}`.
pub fn task_folder_name(order: u64, task_name: &str) -> String {
    let name = sanitize_string(task_name);
    if is_safe(&name) {
        format!("{order}_{name}")
    } else {
        format!("{order}_{}", suffixed(&name, task_name, 0))
    }
}

/// Whether a name may be that of a task's subfolder.
pub fn is_task_folder_name(name: &str) -> bool {
    name.split_once('_')
        .is_some_and(|(order, _)| order.parse::<u64>().is_ok())
}

/// Name for a workflow in the name of a folder.
pub fn workflow_folder_name(workflow_name: &str) -> String {
    let name = sanitize_string(workflow_name);
    if is_safe(&name) {
        name
    } else {
        suffixed(&name, workflow_name, 0)
    }
}

/// The files of one call, all in its task's subfolder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallFiles {
    /// The task's subfolder.
    pub folder: PathBuf,
    stem: String,
}

impl CallFiles {
    /// The parameters, as the call gets them.
    pub fn args(&self) -> PathBuf {
        self.path("args.json")
    }

    /// What the call adds to the metadata.
    pub fn metadiff(&self) -> PathBuf {
        self.path("metadiff.json")
    }

    /// Its stdout.
    pub fn out(&self) -> PathBuf {
        self.path("out")
    }

    /// Its stderr.
    pub fn err(&self) -> PathBuf {
        self.path("err")
    }

    /// File name of [`Self::args`].
    pub fn args_name(&self) -> String {
        self.name("args.json")
    }

    /// File name of [`Self::metadiff`].
    pub fn metadiff_name(&self) -> String {
        self.name("metadiff.json")
    }

    fn path(&self, extension: &str) -> PathBuf {
        self.folder.join(self.name(extension))
    }

    fn name(&self, extension: &str) -> String {
        format!("{}.{extension}", self.stem)
    }
}

/// The files of all calls of one task.
#[derive(Clone, Debug)]
pub struct TaskLayout {
    folder: PathBuf,
    order: u64,
    names: Option<ComponentNames>,
}

impl TaskLayout {
    /// * `folder`: the task's subfolder.
    /// * `components`: the component list; `None` for a single task.
    pub fn new(folder: PathBuf, order: u64, components: Option<&[Value]>) -> Self {
        Self {
            folder,
            order,
            names: components.map(ComponentNames::new),
        }
    }

    /// The task's subfolder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The files of call `call_index`, which for a parallel task is one of `component`.
    pub fn files(&self, call_index: usize, component: Option<&Value>) -> CallFiles {
        let stem = match (&self.names, component) {
            (Some(names), Some(component)) => {
                format!("{}_par_{}", self.order, names.name(call_index, component))
            }
            _ => self.order.to_string(),
        };
        CallFiles {
            folder: self.folder.clone(),
            stem,
        }
    }
}

/// The stderr file that a call of an earlier run has left, found without the component list that
/// decides its name; `None` if there is none, or if it cannot be told apart from that of an equal
/// component.
///
/// * `folder`: the task's subfolder.
/// * `component`: `None` for a single task.
pub fn find_err(folder: &Path, order: u64, component: Option<&Value>) -> Option<PathBuf> {
    let file = |name: &str| {
        CallFiles {
            folder: folder.to_owned(),
            stem: format!("{order}_par_{name}"),
        }
        .err()
    };
    let is_there = |path: &PathBuf| {
        path.symlink_metadata()
            .is_ok_and(|metadata| metadata.is_file())
    };
    let Some(component) = component else {
        let stem = order.to_string();
        return Some(
            CallFiles {
                folder: folder.to_owned(),
                stem,
            }
            .err(),
        )
        .filter(is_there);
    };
    let plain = sanitize_string(&component_text(component));
    let suffixed = |repeats| file(&suffixed(&plain, &component.to_string(), repeats));
    if is_there(&suffixed(0)) {
        return Some(suffixed(0)).filter(|_| !is_there(&suffixed(1)));
    }
    // A name with a suffix is there for each component that cannot have the plain one.
    Some(file(&plain))
        .filter(|_| is_safe(&plain))
        .filter(is_there)
}

/// Which components of a list need a suffix. Holds little more than the exceptions: lists have
/// millions of entries.
#[derive(Clone, Debug)]
struct ComponentNames {
    hasher: RandomState,
    /// Hashes of Fractal names that more than one component has.
    shared: HashSet<u64>,
    /// How often a component stood in the list before, for those that did.
    repeats: HashMap<usize, u32>,
}

impl ComponentNames {
    fn new(components: &[Value]) -> Self {
        let hasher = RandomState::new();
        let mut seen = HashSet::with_capacity(components.len());
        let mut shared = HashSet::new();
        for component in components {
            let hash = hasher.hash_one(sanitize_string(&component_text(component)));
            if !seen.insert(hash) {
                shared.insert(hash);
            }
        }
        drop(seen);
        if shared.is_empty() {
            return Self {
                hasher,
                shared,
                repeats: HashMap::new(),
            };
        }
        let mut counts: HashMap<[u8; 32], u32> = HashMap::new();
        let mut repeats = HashMap::new();
        for (index, component) in components.iter().enumerate() {
            if shared.contains(&hasher.hash_one(sanitize_string(&component_text(component)))) {
                let count = counts.entry(identity(component)).or_insert(0);
                if *count > 0 {
                    repeats.insert(index, *count);
                }
                *count += 1;
            }
        }
        Self {
            hasher,
            shared,
            repeats,
        }
    }

    fn name(&self, index: usize, component: &Value) -> String {
        let plain = sanitize_string(&component_text(component));
        if is_safe(&plain) && !self.shared.contains(&self.hasher.hash_one(&plain)) {
            return plain;
        }
        let identity: String = component.to_string();
        suffixed(
            &plain,
            &identity,
            self.repeats.get(&index).copied().unwrap_or(0),
        )
    }
}

/// Text that the name is made of: a string itself, any other value as compact JSON.
fn component_text(component: &Value) -> Cow<'_, str> {
    match component {
        Value::String(text) => Cow::Borrowed(text),
        other => Cow::Owned(other.to_string()),
    }
}

/// What tells two components apart: their JSON text, so that `1` and `"1"` are two.
fn identity(component: &Value) -> [u8; 32] {
    Sha256::digest(component.to_string().as_bytes()).into()
}

fn is_safe(name: &str) -> bool {
    name.len() <= MAX_PLAIN_BYTES && !name.chars().any(is_misleading)
}

/// A readable prefix, `-`, 32 digits of the identity's SHA-256, and `-n` for the n-th repetition.
/// No name without a suffix has a `-`: the sanitizer replaces it.
fn suffixed(sanitized: &str, identity: &str, repeats: u32) -> String {
    let mut prefix: String = sanitized
        .chars()
        .map(|c| if is_misleading(c) { '_' } else { c })
        .collect();
    let mut end = prefix.len().min(MAX_PREFIX_BYTES);
    while !prefix.is_char_boundary(end) {
        end -= 1;
    }
    prefix.truncate(end);
    let digest = Sha256::digest(identity.as_bytes());
    let mut name = prefix + "-";
    for byte in &digest[..16] {
        name.push_str(&format!("{byte:02x}"));
    }
    if repeats > 0 {
        name.push_str(&format!("-{repeats}"));
    }
    name
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn stems(components: &[Value]) -> Vec<String> {
        let layout = TaskLayout::new(PathBuf::new(), 3, Some(components));
        let stem = |(index, component)| layout.files(index, Some(component)).stem;
        components.iter().enumerate().map(stem).collect()
    }

    fn check_distinct(components: &[Value]) {
        let stems = stems(components);
        let folded: HashSet<_> = stems.iter().map(|stem| stem.to_lowercase()).collect();
        assert_eq!(folded.len(), components.len(), "{stems:?}");
        for stem in &stems {
            let name = format!("{stem}.metadiff.json");
            assert!(
                name.len() <= 255 && !name.contains(['/', '\0']) && !name.starts_with('.'),
                "{name}"
            );
            assert!(!name.chars().any(is_misleading), "{name:?}");
        }
    }

    #[test]
    fn plain_names_are_fractals() {
        let components = [
            json!("plate.zarr/B/03/0"),
            json!("A b"),
            json!("x\ty\nz"),
            json!(1.5),
            json!(true),
        ];
        let expected = [
            "3_par_plate_zarr_b_03_0",
            "3_par_a_b",
            "3_par_x_y_z",
            "3_par_1_5",
            "3_par_true",
        ];
        assert_eq!(stems(&components), expected);
        assert_eq!(
            TaskLayout::new(PathBuf::new(), 0, None)
                .files(0, None)
                .args(),
            PathBuf::from("0.args.json")
        );
        assert_eq!(task_folder_name(0, "My Task"), "0_my_task");
    }

    #[test]
    fn colliding_and_odd_names_differ() {
        check_distinct(&[
            json!("a/b"),
            json!("a b"),
            json!("A.B"),
            json!("a b"),
            json!("a b"),
        ]);
        check_distinct(&[
            json!("A"),
            json!("a"),
            json!("1.0"),
            json!("1_0"),
            json!(1),
            json!("1"),
            json!(null),
        ]);
        let long = "x".repeat(300);
        check_distinct(&[
            json!(long),
            json!(format!("{long}y")),
            json!("é".repeat(150)),
            json!(""),
        ]);
        check_distinct(&[
            json!("\0"),
            json!("\u{1}"),
            json!("\u{202e}abc"),
            json!("abc"),
            json!(".."),
        ]);
        assert!(task_folder_name(7, &"n".repeat(400)).len() < 255);
    }

    #[test]
    fn stderr_files_are_found_without_the_list() {
        let folder = tempfile::tempdir().expect("a folder");
        let components = [
            json!("a/b"),
            json!("a b"),
            json!("c"),
            json!(7),
            json!("d"),
            json!("d"),
            json!("\u{202e}"),
        ];
        let layout = TaskLayout::new(folder.path().to_owned(), 3, Some(&components));
        for (index, component) in components.iter().enumerate() {
            let path = layout.files(index, Some(component)).err();
            assert_eq!(
                find_err(folder.path(), 3, Some(component)).filter(|_| index != 5),
                None,
                "{component}"
            );
            std::fs::write(&path, "").expect("written");
            assert_eq!(
                find_err(folder.path(), 3, Some(component)),
                Some(path).filter(|_| index != 5),
                "{component}"
            );
        }
        assert_eq!(find_err(folder.path(), 3, None), None);
    }

    proptest! {
        #[test]
        fn names_are_injective(texts in proptest::collection::vec(".{0,8}|[aA.b /_]{0,3}", 0..40)) {
            let components: Vec<_> = texts.into_iter().map(Value::String).collect();
            check_distinct(&components);
        }
    }
}
