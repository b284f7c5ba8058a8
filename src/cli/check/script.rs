//! Check of a script: its interpreter, and what the script imports and the environment lacks.
//!
//! The environment itself answers, in the sandbox, since only it knows its modules.

use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use super::Checker;
use super::lines::Lines;
use crate::backend::outcome_of_end;
use crate::json::{DuplicateKeys, parse_json};
use crate::model::{CancelToken, Grant, Limits, ModuleFile, ModuleKind, Modules, TaskSpec};
use crate::plan::{Interpreter, ScriptHome};
use crate::sandbox::{Entry, GuestEnd, GuestInput, GuestOutput, GuestWarnings, Invocation};

/// Maximum size of the answer of an environment, in bytes.
const MAX_ANSWER_BYTES: u64 = 1 << 20;
/// Maximum number of problems of a script that are reported.
const MAX_PROBLEMS: usize = 100;

/// Adds the interpreter of a script, and what the script imports and its environment lacks.
///
/// * `script`: path in the document.
/// * `twin`: the module that replaces it, or the same path.
/// * `problem`: receives each reason why the script cannot run.
///
/// Returns the facts for programs; `None` if no interpreter runs the file, so that it is a module.
pub(super) fn add_script(
    (script, twin): (&Path, &Path),
    home: ScriptHome<'_>,
    checker: &Checker,
    lines: &mut Lines,
    problem: &mut dyn FnMut(String),
) -> Option<Value> {
    if script != twin && twin.is_file() {
        return None;
    }
    let interpreter = checker.policy.interpreter_of(script)?;
    lines.field("kind", "script");
    lines.field("runs with", &interpreter.name);
    let mut facts = json!({
        "kind": "script",
        "path": script.to_string_lossy(),
        "interpreter": interpreter.name,
    });
    let mut states = checker.states.borrow_mut();
    let program = match interpreter.program(script, home, &mut states) {
        Ok(program) => program,
        Err(text) => {
            problem(text);
            return Some(facts);
        }
    };
    lines.field("sha256", &program.script.sha256);
    facts["sha256"] = json!(program.script.sha256);
    let check = program.check.as_deref();
    let missing = check_imports(interpreter, check, &program.mounts, checker);
    add_missing(missing, &mut facts, lines, problem);
    Some(facts)
}

/// Adds what the script of a planned task imports and its environment lacks. Problems go to
/// `problem`.
pub(super) fn add_planned_script(
    task: &TaskSpec,
    checker: &Checker,
    lines: &mut Lines,
    problem: &mut dyn FnMut(String),
) {
    let Some(script) = &task.script else { return };
    let Some(interpreter) = checker.policy.interpreter_of(&script.path) else {
        return;
    };
    lines.field("script", &script.path.to_string_lossy());
    let path = task.fixed_args.get(interpreter.args.len());
    let args = interpreter.check.iter().flatten().chain(path).cloned();
    let args: Vec<_> = args.collect();
    let check = interpreter.check.as_ref().map(|_| args.as_slice());
    let missing = check_imports(interpreter, check, &task.mounts, checker);
    add_missing(missing, &mut Value::Null, lines, problem);
}

fn add_missing(
    missing: Result<Option<Vec<String>>, String>,
    facts: &mut Value,
    lines: &mut Lines,
    problem: &mut dyn FnMut(String),
) {
    let state = match missing {
        Ok(None) => "not checked: the environment has no check".to_owned(),
        Ok(Some(missing)) if missing.is_empty() => "all found".to_owned(),
        Ok(Some(missing)) => {
            missing.iter().for_each(|text| problem(text.clone()));
            if facts.is_object() {
                facts["missing"] = json!(missing);
            }
            format!("{} missing (see the problems below)", missing.len())
        }
        Err(text) => {
            problem(text);
            "failed (see the problems below)".to_owned()
        }
    };
    lines.field("imports", &state);
}

/// Runs the check of an environment for a script.
///
/// * `check`: arguments of the check; `None` if the environment has none.
/// * `mounts`: folders that the call of the script reads.
///
/// Returns its problems; `None` if the environment has
/// no check.
///
/// # Errors
/// A sentence for the user with the reason why the check failed.
fn check_imports(
    interpreter: &Interpreter,
    check: Option<&[String]>,
    mounts: &[Grant],
    checker: &Checker,
) -> Result<Option<Vec<String>>, String> {
    let name = interpreter.module.file_name().unwrap_or_default();
    let limits = Limits {
        module_bytes: ModuleFile::MAX_NAMED_BYTES,
        ..checker.policy.default.clone()
    };
    let sha256 = prepare(&interpreter.module, &limits, checker)
        .map_err(|text| format!("`{}`: {text}", interpreter.module.display()))?;
    let Some(args) = check else {
        return Ok(None);
    };
    let mut argv = vec![name.to_string_lossy().into_owned()];
    argv.extend(args.iter().cloned());
    let answer = Answer::default();
    let stdout = GuestOutput::new(Some(Box::new(answer.clone())), MAX_ANSWER_BYTES);
    let stderr = GuestOutput::new(None, MAX_ANSWER_BYTES);
    let end = checker.backend.run_guest(&Invocation {
        module_sha256: &sha256,
        entry: Entry::Command,
        argv: &argv,
        env: &[],
        grants: mounts,
        stdin: GuestInput::Empty,
        stdout,
        stderr: stderr.clone(),
        warnings: GuestWarnings::dropped(),
        limits: &limits,
        seed: 0,
        cancel: &CancelToken::new(),
    });
    let end = end.map_err(|err| err.chain())?;
    let failed = |text: &str| {
        let environment = &interpreter.name;
        format!("the check of the environment `{environment}` failed: {text}")
    };
    if end != GuestEnd::Exited(0) {
        let text = format!("{}\n{}", outcome_of_end(end).describe(), stderr.tail());
        return Err(failed(text.trim_end()));
    }
    let texts = parse_json(&answer.bytes(), DuplicateKeys::Refuse).ok();
    let texts = texts.as_ref().and_then(Value::as_array).and_then(|texts| {
        let texts = texts.iter().take(MAX_PROBLEMS);
        texts.map(|text| text.as_str().map(str::to_owned)).collect()
    });
    match texts {
        Some(texts) => Ok(Some(texts)),
        None => Err(failed("it did not print a JSON array of strings")),
    }
}

/// Prepares the module of an interpreter. Returns its digest.
fn prepare(path: &Path, limits: &Limits, checker: &Checker) -> Result<String, String> {
    let prepared = match checker.backend.prepare_unchanged(path, limits) {
        Some(prepared) => prepared,
        None => {
            let file = ModuleFile::read(path, limits.module_bytes)?;
            let kind = checker.backend.prepare(&file, limits, Duration::MAX)?;
            (file.sha256, kind)
        }
    };
    match prepared {
        (_, ModuleKind::Typed) => Err("is a typed task, not a command".to_owned()),
        (sha256, _) => Ok(sha256),
    }
}

/// Output of a check.
#[derive(Clone, Default)]
struct Answer(Arc<Mutex<Vec<u8>>>);

impl Answer {
    fn bytes(&self) -> Vec<u8> {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        bytes.clone()
    }
}

impl Write for Answer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
