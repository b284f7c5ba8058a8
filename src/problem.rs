//! Problems found in documents, each with its location, and a cursor that reports them while it
//! walks a JSON value.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::json::{Map, Value, type_name};
use crate::text::escaped;
use crate::text::wording::nearest;

/// Location of a problem in the user's input.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Location {
    /// A file as a whole, or a folder.
    File(PathBuf),
    /// A value in a JSON file.
    Pointer {
        /// The file.
        file: PathBuf,
        /// JSON pointer of the value (RFC 6901); empty for the whole document.
        pointer: String,
    },
    /// A location in the text of a file.
    Text {
        /// The file.
        file: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// A command-line option or a parameter of the library.
    Parameter(String),
}

impl Location {
    fn file_mut(&mut self) -> Option<&mut PathBuf> {
        match self {
            Self::File(file) | Self::Pointer { file, .. } | Self::Text { file, .. } => Some(file),
            Self::Parameter(_) => None,
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::File(file) => file.to_string_lossy().into_owned(),
            Self::Pointer { file, pointer } if pointer.is_empty() => {
                file.to_string_lossy().into_owned()
            }
            Self::Pointer { file, pointer } => format!("{}: {pointer}", file.to_string_lossy()),
            Self::Text { file, line, column } => {
                format!("{}:{line}:{column}", file.to_string_lossy())
            }
            Self::Parameter(name) => name.clone(),
        };
        f.write_str(&escaped(&text))
    }
}

/// A problem in the user's input.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// Location of the problem.
    pub location: Location,
    /// Description of the problem, and the action to take.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.location, escaped(&self.message))
    }
}

/// Problems found so far, in the order in which they were found, and warnings. Printed as an error,
/// it lists the problems, but not the warnings.
#[derive(Clone, Default)]
pub struct Problems {
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl Problems {
    /// Maximum number of problems kept, and of warnings. A document can be crafted to cause
    /// millions.
    const MAX_KEPT: usize = 1000;

    /// Runs a reader of a document. Returns what it read, unless it found a problem.
    pub(crate) fn or_value<T>(read: impl FnOnce(&mut Self) -> Option<T>) -> Result<T, Self> {
        let mut problems = Self::default();
        match read(&mut problems) {
            Some(value) if problems.is_empty() => Ok(value),
            _ => Err(problems),
        }
    }

    /// Adds a problem.
    pub fn add(&mut self, location: Location, message: impl Into<String>) {
        Self::keep(&mut self.problems, location, message.into());
    }

    /// Adds the problems and warnings of another list.
    pub fn extend(&mut self, other: Self) {
        for problem in other.problems {
            Self::keep(&mut self.problems, problem.location, problem.message);
        }
        for warning in other.warnings {
            Self::keep(&mut self.warnings, warning.location, warning.message);
        }
    }

    /// Adds a warning, which does not stop the run.
    pub fn warn(&mut self, location: Location, message: impl Into<String>) {
        Self::keep(&mut self.warnings, location, message.into());
    }

    fn keep(list: &mut Vec<Problem>, location: Location, message: String) {
        if list.len() < Self::MAX_KEPT {
            list.push(Problem { location, message });
        }
    }

    /// Shows the files below a folder as if they were below another path.
    pub fn rename(&mut self, folder: &Path, shown: &Path) {
        let (from, to) = (folder.to_string_lossy(), shown.to_string_lossy());
        for problem in self.problems.iter_mut().chain(&mut self.warnings) {
            problem.message = problem.message.replace(&*from, &to);
            if let Some(file) = problem.location.file_mut()
                && let Ok(below) = file.strip_prefix(folder)
            {
                *file = shown.join(below);
            }
        }
    }

    /// Returns true if there is no problem so far; warnings do not count.
    pub fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// Returns the number of problems so far.
    pub fn len(&self) -> usize {
        self.problems.len()
    }

    /// Removes repeated problems and warnings, keeping the first of each.
    pub fn remove_repeated(&mut self) {
        for list in [&mut self.problems, &mut self.warnings] {
            let mut kept: Vec<Problem> = Vec::new();
            for problem in list.drain(..) {
                if !kept.contains(&problem) {
                    kept.push(problem);
                }
            }
            *list = kept;
        }
    }

    /// Iterates over the problems.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.problems.iter()
    }

    /// Returns the warnings.
    pub fn warnings(&self) -> &[Problem] {
        &self.warnings
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.problems.len();
        write!(
            f,
            "{n} problem{} in the input; nothing was run",
            if n == 1 { "" } else { "s" }
        )?;
        for problem in &self.problems {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Problems {}

/// A JSON value of a document with its location. Methods that expect a type add a problem if the
/// value has another type.
#[derive(Clone, Debug)]
pub struct Cursor<'a> {
    /// The value.
    pub value: &'a Value,
    file: &'a Path,
    pointer: String,
}

impl<'a> Cursor<'a> {
    /// Creates a cursor at the root of a file's document.
    pub fn new(file: &'a Path, value: &'a Value) -> Self {
        Self {
            value,
            file,
            pointer: String::new(),
        }
    }

    /// Creates a cursor for a value at a pointer of a file. The value itself need not come from the
    /// file.
    pub fn at(file: &'a Path, pointer: String, value: &'a Value) -> Self {
        Self {
            value,
            file,
            pointer,
        }
    }

    /// Returns the file and the pointer of this value.
    pub fn origin(&self) -> (PathBuf, String) {
        (self.file.to_owned(), self.pointer.clone())
    }

    /// Returns the location of this value.
    pub fn location(&self) -> Location {
        Location::Pointer {
            file: self.file.to_owned(),
            pointer: self.pointer.clone(),
        }
    }

    /// Returns the location of a key of this object, whether or not the key exists.
    pub fn location_of(&self, key: &str) -> Location {
        Location::Pointer {
            file: self.file.to_owned(),
            pointer: pointer_to(&self.pointer, key),
        }
    }

    /// Returns the value of a key; `None` if the key is missing or this is not an object.
    pub fn get(&self, key: &str) -> Option<Self> {
        let value = self.value.as_object()?.get(key)?;
        Some(Self {
            value,
            file: self.file,
            pointer: pointer_to(&self.pointer, key),
        })
    }

    /// Returns the value of a key as [`Self::get`] does, with null treated as missing.
    pub fn get_not_null(&self, key: &str) -> Option<Self> {
        self.get(key).filter(|cursor| !cursor.value.is_null())
    }

    /// Returns the value of a required key. Adds a problem if this is an object without the key.
    pub fn require(&self, key: &str, problems: &mut Problems) -> Option<Self> {
        let found = self.get(key);
        if found.is_none()
            && let Value::Object(map) = self.value
        {
            // One of the existing keys may be a misspelling.
            const SHOWN: usize = 6;
            let keys: Vec<_> = map
                .keys()
                .take(SHOWN)
                .map(|key| format!("`{key}`"))
                .collect();
            let more = if map.len() > SHOWN { ", ..." } else { "" };
            let present = if keys.is_empty() {
                "the object is empty".to_owned()
            } else {
                format!("the object has {}{more}", keys.join(", "))
            };
            let meant = nearest(key, map.keys().map(String::as_str));
            let meant = meant.map_or_else(String::new, |name| {
                format!("; write `{key}` instead of `{name}`")
            });
            problems.add(
                self.location(),
                format!("missing key `{key}` ({present}){meant}"),
            );
        }
        found
    }

    /// Returns the items of an array. Adds a problem and returns none if this is not an array.
    pub fn items(&self, problems: &mut Problems) -> Vec<Self> {
        let Value::Array(items) = self.value else {
            self.wrong_type("an array", problems);
            return Vec::new();
        };
        let item = |(index, value)| Self {
            value,
            file: self.file,
            pointer: format!("{}/{index}", self.pointer),
        };
        items.iter().enumerate().map(item).collect()
    }

    /// Returns the members of an object. Adds a problem if this is not an object.
    pub fn object(&self, problems: &mut Problems) -> Option<&'a Map<String, Value>> {
        let object = self.value.as_object();
        if object.is_none() {
            self.wrong_type("an object", problems);
        }
        object
    }

    /// Returns a string without white space at both ends. Adds a problem if this is not a string,
    /// or is empty then.
    pub fn text(&self, problems: &mut Problems) -> Option<&'a str> {
        let Value::String(text) = self.value else {
            self.wrong_type("a string", problems);
            return None;
        };
        let text = text.trim();
        if text.is_empty() {
            problems.add(self.location(), "must not be empty");
            return None;
        }
        Some(text)
    }

    /// Adds a problem: another type was expected.
    pub fn wrong_type(&self, expected: &str, problems: &mut Problems) {
        problems.add(
            self.location(),
            format!("must be {expected}, not {}", type_name(self.value)),
        );
    }
}

/// Returns the JSON pointer of `key` below `pointer`.
pub(crate) fn pointer_to(pointer: &str, key: &str) -> String {
    format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"))
}
