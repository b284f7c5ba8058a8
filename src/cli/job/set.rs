//! `--set TASK.KEY=VALUE`: arguments that replace those of the workflow.

use super::position;
use crate::cli::arguments::SetArgument;
use crate::fractal::v1;
use crate::fractal::v2::{
    Package, RESERVED_ARGUMENTS, Side, TaskDocument, TaskReference, WorkflowDocument, WorkflowTask,
    find_task,
};
use crate::json::{Map, Value};
use crate::problem::{Location, Problems};

/// Sets arguments of a workflow of version 1.
///
/// * `names`: names of each task.
pub(super) fn apply_v1(
    given: &[SetArgument],
    workflow: &mut v1::WorkflowDocument,
    names: &[Vec<String>],
    problems: &mut Problems,
) {
    for argument in given {
        let result = find(argument, names).and_then(|(index, path)| {
            let args = workflow.task_list[index].args.get_or_insert_default();
            insert(args, path, &argument.value)
        });
        report(argument, result, problems);
    }
}

/// Sets arguments of a workflow of version 2. The key of a task with both kinds of calls goes to
/// the kind that has it, in the workflow or in the schema; `args_parallel.KEY` and
/// `args_non_parallel.KEY` choose one.
///
/// * `names`: names of each task.
pub(super) fn apply_v2(
    given: &[SetArgument],
    workflow: &mut WorkflowDocument,
    packages: &[Package],
    names: &[Vec<String>],
    problems: &mut Problems,
) {
    for argument in given {
        let result = find(argument, names).and_then(|(index, path)| {
            let entry = &mut workflow.task_list[index];
            let (side, path) = side_of(entry, packages, path)?;
            let key = path.split('.').next().unwrap_or_default();
            if RESERVED_ARGUMENTS.contains(&key) {
                return Err(format!("`{key}` is reserved: each call gets its own"));
            }
            let args = match side {
                Side::NonParallel => &mut entry.non_parallel.args,
                Side::Parallel => &mut entry.parallel.args,
            };
            insert(args, path, &argument.value)
        });
        report(argument, result, problems);
    }
}

fn report(argument: &SetArgument, result: Result<(), String>, problems: &mut Problems) {
    if let Err(text) = result {
        let location = Location::Parameter(format!("--set {}", argument.target));
        problems.add(location, text);
    }
}

/// Returns the position of the task and the path of the key. The name of a task can contain dots:
/// the longest that fits counts.
fn find<'a>(argument: &'a SetArgument, names: &[Vec<String>]) -> Result<(usize, &'a str), String> {
    let target = argument.target.as_str();
    let splits = target.rmatch_indices('.').map(|(at, _)| at);
    let mut first_error = None;
    for at in splits {
        let (task, path) = (&target[..at], &target[at + 1..]);
        match position(task, names) {
            Ok(index) => {
                let index = usize::try_from(index).ok();
                let index = index.filter(|index| *index < names.len());
                let index = index.ok_or_else(|| format!("there is no task {task}"))?;
                return Ok((index, path));
            }
            Err(text) => first_error = Some(text),
        }
    }
    Err(first_error.unwrap_or_else(|| "must be TASK.KEY=VALUE".to_owned()))
}

/// Sets the value at a path of keys that are separated by dots; objects on the way are created.
fn insert(args: &mut Map<String, Value>, path: &str, value: &Value) -> Result<(), String> {
    let mut map = args;
    let mut keys: Vec<_> = path.split('.').collect();
    let last = keys.pop().unwrap_or_default();
    for key in keys.iter().chain([&last]) {
        if key.is_empty() {
            return Err("a key must not be empty".to_owned());
        }
    }
    for key in keys {
        let inner = map
            .entry(key.to_owned())
            .or_insert_with(|| Value::Object(Map::new()));
        map = match inner {
            Value::Object(inner) => inner,
            other => return Err(format!("`{key}` is {other}, not an object")),
        };
    }
    map.insert(last.to_owned(), value.clone());
    Ok(())
}

/// Returns the kind of calls that a key belongs to, and its path.
fn side_of<'a>(
    entry: &WorkflowTask,
    packages: &[Package],
    path: &'a str,
) -> Result<(Side, &'a str), String> {
    for side in Side::ALL {
        let prefix = format!("args_{}.", side.name());
        if let Some(rest) = path.strip_prefix(&prefix) {
            return Ok((side, rest));
        }
    }
    let task = task_of(entry, packages);
    let has_side = |side: &Side| task.is_none_or(|task| task.side(*side).is_some());
    let sides: Vec<_> = Side::ALL.into_iter().filter(has_side).collect();
    let key = path.split('.').next().unwrap_or_default();
    let is_given = |side: &Side| entry.side(*side).args.contains_key(key);
    let is_in_schema = |side: &Side| {
        let schema = task.and_then(|task| task.side(*side)?.args_schema.as_ref());
        schema.is_some_and(|schema| schema["properties"].get(key).is_some())
    };
    for candidates in [
        sides.clone(),
        sides.iter().copied().filter(is_given).collect(),
        sides.iter().copied().filter(is_in_schema).collect(),
    ] {
        if let [side] = candidates[..] {
            return Ok((side, path));
        }
    }
    Err(format!(
        "the task has two kinds of calls; write `args_non_parallel.{path}` or \
         `args_parallel.{path}`"
    ))
}

fn task_of<'a>(entry: &'a WorkflowTask, packages: &'a [Package]) -> Option<&'a TaskDocument> {
    match &entry.task {
        TaskReference::Inline(task) => Some(task),
        TaskReference::Package {
            pkg_name,
            version,
            name,
        } => find_task(packages, pkg_name, version.as_deref(), name)
            .ok()
            .map(|found| found.task),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_with_dots_and_nested_keys() {
        let names = ["Convert v0.4", "b"].map(|name| vec![name.to_owned()]);
        let target = |target: &str| {
            let argument = SetArgument {
                target: target.to_owned(),
                value: Value::Null,
            };
            find(&argument, &names).map(|(index, path)| (index, path.to_owned()))
        };
        assert_eq!(target("Convert v0.4.size"), Ok((0, "size".to_owned())));
        assert_eq!(target("1.a.b"), Ok((1, "a.b".to_owned())));
        assert_eq!(target("b.a.b"), Ok((1, "a.b".to_owned())));
        assert!(target("c.x").is_err() && target("7.x").is_err() && target("x").is_err());
        let mut args = json!({"a": {"c": 1}, "n": 2})
            .as_object()
            .cloned()
            .expect("an object");
        insert(&mut args, "a.b", &json!("x")).expect("set");
        insert(&mut args, "new.deep", &json!(1)).expect("set");
        assert!(insert(&mut args, "n.x", &json!(1)).is_err());
        assert!(insert(&mut args, "a..x", &json!(1)).is_err());
        let expected = json!({"a": {"c": 1, "b": "x"}, "n": 2, "new": {"deep": 1}});
        assert_eq!(Value::Object(args), expected);
    }
}
