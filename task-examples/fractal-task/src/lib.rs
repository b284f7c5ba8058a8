//! The calling conventions of Fractal tasks, for both versions of Fractal.
//!
//! - Version 1: `MODULE [fixed args] -j ARGS.json --metadata-out METADIFF.json`.
//! - Version 2: `MODULE [fixed args] --args-json ARGS.json --out-json OUTPUT.json`.
//!
//! [`run`] is the whole of a usual task's `main`: it reads the parameters, calls the task, writes
//! what it returns as the metadiff, and turns an error into one line on stderr and exit code 1.
//! [`Call`] has the same steps one by one. What the parameters mean is left to the task; [`v2`] has
//! the outputs of version 2.

#[cfg(target_arch = "wasm32")]
mod component_memory;
pub mod v2;

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Runs a task from its command line and returns the exit code of the process: 0, or 1 after an
/// error.
///
/// * `task`: from the parameters in the args file to the value that becomes the metadiff, which is
///   a JSON object. It is not called if the parameters cannot be read.
pub fn run<P: DeserializeOwned, M: Serialize>(
    task: impl FnOnce(P) -> Result<M, TaskError>,
) -> ExitCode {
    let done = Call::from_command_line().and_then(|call| {
        if let Some(arg) = call.fixed_args.first() {
            return Err(TaskError::new(format!(
                "unexpected argument {arg:?}; {}",
                call.version.usage()
            )));
        }
        let metadiff = task(call.read_parameters()?)?;
        call.write_metadiff(&metadiff)
    });
    exit_code(done)
}

/// Prints an error as one line on stderr and returns the exit code of the process: 0 or 1.
pub fn exit_code(done: Result<(), TaskError>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("error: {err}");
            ExitCode::FAILURE
        }
    }
}

/// A version of Fractal. Its calls have command lines and parameters of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// Calls for components: plates, wells and images below an output folder.
    V1,
    /// Calls for images, each with a URL.
    V2,
}

impl Version {
    const ALL: [Self; 2] = [Self::V1, Self::V2];

    /// The options for the args file and for the metadiff file.
    pub fn options(self) -> [&'static str; 2] {
        match self {
            Self::V1 => ["-j", "--metadata-out"],
            Self::V2 => ["--args-json", "--out-json"],
        }
    }

    fn usage(self) -> &'static str {
        match self {
            Self::V1 => "usage: MODULE -j ARGS.json --metadata-out METADIFF.json",
            Self::V2 => "usage: MODULE --args-json ARGS.json --out-json OUTPUT.json",
        }
    }

    /// Finds the version with an option, and the position of the option in [`Version::options`].
    fn of_option(arg: &OsStr) -> Option<(Self, usize)> {
        let arg = arg.to_str()?;
        Self::ALL.into_iter().find_map(|version| {
            let index = version.options().iter().position(|option| *option == arg)?;
            Some((version, index))
        })
    }
}

/// One call of a task, as its command line states it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The version of Fractal whose options the command line has.
    pub version: Version,
    /// The file with the parameters, one JSON object.
    pub args_file: PathBuf,
    /// The file that the task may write its metadiff to, which version 2 calls the output.
    pub metadiff_file: PathBuf,
    /// All other arguments, in order: those that the task's command has before the options.
    pub fixed_args: Vec<OsString>,
}

impl Call {
    /// Reads the arguments of this process.
    ///
    /// # Errors
    /// As [`Call::parse`].
    pub fn from_command_line() -> Result<Self, TaskError> {
        Self::parse(std::env::args_os().skip(1))
    }

    /// Reads arguments, the program's name left out.
    ///
    /// # Errors
    /// If one of the two options of a version is missing, has no value or is given twice, or if
    /// both versions have options.
    pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Self, TaskError> {
        let (mut given, mut files, mut fixed_args) = (None, [None, None], Vec::new());
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let Some((version, index)) = Version::of_option(&arg) else {
                fixed_args.push(arg);
                continue;
            };
            let wrong = |what: &str| {
                TaskError::new(format!("{} {what}; {}", arg.display(), version.usage()))
            };
            if given.is_some_and(|given| given != version) {
                return Err(wrong(
                    "belongs to another version of Fractal than the options before it",
                ));
            }
            given = Some(version);
            let value = args.next().ok_or_else(|| wrong("has no value"))?;
            if files[index].replace(PathBuf::from(value)).is_some() {
                return Err(wrong("is given twice"));
            }
        }
        let version = given.unwrap_or(Version::V1);
        let [args_option, metadiff_option] = version.options();
        let [args_file, metadiff_file] = files;
        let missing =
            |option: &str| TaskError::new(format!("{option} is missing; {}", version.usage()));
        Ok(Self {
            version,
            args_file: args_file.ok_or_else(|| missing(args_option))?,
            metadiff_file: metadiff_file.ok_or_else(|| missing(metadiff_option))?,
            fixed_args,
        })
    }

    /// Reads the args file into the task's own type.
    ///
    /// # Errors
    /// If the file cannot be read or holds something else.
    pub fn read_parameters<P: DeserializeOwned>(&self) -> Result<P, TaskError> {
        let text = self.read_args_text()?;
        serde_json::from_str(&text)
            .map_err(|err| TaskError::about("cannot use the parameters in", &self.args_file, err))
    }

    /// Reads the args file as text.
    ///
    /// # Errors
    /// If the file cannot be read or is not UTF-8.
    pub fn read_args_text(&self) -> Result<String, TaskError> {
        fs::read_to_string(&self.args_file)
            .map_err(|err| TaskError::about("cannot read", &self.args_file, err))
    }

    /// Writes `metadiff` as JSON, in place of what the file held.
    ///
    /// # Errors
    /// If the value has no JSON form or the file cannot be written.
    pub fn write_metadiff<M: Serialize>(&self, metadiff: &M) -> Result<(), TaskError> {
        let text = serde_json::to_string(metadiff).map_err(|err| {
            TaskError::about("cannot write the metadiff to", &self.metadiff_file, err)
        })?;
        self.write_metadiff_text(&text)
    }

    /// Writes `text` to the metadiff file as it is.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write_metadiff_text(&self, text: &str) -> Result<(), TaskError> {
        fs::write(&self.metadiff_file, text).map_err(|err| {
            TaskError::about("cannot write the metadiff to", &self.metadiff_file, err)
        })
    }
}

/// Refuses an argument that is out of its range.
///
/// # Errors
/// If `value` is not in `range`; the message has `name` and both ends.
pub fn check_range<T: PartialOrd + fmt::Display>(
    name: &str,
    value: T,
    range: RangeInclusive<T>,
) -> Result<(), TaskError> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(TaskError::new(format!(
        "{name} is {value}: it must be from {} to {}",
        range.start(),
        range.end()
    )))
}

/// Why a task failed: a message that names the file, the cause and, where there is one, the way
/// out.
///
/// It is shown as one line: line breaks and other control characters become blanks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskError(String);

impl TaskError {
    /// An error with this message, lower case and without a full stop.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }

    /// An error of the form `ACTION PATH: CAUSE`.
    pub fn about(action: &str, path: &Path, cause: impl fmt::Display) -> Self {
        Self(format!("{action} {}: {cause}", path.display()))
    }
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.replace(char::is_control, " "))
    }
}

impl std::error::Error for TaskError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Call, String> {
        Call::parse(line.split_whitespace().map(OsString::from)).map_err(|err| err.to_string())
    }

    #[test]
    fn both_files_are_found_in_any_order() {
        for (line, version) in [
            ("--metadata-out m.json one -j a.json two", Version::V1),
            ("one --args-json a.json two --out-json m.json", Version::V2),
        ] {
            let call = parse(line).unwrap();
            assert_eq!(call.version, version);
            assert_eq!(call.args_file, Path::new("a.json"));
            assert_eq!(call.metadiff_file, Path::new("m.json"));
            assert_eq!(call.fixed_args, ["one", "two"]);
        }
    }

    #[test]
    fn wrong_command_lines_are_refused() {
        let v1 = "usage: MODULE -j ARGS.json --metadata-out METADIFF.json";
        let v2 = "usage: MODULE --args-json ARGS.json --out-json OUTPUT.json";
        let other = "belongs to another version of Fractal than the options before it";
        for (line, expected) in [
            ("", format!("-j is missing; {v1}")),
            ("-j a.json", format!("--metadata-out is missing; {v1}")),
            ("--metadata-out m.json -j", format!("-j has no value; {v1}")),
            (
                "-j a -j b --metadata-out m",
                format!("-j is given twice; {v1}"),
            ),
            ("--args-json a.json", format!("--out-json is missing; {v2}")),
            (
                "--out-json m.json one",
                format!("--args-json is missing; {v2}"),
            ),
            (
                "--args-json a --out-json",
                format!("--out-json has no value; {v2}"),
            ),
            (
                "--args-json a --out-json m --out-json m",
                format!("--out-json is given twice; {v2}"),
            ),
            ("-j a --out-json m", format!("--out-json {other}; {v2}")),
            (
                "--args-json a --metadata-out m",
                format!("--metadata-out {other}; {v1}"),
            ),
        ] {
            assert_eq!(parse(line).unwrap_err(), expected, "{line:?}");
        }
    }

    #[test]
    fn an_error_is_one_line() {
        assert_eq!(TaskError::new("a\nb\tc").to_string(), "a b c");
    }
}
