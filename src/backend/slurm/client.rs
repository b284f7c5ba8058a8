//! Client of SLURM: runs `sbatch`, `squeue`, `scancel`, `scontrol` and `sacct`.
//!
//! The commands are found on `PATH`, since sites wrap them. Their environment is cleared: options
//! in `SBATCH_*` and `SLURM_*` of a surrounding job would change the jobs, and `sbatch` copies its
//! environment into the job, secrets included.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use super::parse::{
    ClusterFacts, JobRow, Refusal, SACCT_FORMAT, SQUEUE_FORMAT, parse_config, parse_refusal,
    parse_sacct, parse_sbatch, parse_squeue,
};
use crate::model::CancelToken;

/// Variables that the commands, and so the jobs, get from the environment of this program.
pub const PASSED_VARIABLES: [&str; 5] = ["PATH", "HOME", "LANG", "SLURM_CONF", "SLURM_CLUSTERS"];

/// Longest time of a command. A controller that is down takes 9 s to 18 s to be noticed.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Longest time of `scancel` at the end of a cancelled run, which must end soon.
const CANCEL_TIMEOUT: Duration = Duration::from_millis(1500);
/// Interval of polling for the end of a command.
const POLL: Duration = Duration::from_millis(3);
/// Largest output of a command that is kept.
const MAX_OUTPUT_BYTES: u64 = 256 << 20;
/// Characters of a command's stderr in a message.
const MAX_MESSAGE_CHARS: usize = 500;

/// Client of a cluster.
#[derive(Clone, Debug)]
pub struct Client {
    environment: Vec<(OsString, OsString)>,
    timeout: Duration,
}

/// Reason why a command gave no answer: a sentence for the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NoAnswer(pub(super) String);

/// Reason why `sbatch` did not submit a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SubmitError {
    pub(super) kind: Refusal,
    /// Sentence for the user.
    pub(super) message: String,
}

/// End of a command.
struct Ran {
    status: ExitStatus,
    stdout: String,
    stderr: String,
}

/// Reason why a command did not end by itself.
enum CommandError {
    /// It could not be started.
    Missing(io::Error),
    /// It took too long.
    TimedOut,
    /// The run was cancelled.
    Cancelled,
}

impl Client {
    /// Creates a client.
    ///
    /// * `environment`: those of [`PASSED_VARIABLES`] that are set.
    pub fn new(environment: Vec<(OsString, OsString)>) -> Self {
        Self {
            environment,
            timeout: TIMEOUT,
        }
    }

    /// Submits a job.
    pub(super) fn submit(
        &self,
        arguments: &[OsString],
        cancel: &CancelToken,
    ) -> Result<u64, SubmitError> {
        let failed = |kind, message| SubmitError { kind, message };
        let ran = match self.run("sbatch", arguments, self.timeout, Some(cancel)) {
            Ok(ran) => ran,
            Err(CommandError::Missing(err)) => {
                let message = format!("failed to start sbatch: {err}");
                return Err(failed(Refusal::Final, message));
            }
            Err(error) => {
                let message = self.message("sbatch", error);
                return Err(failed(Refusal::NoAnswer, message));
            }
        };
        if !ran.status.success() {
            let kind = parse_refusal(&ran.stderr);
            return Err(failed(kind, failure("sbatch", &ran)));
        }
        parse_sbatch(&ran.stdout).ok_or_else(|| {
            let message = "sbatch printed no identifier of a job".to_owned();
            failed(Refusal::NoAnswer, message)
        })
    }

    /// Returns the jobs with these names that the controller knows.
    pub(super) fn jobs(
        &self,
        names: &[&str],
        cancel: &CancelToken,
    ) -> Result<Vec<JobRow>, NoAnswer> {
        let names = names.join(",");
        let arguments = ["-h", "-r", "-t", "all", "-n", &names, "-O", SQUEUE_FORMAT];
        let text = self.answer("squeue", &arguments, self.timeout, Some(cancel))?;
        Ok(parse_squeue(&text))
    }

    /// Returns jobs from the accounting database; an error if the cluster has none.
    pub(super) fn past_jobs(
        &self,
        ids: &[u64],
        cancel: &CancelToken,
    ) -> Result<Vec<JobRow>, NoAnswer> {
        let ids: Vec<_> = ids.iter().map(u64::to_string).collect();
        let ids = ids.join(",");
        let arguments = ["-n", "-P", "-X", "-j", &ids, "-o", SACCT_FORMAT];
        let text = self.answer("sacct", &arguments, self.timeout, Some(cancel))?;
        Ok(parse_sacct(&text))
    }

    /// Cancels jobs by their identifiers and by their names.
    pub(super) fn cancel(&self, ids: &[String], names: &[&str]) -> Result<(), NoAnswer> {
        if !ids.is_empty() {
            let ids: Vec<_> = ids.iter().map(String::as_str).collect();
            self.answer("scancel", &ids, CANCEL_TIMEOUT, None)?;
        }
        for name in names {
            self.answer("scancel", &["-n", name], CANCEL_TIMEOUT, None)?;
        }
        Ok(())
    }

    /// Cancels the elements of arrays that wait in the queue.
    pub(super) fn cancel_pending(&self, names: &[&str]) -> Result<(), NoAnswer> {
        for name in names {
            let arguments = ["-t", "PENDING", "-n", name];
            self.answer("scancel", &arguments, self.timeout, None)?;
        }
        Ok(())
    }

    /// Returns facts about the cluster.
    pub(super) fn facts(&self, cancel: &CancelToken) -> Result<ClusterFacts, NoAnswer> {
        let arguments = ["show", "config"];
        let text = self.answer("scontrol", &arguments, self.timeout, Some(cancel))?;
        Ok(parse_config(&text))
    }

    /// Returns the number of nodes of the cluster.
    pub(super) fn n_nodes(&self, cancel: &CancelToken) -> Result<usize, NoAnswer> {
        let arguments = ["-h", "-N", "-o", "%N"];
        let text = self.answer("sinfo", &arguments, self.timeout, Some(cancel))?;
        let names: std::collections::BTreeSet<_> = text.lines().map(str::trim).collect();
        Ok(names.len())
    }

    /// Returns the version that a command prints.
    pub(super) fn version(&self, command: &str) -> Result<String, NoAnswer> {
        let text = self.answer(command, &["--version"], self.timeout, None)?;
        Ok(text.trim().to_owned())
    }

    /// Runs a command that must succeed. Returns its stdout.
    fn answer<S: AsRef<OsStr>>(
        &self,
        command: &str,
        arguments: &[S],
        timeout: Duration,
        cancel: Option<&CancelToken>,
    ) -> Result<String, NoAnswer> {
        match self.run(command, arguments, timeout, cancel) {
            Ok(ran) if ran.status.success() => Ok(ran.stdout),
            Ok(ran) => Err(NoAnswer(failure(command, &ran))),
            Err(error) => Err(NoAnswer(self.message(command, error))),
        }
    }

    fn message(&self, command: &str, error: CommandError) -> String {
        match error {
            CommandError::Missing(err) => format!("failed to start {command}: {err}"),
            CommandError::TimedOut => {
                format!(
                    "{command} did not answer within {} s",
                    self.timeout.as_secs()
                )
            }
            CommandError::Cancelled => {
                format!("{command} was stopped, since the run was cancelled")
            }
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the one place where commands of SLURM are started"
    )]
    fn run<S: AsRef<OsStr>>(
        &self,
        command: &str,
        arguments: &[S],
        timeout: Duration,
        cancel: Option<&CancelToken>,
    ) -> Result<Ran, CommandError> {
        // The program is looked up in the `PATH` of the environment that is set here.
        let mut child = Command::new(command)
            .args(arguments)
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(Path::new("/"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C on the terminal must not end an `sbatch` whose job was submitted already.
            .process_group(0)
            .spawn()
            .map_err(CommandError::Missing)?;
        let stdout = read_in_thread(child.stdout.take());
        let stderr = read_in_thread(child.stderr.take());
        let status = wait(&mut child, timeout, cancel)?;
        let text = |thread: std::thread::JoinHandle<Vec<u8>>| {
            String::from_utf8_lossy(&thread.join().unwrap_or_default()).into_owned()
        };
        Ok(Ran {
            status,
            stdout: text(stdout),
            stderr: text(stderr),
        })
    }
}

/// Waits for the end of a command, which is killed with its children after its timeout.
fn wait(
    child: &mut Child,
    timeout: Duration,
    cancel: Option<&CancelToken>,
) -> Result<ExitStatus, CommandError> {
    let started = Instant::now();
    let error = loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) => {}
            Err(err) => break CommandError::Missing(err),
        }
        if cancel.is_some_and(CancelToken::is_cancelled) {
            break CommandError::Cancelled;
        }
        if started.elapsed() > timeout {
            break CommandError::TimedOut;
        }
        std::thread::sleep(POLL);
    };
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    if let Some(group) = group {
        // It may have ended meanwhile.
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = child.wait();
    Err(error)
}

fn read_in_thread(pipe: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(pipe) = pipe {
            // What was read before an error is kept.
            let _ = pipe.take(MAX_OUTPUT_BYTES).read_to_end(&mut bytes);
        }
        bytes
    })
}

fn failure(command: &str, ran: &Ran) -> String {
    let text: String = ran.stderr.trim().chars().take(MAX_MESSAGE_CHARS).collect();
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    match lines.join("; ") {
        text if text.is_empty() => format!("{command} failed ({})", ran.status),
        text => format!("{command} failed: {text}"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A folder with a stand-in of each given command.
    fn client(commands: &[(&str, &str)]) -> (tempfile::TempDir, Client) {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, script) in commands {
            let path = folder.path().join(name);
            let mut file = std::fs::File::create(&path).expect("a file");
            io::Write::write_all(&mut file, format!("#!/bin/sh\n{script}\n").as_bytes())
                .expect("written");
            let mode = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(&path, mode).expect("executable");
        }
        let mut path = folder.path().as_os_str().to_owned();
        path.push(":/usr/bin:/bin");
        let client = Client {
            environment: vec![("PATH".into(), path)],
            timeout: Duration::from_millis(400),
        };
        (folder, client)
    }

    #[test]
    fn commands_get_no_other_variable() {
        let (_folder, client) = client(&[("sbatch", "env >&2; echo 7")]);
        assert_eq!(client.submit(&[], &CancelToken::new()), Ok(7));
        let (_folder, client) = self::client(&[("sbatch", "env >&2; exit 1")]);
        let refused = client
            .submit(&[], &CancelToken::new())
            .expect_err("refused");
        let names: Vec<_> = refused
            .message
            .trim_start_matches("sbatch failed: ")
            .split("; ")
            .filter_map(|line| Some(line.split_once('=')?.0.to_owned()))
            .filter(|name| !["PWD", "_", "SHLVL", "OLDPWD"].contains(&name.as_str()))
            .collect();
        assert_eq!(names, ["PATH"]);
    }

    #[test]
    fn a_command_that_hangs_is_killed() {
        let (_folder, client) = client(&[("sbatch", "sleep 60 & sleep 60")]);
        let started = Instant::now();
        let refused = client
            .submit(&[], &CancelToken::new())
            .expect_err("refused");
        assert_eq!(refused.kind, Refusal::NoAnswer);
        assert!(refused.message.contains("did not answer"), "{refused:?}");
        let cancel = CancelToken::new();
        cancel.cancel();
        let refused = client.submit(&[], &cancel).expect_err("refused");
        assert!(refused.message.contains("cancelled"), "{refused:?}");
        assert!(started.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_missing_command_is_named() {
        let (_folder, client) = client(&[]);
        let NoAnswer(message) = client
            .jobs(&["a"], &CancelToken::new())
            .expect_err("no squeue");
        // Unless the machine has one.
        assert!(message.contains("squeue"), "{message}");
    }
}
