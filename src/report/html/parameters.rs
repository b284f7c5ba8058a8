//! The args of each task, in sections that can be unfolded.

use std::fmt::Write as _;

use super::markup::{html, html_start};
use crate::event::RunSummary;
use crate::json::{Map, Value, build_json};

/// Maximum number of characters of a task's args that are shown.
const MAX_CHARS: usize = 20_000;

/// Returns the section with the tasks' args; empty if no record has them.
pub(super) fn parameters(
    summary: &RunSummary,
    workflow_tasks: &[Option<Map<String, Value>>],
) -> String {
    let tasks = summary.tasks.iter().zip(workflow_tasks);
    let known = tasks.filter_map(|(task, known)| Some((task, known.as_ref()?)));
    let mut text = String::new();
    for (task, workflow_task) in known {
        let args = workflow_task
            .get("args")
            .and_then(Value::as_object)
            .filter(|args| !args.is_empty());
        let name = format!("{} {}", task.order, html_start(&task.name, 200));
        // Writing to a string cannot fail.
        let _ = match args {
            None => writeln!(text, "<p class=\"quiet\">{name}: none</p>"),
            Some(args) => {
                let names: Vec<_> = args
                    .keys()
                    .map(|name| html_start(name, 60))
                    .take(8)
                    .collect();
                let more = if args.len() > names.len() {
                    ", ..."
                } else {
                    ""
                };
                let names = names.join(", ");
                writeln!(
                    text,
                    "<details><summary><strong>{name}</strong>: \
                     {names}{more}</summary>\n<pre>{}</pre></details>",
                    lines(args)
                )
            }
        };
    }
    if text.is_empty() {
        text
    } else {
        format!("<section class=\"parameters\">\n<h2>Parameters</h2>\n{text}</section>")
    }
}

/// Formats args as JSON, cut off if the text is too long.
fn lines(args: &Map<String, Value>) -> String {
    let json = String::from_utf8_lossy(&build_json(args, 2)).into_owned();
    let end = json.char_indices().nth(MAX_CHARS).map(|(end, _)| end);
    let lines: Vec<_> = json[..end.unwrap_or(json.len())]
        .lines()
        .map(html)
        .collect();
    let cut = end.map_or("", |_| "\n... the rest is in result.json");
    lines.join("\n") + cut
}
