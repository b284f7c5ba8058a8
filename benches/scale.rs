//! How a run grows with its components: time, memory and the first result of the real program.

#![allow(
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "benches read the environment and start programs"
)]

#[allow(dead_code, reason = "each bench uses what it needs")]
mod guests;
#[allow(dead_code, reason = "each bench uses what it needs")]
mod measure;

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use guests::{metadata, workflow};
use measure::{cost, folders, say, settle, size, time_text};

/// Time between two looks at the program's memory, whose highest mark is what is looked at.
const LOOK: Duration = Duration::from_millis(2);

fn main() {
    let sizes = [size(100_000, 50), size(1_000_000, 500)];
    for (place, folder) in folders() {
        let mut walls = Vec::new();
        for n in sizes {
            walls.push(scale(place, folder.path(), n));
        }
        say(&format!(
            "{} components take {:.2} times as long as {} {place}",
            sizes[1],
            walls[1] / walls[0],
            sizes[0]
        ));
        drop(folder);
        settle();
    }
}

/// Runs the program with so many components of a typed task; the time that it takes, in seconds.
fn scale(place: &str, folder: &Path, n_components: usize) -> f64 {
    let work_dir = format!("work{n_components}");
    std::fs::write(
        folder.join("workflow.json"),
        workflow("trivial_typed.wasm").to_string(),
    )
    .expect("written");
    std::fs::write(
        folder.join("metadata.json"),
        metadata(n_components).to_string(),
    )
    .expect("written");
    let mut program = Command::new(env!("CARGO_BIN_EXE_mandelbox"));
    program.args([
        "run",
        "workflow.json",
        "--metadata",
        "metadata.json",
        "--output",
        "out",
        "--task-files",
        "none",
    ]);
    program
        .args(["--quiet", "--work-dir", &work_dir])
        .current_dir(folder);
    program
        .env("XDG_CACHE_HOME", folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let (mut peak_kb, mut first) = (0, None);
    let events = folder.join(work_dir).join("events.jsonl");
    let cost = cost(|| {
        let started = Instant::now();
        let mut child = program.spawn().expect("started");
        let status = loop {
            if let Some(status) = child.try_wait().expect("a child") {
                break status;
            }
            peak_kb = peak_kb.max(high_water_kb(child.id()));
            first = first.or_else(|| has_result(&events).then(|| started.elapsed()));
            std::thread::sleep(LOOK);
        };
        assert!(status.success(), "{status}");
    });
    let first = first.map_or("too soon to see".to_owned(), |first| {
        time_text(first.as_secs_f64())
    });
    let (wall, cpu) = (time_text(cost.wall_s), time_text(cost.cpu_s));
    let each = time_text(cost.cpu_s / n_components as f64);
    say(&format!(
        "{n_components} components {place}: wall {wall}, CPU {cpu} ({each} each), first result \
         after {first}, \
         peak RSS {:.0} MiB",
        peak_kb as f64 / 1024.0
    ));
    cost.wall_s
}

/// The most memory that a process had so far, in KiB; 0 if it has ended.
fn high_water_kb(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

/// Returns true if the beginning of the event log has a call that ended.
fn has_result(events: &Path) -> bool {
    let mut text = Vec::new();
    let read = File::open(events).and_then(|file| file.take(16 << 10).read_to_end(&mut text));
    read.is_ok() && String::from_utf8_lossy(&text).contains("\"call_finished\"")
}
