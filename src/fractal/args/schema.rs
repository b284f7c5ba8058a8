//! The `args_schema` of a task: its defaults, and the validation of args.

use std::collections::HashSet;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use jsonschema::error::ValidationErrorKind;
use jsonschema::{Draft, PatternOptions, Validator};

use super::mismatch::Mismatch;
use super::schema_bounds::{Work, bound_work};
use crate::json::{Map, Value};
use crate::problem::{Cursor, Location, Problems, pointer_to};
use crate::text::wording::shortened;

/// The schema of a task's args, with its location.
#[derive(Clone, Debug)]
pub struct ArgsSchema<'t> {
    /// The JSON Schema.
    pub schema: &'t Value,
    /// Name of the task.
    pub task: &'t str,
    /// File of the schema.
    pub file: &'t Path,
    /// JSON pointer of the schema in the file.
    pub pointer: String,
    /// Names of arguments that the runner fills in.
    pub reserved: &'t [&'t str],
}

impl ArgsSchema<'_> {
    /// Returns the location of a part of the schema.
    ///
    /// * `below`: JSON pointer of the part in the schema.
    pub fn location(&self, below: &str) -> Location {
        Location::Pointer {
            file: self.file.to_owned(),
            pointer: format!("{}{below}", self.pointer),
        }
    }

    /// Returns the schema, unless it is so large that it must not be copied and compiled.
    fn bounded(
        &self,
        budget: &mut SchemaBudget,
        problems: &mut Problems,
    ) -> Option<&Map<String, Value>> {
        let (work, result) = bound_work(self.schema, None, budget.steps_left);
        if let Err(excess) = result {
            budget.steps_left = budget.steps_left.saturating_sub(work.steps);
            self.add_problem(&excess.to_string(), problems);
            return None;
        }
        Cursor::at(self.file, self.pointer.clone(), self.schema).object(problems)
    }

    fn add_problem(&self, text: &str, problems: &mut Problems) {
        problems.add(
            self.location(""),
            format!("{text} (task \"{}\")", self.task),
        );
    }

    fn is_reserved(&self, name: Option<&str>) -> bool {
        name.is_some_and(|name| self.reserved.contains(&name))
    }
}

/// Returns the defaults of the top-level properties; a null default counts as none.
///
/// Source: fractal-server 2.9.2, `Task.default_args_from_args_schema`.
pub fn default_args(schema: Option<&Value>) -> Map<String, Value> {
    let properties = schema
        .and_then(|schema| schema.get("properties"))
        .and_then(Value::as_object);
    let defaults = properties
        .into_iter()
        .flatten()
        .filter_map(|(name, property)| {
            let default = property
                .get("default")
                .filter(|default| !default.is_null())?;
            Some((name.clone(), default.clone()))
        });
    defaults.collect()
}

/// Budget for all schemas of a workflow or a package together. A short schema can require years and
/// gigabytes, and a document can contain it many times.
#[derive(Clone, Debug)]
pub struct SchemaBudget {
    steps_left: u64,
    time_left: Duration,
}

impl Default for SchemaBudget {
    /// Returns a budget of about one second of work. The time limit is a second safeguard, for
    /// costs that the steps do not predict; it is longer for the sake of busy machines.
    fn default() -> Self {
        Self {
            steps_left: 20_000_000,
            time_left: Duration::from_secs(10),
        }
    }
}

/// Validates args against their task's schema. Names that the runner fills in are neither required
/// nor refused.
///
/// A null that does not match is a warning if the schema does not require its member: pydantic v1
/// writes `Optional[int]` as `{"type": "integer"}`, so the schema of such an argument cannot allow
/// null.
///
/// * `args`: defaults and given args together.
/// * `args_location`: returns the location of a named argument, or of all args.
pub fn check_args(
    schema: &ArgsSchema<'_>,
    args: &Map<String, Value>,
    args_location: impl Fn(&str) -> Location,
    budget: &mut SchemaBudget,
    problems: &mut Problems,
) {
    let Some(map) = schema.bounded(budget, problems) else {
        return;
    };
    let checked: Map<_, _> = args
        .iter()
        .filter(|(name, _)| !schema.is_reserved(Some(name)))
        .map(clone_entry)
        .collect();
    let found = find_mismatches(
        schema,
        map.clone(),
        Value::Object(checked),
        budget,
        problems,
    );
    let mut seen = HashSet::new();
    for Mismatch { pointer, text, .. } in found.mismatches {
        let location = args_location(&pointer);
        let text = format!("does not match the task's `args_schema`: {text}");
        if seen.insert((location.to_string(), text.clone())) {
            problems.add(location, text);
        }
    }
    if let Some(first) = found.nulls.first() {
        problems.warn(args_location(first), null_text(&found.nulls));
    }
}

/// Checks that the schema of a task is valid, and that its own defaults match it.
pub fn check_defaults(schema: &ArgsSchema<'_>, budget: &mut SchemaBudget, problems: &mut Problems) {
    let Some(map) = schema.bounded(budget, problems) else {
        return;
    };
    let mut optional = map.clone();
    // The user must give the arguments without a default.
    optional.shift_remove("required");
    let defaults = Value::Object(default_args(Some(schema.schema)));
    let found = find_mismatches(schema, optional, defaults, budget, problems);
    let location_of = |at: &str| match at
        .strip_prefix('/')
        .map(|at| at.split_once('/').unwrap_or((at, "")))
    {
        None => schema.location(""),
        Some((name, "")) => schema.location(&format!("/properties/{name}/default")),
        Some((name, rest)) => schema.location(&format!("/properties/{name}/default/{rest}")),
    };
    for Mismatch { pointer, text, .. } in found.mismatches {
        problems.add(
            location_of(&pointer),
            format!("the default does not match its own schema: {text}"),
        );
    }
    if let Some(first) = found.nulls.first() {
        problems.warn(location_of(first), null_text(&found.nulls));
    }
}

fn null_text(nulls: &[String]) -> String {
    /// Maximum number of names in the text.
    const SHOWN: usize = 8;
    let mut names: Vec<_> = nulls
        .iter()
        .take(SHOWN)
        .map(|name| format!("`{}`", &name[1..]))
        .collect();
    if nulls.len() > SHOWN {
        names.push("...".to_owned());
    }
    format!(
        "the `args_schema` does not allow null for {}; null is passed to the task, as for an \
         optional argument",
        names.join(", ")
    )
}

/// Mismatches between a value and a schema.
#[derive(Debug, Default)]
struct Comparison {
    mismatches: Vec<Mismatch>,
    /// JSON pointers of nulls that only match as missing members.
    nulls: Vec<String>,
}

/// Answer of a validator's thread.
struct Answer {
    /// Steps that the schema cost.
    steps: u64,
    /// The mismatches, or the reason why the schema is invalid.
    found: Result<Comparison, String>,
}

/// Finds the mismatches between a value and a task's schema. Adds problems of the schema itself to
/// `problems`.
fn find_mismatches(
    source: &ArgsSchema<'_>,
    schema: Map<String, Value>,
    value: Value,
    budget: &mut SchemaBudget,
    problems: &mut Problems,
) -> Comparison {
    /// Stack size of the thread. The deepest walk that is allowed takes a tenth of it.
    const STACK_BYTES: usize = 64 << 20;
    let max_steps = budget.steps_left;
    let schema = relaxed(schema, source);
    let (send, receive) = channel();
    let started = Instant::now();
    let builder = std::thread::Builder::new()
        .name("mandelbox-schema".to_owned())
        .stack_size(STACK_BYTES);
    // A validator cannot be interrupted: when its time is over, its thread is abandoned.
    let thread = builder.spawn(move || {
        // The receiver is gone if the time is over.
        let _ = send.send(validate(schema, &value, max_steps));
    });
    let answer = match thread {
        Ok(_) => receive.recv_timeout(budget.time_left),
        Err(err) => {
            source.add_problem(
                &format!("cannot be checked: failed to start a thread: {err}"),
                problems,
            );
            return Comparison::default();
        }
    };
    budget.time_left = budget.time_left.saturating_sub(started.elapsed());
    let text = match answer {
        Ok(Answer { steps, found }) => {
            budget.steps_left = budget.steps_left.saturating_sub(steps);
            match found {
                Ok(found) => return found,
                Err(text) => text,
            }
        }
        Err(RecvTimeoutError::Timeout) => {
            "takes too long to check, or those before it do; simplify its patterns and references"
                .to_owned()
        }
        Err(RecvTimeoutError::Disconnected) => {
            "cannot be checked: the validator panicked".to_owned()
        }
    };
    source.add_problem(&text, problems);
    Comparison::default()
}

/// Returns the schema, without its requirements for reserved names.
fn relaxed(mut schema: Map<String, Value>, source: &ArgsSchema<'_>) -> Map<String, Value> {
    if let Some(Value::Array(required)) = schema.get_mut("required") {
        required.retain(|name| !source.is_reserved(name.as_str()));
        if required.is_empty() {
            // Early drafts require at least one name.
            schema.shift_remove("required");
        }
    }
    schema
}

/// Returns the validator of a schema, which does not require reserved names; `None` if the schema
/// is invalid.
#[cfg(feature = "cli")]
pub(super) fn compiled(source: &ArgsSchema<'_>) -> Option<Validator> {
    let schema = relaxed(source.schema.as_object()?.clone(), source);
    let options = jsonschema::options();
    let options = draft_of(&schema).map_or(options.clone(), |draft| options.with_draft(draft));
    options.build(&Value::Object(schema)).ok()
}

fn validate(schema: Map<String, Value>, value: &Value, max_steps: u64) -> Answer {
    /// Maximum number of attempts to match a pattern with lookaround or back references at one
    /// position of a text.
    const MAX_BACKTRACKS: usize = 10_000;
    let draft = draft_of(&schema);
    let schema = Value::Object(schema);
    let (work, result) = bound_work(&schema, Some(value), max_steps);
    if let Err(excess) = result {
        return Answer {
            steps: work.steps,
            found: Err(excess.to_string()),
        };
    }
    let options = jsonschema::options();
    let options = draft.map_or(options.clone(), |draft| options.with_draft(draft));
    let options =
        options.with_pattern_options(PatternOptions::fancy_regex().backtrack_limit(MAX_BACKTRACKS));
    let found = match options.build(&schema) {
        Ok(validator) if validator.is_valid(value) => Ok(Comparison::default()),
        Ok(validator) => Ok(explain(&validator, &schema, value, work)),
        Err(err) => Err(format!(
            "is not a valid JSON Schema: {}",
            shortened(&err, 300)
        )),
    };
    // A value that does not match is visited four times: to decide and to collect the errors, and
    // both again without its nulls.
    let fits = |found: &Comparison| found.mismatches.is_empty() && found.nulls.is_empty();
    let n_visits = if found.as_ref().is_ok_and(fits) { 1 } else { 4 };
    Answer {
        steps: work.steps.saturating_mul(n_visits),
        found,
    }
}

/// Finds the draft of a schema that does not name one, from the keywords that it uses; `None` if it
/// names one.
///
/// pydantic v1 writes draft 7 and pydantic v2 writes 2020-12, and neither names its draft.
fn draft_of(schema: &Map<String, Value>) -> Option<Draft> {
    const SINCE_2020: [&str; 3] = ["prefixItems", "$dynamicRef", "$dynamicAnchor"];
    const SINCE_2019: [&str; 9] = [
        "$defs",
        "$anchor",
        "$recursiveRef",
        "dependentRequired",
        "dependentSchemas",
        "maxContains",
        "minContains",
        "unevaluatedItems",
        "unevaluatedProperties",
    ];
    if schema.contains_key("$schema") {
        return None;
    }
    let (mut is_2020, mut is_2019, mut has_item_lists) = (false, false, false);
    for_each_schema(schema, &mut |schema| {
        let has = |keywords: &[&str]| keywords.iter().any(|keyword| schema.contains_key(*keyword));
        is_2020 |= has(&SINCE_2020);
        is_2019 |= has(&SINCE_2019);
        // Since 2020 the keyword for these is `prefixItems`.
        has_item_lists |= schema.get("items").is_some_and(Value::is_array);
    });
    Some(match (is_2020, is_2019, has_item_lists) {
        (true, ..) | (false, true, false) => Draft::Draft202012,
        (false, true, true) => Draft::Draft201909,
        (false, false, _) => Draft::Draft7,
    })
}

/// Calls `see` for a schema and every schema in it.
fn for_each_schema(schema: &Map<String, Value>, see: &mut impl FnMut(&Map<String, Value>)) {
    /// Keywords whose value is an object of schemas.
    const OF_NAMED: [&str; 6] = [
        "$defs",
        "definitions",
        "dependencies",
        "dependentSchemas",
        "patternProperties",
        "properties",
    ];
    /// Keywords whose value is a schema, or an array of schemas.
    const OF_SCHEMAS: [&str; 15] = [
        "additionalItems",
        "additionalProperties",
        "allOf",
        "anyOf",
        "contains",
        "else",
        "if",
        "items",
        "not",
        "oneOf",
        "prefixItems",
        "propertyNames",
        "then",
        "unevaluatedItems",
        "unevaluatedProperties",
    ];
    see(schema);
    for (keyword, value) in schema {
        let inner: Vec<&Value> = match value {
            Value::Object(map) if OF_NAMED.contains(&keyword.as_str()) => map.values().collect(),
            Value::Array(items) if OF_SCHEMAS.contains(&keyword.as_str()) => items.iter().collect(),
            value if OF_SCHEMAS.contains(&keyword.as_str()) => vec![value],
            _ => continue,
        };
        for inner in inner.into_iter().filter_map(Value::as_object) {
            for_each_schema(inner, see);
        }
    }
}

/// Returns the mismatches of a value that does not match. A null that does not match counts as a
/// missing member, and is a mismatch only if the member is required.
fn explain(validator: &Validator, schema: &Value, value: &Value, work: Work) -> Comparison {
    let (mismatches, nulls) = collect(validator, schema, value, work);
    let mut without = value.clone();
    let nulls: Vec<_> = nulls
        .into_iter()
        .filter(|pointer| remove_member(&mut without, pointer))
        .collect();
    if nulls.is_empty() {
        return Comparison { mismatches, nulls };
    }
    if validator.is_valid(&without) {
        return Comparison {
            mismatches: Vec::new(),
            nulls,
        };
    }
    let (remaining, _) = collect(validator, schema, &without, work);
    let is_missed = |pointer: &String| {
        remaining
            .iter()
            .any(|mismatch| mismatch.missing.as_ref() == Some(pointer))
    };
    let (required, nulls): (Vec<_>, Vec<_>) = nulls.into_iter().partition(is_missed);
    // A required null is reported as the null that it is, not as a missing member.
    let of_nulls = mismatches
        .into_iter()
        .filter(|mismatch| required.contains(&mismatch.pointer));
    let others = remaining.into_iter().filter(|mismatch| {
        !mismatch
            .missing
            .as_ref()
            .is_some_and(|it| required.contains(it))
    });
    Comparison {
        mismatches: of_nulls.chain(others).collect(),
        nulls,
    }
}

/// Removes the member of an object at a JSON pointer. Returns false if it does not exist.
fn remove_member(value: &mut Value, pointer: &str) -> bool {
    let Some((parent, name)) = pointer.rsplit_once('/') else {
        return false;
    };
    let name = name.replace("~1", "/").replace("~0", "~");
    let parent = value.pointer_mut(parent).and_then(Value::as_object_mut);
    parent.is_some_and(|parent| parent.shift_remove(&name).is_some())
}

/// Returns the first mismatches, and the JSON pointers of the nulls that any mismatch may be about.
fn collect(
    validator: &Validator,
    schema: &Value,
    value: &Value,
    work: Work,
) -> (Vec<Mismatch>, Vec<String>) {
    /// Maximum number of mismatches that are reported.
    const MAX_REPORTED: usize = 100;
    /// Maximum number of errors in memory at a time; see [`Work::errors`].
    const MAX_ERRORS: u64 = 200_000;
    if work.inner_errors > MAX_ERRORS {
        let text =
            "the schema has too many alternatives, or the value too many parts, to locate the \
             mismatch"
                .to_owned();
        return (
            vec![Mismatch {
                pointer: String::new(),
                text,
                missing: None,
            }],
            Vec::new(),
        );
    }
    if work.errors > MAX_ERRORS {
        let first = validator
            .validate(value)
            .err()
            .map(|err| Mismatch::new(&err, schema));
        return (first.into_iter().collect(), Vec::new());
    }
    let (mut mismatches, mut nulls) = (Vec::new(), Vec::new());
    for err in validator.iter_errors(value) {
        let pointer = err.instance_path().to_string();
        match err.kind() {
            // Each alternative may have failed because of another part of the value.
            ValidationErrorKind::AnyOf { .. } | ValidationErrorKind::OneOfNotValid { .. } => {
                add_nulls(err.instance(), &pointer, &mut nulls);
            }
            _ if err.instance().is_null() => nulls.push(pointer),
            _ => {}
        }
        if mismatches.len() < MAX_REPORTED {
            mismatches.push(Mismatch::new(&err, schema));
        }
    }
    nulls.sort();
    nulls.dedup();
    (mismatches, nulls)
}

/// Adds the JSON pointers of a null, and of the nulls that are members of an object.
fn add_nulls(value: &Value, pointer: &str, nulls: &mut Vec<String>) {
    match value {
        Value::Null => nulls.push(pointer.to_owned()),
        Value::Object(members) => {
            for (name, member) in members {
                add_nulls(member, &pointer_to(pointer, name), nulls);
            }
        }
        _ => {}
    }
}

fn clone_entry((name, value): (&String, &Value)) -> (String, Value) {
    (name.clone(), value.clone())
}
