//! Problems of documents, each with its location, and a cursor that finds them while it walks a JSON
//! value.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::json::{Map, Value, type_name};
use crate::text::escaped;
use crate::text::wording::nearest;

/// Where in the user's input a problem is.
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

/// One thing that is wrong in the user's input.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// Where.
    pub location: Location,
    /// What is wrong and what to do.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.location, escaped(&self.message))
    }
}

/// All problems found so far, in the order of finding, and warnings beside them. As an error it
/// prints the problems.
#[derive(Clone, Default)]
pub struct Problems {
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl Problems {
    /// Problems that are kept; a document can be made to hold millions.
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

    /// Adds something that deserves a word but stops nothing.
    pub fn warn(&mut self, location: Location, message: impl Into<String>) {
        Self::keep(&mut self.warnings, location, message.into());
    }

    fn keep(list: &mut Vec<Problem>, location: Location, message: String) {
        if list.len() < Self::MAX_KEPT {
            list.push(Problem { location, message });
        }
    }

    /// No problem so far; warnings do not count.
    pub fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// Number of problems so far.
    pub fn len(&self) -> usize {
        self.problems.len()
    }

    /// Leaves of problems and warnings that were found several times only the first.
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

    /// The problems.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.problems.iter()
    }

    /// The warnings.
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

/// A JSON value of a document with its location. Methods that ask for a type add a problem if the
/// value has another.
#[derive(Clone, Debug)]
pub struct Cursor<'a> {
    /// The value.
    pub value: &'a Value,
    file: &'a Path,
    pointer: String,
}

impl<'a> Cursor<'a> {
    /// The whole document of a file.
    pub fn new(file: &'a Path, value: &'a Value) -> Self {
        Self {
            value,
            file,
            pointer: String::new(),
        }
    }

    /// A value that stands, or is thought to stand, at a pointer of a file.
    pub fn at(file: &'a Path, pointer: String, value: &'a Value) -> Self {
        Self {
            value,
            file,
            pointer,
        }
    }

    /// The file and the pointer of this value.
    pub fn origin(&self) -> (PathBuf, String) {
        (self.file.to_owned(), self.pointer.clone())
    }

    /// The location of this value.
    pub fn location(&self) -> Location {
        Location::Pointer {
            file: self.file.to_owned(),
            pointer: self.pointer.clone(),
        }
    }

    /// The location of a key of this object, there or not.
    pub fn location_of(&self, key: &str) -> Location {
        Location::Pointer {
            file: self.file.to_owned(),
            pointer: pointer_to(&self.pointer, key),
        }
    }

    /// The value under a key of this object; `None` without it or if this is no object.
    pub fn get(&self, key: &str) -> Option<Self> {
        let value = self.value.as_object()?.get(key)?;
        Some(Self {
            value,
            file: self.file,
            pointer: pointer_to(&self.pointer, key),
        })
    }

    /// Like [`Self::get`], with null like a missing key.
    pub fn get_not_null(&self, key: &str) -> Option<Self> {
        self.get(key).filter(|cursor| !cursor.value.is_null())
    }

    /// The value under a key that must be there.
    pub fn require(&self, key: &str, problems: &mut Problems) -> Option<Self> {
        let found = self.get(key);
        if found.is_none()
            && let Value::Object(map) = self.value
        {
            // One of those that are there may be misspelt.
            const SHOWN: usize = 6;
            let there: Vec<_> = map
                .keys()
                .take(SHOWN)
                .map(|key| format!("`{key}`"))
                .collect();
            let more = if map.len() > SHOWN { ", ..." } else { "" };
            let there = if there.is_empty() {
                "nothing".to_owned()
            } else {
                there.join(", ") + more
            };
            let meant = nearest(key, map.keys().map(String::as_str));
            let meant = meant.map_or_else(String::new, |name| {
                format!("; write `{key}` in location of `{name}`")
            });
            problems.add(
                self.location(),
                format!("the key `{key}` is missing; there is {there}{meant}"),
            );
        }
        found
    }

    /// The items of an array.
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

    /// An object.
    pub fn object(&self, problems: &mut Problems) -> Option<&'a Map<String, Value>> {
        let object = self.value.as_object();
        if object.is_none() {
            self.wrong_type("an object", problems);
        }
        object
    }

    /// A string, stripped of white space at both ends, that is not empty then.
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

    /// Says that another type was expected.
    pub fn wrong_type(&self, expected: &str, problems: &mut Problems) {
        problems.add(
            self.location(),
            format!("must be {expected}, not {}", type_name(self.value)),
        );
    }
}

/// The JSON pointer of `key` below `pointer`.
pub(crate) fn pointer_to(pointer: &str, key: &str) -> String {
    format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"))
}
