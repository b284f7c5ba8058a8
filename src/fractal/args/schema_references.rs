//! Resolution of the references of a schema: to the root, a JSON pointer or an anchor of the same
//! schema.

use std::collections::HashMap;

use super::schema_bounds::Excess;
use crate::json::{Map, Value};
use crate::text::wording::shortened;

/// The names that references of a schema can use.
pub(crate) struct References<'s> {
    root: &'s Value,
    /// `$id` of the root.
    id: Option<&'s str>,
    /// True for draft 4, which has `id` in place of `$id`.
    is_draft_4: bool,
    anchors: HashMap<&'s str, &'s Value>,
}

impl<'s> References<'s> {
    /// Collects the names of the root.
    pub(crate) fn new(root: &'s Value) -> Self {
        let text = |key: &str| root.get(key).and_then(Value::as_str);
        Self {
            root,
            id: text("$id").map(|id| id.trim_end_matches('#')),
            is_draft_4: text("$schema").is_some_and(|draft| draft.contains("draft-04")),
            anchors: HashMap::new(),
        }
    }

    /// Adds the names that a value of the schema defines.
    ///
    /// # Errors
    /// [`Excess`] for a name that the validator may resolve in another way than [`Self::target`]
    /// does.
    pub(crate) fn add(
        &mut self,
        value: &'s Value,
        map: &'s Map<String, Value>,
    ) -> Result<(), Excess> {
        let is_root = std::ptr::eq(value, self.root);
        let text = |key: &str| map.get(key).and_then(Value::as_str);
        let mut anchors: Vec<_> = ["$anchor", "$dynamicAnchor"]
            .into_iter()
            .filter_map(text)
            .collect();
        for key in ["$id", "$schema", "id"] {
            match text(key) {
                Some(id) if key == "$id" && id.starts_with('#') => anchors.push(&id[1..]),
                Some(_) if !is_root && (key != "id" || self.is_draft_4) => {
                    return Err(Excess::Resource(key));
                }
                _ => {}
            }
        }
        for anchor in anchors {
            let earlier = self.anchors.insert(anchor, value);
            if earlier.is_some_and(|earlier| !std::ptr::eq(earlier, value)) {
                return Err(Excess::Anchor(shortened(anchor, 60)));
            }
        }
        Ok(())
    }

    /// Returns the schema at a reference; `None` for a metaschema, which is not part of the
    /// document.
    pub(crate) fn target(&self, reference: &str) -> Result<Option<&'s Value>, Excess> {
        let (base, fragment) = reference.split_once('#').unwrap_or((reference, ""));
        if base.starts_with("http://json-schema.org/")
            || base.starts_with("https://json-schema.org/")
        {
            return Ok(None);
        }
        let is_own = base.is_empty() || self.id == Some(base);
        let found = match fragment {
            _ if !is_own => None,
            "" => Some(self.root),
            pointer if pointer.starts_with('/') => self.root.pointer(&percent_decoded(pointer)),
            anchor => self.anchors.get(anchor).copied(),
        };
        found
            .map(Some)
            .ok_or_else(|| Excess::Reference(shortened(reference, 60)))
    }
}

/// Decodes the percent escapes in a fragment of a URI; anything else is kept.
fn percent_decoded(text: &str) -> String {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let escape = after
            .get(..2)
            .filter(|_| *first == b'%')
            .and_then(|digits| std::str::from_utf8(digits).ok());
        match escape.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                decoded.push(byte);
                rest = &after[2..];
            }
            None => {
                decoded.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::fractal::args::schema_bounds::bound_work;
    use crate::json::Value;

    #[test]
    fn references_are_followed_as_the_validator_follows_them() {
        let check = |schema: Value| {
            let validator = jsonschema::options().build(&schema).expect("a schema");
            assert!(!validator.is_valid(&json!("x")), "{schema}");
            let (_, result) = bound_work(&schema, Some(&json!("x")), 1_000_000);
            assert_eq!(result, Ok(()), "{schema}");
        };
        let integer = json!({ "type": "integer" });
        check(json!({ "$defs": { "a b": integer }, "$ref": "#/$defs/a%20b" }));
        check(json!({ "$defs": { "a/b": integer }, "$ref": "#/$defs/a~1b" }));
        check(json!({ "$defs": { "a": { "$anchor": "n", "type": "integer" } }, "$ref": "#n" }));
        check(
            json!({ "$id": "http://x/s", "$defs": { "a": integer }, "$ref": "http://x/s#/$defs/a" }),
        );
    }
}
