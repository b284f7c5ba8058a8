//! Names of the files of calls.
//!
//! A name is Fractal's if it is safe and no other component of the task has the same name.
//! Otherwise it is a readable prefix with a suffix that only this component has: the components
//! `a/b`, `a b` and `A.B` never share a file.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::json::Value;
use crate::model::{CallFiles, FileSuffixes};
use crate::text::file_name::{is_safe, sanitize_string, suffixed};

/// Suffixes of the names, as in Fractal.
const SUFFIXES: FileSuffixes = FileSuffixes {
    args: Cow::Borrowed(".args.json"),
    output: Cow::Borrowed(".metadiff.json"),
    out: Cow::Borrowed(".out"),
    err: Cow::Borrowed(".err"),
};

/// Names of the files of all calls of one task.
#[derive(Clone, Debug)]
pub struct FileNames {
    order: u64,
    names: Option<ComponentNames>,
}

impl FileNames {
    /// Creates the names.
    ///
    /// * `components`: the component list; `None` for a single task.
    pub fn new(order: u64, components: Option<&[Value]>) -> Self {
        Self {
            order,
            names: components.map(ComponentNames::new),
        }
    }

    /// Returns the files of call `call_index`, which in a parallel task is for `component`.
    ///
    /// * `folder`: the task's subfolder.
    pub fn files(&self, folder: &Path, call_index: usize, component: Option<&Value>) -> CallFiles {
        let stem = match (&self.names, component) {
            (Some(names), Some(component)) => {
                format!("{}_par_{}", self.order, names.name(call_index, component))
            }
            _ => self.order.to_string(),
        };
        CallFiles {
            folder: folder.to_owned(),
            stem,
            suffixes: SUFFIXES,
        }
    }
}

/// Names of the components of a list. Holds little more than the components that need a suffix,
/// since lists have millions of entries.
#[derive(Clone, Debug)]
struct ComponentNames {
    hasher: RandomState,
    /// Hashes of the Fractal names that several components have.
    shared: HashSet<u64>,
    /// Number of earlier entries with the same component, for components that are repeated.
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

/// Returns the text that the name is built from: the text of a string, any other value as compact
/// JSON.
fn component_text(component: &Value) -> Cow<'_, str> {
    match component {
        Value::String(text) => Cow::Borrowed(text),
        other => Cow::Owned(other.to_string()),
    }
}

/// Returns a digest that distinguishes components: of their JSON text, so that `1` and `"1"`
/// differ.
fn identity(component: &Value) -> [u8; 32] {
    Sha256::digest(component.to_string().as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::text::is_misleading;

    fn stems(components: &[Value]) -> Vec<String> {
        let names = FileNames::new(3, Some(components));
        let stem = |(index, component)| names.files(Path::new(""), index, Some(component)).stem;
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
            FileNames::new(0, None).files(Path::new(""), 0, None).args(),
            Path::new("0.args.json")
        );
    }

    #[test]
    fn colliding_and_unsafe_names_differ() {
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
    }

    proptest! {
        #[test]
        fn names_are_injective(texts in proptest::collection::vec(".{0,8}|[aA.b /_]{0,3}", 0..40)) {
            let components: Vec<_> = texts.into_iter().map(Value::String).collect();
            check_distinct(&components);
        }
    }
}
