//! The operator's policy: defaults and upper bounds of limits, and additional permissions of task
//! packages.
//!
//! The policy is a TOML file that only the operator names, on the command line. Unknown keys are
//! errors, since a misspelt limit would have no effect.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};

use super::interpreter::{Interpreter, InterpreterFile};
use crate::model::{Grant, Limits, SnapshotSpec};
use crate::problem::{Location, Problems};
use crate::text::units::{parse_bytes, parse_memory, parse_time};
use crate::text::unreadable;
use crate::text::wording::did_you_mean;

/// Default of [`Policy::compile_memory_bytes`].
const DEFAULT_COMPILE_MEMORY_BYTES: u64 = 2 << 30;
/// Memory for compiling if there are interpreters: one with its libraries has 100 MiB of code.
const INTERPRETER_COMPILE_MEMORY_BYTES: u64 = 8 << 30;

/// Policy of the operator.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Limits of a call, unless a document requests others.
    pub default: Limits,
    /// Limits that no document can exceed.
    pub maximum: Limits,
    /// Names of environment variables that a package may set.
    pub env: Vec<String>,
    /// Folders, absolute and without links. A package may mount these folders, and folders below
    /// them, read-only.
    pub mounts: Vec<PathBuf>,
    /// Tasks whose calls start from a snapshot; default: those that request it.
    pub snapshots: SnapshotUse,
    /// Maximum time for compiling a module; default 60 s.
    pub compile_time: Duration,
    /// Maximum time for starting a module for a snapshot; default 60 s. Policy files have one value
    /// for both, but the compilation of a module that the user named has no limit.
    pub init_time: Duration,
    /// Maximum memory for compiling a module, if a separate process compiles it; default 2 GiB.
    pub compile_memory_bytes: u64,
    /// Maximum memory of all running calls together, by their limits; default: the memory of the
    /// machine, for limits that were set explicitly.
    pub memory_bytes: Option<u64>,
    /// True if the operator set the default memory limit. Calls then start only while that much
    /// memory is available for each of them.
    pub reserves_memory: bool,
    /// Minimum free space, in bytes, on the file systems of the work directory and of the output
    /// for a call to start; default 0: not checked.
    pub free_space_bytes: u64,
    /// Maximum size of all outputs of a run together, in bytes; default 1 GiB. Each value counts as
    /// at least 64 bytes, and each object as 512 more.
    pub outputs_bytes: u64,
    /// Maximum number of images or items that a task of Fractal v2 is called for; default 20,000,
    /// as in Fractal.
    pub task_items: usize,
    /// Interpreters of scripts; of those with one suffix, the first counts.
    pub interpreters: Vec<Interpreter>,
    /// True if guests without a time limit can be interrupted too, while they compute; default
    /// false.
    pub interrupts_all: bool,
}

/// Selection of the tasks whose calls start from a snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SnapshotUse {
    /// None, whatever a package requests.
    Never,
    /// Those whose `meta.mandelbox` requests it.
    #[default]
    OnRequest,
    /// All. A module of which no snapshot is possible is refused.
    Always,
}

impl Default for Policy {
    fn default() -> Self {
        Self::of_limits(Limits::default())
    }
}

/// The file as written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PolicyFile {
    default: LimitsFile,
    maximum: LimitsFile,
    packages: PackagesFile,
    host: HostFile,
    interpreters: BTreeMap<String, InterpreterFile>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct LimitsFile {
    #[serde(deserialize_with = "memory")]
    memory: Option<u64>,
    #[serde(deserialize_with = "time")]
    timeout: Option<Duration>,
    #[serde(deserialize_with = "size")]
    output: Option<u64>,
    #[serde(deserialize_with = "size")]
    metadiff: Option<u64>,
    open_files: Option<usize>,
    #[serde(deserialize_with = "size")]
    module: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PackagesFile {
    env: Vec<String>,
    mounts: Vec<PathBuf>,
    snapshots: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct HostFile {
    #[serde(deserialize_with = "time")]
    compile: Option<Duration>,
    #[serde(deserialize_with = "size")]
    compile_memory: Option<u64>,
    #[serde(deserialize_with = "size")]
    memory: Option<u64>,
    #[serde(deserialize_with = "size")]
    free_space: Option<u64>,
    #[serde(deserialize_with = "size")]
    outputs: Option<u64>,
    task_items: Option<usize>,
    interruption: InterruptionFile,
}

/// Guests that check, while they compute, whether they should end.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum InterruptionFile {
    #[default]
    Limited,
    All,
}

/// The key of a policy file for a limit.
///
/// * `limit`: as [`Limits::above`] names it.
pub(crate) fn policy_key(limit: &str) -> &str {
    match limit {
        "call_output" => "metadiff",
        other => other,
    }
}

impl Policy {
    /// Creates a policy with these limits for every call; documents can request less.
    pub fn of_limits(limits: Limits) -> Self {
        let reserves_memory = limits.memory_bytes != Limits::default().memory_bytes;
        Self {
            default: limits.clone(),
            maximum: limits,
            env: Vec::new(),
            mounts: Vec::new(),
            snapshots: SnapshotUse::default(),
            compile_time: Duration::from_secs(60),
            init_time: Duration::from_secs(60),
            compile_memory_bytes: DEFAULT_COMPILE_MEMORY_BYTES,
            memory_bytes: None,
            reserves_memory,
            free_space_bytes: 0,
            outputs_bytes: 1 << 30,
            task_items: 20_000,
            interpreters: Vec::new(),
            interrupts_all: false,
        }
    }

    /// Adds an interpreter, which takes precedence over others with the same suffix. The operator
    /// vouches for its module, which is as large as it needs to be: unless the policy limits the
    /// memory of the compiler explicitly, it is raised.
    pub fn add_interpreter(&mut self, interpreter: Interpreter) {
        self.interpreters.insert(0, interpreter);
        if self.compile_memory_bytes == DEFAULT_COMPILE_MEMORY_BYTES {
            self.compile_memory_bytes = INTERPRETER_COMPILE_MEMORY_BYTES;
        }
    }

    /// Returns the interpreter of a script; `None` for a module, and for scripts without one.
    pub(crate) fn interpreter_of(&self, path: &Path) -> Option<&Interpreter> {
        let mut interpreters = self.interpreters.iter();
        interpreters.find(|interpreter| interpreter.runs(path))
    }

    /// Returns the snapshot from which the calls of a task start.
    ///
    /// * `is_requested`: true if the task requests it.
    /// * `mounts`: folders that the module can read when it starts.
    pub(crate) fn snapshot(
        &self,
        is_requested: bool,
        mounts: impl FnOnce() -> Vec<Grant>,
    ) -> Option<SnapshotSpec> {
        let is_used = match self.snapshots {
            SnapshotUse::Never => false,
            SnapshotUse::OnRequest => is_requested,
            SnapshotUse::Always => true,
        };
        is_used.then(|| SnapshotSpec {
            init_time: self.init_time,
            mounts: mounts(),
        })
    }

    /// Reads a policy file.
    ///
    /// # Errors
    /// All problems of the file, each with its location.
    pub fn read(path: &Path) -> Result<Self, Problems> {
        Problems::or_value(|problems| Self::read_into(path, problems))
    }

    /// Reads a policy file. Adds problems to `problems`, with line and column.
    pub fn read_into(path: &Path, problems: &mut Problems) -> Option<Self> {
        let text = std::fs::read_to_string(path);
        let text = text
            .map_err(|err| problems.add(Location::File(path.to_owned()), unreadable(&err)))
            .ok()?;
        match toml::from_str::<PolicyFile>(&text) {
            Ok(file) => Self::checked(file, path, problems),
            Err(err) => {
                let (line, column) = err
                    .span()
                    .map_or((1, 1), |span| line_and_column(&text, span.start));
                let location = Location::Text {
                    file: path.to_owned(),
                    line,
                    column,
                };
                let message = err.message().replace('\n', "; ");
                problems.add(
                    location,
                    format!("invalid policy: {message}{}", meant_field(&message)),
                );
                None
            }
        }
    }

    fn checked(file: PolicyFile, path: &Path, problems: &mut Problems) -> Option<Self> {
        let n_before = problems.len();
        // A default that is not given is the built-in one, lowered to the bounds.
        let default = file.default.over(&file.maximum.at_most(Limits::default()));
        // A bound that is not given equals the default, so documents can only request less.
        let maximum = file.maximum.over(&default);
        let location = |key: &str| Location::Pointer {
            file: path.to_owned(),
            pointer: key.to_owned(),
        };
        for key in default.above(&maximum).into_iter().map(policy_key) {
            problems.add(
                location(&format!("default.{key}")),
                format!("is above `maximum.{key}`; lower it, or raise the maximum"),
            );
        }
        let mut mounts = Vec::new();
        for mount in &file.packages.mounts {
            match mount.canonicalize() {
                Ok(real) if mount.is_absolute() && real.is_dir() => mounts.push(real),
                _ => problems.add(
                    location("packages.mounts"),
                    format!(
                        "`{}` must be the absolute path of an existing folder",
                        mount.display()
                    ),
                ),
            }
        }
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut interpreters = Vec::new();
        for (name, interpreter) in file.interpreters {
            let key = format!("interpreters.{name}");
            let location = |field: &str| location(&format!("{key}.{}", field.replace("/", ".")));
            let found = Interpreter::checked(key.clone(), interpreter, folder, location, problems);
            interpreters.extend(found);
        }
        let usual = Self::default();
        let reserves_memory = file.default.memory.or(file.maximum.memory).is_some();
        let mut policy = Self {
            default,
            maximum,
            env: file.packages.env,
            mounts,
            snapshots: match file.packages.snapshots {
                Some(false) => SnapshotUse::Never,
                None | Some(true) => SnapshotUse::OnRequest,
            },
            compile_time: file.host.compile.unwrap_or(usual.compile_time),
            init_time: file.host.compile.unwrap_or(usual.init_time),
            compile_memory_bytes: file
                .host
                .compile_memory
                .unwrap_or(usual.compile_memory_bytes),
            memory_bytes: file.host.memory,
            reserves_memory,
            free_space_bytes: file.host.free_space.unwrap_or(usual.free_space_bytes),
            outputs_bytes: file.host.outputs.unwrap_or(usual.outputs_bytes),
            task_items: file.host.task_items.unwrap_or(usual.task_items),
            interpreters: Vec::new(),
            interrupts_all: matches!(file.host.interruption, InterruptionFile::All),
        };
        // The first by name counts, as each takes precedence over those before it.
        for interpreter in interpreters.into_iter().rev() {
            policy.add_interpreter(interpreter);
        }
        (problems.len() == n_before).then_some(policy)
    }
}

impl LimitsFile {
    /// Returns `limits`, lowered to those that this file gives.
    fn at_most(&self, limits: Limits) -> Limits {
        let bound = self.over(&limits);
        Limits {
            memory_bytes: bound.memory_bytes.min(limits.memory_bytes),
            wall_time: bound.wall_time,
            output_bytes: bound.output_bytes.min(limits.output_bytes),
            call_output_bytes: bound.call_output_bytes.min(limits.call_output_bytes),
            open_files: bound.open_files.min(limits.open_files),
            module_bytes: bound.module_bytes.min(limits.module_bytes),
        }
    }

    /// Returns these limits, with those of `others` where this file gives none.
    fn over(&self, others: &Limits) -> Limits {
        Limits {
            memory_bytes: self.memory.unwrap_or(others.memory_bytes),
            wall_time: self.timeout.or(others.wall_time),
            output_bytes: self.output.unwrap_or(others.output_bytes),
            call_output_bytes: self.metadiff.unwrap_or(others.call_output_bytes),
            open_files: self.open_files.unwrap_or(others.open_files),
            module_bytes: self.module.unwrap_or(others.module_bytes),
        }
    }
}

/// Suggests the most similar of the fields that the parser's message lists after the unknown one.
fn meant_field(message: &str) -> String {
    if !message.starts_with("unknown ") {
        return String::new();
    }
    let mut names = message.split('`').skip(1).step_by(2);
    names
        .next()
        .map_or_else(String::new, |unknown| did_you_mean(unknown, names))
}

fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = &text[..offset.min(text.len())];
    let line = before.matches('\n').count() + 1;
    (
        line,
        before.len() - before.rfind('\n').map_or(0, |at| at + 1) + 1,
    )
}

fn memory<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    deserializer.deserialize_str(Text {
        parse: parse_memory,
        expected: "a size with its unit, in quotes: \"512MiB\"",
    })
}

fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    deserializer.deserialize_str(Text {
        parse: parse_bytes,
        expected: "a size with its unit, in quotes: \"512MiB\"",
    })
}

fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    deserializer.deserialize_str(Text {
        parse: parse_time,
        expected: "a time with its unit, in quotes: \"30s\"",
    })
}

/// A string that is parsed. `expected` is the form to use if the file has a value of another type,
/// such as a number.
struct Text<T> {
    parse: fn(&str) -> Result<T, String>,
    expected: &'static str,
}

impl<T> Visitor<'_> for Text<T> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        (self.parse)(text).map(Some).map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Option<Policy>, String) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("policy.toml");
        std::fs::write(&path, text).expect("written");
        let mut problems = Problems::default();
        let policy = Policy::read_into(&path, &mut problems);
        (
            policy,
            problems
                .to_string()
                .replace(&folder.path().display().to_string(), ""),
        )
    }

    #[test]
    fn the_documented_example_is_one() {
        let example = std::fs::read_to_string(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/docs/policy.example.toml"
        ));
        let (policy, problems) = read(&example.expect("an example"));
        let policy = policy.expect(&problems);
        assert_eq!(
            (policy.default.memory_bytes, policy.maximum.memory_bytes),
            (2 << 30, 8 << 30)
        );
        assert_eq!(policy.default.wall_time, Some(Duration::from_secs(3600)));
        assert_eq!(policy.env, ["TZ", "LANG"]);
        assert_eq!(
            (policy.compile_time, policy.free_space_bytes),
            (Duration::from_secs(60), 1 << 30)
        );
        assert_eq!(policy.outputs_bytes, 1 << 30);
        assert!(!policy.interrupts_all);
        assert_eq!(
            (policy.compile_memory_bytes, policy.memory_bytes),
            (2 << 30, None)
        );
    }

    #[test]
    fn an_empty_policy_is_the_default() {
        assert_eq!(read("").0, Some(Policy::default()));
    }

    #[test]
    fn a_memory_limit_that_the_operator_names_is_a_reservation() {
        for (text, reserves, memory) in [
            ("", false, None),
            ("[default]\ntimeout = \"1h\"", false, None),
            ("[default]\nmemory = \"4GiB\"", true, None),
            ("[maximum]\nmemory = \"2GiB\"", true, None),
            (
                "[host]\nmemory = \"12GiB\"\ncompile_memory = \"1GiB\"",
                false,
                Some(12 << 30),
            ),
        ] {
            let (policy, problems) = read(text);
            let policy = policy.expect(&problems);
            assert_eq!(
                (policy.reserves_memory, policy.memory_bytes),
                (reserves, memory),
                "{text}"
            );
        }
    }

    #[test]
    fn bounds_alone_lower_the_defaults() {
        let (policy, problems) =
            read("[maximum]\nmemory = \"2G\"\ntimeout = \"1h\"\noutput = \"1G\"\n");
        let default = policy.expect(&problems).default;
        assert_eq!(
            (default.memory_bytes, default.wall_time),
            (2 << 30, Some(Duration::from_secs(3600)))
        );
        assert_eq!(default.output_bytes, Limits::default().output_bytes);
    }

    #[test]
    fn mistakes_are_reported_with_their_location() {
        let check = |text: &str, expected: &str| {
            let (policy, problems) = read(text);
            assert!(
                policy.is_none() && problems.contains(expected),
                "{problems}"
            );
        };
        check(
            "[default]\nmemroy = \"1G\"",
            "/policy.toml:2:1: invalid policy: unknown field `memroy`",
        );
        check(
            "[default]\nmemory = 5",
            "/policy.toml:2:10: invalid policy: invalid type: integer `5`, expected a size with \
             its unit",
        );
        check("[maximum]\nmemory = \"500\"", "write \"500M\" for 500 MiB");
        check("[maximum]\ntimeout = \"5M\"", "write \"5min\" for minutes");
        check("[maximum]\ntimeout = \"0s\"", "must be longer than \"0s\"");
        check(
            "[host]\ncompile = 60",
            "expected a time with its unit, in quotes",
        );
        check("[default]\nmemroy = \"1G\"", "; did you mean `memory`?");
        check("[default]\nmemory = \"lots\"", "must be a size");
        check("[maximum]\ntimeout = \"soon\"", "must be a time");
        check(
            "[default]\nmemory = \"2G\"\n[maximum]\nmemory = \"1G\"",
            "default.memory: is above `maximum.memory`",
        );
        check(
            "[maximum]\ntimeout = \"1h\"\n[default]\ntimeout = \"2h\"",
            "default.timeout: is above `maximum.timeout`",
        );
        check(
            "[packages]\nmounts = [\"relative\", \"/no/such/folder\"]",
            "`/no/such/folder` must be the absolute path",
        );
        check("[host]\ninterruption = \"none\"", "unknown variant `none`");
        check("[default", "/policy.toml:1:");
    }
}
