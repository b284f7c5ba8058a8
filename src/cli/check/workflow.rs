//! Check of a workflow: its plan, without data.

use std::path::Path;

use serde_json::Value;

use super::super::documents::PackageReader;
use super::super::wheels::{CacheUse, Wheels};
use super::lines::Lines;
use super::script::add_planned_script;
use super::{Checker, Findings, v2};
use crate::cli::author_arguments::CheckArguments;
use crate::fractal::package::manifest::modules_next_to;
use crate::fractal::v1::task_facts;
use crate::fractal::workflow::{Version, Workflow};
use crate::plan::{PlanRequest, PlannedTask, build_plan};
use crate::problem::{Location, Problems};

pub(super) fn check(
    arguments: &CheckArguments,
    checker: &Checker,
    mut lines: Lines,
    problems: &mut Problems,
) -> Findings {
    let workflow = match Workflow::read_into(&arguments.path, Version::V1, problems) {
        Some(Workflow::V2(workflow)) => {
            return v2::check_workflow(arguments, &workflow, checker, lines, problems);
        }
        Some(Workflow::V1(workflow)) => Some(workflow),
        None => None,
    };
    let folder = arguments.path.parent().unwrap_or(Path::new(""));
    let adjacent = workflow.as_ref().map(modules_next_to).unwrap_or_default();
    let tasks = [arguments.tasks.as_slice(), &adjacent].concat();
    let wheels = Wheels::new(CacheUse::ReadOnly);
    let reader = PackageReader {
        policy: &checker.policy,
        modules: &checker.backend,
        wheels: &wheels,
    };
    let packages = reader.read_v1(&tasks, folder, problems);
    let Some(workflow) = workflow else {
        wheels.rename_in(problems);
        return Findings {
            what: "workflow",
            lines,
            facts: Value::Null,
        };
    };
    let plan = build_plan(
        &PlanRequest::without_data(&workflow, &packages, &checker.policy, &checker.backend),
        problems,
    );
    wheels.rename_in(problems);
    let mut facts = Vec::new();
    for task in &plan.tasks {
        let PlannedTask {
            spec: task,
            details,
        } = task;
        lines.add(&format!("{} \"{}\"", task.order, task.name));
        let location = Location::Parameter(format!("task {}", task.order));
        let mut problem = |text: String| problems.add(location.clone(), text);
        lines.indented(|lines| add_planned_script(task, checker, lines, &mut problem));
        facts.push(task_facts(task, details));
    }
    Findings {
        what: "workflow",
        lines,
        facts: facts.into(),
    }
}
