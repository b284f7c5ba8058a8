//! Check of a workflow of version 2: its plan, without a dataset.

use std::path::Path;

use serde_json::{Value, json};

use super::{input_text, types_text};
use crate::cli::author_arguments::CheckArguments;
use crate::cli::check::lines::Lines;
use crate::cli::check::script::add_planned_script;
use crate::cli::check::{Checker, Findings};
use crate::cli::documents::PackageReader;
use crate::cli::wheels::{CacheUse, Wheels};
use crate::fractal::v2::{TaskDetails, WorkflowDocument, modules_next_to};
use crate::model::TaskSpec;
use crate::plan::DatasetPlanner;
use crate::problem::{Location, Problems};

pub(in crate::cli::check) fn check(
    arguments: &CheckArguments,
    workflow: &WorkflowDocument,
    checker: &Checker,
    mut lines: Lines,
    problems: &mut Problems,
) -> Findings {
    let folder = arguments.path.parent().unwrap_or(Path::new(""));
    let tasks = [arguments.tasks.as_slice(), &modules_next_to(workflow)].concat();
    let wheels = Wheels::new(CacheUse::ReadOnly);
    let reader = PackageReader {
        policy: &checker.policy,
        modules: &checker.backend,
        wheels: &wheels,
    };
    let packages = reader.read_v2(&tasks, folder, problems);
    let mut planner = DatasetPlanner::new(workflow, &packages, &checker.policy, &checker.backend);
    let mut facts = Vec::new();
    for (order, details, spec) in planner.plan_all(problems) {
        lines.add(&format!(
            "{order} \"{}\" ({})",
            spec.name,
            details.task_type.name()
        ));
        lines.indented(|lines| {
            let input = input_text(details.task_type.is_converter(), &details.type_filters);
            lines.field("input", &input);
            if !details.output_types.is_empty() {
                lines.field("sets", &types_text(&details.output_types));
            }
            let location = Location::Parameter(format!("task {order}"));
            let mut problem = |text: String| problems.add(location.clone(), text);
            for spec in [Some(&spec), details.compute.as_ref()]
                .into_iter()
                .flatten()
            {
                add_planned_script(spec, checker, lines, &mut problem);
            }
        });
        facts.push(task_facts(order, &details, &spec));
    }
    wheels.rename_in(problems);
    Findings {
        what: "workflow",
        lines,
        facts: facts.into(),
    }
}

fn task_facts(order: u64, details: &TaskDetails, spec: &TaskSpec) -> Value {
    let side = |spec: Option<&TaskSpec>, args| match spec {
        None => Value::Null,
        Some(spec) => json!({
            "module": spec.module.path.to_string_lossy(),
            "module_sha256": spec.module.sha256,
            "script": spec.script,
            "args": args,
        }),
    };
    let (non_parallel, parallel) = if details.task_type.has_single_call() {
        (Some(spec), details.compute.as_ref())
    } else {
        (None, Some(spec))
    };
    json!({
        "order": order,
        "name": spec.name,
        "type": details.task_type.name(),
        "input_types": details.type_filters,
        "output_types": details.output_types,
        "non_parallel": side(non_parallel, &details.args_non_parallel),
        "parallel": side(parallel, &details.args_parallel),
    })
}
