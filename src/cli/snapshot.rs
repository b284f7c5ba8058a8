//! `mandelbox snapshot`: a module that starts after its initialization.

use super::Answer;
use super::author_arguments::SnapshotArguments;
use super::documents::{COMPILE_NOTICE_DELAY, COMPILE_TIME, author_policy};
use super::exec::mounts::read_mounts;
use super::sandbox_options::within_memory;
use super::signals::{self, Signals};
use crate::backend::{Local, NoSnapshot, WantedSnapshot};
use crate::folder::write_whole;
use crate::model::{Grant, ModuleFile, ModuleRef, Modules, Rights};
use crate::plan::Policy;
use crate::problem::{Location, Problems};
use crate::report::Notice;
use crate::run::exit_code;
use crate::sandbox::{Interruption, SandboxOptions};
use crate::text::{bytes_text, escaped};

pub(super) fn snapshot(arguments: &SnapshotArguments, signals: &Signals) -> Answer {
    let mut problems = Problems::default();
    let policy = author_policy(&arguments.sandbox, &mut problems);
    let grants = read_mounts(&arguments.mounts, &mut problems);
    for grant in &grants {
        if grant.rights == Rights::ReadWrite {
            let location = Location::Parameter(format!("--mount {}", grant.host_path.display()));
            problems.add(
                location,
                "the start of a module can only read; leave out `:rw`",
            );
        }
    }
    let backend = match backend(arguments, &policy) {
        Ok(backend) => backend,
        Err(text) => return failed(&text, exit_code::HOST_FAILED),
    };
    let module = read_module(arguments, &policy, &backend, &mut problems);
    let Some(module) = module.filter(|_| problems.is_empty()) else {
        return Answer::text(format!("error: {problems}\n"), exit_code::WRONG_INPUT);
    };
    match write(arguments, &module, &grants, &policy, &backend, signals) {
        Ok(text) => Answer::text(text, exit_code::SUCCESS),
        Err(NoSnapshot::Cancelled) => match signals.received() {
            Some(signal) => signal.answer(),
            None => failed(
                "the start of the module was cancelled",
                exit_code::HOST_FAILED,
            ),
        },
        Err(NoSnapshot::Refused(text)) => failed(&text, exit_code::WRONG_INPUT),
        Err(NoSnapshot::Host(text)) => failed(&text, exit_code::HOST_FAILED),
    }
}

fn failed(text: &str, exit_code: u8) -> Answer {
    Answer::text(format!("error: {}\n", escaped(text)), exit_code)
}

fn backend(arguments: &SnapshotArguments, policy: &Policy) -> Result<Local, String> {
    let options = SandboxOptions {
        on_demand: true,
        interruption: Interruption::Process,
        ..arguments.sandbox.options(false)
    };
    let backend = Local::with_options(1, &options, arguments.sandbox.isolation()?)
        .map_err(|err| err.chain())?
        .cancel_grace_period(signals::GRACE_PERIOD);
    Ok(within_memory(backend, policy))
}

/// Reads the module and prepares it, with a notice if compiling it takes long.
fn read_module(
    arguments: &SnapshotArguments,
    policy: &Policy,
    backend: &Local,
    problems: &mut Problems,
) -> Option<ModuleFile> {
    let limits = &policy.default;
    let read = ModuleFile::read(&arguments.module, limits.module_bytes).and_then(|file| {
        let name = escaped(&arguments.module.to_string_lossy());
        let notice = Notice::after(COMPILE_NOTICE_DELAY, format!("compiling {name} ..."));
        backend.prepare_snapshots(&file, limits, COMPILE_TIME)?;
        drop(notice);
        Ok(file)
    });
    read.map_err(|text| problems.add(Location::File(arguments.module.clone()), text))
        .ok()
}

/// Starts the module, and writes the new one. Returns a line about it.
fn write(
    arguments: &SnapshotArguments,
    module: &ModuleFile,
    grants: &[Grant],
    policy: &Policy,
    backend: &Local,
    signals: &Signals,
) -> Result<String, NoSnapshot> {
    let wanted = WantedSnapshot {
        module: &ModuleRef::from(module),
        mounts: grants,
        limits: &policy.default,
        init_time: policy.init_time,
        cancel: signals.cancel(),
    };
    let made = backend.whole_snapshot(&wanted, module)?;
    backend.write_cache();
    write_whole(&arguments.output, &made).map_err(|err| NoSnapshot::Host(err.chain()))?;
    Ok(format!(
        "wrote {} ({})\n",
        escaped(&arguments.output.to_string_lossy()),
        bytes_text(made.len() as u64)
    ))
}
