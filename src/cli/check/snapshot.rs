//! Snapshots of the tasks of a package: made by a check as by a run, so that an author sees what a
//! run will do.

use std::path::Path;

use serde_json::{Value, json};

use super::Checker;
use super::lines::Lines;
use crate::backend::{NoSnapshot, WantedSnapshot};
use crate::model::{CancelToken, ModuleFile, ModuleRef, Modules};
use crate::plan::read_requested;
use crate::problem::{Cursor, Problems};
use crate::text::{bytes_text, duration_text};

/// Makes the snapshot of a task, if the task requests one, and adds a line about it. If there is
/// none, the reason goes to `problems`.
///
/// * `meta`: meta of the task.
/// * `folder`: folder that the task's mounts are relative to.
/// * `module`: module of the task.
///
/// Returns facts about the snapshot; null if the task requests none.
pub(super) fn add_snapshot(
    task: &str,
    meta: &Cursor<'_>,
    folder: &Path,
    module: &Path,
    checker: &Checker,
    lines: &mut Lines,
    problems: &mut Problems,
) -> Value {
    let policy = &checker.policy;
    let mut found = Problems::default();
    let requested = read_requested(|_| meta.clone(), folder, policy, &mut found);
    let Some(spec) = policy.snapshot(requested.snapshot, || requested.mounts.clone()) else {
        return Value::Null;
    };
    if !found.is_empty() {
        // A check without a policy does not report what the policy of a run may allow.
        let why = found.to_string();
        lines.add(&format!("snapshot of \"{task}\": not tried ({why})"));
        return json!({ "task": task, "not_tried": why });
    }
    let (limits, _) =
        policy
            .default
            .clamp_to(requested.memory_bytes, requested.wall_time, &policy.maximum);
    let made = ModuleFile::read(module, limits.module_bytes).and_then(|file| {
        checker
            .backend
            .prepare_snapshots(&file, &limits, policy.compile_time)?;
        let wanted = WantedSnapshot {
            module: &ModuleRef::from(&file),
            mounts: &spec.mounts,
            limits: &limits,
            init_time: spec.init_time,
            cancel: &CancelToken::new(),
        };
        let made = checker.backend.snapshot(&wanted, &mut || {});
        made.map_err(|no| match no {
            NoSnapshot::Cancelled => "cancelled".to_owned(),
            NoSnapshot::Refused(text) | NoSnapshot::Host(text) => text,
        })
    });
    match made {
        Ok(made) => {
            let how = match made.init_time {
                Some(time) => format!("made in {}", duration_text(time)),
                None => "found in the cache".to_owned(),
            };
            let memory = bytes_text(made.memory_bytes);
            lines.add(&format!(
                "snapshot of \"{task}\": {how}, {memory} of memory"
            ));
            json!({
                "task": task,
                "memory_bytes": made.memory_bytes,
                "init_time_s": made.init_time.map(|time| time.as_secs_f64()),
            })
        }
        Err(text) => {
            let own = meta.get("mandelbox");
            let location = own.map_or(meta.location(), |own| own.location_of("snapshot"));
            problems.add(location, text);
            Value::Null
        }
    }
}
