//! Runs the program and watches what it uses.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::project::{Project, peak_memory_bytes};

/// A program that takes longer is killed.
const TIMEOUT: Duration = Duration::from_secs(60);

/// How the program ended, and the most memory that it had.
pub(super) struct Watched {
    pub(super) code: Option<i32>,
    pub(super) printed: String,
    pub(super) elapsed: Duration,
    pub(super) peak_bytes: u64,
    pub(super) has_children: bool,
}

/// Runs the program in a process group of its own; one that hangs is killed.
pub(super) fn watch(project: &Project, mut command: Command) -> Watched {
    let (stdout, stderr) = (project.path("stdout"), project.path("stderr"));
    let file = |path| File::create(path).expect("made");
    let started = Instant::now();
    let mut child = command
        .stdout(file(&stdout))
        .stderr(file(&stderr))
        .process_group(0)
        .spawn()
        .expect("the program starts");
    let mut peak_bytes = 0;
    let code = loop {
        if let Some(status) = child.try_wait().expect("waited for") {
            break status.code();
        }
        peak_bytes = peak_bytes.max(peak_memory_bytes(child.id()));
        if started.elapsed() > TIMEOUT {
            child.kill().expect("killed");
            child.wait().expect("waited for");
            break None;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let elapsed = started.elapsed();
    let group = rustix::process::Pid::from_raw(child.id().cast_signed()).expect("an id");
    let has_children = rustix::process::test_kill_process_group(group).is_ok();
    let read = |path: &Path| String::from_utf8_lossy(&fs::read(path).expect("there")).into_owned();
    let printed = format!("{}{}", read(&stdout), read(&stderr));
    Watched {
        code,
        printed,
        elapsed,
        peak_bytes,
        has_children,
    }
}
