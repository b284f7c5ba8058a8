//! An upper bound of the work of a JSON Schema validator.
//!
//! A validator cannot be interrupted, and a few kilobytes of schema can require years (references
//! that double), gigabytes (errors that hold copies of values) or an endless stack (a chain of
//! references). So schema and value are first walked together, without the validator's work: each
//! pair of a subschema and a value that the validator may visit costs steps. A validator stops at
//! the first subschema that decides; the walk does not, so it never counts less. Parts that the
//! validator visits again are counted again: alternatives, whose errors are collected after all of
//! them have failed, and everything next to `unevaluatedProperties` and `unevaluatedItems`.
//!
//! The walk is only valid if it resolves references as the validator does. So references must lead
//! to the schema itself, or to a JSON pointer or an anchor in it, and only the root may have an
//! `$id`.

use super::pattern_size::{backtracks, matching_steps, pattern_size};
use super::schema_references::References;
use crate::json::{Map, Value};
use crate::text::wording::shortened;

/// Steps of a visit of a subschema with a value, in addition to those for their sizes.
const STEPS_OF_VISIT: u64 = 10;
/// Steps for each value in the schema, which is checked against its metaschema and compiled.
const STEPS_OF_COMPILING: u64 = 20;
/// Steps for resolving a reference.
const STEPS_OF_RESOLVING: u64 = 2000;
/// Steps of a visit to a metaschema, for each value of the instance. The walk does not enter
/// metaschemas.
const STEPS_OF_METASCHEMA: u64 = 1000;
/// Number of times that everything is repeated if the validator gave up on a pattern: once for each
/// possible outcome of the pattern.
const RUNS_OF_BACKTRACKING: u64 = 64;
/// Maximum depth of nested visits. Each takes about 1 KiB of the validator's stack.
pub(crate) const MAX_LEVELS: usize = 2000;
/// Maximum [`pattern_size`].
const MAX_PATTERN_SIZE: u64 = 100_000;

/// Upper bound of the work of a validator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Work {
    /// Steps, of about 10 ns each.
    pub(crate) steps: u64,
    /// Errors that the validator may collect, of about 500 bytes each.
    pub(crate) errors: u64,
    /// Errors inside errors about alternatives, weighted by the values that they copy.
    pub(crate) inner_errors: u64,
}

/// Reason why a schema is not passed to a validator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Excess {
    #[error(
        "takes too long to check: its references, alternatives and patterns, or those of the \
         schemas before it, require too \
         many steps; simplify them"
    )]
    Steps,
    #[error(
        "follows its references deeper than {MAX_LEVELS} levels; shorten the chain of `$ref`s, or \
         break its cycle"
    )]
    Levels,
    #[error("has the pattern `{0}`, which is too large to compile; lower its repetition counts")]
    Pattern(String),
    #[error(
        "is not a valid JSON Schema: the reference `{0}` cannot be resolved; refer to \
         `#/definitions/...` or `#/$defs/...` of the same schema"
    )]
    Reference(String),
    #[error(
        "has `{0}` below its root, which is not supported; move that schema to `definitions` and \
         refer to it by `#/definitions/...`"
    )]
    Resource(&'static str),
    #[error("is not a valid JSON Schema: the anchor `{0}` is defined twice")]
    Anchor(String),
}

/// Computes an upper bound of the work of compiling `schema`, validating `value` and collecting its
/// errors. Returns the work that was counted, completely or up to the first excess.
///
/// * `value`: `None` for compiling only.
/// * `max_steps`: the walk ends with [`Excess::Steps`] once it has counted more.
pub(crate) fn bound_work(
    schema: &Value,
    value: Option<&Value>,
    max_steps: u64,
) -> (Work, Result<(), Excess>) {
    let mut walk = Walk {
        references: References::new(schema),
        work: Work {
            steps: 0,
            errors: 0,
            inner_errors: 0,
        },
        backtracking_steps: 0,
        max_steps,
    };
    let result = walk.whole(schema, value);
    (walk.work, result)
}

struct Walk<'s> {
    references: References<'s>,
    work: Work,
    /// The part of the steps that is for patterns that backtrack.
    backtracking_steps: u64,
    max_steps: u64,
}

impl<'s> Walk<'s> {
    fn whole(&mut self, schema: &'s Value, value: Option<&Value>) -> Result<(), Excess> {
        self.scan(schema)?;
        let Some(value) = value else { return Ok(()) };
        self.visit(schema, value, 0)?;
        if self.backtracking_steps > 0 {
            let repeated = self.work.steps - self.backtracking_steps;
            self.spend(repeated.saturating_mul(RUNS_OF_BACKTRACKING))?;
        }
        Ok(())
    }

    fn spend(&mut self, steps: u64) -> Result<(), Excess> {
        self.work.steps = self.work.steps.saturating_add(steps);
        if self.work.steps > self.max_steps {
            Err(Excess::Steps)
        } else {
            Ok(())
        }
    }

    /// Visits every value of the schema once, to count the cost of compiling it and to collect the
    /// names of its parts.
    fn scan(&mut self, value: &'s Value) -> Result<(), Excess> {
        self.spend(STEPS_OF_COMPILING + width(value))?;
        match value {
            Value::Array(items) => items.iter().try_for_each(|item| self.scan(item)),
            Value::Object(map) => {
                self.references.add(value, map)?;
                if map.get("$ref").is_some_and(Value::is_string) {
                    self.spend(STEPS_OF_RESOLVING)?;
                }
                let properties = map.get("patternProperties").and_then(Value::as_object);
                let patterns = properties
                    .into_iter()
                    .flat_map(|map| map.keys().map(String::as_str));
                for pattern in patterns.chain(map.get("pattern").and_then(Value::as_str)) {
                    let size = pattern_size(pattern);
                    if size > MAX_PATTERN_SIZE {
                        return Err(Excess::Pattern(shortened(pattern, 60)));
                    }
                    self.spend(size.saturating_mul(10))?;
                }
                map.iter().try_for_each(|(_, item)| self.scan(item))
            }
            _ => Ok(()),
        }
    }

    /// Counts a visit of `schema` with `value`, and all visits that follow from it.
    fn visit(&mut self, schema: &'s Value, value: &Value, level: usize) -> Result<(), Excess> {
        if level > MAX_LEVELS {
            return Err(Excess::Levels);
        }
        let start = self.work.steps;
        self.spend(STEPS_OF_VISIT + width(value))?;
        let Value::Object(keywords) = schema else {
            self.work.errors += 1;
            return Ok(());
        };
        let n_keywords = keywords.len() as u64;
        self.spend(n_keywords)?;
        self.work.errors = self.work.errors.saturating_add(n_keywords);
        for (keyword, operand) in keywords {
            self.visit_keyword(keyword, operand, keywords, value, level + 1)?;
        }
        if keywords.contains_key("unevaluatedProperties")
            || keywords.contains_key("unevaluatedItems")
        {
            // Each member is looked up in everything that was evaluated.
            self.spend((self.work.steps - start).saturating_mul(1 + width(value)))?;
        }
        Ok(())
    }

    fn visit_keyword(
        &mut self,
        keyword: &str,
        operand: &'s Value,
        keywords: &'s Map<String, Value>,
        value: &Value,
        level: usize,
    ) -> Result<(), Excess> {
        match (keyword, operand, value) {
            ("$ref" | "$dynamicRef" | "$recursiveRef", Value::String(reference), _) => {
                match self.references.target(reference)? {
                    Some(target) => self.visit(target, value, level),
                    None => {
                        let size = self.size(value)?;
                        self.spend(size.saturating_mul(STEPS_OF_METASCHEMA))
                    }
                }
            }
            ("not" | "if" | "then" | "else", schema, _) => {
                // An error of `not` holds its schema.
                let size = if keyword == "not" {
                    self.size(schema)?
                } else {
                    0
                };
                self.work.errors = self.work.errors.saturating_add(size);
                self.visit(schema, value, level)
            }
            ("allOf", Value::Array(schemas), _) => schemas
                .iter()
                .try_for_each(|schema| self.visit(schema, value, level)),
            ("anyOf" | "oneOf", Value::Array(schemas), _) => {
                self.visit_alternatives(schemas, value, level)
            }
            ("properties", Value::Object(properties), Value::Object(members)) => {
                self.spend(properties.len() as u64)?;
                let pairs = properties
                    .iter()
                    .filter_map(|(name, schema)| Some((schema, members.get(name)?)));
                pairs
                    .into_iter()
                    .try_for_each(|(schema, member)| self.visit(schema, member, level))
            }
            (
                "dependentSchemas" | "dependencies",
                Value::Object(schemas),
                Value::Object(members),
            ) => {
                self.spend(schemas.len() as u64)?;
                let schemas = schemas
                    .iter()
                    .filter(|(name, _)| members.contains_key(*name));
                schemas
                    .into_iter()
                    .try_for_each(|(_, schema)| self.visit(schema, value, level))
            }
            // All members that are refused are one error, with their names.
            ("additionalProperties", Value::Bool(_), Value::Object(members)) => {
                let n_members = members.len() as u64;
                self.work.errors = self.work.errors.saturating_add(1 + n_members / 16);
                self.spend(n_members)
            }
            ("additionalProperties" | "unevaluatedProperties", schema, Value::Object(members)) => {
                let properties = keywords.get("properties").and_then(Value::as_object);
                let is_additional = |name: &String| {
                    !properties.is_some_and(|properties| properties.contains_key(name))
                };
                let members = members
                    .iter()
                    .filter(|(name, _)| keyword != "additionalProperties" || is_additional(name));
                members
                    .into_iter()
                    .try_for_each(|(_, member)| self.visit(schema, member, level))
            }
            ("patternProperties", Value::Object(patterns), Value::Object(members)) => {
                for (pattern, schema) in patterns {
                    for (name, member) in members {
                        self.match_pattern(pattern, name)?;
                        self.visit(schema, member, level)?;
                    }
                }
                Ok(())
            }
            ("propertyNames", schema, Value::Object(members)) => members
                .keys()
                .try_for_each(|name| self.visit(schema, &Value::String(name.clone()), level)),
            ("items" | "prefixItems", Value::Array(schemas), Value::Array(items)) => schemas
                .iter()
                .zip(items)
                .try_for_each(|(schema, item)| self.visit(schema, item, level)),
            (
                "items" | "additionalItems" | "unevaluatedItems" | "contains",
                schema,
                Value::Array(items),
            ) => items
                .iter()
                .try_for_each(|item| self.visit(schema, item, level)),
            ("enum", Value::Array(options), _) => {
                let size = if is_container(value) {
                    self.size(value)?
                } else {
                    1
                };
                self.spend(size.saturating_mul(options.len() as u64))
            }
            ("const" | "uniqueItems", ..) => self.size(value).map(drop),
            ("pattern", Value::String(pattern), Value::String(text)) => {
                self.work.errors = self.work.errors.saturating_add(pattern.len() as u64 / 64);
                self.match_pattern(pattern, text)
            }
            ("format" | "contentEncoding" | "contentMediaType", _, Value::String(text)) => {
                self.spend(text.len() as u64)
            }
            _ => Ok(()),
        }
    }

    fn match_pattern(&mut self, pattern: &str, text: &str) -> Result<(), Excess> {
        let backtracks = backtracks(pattern);
        let steps = matching_steps(pattern, text, backtracks);
        if backtracks {
            self.backtracking_steps = self.backtracking_steps.saturating_add(steps);
        }
        self.spend(steps)
    }

    /// Counts alternatives. The validator visits them twice: to decide, and to collect their
    /// errors, each of which gets a copy of its value.
    fn visit_alternatives(
        &mut self,
        schemas: &'s [Value],
        value: &Value,
        level: usize,
    ) -> Result<(), Excess> {
        let start = self.work;
        schemas
            .iter()
            .try_for_each(|schema| self.visit(schema, value, level))?;
        self.spend(self.work.steps - start.steps)?;
        let copies = 1 + self.size(value)? / 4;
        let inner =
            (self.work.errors - start.errors) + (self.work.inner_errors - start.inner_errors);
        self.work.errors = start.errors;
        self.work.inner_errors = start
            .inner_errors
            .saturating_add(inner.saturating_mul(copies));
        Ok(())
    }

    /// Returns the number of values in a value, and counts the cost of looking at all of them.
    fn size(&mut self, value: &Value) -> Result<u64, Excess> {
        self.spend(1 + width(value))?;
        let inner = match value {
            Value::Array(items) => items
                .iter()
                .try_fold(0, |sum: u64, item| Ok(sum + self.size(item)?))?,
            Value::Object(map) => map
                .values()
                .try_fold(0, |sum: u64, item| Ok(sum + self.size(item)?))?,
            _ => 0,
        };
        Ok(1 + width(value) + inner)
    }
}

fn is_container(value: &Value) -> bool {
    value.is_array() || value.is_object()
}

/// Returns the size of a value itself: members, items, or sixteenths of its text.
fn width(value: &Value) -> u64 {
    let width = match value {
        Value::Array(items) => items.len(),
        Value::Object(map) => map.len(),
        Value::String(text) => text.len() / 16,
        Value::Number(number) => number.as_str().len() / 16,
        Value::Null | Value::Bool(_) => 0,
    };
    width as u64
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn bound(schema: &Value, value: &Value) -> Result<Work, Excess> {
        // The walk needs a stack as large as the validator's.
        std::thread::scope(|scope| {
            let walk = || bound_work(schema, Some(value), 1_000_000);
            let thread = std::thread::Builder::new()
                .stack_size(64 << 20)
                .spawn_scoped(scope, walk)
                .expect("a thread");
            let (work, result) = thread.join().expect("no panic");
            result.map(|()| work)
        })
    }

    #[test]
    fn honest_schemas_cost_little() {
        let schema = json!({
            "definitions": { "Channel": {
                "type": "object", "required": ["wavelength_id"],
                "properties": { "wavelength_id": { "type": "string", "pattern": "^A[0-9]{2}_C[0-9]{2}$" }, "window": { "$ref": "#/definitions/Window" } },
            }, "Window": { "type": "object", "properties": { "start": { "type": "integer" } } } },
            "properties": { "channels": { "type": "array", "items": { "$ref": "#/definitions/Channel" } } },
        });
        let channel = json!({ "wavelength_id": "A01_C01", "window": { "start": 1 } });
        let work = bound(&schema, &json!({ "channels": vec![channel; 20] })).expect("little");
        assert!(work.steps < 10_000 && work.errors < 1000, "{work:?}");
        let numbers = json!({ "properties": { "x": { "items": { "type": "integer" } } } });
        assert!(bound(&numbers, &json!({ "x": vec![1; 50_000] })).is_ok());
    }

    #[test]
    fn a_tree_is_followed_as_deep_as_its_value() {
        let schema = json!({
            "$defs": { "Tree": { "properties": { "left": { "$ref": "#/$defs/Tree" }, "right": { "$ref": "#/$defs/Tree" } } } },
            "$ref": "#/$defs/Tree",
        });
        let tree = (0..100).fold(json!({}), |tree, _| json!({ "left": tree, "right": {} }));
        assert!(bound(&schema, &tree).is_ok());
    }

    #[test]
    fn each_kind_of_excess_is_found() {
        let check = |schema: Value, value: Value, expected: fn(&Excess) -> bool| {
            let excess = bound(&schema, &value).expect_err(&schema.to_string());
            assert!(expected(&excess), "{excess:?} of {schema}");
        };
        let doubling = |keyword: &str| {
            let link = |i: usize| json!({ keyword: [{ "$ref": format!("#/d/{}", i + 1) }, { "$ref": format!("#/d/{}", i + 1) }] });
            let mut links: Map<String, Value> = (0..40).map(|i| (i.to_string(), link(i))).collect();
            links.insert("40".to_owned(), json!({ "type": "integer" }));
            json!({ "d": links, "$ref": "#/d/0" })
        };
        check(doubling("allOf"), json!(1), |excess| {
            *excess == Excess::Steps
        });
        check(doubling("anyOf"), json!("no"), |excess| {
            *excess == Excess::Steps
        });
        check(json!({ "$ref": "#" }), json!(1), |excess| {
            *excess == Excess::Levels
        });
        check(
            json!({ "properties": { "x": { "pattern": "((a{1000}){1000}){1000}" } } }),
            json!({}),
            |excess| matches!(excess, Excess::Pattern(_)),
        );
        check(json!({ "$ref": "other.json" }), json!(1), |excess| {
            matches!(excess, Excess::Reference(_))
        });
        check(json!({ "$ref": "#/d/none" }), json!(1), |excess| {
            matches!(excess, Excess::Reference(_))
        });
        check(json!({ "d": { "$id": "http://x/" } }), json!(1), |excess| {
            *excess == Excess::Resource("$id")
        });
        check(
            json!({ "d": [{ "$anchor": "a" }, { "$anchor": "a" }] }),
            json!(1),
            |excess| matches!(excess, Excess::Anchor(_)),
        );
    }
}
