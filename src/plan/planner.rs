//! Converts documents to a [`Plan`], or reports all problems at once.

use std::num::NonZeroUsize;

use super::interpreter::{Program, ScriptHome};
use super::module_loader::{ModuleLoader, WantedModule};
use super::requested::{read_requested, read_resources};
use crate::fractal::args::schema::{SchemaBudget, check_args, default_args};
use crate::fractal::local_config::{self, LocalConfig, merged_meta};
use crate::fractal::package::manifest::TaskPackage;
use crate::fractal::package::task_index::TaskIndex;
use crate::fractal::v1::document::{
    TaskDocument, TaskReference, WorkflowDocument, WorkflowTaskDocument,
};
use crate::fractal::v1::{
    RESERVED_ARGUMENTS, TaskDetails, check_list, list_key, reserved_advice, shown_workflow_task,
};
use crate::json::{Map, Value};
use crate::model::{ModuleKind, Modules, TaskSpec};
use crate::plan::Policy;
use crate::plan::planned::{Plan, PlannedTask, check_orders};
use crate::problem::{Cursor, Location, Problems, pointer_to};

/// Input of a plan.
pub struct PlanRequest<'a> {
    /// The workflow.
    pub workflow: &'a WorkflowDocument,
    /// Packages in which sources are looked up.
    pub packages: &'a [TaskPackage],
    /// Metadata at the start; `None`: not known, for example when only a workflow is checked.
    pub metadata: Option<&'a Map<String, Value>>,
    /// Index of the first task that runs, from 0; `None`: the first.
    pub first_task_index: Option<i64>,
    /// Index of the last task that runs, from 0, inclusive; `None`: the last.
    pub last_task_index: Option<i64>,
    /// Type of dataset that the first executed task must accept; `None`: not checked.
    pub input_type: Option<&'a str>,
    /// Type of dataset that the last executed task must produce; `None`: not checked.
    pub output_type: Option<&'a str>,
    /// Configuration of the local backend.
    pub local_config: LocalConfig,
    /// Policy of the operator.
    pub policy: &'a Policy,
    /// Preparation of modules.
    pub modules: &'a dyn Modules,
}

impl<'a> PlanRequest<'a> {
    /// Creates a request for a plan of all tasks, for unknown data.
    pub fn without_data(
        workflow: &'a WorkflowDocument,
        packages: &'a [TaskPackage],
        policy: &'a Policy,
        modules: &'a dyn Modules,
    ) -> Self {
        Self {
            workflow,
            packages,
            metadata: None,
            first_task_index: None,
            last_task_index: None,
            input_type: None,
            output_type: None,
            local_config: LocalConfig::default(),
            policy,
            modules,
        }
    }
}

/// Builds the plan. Adds all problems to `problems`; the plan is valid only if there are none.
pub fn build_plan(request: &PlanRequest<'_>, problems: &mut Problems) -> Plan {
    let n_tasks = request.workflow.task_list.len();
    let task_range = if n_tasks == 0
        && request.first_task_index.is_none()
        && request.last_task_index.is_none()
    {
        let location = Location::Pointer {
            file: request.workflow.file.clone(),
            pointer: "/task_list".to_owned(),
        };
        problems.warn(location, "the workflow has no tasks: nothing will run");
        None
    } else {
        match set_start_and_last_task_index(
            n_tasks,
            request.first_task_index,
            request.last_task_index,
        ) {
            Ok(range) => Some(range),
            Err(message) => {
                problems.add(
                    Location::Parameter("--first-task, --last-task".to_owned()),
                    message,
                );
                None
            }
        }
    };
    let orders = request.workflow.task_list.iter();
    let orders = orders.map(|task| (task.order, order_location(request.workflow, task)));
    check_orders(orders, problems);
    let index = TaskIndex::new(request.packages);
    let mut planner = Planner {
        request,
        index,
        schemas: SchemaBudget::default(),
        modules: ModuleLoader::new(request.policy, request.modules),
    };
    let mut tasks = Vec::new();
    for (index, workflow_task) in request.workflow.task_list.iter().enumerate() {
        let runs = task_range.is_some_and(|(first, last)| (first..=last).contains(&index));
        let role = Role {
            runs,
            is_first: task_range.is_some_and(|(first, _)| first == index),
            is_last: task_range.is_some_and(|(_, last)| last == index),
        };
        tasks.extend(planner.plan_task(workflow_task, role, problems));
    }
    Plan {
        workflow_name: request.workflow.name.clone(),
        task_range,
        tasks,
        warnings: problems.warnings().to_vec(),
    }
}

/// Returns the indices of the first and the last task that run, both inclusive.
///
/// # Errors
/// Fractal's error messages, checked in Fractal's order.
///
/// Source: fractal-server 2.9.2, `set_start_and_last_task_index`.
pub fn set_start_and_last_task_index(
    n_tasks: usize,
    first: Option<i64>,
    last: Option<i64>,
) -> Result<(usize, usize), String> {
    let n_tasks = i64::try_from(n_tasks).map_err(|err| err.to_string())?;
    let (first, last) = (first.unwrap_or(0), last.unwrap_or(n_tasks - 1));
    if first < 0 {
        return Err(format!("first_task_index={first} cannot be negative"));
    }
    if last < 0 {
        return Err(format!("last_task_index={last} cannot be negative"));
    }
    if last > n_tasks - 1 {
        return Err(format!(
            "last_task_index={last} cannot be larger than (num_tasks-1)={}",
            n_tasks - 1
        ));
    }
    if first > last {
        return Err(format!(
            "first_task_index={first} cannot be larger than last_task_index={last}"
        ));
    }
    let index = |value: i64| usize::try_from(value).map_err(|err| err.to_string());
    Ok((index(first)?, index(last)?))
}

/// Returns the location of the order of a task.
fn order_location(workflow: &WorkflowDocument, task: &WorkflowTaskDocument) -> Location {
    Location::Pointer {
        file: workflow.file.clone(),
        pointer: format!("/task_list/{}/order", task.position),
    }
}

/// Role of a task in the run.
#[derive(Clone, Copy)]
struct Role {
    runs: bool,
    is_first: bool,
    is_last: bool,
}

struct Planner<'a> {
    request: &'a PlanRequest<'a>,
    index: TaskIndex<'a>,
    /// Remaining budget for checking args schemas.
    schemas: SchemaBudget,
    modules: ModuleLoader<'a>,
}

impl Planner<'_> {
    fn plan_task(
        &mut self,
        workflow_task: &WorkflowTaskDocument,
        role: Role,
        problems: &mut Problems,
    ) -> Option<PlannedTask> {
        let pointer = format!("/task_list/{}", workflow_task.position);
        let entry_location = |key: &str| Location::Pointer {
            file: self.request.workflow.file.clone(),
            pointer: format!("{pointer}{key}"),
        };
        let args_location = |at: &str| match &workflow_task.args_file {
            Some(file) => Location::Pointer {
                file: file.clone(),
                pointer: at.to_owned(),
            },
            None => entry_location(&format!("/args{at}")),
        };
        let exported = matches!(workflow_task.task, TaskReference::Source { .. });
        // A task that is called alone has no workflow entry that could be named.
        let is_alone = workflow_task.args_file.is_some();
        let task = match &workflow_task.task {
            TaskReference::Inline(task) => task.as_ref(),
            TaskReference::Source { source, name } => self.index.find(
                source,
                name.as_deref(),
                entry_location("/task/source"),
                problems,
            )?,
        };
        self.check_types(task, role, entry_location("/task"), problems);

        let mut args = default_args(task.args_schema.as_ref());
        args.extend(task.default_args.clone());
        args.extend(workflow_task.args.clone().unwrap_or_default());
        for name in RESERVED_ARGUMENTS
            .iter()
            .filter(|name| args.contains_key(**name))
        {
            let text = format!(
                "the runner fills in `{name}`: this value is passed to the task as in Fractal's \
                 runner{}",
                reserved_advice(name)
            );
            problems.warn(args_location(&pointer_to("", name)), text);
        }
        let given = workflow_task.args.as_ref();
        let location = |at: &str| {
            let name = at
                .trim_start_matches('/')
                .split('/')
                .next()
                .unwrap_or_default();
            match name {
                "" => args_location(at),
                name if given.is_some_and(|given| given.contains_key(name)) => args_location(at),
                name if task.default_args.contains_key(name) => {
                    task.location_of(&format!("default_args{at}"))
                }
                name => task.location_of(&format!("args_schema/properties/{name}/default")),
            }
        };
        if let Some(schema) = task.schema() {
            check_args(&schema, &args, location, &mut self.schemas, problems);
        }

        let meta = merged_meta(&task.meta, workflow_task.meta.as_ref());
        let meta_value = Value::Object(meta.clone());
        // Each key is in the workflow, or in the task's own meta, which may be in a package.
        let meta_of = |key: &str| {
            let given = workflow_task
                .meta
                .as_ref()
                .is_some_and(|meta| meta.contains_key(key));
            if given {
                Cursor::at(
                    &self.request.workflow.file,
                    format!("{pointer}/meta"),
                    &meta_value,
                )
            } else {
                task.cursor("meta", &meta_value)
            }
        };
        let meta_location = || {
            if is_alone {
                task.location_of("meta")
            } else {
                entry_location("/meta")
            }
        };
        let parallel_tasks_per_job = self
            .request
            .local_config
            .for_task(&meta_of(local_config::KEY), problems);
        let policy = self.request.policy;
        let requested = read_requested(meta_of, &task.folder, policy, problems);
        let resources = read_resources(meta_of, &meta);
        let (limits, lowered) =
            policy
                .default
                .clamp_to(requested.memory_bytes, requested.wall_time, &policy.maximum);
        if let Some(text) = lowered {
            problems.warn(meta_location(), text);
        }
        let task_meta = Value::Object(task.meta.clone());
        let level = list_key(&task.cursor("meta", &task_meta), problems);
        // The list of the first task is known before the run.
        let first_list = self
            .request
            .metadata
            .filter(|_| role.is_first)
            .zip(level.as_deref());
        if let Some(Err(text)) = first_list.map(|(metadata, level)| check_list(metadata, level)) {
            problems.add(task.location_of("meta"), text);
        }
        if !role.runs {
            return None;
        }
        let module_location = if exported || is_alone {
            task.location_of("executable")
        } else {
            entry_location("/task/command")
        };
        let named = task.named_path();
        let home = if exported || (is_alone && !task.folder.as_os_str().is_empty()) {
            ScriptHome::Package(&task.folder)
        } else if is_alone {
            ScriptHome::Operator
        } else {
            ScriptHome::Workflow {
                folder: &task.folder,
                allowed: &policy.mounts,
            }
        };
        let program = self.modules.program(&named, &task.module_path(), home);
        let program = program
            .map_err(|text| problems.add(module_location.clone(), text))
            .ok()?;
        let path = program.as_ref().map(|program| program.module.clone());
        let snapshot = policy.snapshot(
            requested.snapshot || Program::wants_snapshot(program.as_ref()),
            || Program::start_mounts(program.as_ref(), &requested.mounts),
        );
        let wanted = WantedModule {
            path: path.unwrap_or_else(|| task.module_path()),
            limits: &limits,
            script: program.as_ref().map(|program| &program.script),
            sha256: requested.sha256.as_deref(),
            has_snapshot: snapshot.is_some(),
            location: module_location,
        };
        let advice = || task.command_advice();
        let (module, kind) = self.modules.load(wanted, advice, problems)?;
        if kind != ModuleKind::Typed && requested.metadata_in_args == Some(false) {
            let text = "`mandelbox.metadata_in_args` is false, but this task is a command, and only \
                        a typed task can fetch metadata; remove the key";
            problems.add(meta_location(), text);
        }
        let workflowtask = shown_workflow_task(
            &workflow_task.raw,
            workflow_task.order,
            &args,
            &meta,
            exported.then_some(task),
        );
        let fixed_args = task.command[1..].iter().cloned();
        let (script, program_args, mounts) = Program::into_parts(program);
        let id = workflowtask.get("id").filter(|id| !id.is_null()).cloned();
        Some(PlannedTask {
            spec: TaskSpec {
                order: workflow_task.order,
                name: task.name.clone(),
                id,
                module,
                kind,
                script,
                fixed_args: program_args.into_iter().chain(fixed_args).collect(),
                is_single: level.is_none(),
                max_parallel: parallel_tasks_per_job,
                limits,
                reserves_memory: policy.reserves_memory || requested.memory_bytes.is_some(),
                n_cpus: requested.n_cpus.unwrap_or(NonZeroUsize::MIN),
                env: requested.env,
                mounts: [requested.mounts, mounts].concat(),
                resources,
                snapshot,
            },
            details: TaskDetails {
                args,
                level,
                metadata_keys: requested.metadata_keys,
                metadata_in_args: requested.metadata_in_args.unwrap_or(true),
                workflowtask,
            },
        })
    }

    fn check_types(
        &self,
        task: &TaskDocument,
        role: Role,
        location: Location,
        problems: &mut Problems,
    ) {
        let workflow = &self.request.workflow.name;
        let mut check = |task_type: &str, dataset_type: Option<&str>, direction: &str| {
            if dataset_type
                .is_some_and(|dataset_type| task_type != "Any" && task_type != dataset_type)
            {
                let dataset_type = dataset_type.unwrap_or_default();
                let text = format!(
                    "Incompatible types `{task_type}` of workflow `{workflow}` and \
                     `{dataset_type}` of the {direction} dataset"
                );
                problems.add(location.clone(), text);
            }
        };
        if role.is_first {
            check(&task.input_type, self.request.input_type, "input");
        }
        if role.is_last {
            check(&task.output_type, self.request.output_type, "output");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_errors_come_in_fractals_order() {
        let check = |n, first, last, expected: &str| {
            assert_eq!(
                set_start_and_last_task_index(n, first, last).expect_err(expected),
                expected
            );
        };
        check(
            3,
            Some(-1),
            Some(-1),
            "first_task_index=-1 cannot be negative",
        );
        check(3, None, Some(-1), "last_task_index=-1 cannot be negative");
        check(
            3,
            Some(9),
            Some(3),
            "last_task_index=3 cannot be larger than (num_tasks-1)=2",
        );
        check(
            3,
            Some(2),
            Some(1),
            "first_task_index=2 cannot be larger than last_task_index=1",
        );
        check(0, None, None, "last_task_index=-1 cannot be negative");
        assert_eq!(set_start_and_last_task_index(3, None, Some(1)), Ok((0, 1)));
    }
}
