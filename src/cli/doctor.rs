//! `mandelbox doctor`.

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::process::{Resource, getrlimit};
use serde_json::json;

use super::arguments::{BackendArgument, DoctorArguments};
use super::sandbox_options::worker_command;
use super::shared_arguments::FormatArgument;
use super::{Answer, doctor_cache, environment, slurm};
use crate::backend::{ClusterCheck, Confinement, Isolation, LayerReport, LayerState, Local};
use crate::json::build_json;
use crate::model::{CancelToken, Limits, ModuleFile, Modules};
use crate::plan::Policy;
use crate::problem::Problems;
use crate::run::exit_code;
use crate::sandbox::{
    Entry, GuestEnd, GuestInput, GuestOutput, GuestWarnings, Invocation, Reservation,
    SandboxOptions, scans_changed_pages,
};
use crate::text::{bytes_text, escaped};

/// Smallest possible command: `(module (func (export "_start")))`.
const EMPTY_COMMAND: &[u8] =
    b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x07\x0a\x01\x06_start\0\0\x0a\x04\x01\x02\0\x0b";
/// Files that a thread of the pool may have open at a time, in addition to those of the run itself.
const FILES_A_CALL: u64 = 32;

/// Result of one check of this machine.
struct Finding {
    name: &'static str,
    state: Availability,
    value: String,
    /// Consequences, and what to do; empty in the state [`Availability::Good`].
    advice: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Availability {
    /// Available.
    Good,
    /// Missing or too low, but mandelbox works.
    Missing,
    /// mandelbox cannot work.
    Broken,
}

impl Availability {
    fn word(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Missing => "missing",
            Self::Broken => "broken",
        }
    }
}

pub(super) fn doctor(arguments: &DoctorArguments) -> Answer {
    let mut problems = Problems::default();
    match arguments.backend {
        BackendArgument::Local => slurm::refuse_options(
            &[
                ("--slurm-config", arguments.slurm_config.is_some()),
                ("--folder", arguments.folder.is_some()),
            ],
            &mut problems,
        ),
        BackendArgument::Slurm => {}
    }
    if !problems.is_empty() {
        return Answer::text(format!("error: {problems}\n"), exit_code::WRONG_INPUT);
    }
    let mut findings = vec![
        cpus(),
        open_files(),
        address_space(),
        resolving(),
        swap(),
        pagemap(),
    ];
    let confinement = trials(&mut findings);
    match arguments.backend {
        BackendArgument::Local => {}
        BackendArgument::Slurm => {
            match slurm::check(arguments.slurm_config.clone(), arguments.folder.clone()) {
                Ok(checks) => findings.extend(checks.into_iter().map(of_cluster)),
                Err(text) => {
                    return Answer::text(format!("error: {text}\n"), exit_code::WRONG_INPUT);
                }
            }
        }
    }
    let broken = findings
        .iter()
        .any(|finding| finding.state == Availability::Broken);
    let exit_code = if broken {
        exit_code::HOST_FAILED
    } else {
        exit_code::SUCCESS
    };
    match arguments.format {
        FormatArgument::Text => Answer::text(text(&findings, &confinement), exit_code),
        FormatArgument::Json => Answer {
            stdout: json_answer(&findings, &confinement, !broken),
            stderr: String::new(),
            exit_code,
        },
    }
}

/// A cluster that cannot run jobs is broken, since the user has asked for it.
fn of_cluster(check: ClusterCheck) -> Finding {
    Finding {
        name: check.name,
        state: if check.is_good {
            Availability::Good
        } else {
            Availability::Broken
        },
        value: check.value,
        advice: check.advice,
    }
}

fn finding(name: &'static str, good: bool, value: String, advice: &'static str) -> Finding {
    let state = if good {
        Availability::Good
    } else {
        Availability::Missing
    };
    Finding {
        name,
        state,
        value,
        advice: if good { "" } else { advice },
    }
}

fn cpus() -> Finding {
    let n = std::thread::available_parallelism().map_or(1, usize::from);
    finding(
        "CPUs",
        true,
        format!(
            "{n}, {}; the default of `--jobs` is {n}",
            std::env::consts::ARCH
        ),
        "",
    )
}

fn open_files() -> Finding {
    let limit = getrlimit(Resource::Nofile).current;
    let n = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let good = limit.is_none_or(|limit| limit >= n * FILES_A_CALL + 64);
    let value = limit.map_or("no limit".to_owned(), |limit| limit.to_string());
    finding(
        "open files (ulimit -n)",
        good,
        value,
        "tasks that open many files fail; raise the limit, or lower `--jobs`",
    )
}

fn address_space() -> Finding {
    let limit = getrlimit(Resource::As).current;
    let limit = limit.map_or("no limit".to_owned(), bytes_text);
    let reservation = Reservation::Fitting.resolve();
    let value = format!("{limit}; {reservation}");
    let advice = "memory accesses of guests are checked one by one, which is slower; remove the \
        limit, and limit calls with `--memory`";
    finding(
        "address space (ulimit -v)",
        reservation == Reservation::Whole,
        value,
        advice,
    )
}

fn resolving() -> Finding {
    let opened = openat2(
        CWD,
        "/",
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH,
    );
    // An absolute path is not beneath the current folder. Only a kernel that implements openat2
    // reports this, as EXDEV.
    let value = match opened {
        Err(rustix::io::Errno::XDEV) | Ok(_) => Ok("available".to_owned()),
        Err(err) => Err(err.to_string()),
    };
    let advice = "paths of guests are resolved step by step, which is slower; if an outer sandbox \
        refuses the system call, allow it there";
    finding(
        "openat2",
        value.is_ok(),
        value.unwrap_or_else(|err| err),
        advice,
    )
}

fn swap() -> Finding {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("SwapTotal:"));
    let value = match line.map(|line| line.trim().trim_end_matches(" kB").parse::<u64>()) {
        Some(Ok(kibibytes)) => bytes_text(kibibytes * 1024),
        _ => "unknown: /proc is missing".to_owned(),
    };
    finding("swap", true, value, "")
}

fn pagemap() -> Finding {
    let used = scans_changed_pages();
    let value = if used {
        "used: only memory that a guest changed is cleared for the next guest"
    } else {
        "not used"
    };
    let advice = "calls start slower; it needs Linux 6.7 and a machine without swap";
    finding("pagemap scan", used, value.to_owned(), advice)
}

/// Runs an empty guest in a thread and in a process, with the cache that a run would use. Returns
/// the confinement of the process, which is empty if the process cannot be started.
fn trials(findings: &mut Vec<Finding>) -> Confinement {
    let cache_folder = environment::cache_folder();
    let options = SandboxOptions {
        cache_folder: cache_folder.clone(),
        ..SandboxOptions::default()
    };
    let broken = |name, value| Finding {
        name,
        state: Availability::Broken,
        value,
        advice: "no call can run on this machine",
    };
    let backend = match Local::with_options(1, &options, Isolation::Thread) {
        Ok(backend) => backend,
        Err(err) => {
            findings.push(broken("a guest in a thread", err.chain()));
            return Confinement::default();
        }
    };
    let advice = "modules are compiled again for each run; set XDG_CACHE_HOME to a folder that you \
        can write to";
    findings.push(match (backend.sandbox().warning(), cache_folder) {
        (Some(warning), _) => finding(
            "cache of compiled modules",
            false,
            warning.to_owned(),
            advice,
        ),
        (None, Some(folder)) => {
            let (value, advice) = doctor_cache::state(&folder);
            finding(
                "cache of compiled modules",
                advice.is_none(),
                value,
                advice.unwrap_or_default(),
            )
        }
        (None, None) => finding(
            "cache of compiled modules",
            false,
            "no folder: HOME is not set".to_owned(),
            advice,
        ),
    });
    if let Some(folder) = environment::packages_folder() {
        let value = doctor_cache::wheels(&folder);
        findings.push(finding("cache of unpacked wheels", true, value, ""));
    }
    let value = "a time limit adds a check to every loop iteration; `--isolation process` avoids \
        it";
    findings.push(finding("interruption", true, value.to_owned(), ""));
    findings.push(match trial(&backend) {
        Ok(()) => finding("a guest in a thread", true, "runs".to_owned(), ""),
        Err(text) => broken("a guest in a thread", text),
    });
    let name = "a guest in a process";
    let tried = worker_command().and_then(|command| {
        let backend = Local::with_options(1, &options, Isolation::Process(command))
            .map_err(|err| err.chain())?;
        trial(&backend)?;
        backend
            .confinement(&[])
            .unwrap_or_else(|| Ok(Confinement::default()))
    });
    match tried {
        Ok(confinement) => {
            let value = if confinement.is_whole() {
                "runs"
            } else {
                "runs, but a layer of confinement is missing"
            };
            let advice = "see the layers below; Linux 6.12 and later provides all of them, unless \
                an outer sandbox refuses one";
            findings.push(finding(
                name,
                confinement.is_whole(),
                value.to_owned(),
                advice,
            ));
            confinement
        }
        Err(text) => {
            findings.push(finding(
                name,
                false,
                text,
                "`--isolation process` cannot be used",
            ));
            Confinement::default()
        }
    }
}

fn trial(backend: &Local) -> Result<(), String> {
    let module = ModuleFile::from_bytes("empty.wasm".into(), EMPTY_COMMAND.to_vec());
    backend.prepare(&module, &Limits::default(), Policy::default().compile_time)?;
    let end = backend.run_guest(&Invocation {
        module_sha256: &module.sha256,
        entry: Entry::Command,
        argv: &["empty".to_owned()],
        env: &[],
        grants: &[],
        stdin: GuestInput::Empty,
        stdout: GuestOutput::new(None, 0),
        stderr: GuestOutput::new(None, 0),
        warnings: GuestWarnings::dropped(),
        limits: &Limits::default(),
        seed: 0,
        cancel: &CancelToken::new(),
    });
    match end.map_err(|err| err.chain())? {
        GuestEnd::Exited(0) => Ok(()),
        end => Err(format!("{end:?}")),
    }
}

fn text(findings: &[Finding], confinement: &Confinement) -> String {
    let mut text = format!("mandelbox {}\n", env!("CARGO_PKG_VERSION"));
    for finding in findings {
        let (word, name) = (finding.state.word(), finding.name);
        text.push_str(&format!("{word:8} {name:27} {}\n", escaped(&finding.value)));
        if !finding.advice.is_empty() {
            text.push_str(&format!("{:8} {:27} -> {}\n", "", "", finding.advice));
        }
    }
    for LayerReport {
        layer,
        state,
        detail,
    } in &confinement.0
    {
        let word = match state {
            LayerState::InForce => Availability::Good.word(),
            LayerState::Partly => "partly",
            LayerState::Missing => Availability::Missing.word(),
        };
        text.push_str(&format!(
            "{word:8} {:27} {}\n",
            format!("layer: {}", layer.name()),
            escaped(detail)
        ));
    }
    text
}

fn json_answer(findings: &[Finding], confinement: &Confinement, ok: bool) -> Vec<u8> {
    let findings: Vec<_> = findings
        .iter()
        .map(|finding| {
            let advice = Some(finding.advice).filter(|advice| !advice.is_empty());
            json!({
                "name": finding.name,
                "state": finding.state.word(),
                "value": finding.value,
                "advice": advice,
            })
        })
        .collect();
    let layers: Vec<_> = confinement
        .0
        .iter()
        .map(|report| {
            json!({
                "layer": report.layer.name(),
                "state": report.state.name(),
                "detail": report.detail,
            })
        })
        .collect();
    let version = env!("CARGO_PKG_VERSION");
    let answer =
        json!({ "version": version, "ok": ok, "findings": findings, "process_layers": layers });
    let mut text = build_json(&answer, 2);
    text.push(b'\n');
    text
}
