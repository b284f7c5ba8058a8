//! Contents of a module: its kind, its imports and exports, and its memory.

use std::path::Path;

use serde_json::{Value, json};

use super::Checker;
use super::lines::Lines;
use crate::model::{ModuleFile, ModuleKind, Modules};
use crate::sandbox::{ImportState, ImportedInterface, Inspection, Memory, SnapshotSupport, Table};
use crate::text::bytes_text;

/// Maximum number of items in a line without `--verbose`.
const SHOWN: usize = 12;
/// Maximum number of linked interfaces without `--verbose`, in addition to those with remarks.
const SHOWN_INTERFACES: usize = 24;

/// Adds the contents of a module, as far as they can be determined if it is refused.
///
/// * `problem`: receives each reason for a refusal.
///
/// Returns the kind of the module, unless it is refused, and its facts for programs.
pub(super) fn add_module(
    path: &Path,
    Checker {
        backend, policy, ..
    }: &Checker,
    lines: &mut Lines,
    problem: &mut dyn FnMut(String),
) -> (Option<ModuleKind>, Value) {
    let module = match ModuleFile::read(path, policy.default.module_bytes) {
        Ok(module) => module,
        Err(text) => {
            problem(text);
            return (None, Value::Null);
        }
    };
    let inspection = backend.sandbox().inspect(&module).ok();
    let refusal = inspection
        .as_ref()
        .and_then(|inspection| inspection.refusal_at_once(&module));
    let prepared = refusal.map_or_else(
        || backend.prepare(&module, &policy.default, policy.compile_time),
        Err,
    );
    if let Err(text) = &prepared {
        problem(text.clone());
        let others = inspection
            .iter()
            .flat_map(|inspection| &inspection.refusals);
        others
            .filter(|other| !text.contains(*other))
            .for_each(|other| problem(other.clone()));
    }
    let kind = prepared.ok();
    let mut facts = json!({ "kind": kind, "bytes": module.bytes.len(), "sha256": module.sha256 });
    lines.field(
        "kind",
        &kind.map_or_else(
            || refused_kind(inspection.as_ref()),
            |kind| kind.to_string(),
        ),
    );
    lines.field("size", &bytes_text(module.bytes.len() as u64));
    lines.field("sha256", &module.sha256);
    if let Some(inspection) = inspection {
        add_inspection(&inspection, lines);
        let more = serde_json::to_value(&inspection).unwrap_or_default();
        if let (Value::Object(facts), Value::Object(more)) = (&mut facts, more) {
            facts.extend(more);
        }
    }
    (kind, facts)
}

fn refused_kind(inspection: Option<&Inspection>) -> String {
    let what = match inspection {
        None => "not a WebAssembly module",
        Some(inspection) if inspection.is_component => "WASM component",
        Some(_) => "core module",
    };
    format!("{what}, refused (see the problems below)")
}

fn add_inspection(inspection: &Inspection, lines: &mut Lines) {
    let or_none = |text: String| {
        if text.is_empty() {
            "none".to_owned()
        } else {
            text
        }
    };
    lines.field("WASI", &or_none(inspection.wasi.join(", ")));
    let list = |items: &mut dyn Iterator<Item = String>| {
        let items: Vec<_> = items.collect();
        let n_shown = if lines.verbose {
            items.len()
        } else {
            items.len().min(SHOWN)
        };
        let more = items.len() - n_shown;
        let shown = items[..n_shown].join(", ");
        or_none(if more > 0 {
            format!("{shown} and {more} more")
        } else {
            shown
        })
    };
    let memories = list(&mut inspection.memories.iter().map(memory_text));
    let tables = list(&mut inspection.tables.iter().map(table_text));
    let exports = list(
        &mut inspection
            .exports
            .iter()
            .map(|export| match &export.function_type {
                Some(ty) if lines.verbose => format!("{} {ty}", export.name),
                _ if export.name.is_empty() => "\"\"".to_owned(),
                _ => export.name.clone(),
            }),
    );
    lines.field("memory", &memories);
    lines.field("tables", &tables);
    lines.field("exports", &exports);
    if !inspection.missing_features.is_empty() {
        let names: Vec<_> = inspection
            .missing_features
            .iter()
            .map(|feature| feature.name)
            .collect();
        lines.field("needs", &format!("{} (off)", names.join(", ")));
    }
    match &inspection.snapshot {
        None => {}
        Some(SnapshotSupport::Possible(entry)) => {
            lines.field("snapshot", &format!("possible; calls run `{entry}`"));
        }
        Some(SnapshotSupport::Impossible(why)) => {
            let why = why.trim_start_matches("a snapshot of it is ");
            lines.field("snapshot", why);
        }
    }
    lines.field("imports", &counts(&inspection.imports));
    lines.indented(|lines| add_imports(&inspection.imports, lines));
}

fn counts(imports: &[ImportedInterface]) -> String {
    let n_items: usize = imports.iter().map(|interface| interface.items.len()).sum();
    match imports.len() {
        0 => "none".to_owned(),
        1 => format!("{n_items} in 1 interface"),
        n => format!("{n_items} in {n} interfaces"),
    }
}

fn add_imports(imports: &[ImportedInterface], lines: &mut Lines) {
    if lines.verbose {
        for interface in imports {
            lines.add(&format!(
                "{}{}",
                interface.name,
                state_suffix(&interface.state)
            ));
            // Omit the state if it is that of the interface, which was printed above.
            let state = |state: &ImportState| {
                if *state == interface.state {
                    String::new()
                } else {
                    state_text(state)
                }
            };
            let rows: Vec<_> = interface
                .items
                .iter()
                .map(|item| [item.name.clone(), state(&item.state)])
                .collect();
            lines.indented(|lines| lines.table(&rows));
        }
        return;
    }
    let mut rows = Vec::new();
    // Interfaces with remarks come first, so that none of them is left out.
    let (linked, others): (Vec<_>, Vec<_>) = imports
        .iter()
        .partition(|interface| interface.state == ImportState::Linked);
    let n_shown = imports.len().min(others.len() + SHOWN_INTERFACES);
    for interface in others.into_iter().chain(linked).take(n_shown) {
        let n = interface.items.len();
        rows.push([
            interface.name.clone(),
            n.to_string(),
            state_text(&interface.state),
        ]);
        // Functions with a remark in an interface that is otherwise linked.
        let remarkable = interface
            .items
            .iter()
            .filter(|item| item.state != interface.state && item.state != ImportState::Linked);
        rows.extend(remarkable.take(SHOWN).map(|item| {
            [
                format!("  {}", item.name),
                String::new(),
                state_text(&item.state),
            ]
        }));
    }
    lines.table(&rows);
    if imports.len() > n_shown {
        lines.add(&format!(
            "and {} more; `--verbose` lists all",
            imports.len() - n_shown
        ));
    }
}

fn state_text(state: &ImportState) -> String {
    match state {
        ImportState::Linked => "linked".to_owned(),
        ImportState::Inert(why) => (*why).to_owned(),
        ImportState::Refused(why) => format!("REFUSED: {why}"),
    }
}

fn state_suffix(state: &ImportState) -> String {
    match state {
        ImportState::Linked => String::new(),
        other => format!(": {}", state_text(other)),
    }
}

fn memory_text(memory: &Memory) -> String {
    let initial = bytes_text(memory.initial_bytes);
    let maximum = memory
        .maximum_bytes
        .map(|bytes| format!(" to {}", bytes_text(bytes)))
        .unwrap_or_default();
    let shared = if memory.shared { ", shared" } else { "" };
    let wide = if memory.memory64 { ", 64-bit" } else { "" };
    format!("{initial}{maximum}{shared}{wide}")
}

fn table_text(table: &Table) -> String {
    let maximum = table
        .maximum
        .filter(|n| *n != table.initial)
        .map(|n| format!(" to {n}"))
        .unwrap_or_default();
    format!("{}{maximum} {}", table.initial, table.element)
}
