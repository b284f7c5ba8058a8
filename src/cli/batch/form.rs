//! Form of the calls of a batch: what each of them gets in addition to its own line.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::arguments::{BatchArguments, ContractArgument};
use super::request::RequestedCall;
use crate::cli::environment;
use crate::cli::task_call::v1::CallArgs;
use crate::cli::task_call::{v1, v2, version_of};
use crate::fractal::args::SchemaBudget;
use crate::fractal::args::call_check::CallCheck;
use crate::fractal::args::schema::{check_defaults, default_args};
use crate::fractal::description::{is_only_v2, is_v2};
use crate::fractal::dialect::{Calls, Dialect, Step};
use crate::fractal::v1::document::TaskDocument;
use crate::fractal::v1::{Dataset, ITEM_ARGUMENT};
use crate::fractal::v2::{OnlyCall, Package, Side};
use crate::fractal::workflow::Version;
use crate::fractal::{v1 as v1_names, v2 as v2_names};
use crate::json::{DuplicateKeys, Map, Value, parse_json};
use crate::model::{Attempt, Batch, CallList, CallSpec, ModuleKind, Modules, TaskSpec};
use crate::plan::Policy;
use crate::problem::{Location, Problems};
use crate::run::folders::real_path;

/// Form of the calls of a batch.
pub(super) struct Form {
    /// A call without the values of its line.
    base: CallSpec,
    kind: FormKind,
    contract: ContractArgument,
}

enum FormKind {
    /// Only a command line.
    Argv,
    /// Args of Fractal v1.
    V1 {
        /// Args that each call gets, unless its line has others.
        shared: Map<String, Value>,
        /// Check of the args; `None`: the task has no schema.
        check: Option<Box<CallCheck>>,
    },
    /// Args of Fractal v2.
    V2 {
        /// Kind of all calls; `None`: that of the args of each.
        side: Option<Side>,
        /// `zarr_dir` of single calls whose lines have none.
        zarr_dir: Option<Value>,
        /// Check of the args of each kind that has a schema.
        checks: Vec<(Side, CallCheck)>,
    },
}

impl Form {
    /// Creates a call.
    ///
    /// # Errors
    /// A message for the user if the line is not of this form.
    pub(super) fn call(
        &self,
        index: u64,
        item: Option<Value>,
        requested: RequestedCall,
    ) -> Result<CallSpec, String> {
        let mut call = self.base.clone();
        call.attempt.call_index = usize::try_from(index).map_err(|err| err.to_string())?;
        call.item = item;
        let contract = self.contract.name();
        match (&self.kind, requested) {
            (FormKind::Argv, RequestedCall::Argv { argv, stdin }) => {
                call.argv.extend(argv);
                call.stdin = stdin;
            }
            (FormKind::V1 { shared, check }, RequestedCall::Args(args)) => {
                let all = v1_args(shared, args, &mut call.item);
                if let Some(check) = check {
                    check.check(&all)?;
                }
                call.args = Value::Object(all).to_string();
            }
            (
                FormKind::V2 {
                    side,
                    zarr_dir,
                    checks,
                },
                RequestedCall::Args(args),
            ) => {
                let side = side.unwrap_or_else(|| OnlyCall::side_of(&args));
                if let Some((_, check)) = checks.iter().find(|(checked, _)| *checked == side) {
                    check.check(&args)?;
                }
                let zarr_dir = zarr_dir.as_ref().filter(|_| side == Side::NonParallel);
                call.args = Value::Object(v2_args(zarr_dir, args)).to_string();
            }
            (FormKind::Argv, RequestedCall::Args(_)) => {
                return Err(format!(
                    "has `args`, but the calls are command lines (contract {contract}); give it \
                     `argv`"
                ));
            }
            (_, RequestedCall::Argv { .. }) => {
                return Err(format!(
                    "has `argv`, but the calls are those of a task (contract {contract}); give it \
                     `args`"
                ));
            }
        }
        Ok(call)
    }
}

/// Adds the args that a call of version 1 gets in any case. The item of the args takes precedence,
/// as that of a recorded call.
fn v1_args(
    shared: &Map<String, Value>,
    args: Map<String, Value>,
    item: &mut Option<Value>,
) -> Map<String, Value> {
    let mut all = shared.clone();
    all.extend(args);
    match all.get(ITEM_ARGUMENT) {
        Some(given) => *item = Some(given.clone()),
        None => {
            if let Some(item) = item {
                all.insert(ITEM_ARGUMENT.to_owned(), item.clone());
            }
        }
    }
    all
}

fn v2_args(zarr_dir: Option<&Value>, args: Map<String, Value>) -> Map<String, Value> {
    let Some(zarr_dir) = zarr_dir else {
        return args;
    };
    let mut all = Map::from_iter([("zarr_dir".to_owned(), zarr_dir.clone())]);
    all.extend(args);
    all
}

/// Calls of a batch whose form is known, before their folders are.
pub(super) struct Planned {
    pub(super) task: TaskSpec,
    /// Metadata and checks of outputs.
    pub(super) calls: Calls,
    contract: ContractArgument,
    kind: FormKind,
    /// True if args are completed from the options in any case, false if only from given ones.
    pub(super) completes_args: bool,
}

/// Everything that decides on the form of the calls.
pub(super) struct FormRequest<'a> {
    pub(super) arguments: &'a BatchArguments,
    pub(super) kind: ModuleKind,
    /// Description that a typed task gives of itself, if it gives one.
    pub(super) description: Option<&'a Value>,
    pub(super) policy: &'a Policy,
    pub(super) modules: &'a dyn Modules,
    /// Folders for `input_paths`.
    pub(super) inputs: &'a [PathBuf],
    /// Folder for `output_path` and `zarr_dir`.
    pub(super) output: &'a Path,
}

impl FormRequest<'_> {
    /// Checks that the contract is possible for the module. Problems go to `problems`.
    pub(super) fn check_contract(
        contract: Option<ContractArgument>,
        fixed_args: &[String],
        kind: ModuleKind,
        problems: &mut Problems,
    ) {
        if !fixed_args.is_empty() && kind == ModuleKind::Typed {
            let text =
                "the module is a typed task, which has no command line; remove the arguments";
            problems.add(Location::Parameter("--".to_owned()), text);
        }
        let text = match (contract, kind) {
            (Some(ContractArgument::Argv), ModuleKind::Typed) => {
                "the module is a typed task, which has no command line; use `--contract typed`, \
                 and lines with `args`"
            }
            (Some(ContractArgument::Typed), ModuleKind::CommandP1 | ModuleKind::CommandP2) => {
                "the module is a command, not a typed task; use `--contract v1`, `v2` or `argv`"
            }
            _ => return,
        };
        let option = contract.map_or("", ContractArgument::name);
        problems.add(Location::Parameter(format!("--contract {option}")), text);
    }

    /// Returns the contract, if it depends on no line.
    fn known_contract(&self) -> Option<ContractArgument> {
        let of_module = || (self.kind == ModuleKind::Typed).then_some(ContractArgument::Typed);
        self.arguments.contract.or_else(of_module)
    }

    /// Checks that a line can decide the form of the calls.
    ///
    /// # Errors
    /// A message for the user.
    pub(super) fn check_first(&self, requested: &RequestedCall) -> Result<(), String> {
        match (self.known_contract(), requested) {
            (Some(ContractArgument::Argv), RequestedCall::Args(_)) => Err(
                "has `args`, but the calls are command lines (contract argv); give it `argv`"
                    .to_owned(),
            ),
            (
                Some(
                    contract @ (ContractArgument::V1
                    | ContractArgument::V2
                    | ContractArgument::Typed),
                ),
                RequestedCall::Argv { .. },
            ) => Err(format!(
                "has `argv`, but the calls are those of a task (contract {}); give it `args`",
                contract.name()
            )),
            _ => Ok(()),
        }
    }

    /// Plans the calls. Problems go to `problems`.
    ///
    /// * `first`: input of the first call, which decides what the options do not.
    pub(super) fn plan(&self, first: &RequestedCall, problems: &mut Problems) -> Option<Planned> {
        let mut planned = self.plan_task(first, problems)?;
        // After those of the interpreter, if the calls are those of a script.
        let fixed_args = self.arguments.fixed_args.iter().cloned();
        planned.task.fixed_args.extend(fixed_args);
        Some(planned)
    }

    fn plan_task(&self, first: &RequestedCall, problems: &mut Problems) -> Option<Planned> {
        let RequestedCall::Args(args) = first else {
            return self.plan_argv(problems);
        };
        let version = match self.arguments.contract {
            Some(ContractArgument::V1) => Version::V1,
            Some(ContractArgument::V2) => Version::V2,
            _ => self.version(args),
        };
        match version {
            Version::V1 => self.plan_v1(problems),
            Version::V2 => self.plan_v2(args, problems),
        }
    }

    /// Returns the version of Fractal that args are of, as for `exec`.
    fn version(&self, args: &Map<String, Value>) -> Version {
        let version = version_of(&self.arguments.module, args);
        match version {
            Version::V1 if self.description.is_some_and(is_only_v2) => Version::V2,
            version => version,
        }
    }

    fn plan_argv(&self, problems: &mut Problems) -> Option<Planned> {
        let task = TaskDocument::of_module(&real_path(&self.arguments.module));
        let mut planned = self.plan_task_v1(task, problems)?;
        planned.contract = ContractArgument::Argv;
        planned.kind = FormKind::Argv;
        planned.completes_args = false;
        Some(planned)
    }

    fn plan_v1(&self, problems: &mut Problems) -> Option<Planned> {
        let module = &self.arguments.module;
        let task = v1::task_of_module(module, self.kind, self.policy, self.modules, problems)?;
        self.plan_task_v1(task, problems)
    }

    fn plan_task_v1(&self, mut task: TaskDocument, problems: &mut Problems) -> Option<Planned> {
        let check = task.schema().map(|schema| {
            check_defaults(&schema, &mut SchemaBudget::default(), problems);
            Box::new(CallCheck::new(&schema, &v1_names::RESERVED_ARGUMENTS))
        });
        // Each line has its own args, so only their defaults are planned.
        let mut defaults = default_args(task.args_schema.take().as_ref());
        defaults.append(&mut task.default_args);
        task.default_args = defaults;
        let file = &self.arguments.module;
        let (args, policy) = (CallArgs::default(), self.policy);
        let planned = v1::plan_call(task, &args, file, policy, self.modules, problems)?;
        let mut dataset = Dataset {
            input_paths: self.inputs.to_vec(),
            output_path: self.output.to_owned(),
            tasks_include_image: environment::tasks_include_image(),
            ..Dataset::default()
        };
        let task = planned.spec;
        dataset.set_only_call(task.order, planned.details, None);
        let calls = only_calls(&mut dataset, &task)?;
        let mut shared =
            match parse_json(calls.list.shared_args().as_bytes(), DuplicateKeys::Refuse) {
                Ok(Value::Object(shared)) => shared,
                _ => Map::new(),
            };
        let (contract, completes_args) = self.contract_of_task(ContractArgument::V1);
        if !completes_args {
            shared.shift_remove("metadata");
            if self.arguments.inputs.is_empty() {
                shared.shift_remove("input_paths");
            }
            if self.arguments.output.is_none() {
                shared.shift_remove("output_path");
            }
        }
        Some(Planned {
            task,
            calls,
            contract,
            kind: FormKind::V1 { shared, check },
            completes_args,
        })
    }

    fn plan_v2(&self, first: &Map<String, Value>, problems: &mut Problems) -> Option<Planned> {
        let module = &self.arguments.module;
        let (policy, modules) = (self.policy, self.modules);
        let mut task = if self.description.is_some_and(is_v2) {
            let (path, limits) = (real_path(module), &policy.default);
            let time = policy.compile_time;
            let package = Package::read_module(&path, limits, time, modules, problems)?;
            let task = package.manifest.task_list.into_iter().next()?;
            v2::CallableTask {
                task,
                folder: package.folder,
                is_described: true,
            }
        } else {
            v2::task_of_module(module, OnlyCall::side_of(first), problems)?
        };
        let mut checks = Vec::new();
        for side in Side::ALL {
            if let Some(schema) = task.task.schema(side) {
                check_defaults(&schema, &mut SchemaBudget::default(), problems);
                let check = CallCheck::new(&schema, &v2_names::RESERVED_ARGUMENTS);
                checks.push((side, check));
            }
        }
        // Each line has its own args.
        let sides = [&mut task.task.non_parallel, &mut task.task.parallel];
        for side in sides.into_iter().flatten() {
            side.args_schema = None;
        }
        let has_both = task.task.non_parallel.is_some() && task.task.parallel.is_some();
        // Warnings would be about the first line only.
        let mut found = Problems::default();
        let planned = v2::plan_call(&task, first, module, policy, modules, &mut found);
        if !found.is_empty() {
            problems.extend(found);
        }
        let planned = planned?;
        let mut list = match has_both {
            true => OnlyCall::new(Map::new(), None),
            false => planned.call(Map::new(), ""),
        };
        let (contract, completes_args) = self.contract_of_task(ContractArgument::V2);
        let output = Value::from(self.output.to_string_lossy());
        let has_zarr_dir = completes_args || self.arguments.output.is_some();
        let kind = FormKind::V2 {
            side: (!has_both).then_some(planned.side),
            zarr_dir: has_zarr_dir.then_some(output),
            checks,
        };
        Some(Planned {
            calls: only_calls(&mut list, &planned.spec)?,
            task: planned.spec,
            contract,
            kind,
            completes_args,
        })
    }

    /// Returns the contract of calls with args, and true if their args are completed in any case:
    /// those of commands are, and those of typed tasks on request.
    fn contract_of_task(&self, version: ContractArgument) -> (ContractArgument, bool) {
        match (self.arguments.contract, self.kind) {
            (None | Some(ContractArgument::Typed), ModuleKind::Typed) => {
                (ContractArgument::Typed, false)
            }
            _ => (version, true),
        }
    }
}

/// Returns the calls of a task that is called once.
fn only_calls(dialect: &mut dyn Dialect, task: &TaskSpec) -> Option<Calls> {
    match dialect.next(task, None, true) {
        Ok(Step::Calls(calls)) => Some(calls),
        _ => None,
    }
}

impl Planned {
    /// Returns the form of the calls.
    ///
    /// * `batch`: what the calls share.
    pub(super) fn form(self, batch: &Batch) -> Form {
        let first = Attempt {
            call_index: 0,
            number: 1,
        };
        let mut base = self.calls.list.call(batch, first, false);
        base.item = None;
        // A result has stdout and stderr apart.
        base.files.suffixes.out = ".out".into();
        base.files.suffixes.err = ".err".into();
        if let FormKind::Argv = self.kind {
            base.args.clear();
            base.argv.truncate(1 + batch.task.fixed_args.len());
        }
        Form {
            base,
            kind: self.kind,
            contract: self.contract,
        }
    }

    /// Returns a handle of the calls, for the backend.
    pub(super) fn list(&self) -> Arc<dyn CallList> {
        Arc::clone(&self.calls.list)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().cloned().expect("an object")
    }

    #[test]
    fn lines_take_precedence_over_what_calls_share() {
        let shared = object(json!({ "output_path": "/out", "n": 1 }));
        let mut item = Some(json!("B03"));
        let all = v1_args(&shared, object(json!({ "n": 2 })), &mut item);
        let expected = json!({ "output_path": "/out", "n": 2, "component": "B03" });
        assert_eq!(Value::Object(all), expected);
        let mut item = None;
        v1_args(&shared, object(json!({ "component": 7 })), &mut item);
        assert_eq!(item, Some(json!(7)));
        let zarr_dir = json!("/z");
        let all = v2_args(Some(&zarr_dir), object(json!({ "zarr_urls": [] })));
        assert_eq!(
            Value::Object(all).to_string(),
            r#"{"zarr_dir":"/z","zarr_urls":[]}"#
        );
        let all = v2_args(Some(&zarr_dir), object(json!({ "zarr_dir": "/own" })));
        assert_eq!(Value::Object(all).to_string(), r#"{"zarr_dir":"/own"}"#);
    }
}
