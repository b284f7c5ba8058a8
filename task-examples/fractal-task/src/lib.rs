//! The calling convention of a Fractal task: `MODULE [fixed args] -j ARGS.json --metadata-out METADIFF.json`.
//!
//! [`run`] is the whole of a usual task's `main`: it reads the parameters, calls the task, writes
//! what it returns as the metadiff, and turns an error into one line on stderr and exit code 1.
//! [`Call`] has the same steps one by one. What the parameters mean is left to the task.

#[cfg(target_arch = "wasm32")]
mod component_memory;

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Runs a task from its command line and returns the exit code of the process: 0, or 1 after an error.
///
/// * `task`: from the parameters in the args file to the value that becomes the metadiff, which is a
///   JSON object. It is not called if the parameters cannot be read.
pub fn run<P: DeserializeOwned, M: Serialize>(task: impl FnOnce(P) -> Result<M, TaskError>) -> ExitCode {
    let done = Call::from_command_line().and_then(|call| {
        if let Some(arg) = call.fixed_args.first() {
            return Err(TaskError::new(format!("unexpected argument {arg:?}; {USAGE}")));
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

const USAGE: &str = "usage: MODULE -j ARGS.json --metadata-out METADIFF.json";

/// One call of a task, as its command line states it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The file with the parameters, one JSON object.
    pub args_file: PathBuf,
    /// The file that the task may write its metadiff to.
    pub metadiff_file: PathBuf,
    /// All other arguments, in order: those that the task's command has before `-j`.
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
    /// If `-j` or `--metadata-out` is missing, has no value or is given twice.
    pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Self, TaskError> {
        let (mut args_file, mut metadiff_file, mut fixed_args) = (None, None, Vec::new());
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let file = match arg.to_str() {
                Some("-j") => &mut args_file,
                Some("--metadata-out") => &mut metadiff_file,
                _ => {
                    fixed_args.push(arg);
                    continue;
                }
            };
            let value =
                args.next().ok_or_else(|| TaskError::new(format!("{} has no value; {USAGE}", arg.display())))?;
            if file.replace(PathBuf::from(value)).is_some() {
                return Err(TaskError::new(format!("{} is given twice; {USAGE}", arg.display())));
            }
        }
        Ok(Self {
            args_file: args_file.ok_or_else(|| TaskError::new(format!("-j is missing; {USAGE}")))?,
            metadiff_file: metadiff_file
                .ok_or_else(|| TaskError::new(format!("--metadata-out is missing; {USAGE}")))?,
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
        fs::read_to_string(&self.args_file).map_err(|err| TaskError::about("cannot read", &self.args_file, err))
    }

    /// Writes `metadiff` as JSON, in place of what the file held.
    ///
    /// # Errors
    /// If the value has no JSON form or the file cannot be written.
    pub fn write_metadiff<M: Serialize>(&self, metadiff: &M) -> Result<(), TaskError> {
        let text = serde_json::to_string(metadiff)
            .map_err(|err| TaskError::about("cannot write the metadiff to", &self.metadiff_file, err))?;
        self.write_metadiff_text(&text)
    }

    /// Writes `text` to the metadiff file as it is.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write_metadiff_text(&self, text: &str) -> Result<(), TaskError> {
        fs::write(&self.metadiff_file, text)
            .map_err(|err| TaskError::about("cannot write the metadiff to", &self.metadiff_file, err))
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
    Err(TaskError::new(format!("{name} is {value}: it must be from {} to {}", range.start(), range.end())))
}

/// Why a task failed: a message that names the file, the cause and, where there is one, the way out.
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
        let call = parse("--metadata-out m.json one -j a.json two").unwrap();
        assert_eq!(call.args_file, Path::new("a.json"));
        assert_eq!(call.metadiff_file, Path::new("m.json"));
        assert_eq!(call.fixed_args, ["one", "two"]);
    }

    #[test]
    fn wrong_command_lines_are_refused() {
        for (line, start) in [
            ("", "-j is missing"),
            ("-j a.json", "--metadata-out is missing"),
            ("--metadata-out m.json -j", "-j has no value"),
            ("-j a -j b --metadata-out m", "-j is given twice"),
        ] {
            let message = parse(line).unwrap_err();
            assert!(message.starts_with(start), "{line:?}: {message}");
        }
    }

    #[test]
    fn an_error_is_one_line() {
        assert_eq!(TaskError::new("a\nb\tc").to_string(), "a b c");
    }
}
