//! Measures two kinds of work in turns, so that what else the machine does falls on both, and
//! prints a line for each question. With `MANDELBOX_BENCH_TINY` set the work is so little that the
//! figures mean nothing: it shows that the benches still run.
//!
//! CPU time is what Linux counts for this process and its children that have ended, in steps of 10
//! ms: work has to be much longer than that.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Resolution of CPU times in Linux, in steps a second.
const TICKS_PER_S: f64 = 100.0;

/// What a piece of work cost, in seconds.
#[derive(Clone, Copy)]
pub struct Cost {
    pub cpu_s: f64,
    pub wall_s: f64,
}

/// One of the two that are compared.
pub struct Work<'w> {
    /// What it is, for the reader.
    pub name: &'w str,
    /// Pieces that one run does: figures are for one of them.
    pub n: usize,
    pub run: Box<dyn FnMut() + 'w>,
}

impl<'w> Work<'w> {
    pub fn new(name: &'w str, n: usize, run: impl FnMut() + 'w) -> Self {
        Self {
            name,
            n,
            run: Box::new(run),
        }
    }

    fn measure(&mut self) -> Cost {
        let cost = cost(&mut self.run);
        Cost {
            cpu_s: cost.cpu_s / self.n as f64,
            wall_s: cost.wall_s / self.n as f64,
        }
    }
}

/// Whether benches only show that they run.
pub fn is_tiny() -> bool {
    std::env::var_os("MANDELBOX_BENCH_TINY").is_some()
}

/// The size of a piece of work.
pub fn size(full: usize, tiny: usize) -> usize {
    if is_tiny() { tiny } else { full }
}

/// Measures one run of `work`.
pub fn cost(work: impl FnOnce()) -> Cost {
    let (cpu_s, started) = (cpu_s(), Instant::now());
    work();
    Cost {
        wall_s: started.elapsed().as_secs_f64(),
        cpu_s: self::cpu_s() - cpu_s,
    }
}

/// CPU time of this process and of its children that have ended, in seconds.
fn cpu_s() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").expect("Linux's /proc");
    // The name of the program is in brackets and can hold anything.
    let (_, fields) = text.rsplit_once(')').expect("the program's name");
    let ticks = fields.split_whitespace().skip(11).take(4);
    ticks
        .map(|ticks| ticks.parse::<f64>().expect("a number"))
        .sum::<f64>()
        / TICKS_PER_S
}

/// Runs two in turns and prints the medians of both and the median of the ratios of each pair.
///
/// * `rounds`: runs of each, after one that does not count.
pub fn compare(question: &str, rounds: usize, mut a: Work<'_>, mut b: Work<'_>) {
    if !is_tiny() {
        a.measure();
        b.measure();
    }
    if std::env::var_os("RUST_BACKTRACE").is_some() {
        say("RUST_BACKTRACE is set: what ends or answers with an error costs more than without it");
    }
    let rounds = size(rounds, 1);
    let pairs: Vec<_> = (0..rounds).map(|_| (a.measure(), b.measure())).collect();
    let line = |of: fn(&Cost) -> f64| {
        let median_of = |side: fn(&(Cost, Cost)) -> &Cost| {
            time_text(median(pairs.iter().map(|pair| of(side(pair)))))
        };
        let ratio = median(pairs.iter().map(|(a, b)| of(a) / of(b)));
        format!(
            "{} to {}, ratio {}",
            median_of(|pair| &pair.0),
            median_of(|pair| &pair.1),
            ratio_text(ratio)
        )
    };
    let (cpu, wall) = (line(|cost| cost.cpu_s), line(|cost| cost.wall_s));
    say(&format!(
        "{question}: {} to {}: CPU {cpu}; wall {wall}",
        a.name, b.name
    ));
}

/// Prints a line.
#[allow(clippy::print_stdout, reason = "a bench is there for what it prints")]
pub fn say(line: &str) {
    println!("{line}");
}

/// The middle one of some values; NaN if there is none.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A ratio, below 1 also as a fraction.
fn ratio_text(ratio: f64) -> String {
    if ratio < 0.5 {
        format!("{ratio:.4} (1/{:.1})", 1.0 / ratio)
    } else {
        format!("{ratio:.2}")
    }
}

/// A time in the unit that suits it.
pub fn time_text(seconds: f64) -> String {
    match seconds {
        s if s < 1e-3 => format!("{:.1} us", s * 1e6),
        s if s < 1.0 => format!("{:.2} ms", s * 1e3),
        s => format!("{s:.2} s"),
    }
}

/// Temporary folders to work in, each with a word for it: in memory where that can be had, and on
/// the disk.
pub fn folders() -> Vec<(&'static str, TempDir)> {
    let disk = ("on disk", std::env::temp_dir());
    let memory = ("in memory", PathBuf::from("/dev/shm"));
    let places = [memory, disk].into_iter();
    let folder = |(word, place): (&'static str, PathBuf)| {
        let folder = tempfile::Builder::new()
            .prefix("mandelbox-bench")
            .tempdir_in(place)
            .ok()?;
        Some((word, folder))
    };
    places.filter_map(folder).collect()
}

/// Waits until a file system that was given much to remove has forgotten it: ext4 takes no inode
/// again that was freed less than 5 seconds ago, and searches for others meanwhile.
pub fn settle() {
    if !is_tiny() {
        std::thread::sleep(Duration::from_secs(6));
    }
}
