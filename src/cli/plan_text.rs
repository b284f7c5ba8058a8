//! Output of `--dry-run`.

use std::fmt::Write as _;

use crate::fractal::dialect::Preview;
use crate::model::{Rights, TaskSpec};
use crate::run::PreparedRun;
use crate::text::{bytes_text, escaped};

pub(super) fn plan_text(run: &PreparedRun) -> String {
    let mut text = String::new();
    let path = |path: &std::path::Path| escaped(&path.to_string_lossy());
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "workflow \"{}\": {} to run",
        escaped(&run.plan.workflow_name),
        tasks(run.plan.tasks.len())
    );
    let _ = writeln!(text, "  work directory  {}", path(&run.work_dir));
    for grant in &run.grants {
        let rights = match grant.rights {
            Rights::ReadOnly => "read-only ",
            Rights::ReadWrite => "read-write",
        };
        let _ = writeln!(text, "  {rights}      {}", path(&grant.host_path));
    }
    for task in &run.plan.tasks {
        let preview = run.preview(task);
        let n_calls = preview.n_calls;
        text.push_str(&task_text(task, preview));
        let jobs = run.preview_of_backend(task, n_calls.unwrap_or(1));
        if let Some(jobs) = jobs {
            let unknown = n_calls.is_none();
            text.push_str(&jobs_text(&jobs, unknown));
        }
    }
    for warning in &run.plan.warnings {
        let _ = writeln!(text, "warning: {warning}");
    }
    text.push_str("nothing was run and nothing was written\n");
    text
}

fn tasks(n: usize) -> String {
    if n == 1 {
        "1 task".to_owned()
    } else {
        format!("{n} tasks")
    }
}

fn task_text(task: &TaskSpec, preview: Preview) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "{} \"{}\"", task.order, escaped(&task.name));
    let module = escaped(&task.module.path.to_string_lossy());
    let _ = writeln!(
        text,
        "  module   {module} (sha256 {}...)",
        &task.module.sha256[..12]
    );
    if let Some(script) = &task.script {
        let path = escaped(&script.path.to_string_lossy());
        let _ = writeln!(
            text,
            "  script   {path} (sha256 {}...)",
            &script.sha256[..12]
        );
    }
    for mount in &task.mounts {
        let path = escaped(&mount.host_path.to_string_lossy());
        let _ = writeln!(text, "  reads    {path} as {}", escaped(&mount.guest_path));
    }
    let window = match task.max_parallel {
        Some(n) => format!(", at most {n} at a time"),
        None => String::new(),
    };
    let _ = writeln!(text, "  calls    {}{window}", escaped(&preview.calls));
    let time = task.limits.wall_time.map_or("none".to_owned(), |time| {
        humantime::format_duration(time).to_string()
    });
    let memory = bytes_text(task.limits.memory_bytes);
    let _ = writeln!(text, "  limits   memory {memory}, time {time}");
    let _ = writeln!(
        text,
        "  args     {}",
        escaped(&serde_json::Value::Object(preview.args).to_string())
    );
    text
}

/// * `is_unknown`: true if the number of calls is not known yet.
fn jobs_text(jobs: &str, is_unknown: bool) -> String {
    let mut text = String::new();
    for (index, line) in jobs.lines().enumerate() {
        let (name, note) = match index {
            0 if is_unknown => ("jobs", "for one call: "),
            0 => ("jobs", ""),
            _ => ("    ", ""),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {name}     {note}{}", escaped(line));
    }
    text
}
