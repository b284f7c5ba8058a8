//! `args_schema` of a task: its defaults, and whether args fit it.

use std::collections::HashSet;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use jsonschema::error::ValidationErrorKind;
use jsonschema::{Draft, PatternOptions, Validator};

use super::misfit::Misfit;
use super::schema_bounds::{Work, bound_work};
use crate::fractal::v1::RESERVED_ARGUMENTS;
use crate::fractal::v1::document::TaskDocument;
use crate::json::{Map, Value};
use crate::problem::{Location, Problems, pointer_to};
use crate::text::wording::shortened;

/// The defaults of the top-level properties; a null default counts as none.
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

/// What all the schemas of a workflow or a package may take together. A short schema can ask for
/// years and gigabytes, and a document can hold it many times.
#[derive(Clone, Debug)]
pub struct SchemaBudget {
    steps_left: u64,
    time_left: Duration,
}

impl Default for SchemaBudget {
    /// About a second of work. The time is for what the steps do not foresee, on a machine that is
    /// busy.
    fn default() -> Self {
        Self {
            steps_left: 20_000_000,
            time_left: Duration::from_secs(10),
        }
    }
}

/// Validates args against their task's schema. Names that the runner fills in are neither asked for
/// nor refused.
///
/// A null that does not fit is a warning where the schema does not require its member: pydantic v1
/// writes `Optional[int]` as `{"type": "integer"}`, so the schema of such an argument cannot allow
/// its null.
///
/// * `args`: defaults and given args together.
/// * `args_place`: the place of a named argument, or of all args.
pub fn check_args(
    task: &TaskDocument,
    args: &Map<String, Value>,
    args_place: impl Fn(&str) -> Location,
    budget: &mut SchemaBudget,
    problems: &mut Problems,
) {
    let Some(schema) = schema_of(task, budget, problems) else {
        return;
    };
    let checked: Map<_, _> = args
        .iter()
        .filter(|(name, _)| !is_reserved(Some(name)))
        .map(clone_entry)
        .collect();
    let found = find_misfits(
        task,
        schema.clone(),
        Value::Object(checked),
        budget,
        problems,
    );
    let mut seen = HashSet::new();
    for Misfit { pointer, text, .. } in found.misfits {
        let place = args_place(&pointer);
        let text = format!("does not fit the task's args_schema: {text}");
        if seen.insert((place.to_string(), text.clone())) {
            problems.add(place, text);
        }
    }
    if let Some(first) = found.nulls.first() {
        problems.warn(args_place(first), null_text(&found.nulls));
    }
}

/// Checks that the schema of a task is one, and that its own defaults fit it.
pub fn check_defaults(task: &TaskDocument, budget: &mut SchemaBudget, problems: &mut Problems) {
    let Some(schema) = schema_of(task, budget, problems) else {
        return;
    };
    let mut optional = schema.clone();
    // What has no default is for the user to give.
    optional.shift_remove("required");
    let defaults = Value::Object(default_args(task.args_schema.as_ref()));
    let found = find_misfits(task, optional, defaults, budget, problems);
    let location_of = |at: &str| match at
        .strip_prefix('/')
        .map(|at| at.split_once('/').unwrap_or((at, "")))
    {
        None => task.location_of("args_schema"),
        Some((name, "")) => task.location_of(&format!("args_schema/properties/{name}/default")),
        Some((name, rest)) => {
            task.location_of(&format!("args_schema/properties/{name}/default/{rest}"))
        }
    };
    for Misfit { pointer, text, .. } in found.misfits {
        problems.add(
            location_of(&pointer),
            format!("the default does not fit its own schema: {text}"),
        );
    }
    if let Some(first) = found.nulls.first() {
        problems.warn(location_of(first), null_text(&found.nulls));
    }
}

/// The schema of a task, if it has one that is not too large to be copied and compiled.
fn schema_of<'t>(
    task: &'t TaskDocument,
    budget: &mut SchemaBudget,
    problems: &mut Problems,
) -> Option<&'t Map<String, Value>> {
    let schema = task.args_schema.as_ref()?;
    let (work, result) = bound_work(schema, None, budget.steps_left);
    if let Err(excess) = result {
        budget.steps_left = budget.steps_left.saturating_sub(work.steps);
        add_problem(task, &excess.to_string(), problems);
        return None;
    }
    task.cursor("args_schema", schema).object(problems)
}

fn add_problem(task: &TaskDocument, text: &str, problems: &mut Problems) {
    problems.add(
        task.location_of("args_schema"),
        format!("{text} (task \"{}\")", task.name),
    );
}

fn null_text(nulls: &[String]) -> String {
    /// Names in the text.
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
        "the args_schema does not allow null for {}; null is passed to the task, as for an \
         optional argument",
        names.join(", ")
    )
}

/// What of a value does not fit a schema.
#[derive(Debug, Default)]
struct Found {
    misfits: Vec<Misfit>,
    /// JSON pointers of nulls that only fit as missing members.
    nulls: Vec<String>,
}

/// What the thread of a validator answers.
struct Answer {
    /// Steps that the schema was worth.
    steps: u64,
    /// What was found, or why the schema is no good.
    found: Result<Found, String>,
}

/// What of a value does not fit a task's schema. Problems of the schema itself go to `problems`.
fn find_misfits(
    task: &TaskDocument,
    schema: Map<String, Value>,
    value: Value,
    budget: &mut SchemaBudget,
    problems: &mut Problems,
) -> Found {
    /// The deepest walk that is allowed takes a tenth.
    const STACK_BYTES: usize = 64 << 20;
    let max_steps = budget.steps_left;
    let (send, receive) = channel();
    let started = Instant::now();
    let builder = std::thread::Builder::new()
        .name("mandelbox-schema".to_owned())
        .stack_size(STACK_BYTES);
    // Nothing ends a validator: past its time its thread is left to itself.
    let thread = builder.spawn(move || {
        // Nobody waits any more if the time is over.
        let _ = send.send(validate(relaxed(schema), &value, max_steps));
    });
    let answer = match thread {
        Ok(_) => receive.recv_timeout(budget.time_left),
        Err(err) => {
            add_problem(
                task,
                &format!("cannot be checked: no thread can be started: {err}"),
                problems,
            );
            return Found::default();
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
    add_problem(task, &text, problems);
    Found::default()
}

/// The schema without what it requires of reserved names.
fn relaxed(mut schema: Map<String, Value>) -> Map<String, Value> {
    if let Some(Value::Array(required)) = schema.get_mut("required") {
        required.retain(|name| !is_reserved(name.as_str()));
        if required.is_empty() {
            // Early drafts ask for one name at least.
            schema.shift_remove("required");
        }
    }
    schema
}

fn validate(schema: Map<String, Value>, value: &Value, max_steps: u64) -> Answer {
    /// A pattern with lookaround or back references is tried that often at a place of a text.
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
        Ok(validator) if validator.is_valid(value) => Ok(Found::default()),
        Ok(validator) => Ok(explain(&validator, &schema, value, work)),
        Err(err) => Err(format!("is no valid JSON Schema: {}", shortened(&err, 300))),
    };
    // A value that does not fit is looked at four times: whether and where, and both again without
    // its nulls.
    let n_looks = if matches!(&found, Ok(found) if found.misfits.is_empty() && found.nulls.is_empty())
    {
        1
    } else {
        4
    };
    Answer {
        steps: work.steps.saturating_mul(n_looks),
        found,
    }
}

/// The draft of a schema that does not name one, by the keywords that it uses; `None` if it names
/// one.
///
/// pydantic v1 writes draft 7 and pydantic v2 2020-12, and neither says so.
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
        // Since 2020 these are `prefixItems`.
        has_item_lists |= schema.get("items").is_some_and(Value::is_array);
    });
    Some(match (is_2020, is_2019, has_item_lists) {
        (true, ..) | (false, true, false) => Draft::Draft202012,
        (false, true, true) => Draft::Draft201909,
        (false, false, _) => Draft::Draft7,
    })
}

/// Calls `see` with a schema and every schema in it.
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

/// Misfits of a value that does not fit. A null that does not fit counts as a missing member; it is
/// a misfit only if the member is required.
fn explain(validator: &Validator, schema: &Value, value: &Value, work: Work) -> Found {
    let (misfits, nulls) = collect(validator, schema, value, work);
    let mut without = value.clone();
    let nulls: Vec<_> = nulls
        .into_iter()
        .filter(|pointer| remove_member(&mut without, pointer))
        .collect();
    if nulls.is_empty() {
        return Found { misfits, nulls };
    }
    if validator.is_valid(&without) {
        return Found {
            misfits: Vec::new(),
            nulls,
        };
    }
    let (remaining, _) = collect(validator, schema, &without, work);
    let is_missed = |pointer: &String| {
        remaining
            .iter()
            .any(|misfit| misfit.missing.as_ref() == Some(pointer))
    };
    let (required, nulls): (Vec<_>, Vec<_>) = nulls.into_iter().partition(is_missed);
    // A required null is told as the null that it is, and not as a missing member.
    let of_nulls = misfits
        .into_iter()
        .filter(|misfit| required.contains(&misfit.pointer));
    let others = remaining.into_iter().filter(|misfit| {
        !misfit
            .missing
            .as_ref()
            .is_some_and(|it| required.contains(it))
    });
    Found {
        misfits: of_nulls.chain(others).collect(),
        nulls,
    }
}

/// Removes the member of an object at a JSON pointer; false if there is none.
fn remove_member(value: &mut Value, pointer: &str) -> bool {
    let Some((parent, name)) = pointer.rsplit_once('/') else {
        return false;
    };
    let name = name.replace("~1", "/").replace("~0", "~");
    let parent = value.pointer_mut(parent).and_then(Value::as_object_mut);
    parent.is_some_and(|parent| parent.shift_remove(&name).is_some())
}

/// The first misfits, and JSON pointers of the nulls that these and all others may be about.
fn collect(
    validator: &Validator,
    schema: &Value,
    value: &Value,
    work: Work,
) -> (Vec<Misfit>, Vec<String>) {
    /// Misfits that are told.
    const MAX_TOLD: usize = 100;
    /// Errors that are held at a time, see [`Work::errors`].
    const MAX_ERRORS: u64 = 200_000;
    if work.inner_errors > MAX_ERRORS {
        let text =
            "it has too many alternatives, or the value too many parts, to tell where".to_owned();
        return (
            vec![Misfit {
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
            .map(|err| Misfit::new(&err, schema));
        return (first.into_iter().collect(), Vec::new());
    }
    let (mut misfits, mut nulls) = (Vec::new(), Vec::new());
    for err in validator.iter_errors(value) {
        let pointer = err.instance_path().to_string();
        match err.kind() {
            // Inside of alternatives each is about other parts.
            ValidationErrorKind::AnyOf { .. } | ValidationErrorKind::OneOfNotValid { .. } => {
                add_nulls(err.instance(), &pointer, &mut nulls);
            }
            _ if err.instance().is_null() => nulls.push(pointer),
            _ => {}
        }
        if misfits.len() < MAX_TOLD {
            misfits.push(Misfit::new(&err, schema));
        }
    }
    nulls.sort();
    nulls.dedup();
    (misfits, nulls)
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

fn is_reserved(name: Option<&str>) -> bool {
    name.is_some_and(|name| RESERVED_ARGUMENTS.contains(&name))
}

fn clone_entry((name, value): (&String, &Value)) -> (String, Value) {
    (name.clone(), value.clone())
}
