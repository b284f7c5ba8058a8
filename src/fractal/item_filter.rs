//! Selection of items for a trial run.

use glob::Pattern;

use crate::json::Value;

/// Globs for the items of a trial run; without any, all items are selected.
///
/// A glob matches a whole item, or its end after a `/`. `*` also matches `/`.
#[derive(Clone, Debug, Default)]
pub struct ItemFilter(Vec<Pattern>);

impl ItemFilter {
    /// Creates a filter from globs.
    ///
    /// # Errors
    /// The first glob that is invalid, and the reason.
    pub fn new(globs: &[String]) -> Result<Self, String> {
        let parse = |glob: &String| {
            Pattern::new(glob).map_err(|err| format!("`{glob}` is not a glob: {}", err.msg))
        };
        globs.iter().map(parse).collect::<Result<_, _>>().map(Self)
    }

    /// Returns true if all items are selected.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the globs.
    pub fn globs(&self) -> Vec<String> {
        self.0.iter().map(|glob| glob.as_str().to_owned()).collect()
    }

    /// Returns true if the item is selected.
    pub fn matches(&self, item: &str) -> bool {
        let ends = item.match_indices('/').map(|(at, _)| &item[at + 1..]);
        let mut texts = std::iter::once(item).chain(ends);
        self.is_empty() || texts.any(|text| self.0.iter().any(|glob| glob.matches(text)))
    }

    /// Returns true if the item is selected: a string, or a value whose JSON text is matched.
    pub fn matches_value(&self, item: &Value) -> bool {
        self.is_empty()
            || match item {
                Value::String(text) => self.matches(text),
                other => self.matches(&other.to_string()),
            }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn globs_match_items_and_their_ends() {
        let filter = |glob: &str| ItemFilter::new(&[glob.to_owned()]).expect("a glob");
        let item = "/data/plate.zarr/B/03/0";
        for (glob, expected) in [
            ("B/03/*", true),
            ("*/B/*", true),
            ("/data/plate.zarr/B/03/0", true),
            ("0", true),
            ("03", false),
            ("B/0?/0", true),
            ("B/0[12]/0", false),
        ] {
            assert_eq!(filter(glob).matches(item), expected, "{glob}");
        }
        assert!(filter("3").matches_value(&json!(3)));
        assert!(ItemFilter::default().matches(item));
        assert!(ItemFilter::new(&["[".to_owned()]).is_err());
    }
}
