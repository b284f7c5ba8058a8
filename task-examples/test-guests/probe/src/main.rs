//! A task that tries out the sandbox it runs in, for tests of the host.
//!
//! The parameters have one step (`{"do": "env"}`) or a list of them (`{"steps": [{"do": "env"},
//! ...]}`); [`Step`] lists what there is. The metadiff is `{"probe": RESULT}` or `{"probe":
//! [RESULT, ...]}`, where RESULT is `{"do": NAME, "ok": VALUE}` or `{"do": NAME, "error": TEXT}`. A
//! step that fails does not stop the following ones. Before a step that ends or hangs the guest the
//! results so far are written.

use fractal_task::{Call, TaskError};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// One thing to try. `ok` is null where nothing else is said.
#[derive(Debug, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
enum Step {
    /// All environment variables, as an object.
    Env,
    /// All arguments, the program's name first.
    Argv,
    /// Reads stdin to its end; gives the number of bytes.
    Stdin,
    /// The names in a folder, sorted; those of folders end in `/`.
    List { path: PathBuf },
    /// The names in a folder, in the order in which they come.
    ListAsIs { path: PathBuf },
    /// Lists a folder `n` times; gives how many listings lack one of the first `n_files` names
    /// `f00000`, `f00001`, ..., how many have one twice, and how many fail.
    ListOften {
        path: PathBuf,
        n_files: usize,
        n: usize,
    },
    /// Opens a listing of a folder `n` times and reads one name of each, without closing it; gives
    /// the number that is open.
    OpenListings { path: PathBuf, n: usize },
    /// The size of a file, following links.
    Size { path: PathBuf },
    /// Makes the empty files `f00000`, `f00001`, ... in a folder.
    MakeFiles { path: PathBuf, n: usize },
    /// Removes a folder with all that is in it.
    RemoveAll { path: PathBuf },
    /// Removes each file of a folder as it comes in a listing; gives how many are left.
    RemoveEach { path: PathBuf },
    /// The text of a file, at most 1 MiB of it.
    Read { path: PathBuf },
    /// Writes a file, made or cut to nothing first.
    Write { path: PathBuf, text: String },
    /// Makes a folder.
    MakeDir { path: PathBuf },
    /// Removes a file, or a folder that is empty.
    Remove { path: PathBuf },
    /// Makes the symbolic link `to`, which points at `from`.
    Symlink { from: PathBuf, to: PathBuf },
    /// Gives the file or folder `from` the name `to`.
    Rename { from: PathBuf, to: PathBuf },
    /// Gives the file `from` the second name `to`.
    HardLink { from: PathBuf, to: PathBuf },
    /// Opens a file `n` times without closing it; gives the number that is open.
    OpenFiles { path: PathBuf, n: usize },
    /// Nanoseconds since 1970.
    Clock,
    /// A number made from the host's random bytes.
    Random,
    /// Waits.
    SleepMs { ms: u64 },
    /// Takes memory, writes to each page of it and keeps it.
    AllocateMib { n: usize },
    /// Prints this many MiB of lines of 64 bytes.
    Flood { stream: Stream, mib: usize },
    /// Ends the guest with an exit code.
    Exit { code: i32 },
    /// Ends the guest with a trap.
    Trap,
    /// Panics, which is a message on stderr and a trap.
    Panic,
    /// Calls itself until the stack is used up.
    Recurse,
    /// Never ends.
    Spin,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Stream {
    Stdout,
    Stderr,
}

fn main() -> ExitCode {
    fractal_task::exit_code(Call::from_command_line().and_then(|call| probe(&call)))
}

fn probe(call: &Call) -> Result<(), TaskError> {
    let parameters: Value = call.read_parameters()?;
    let (steps, is_list) = find_steps(&parameters)?;
    let mut results = Vec::new();
    let write = |results: &[Value]| {
        let probe = if is_list {
            json!(results)
        } else {
            json!(results.first())
        };
        call.write_metadiff(&json!({ "probe": probe }))
    };
    for (name, step) in steps {
        if matches!(
            step,
            Step::Exit { .. } | Step::Trap | Step::Panic | Step::Recurse | Step::Spin
        ) {
            write(&results)?;
        }
        results.push(match try_out(step) {
            Ok(value) => json!({"do": name, "ok": value}),
            Err(err) => json!({"do": name, "error": err.to_string()}),
        });
    }
    write(&results)
}

/// The steps with their names, and whether they were given as a list.
fn find_steps(parameters: &Value) -> Result<(Vec<(String, Step)>, bool), TaskError> {
    let (steps, is_list) = match parameters.get("steps") {
        Some(Value::Array(steps)) => (steps.clone(), true),
        Some(_) => return Err(TaskError::new("steps is not a list")),
        None => (vec![own_keys(parameters)], false),
    };
    let steps = steps.into_iter().map(|step| {
        let name = step
            .get("do")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        let parsed = Step::deserialize(&step)
            .map_err(|err| TaskError::new(format!("step {step}: {err}")))?;
        Ok((name, parsed))
    });
    Ok((steps.collect::<Result<_, TaskError>>()?, is_list))
}

/// The parameters without those that Fractal adds.
fn own_keys(parameters: &Value) -> Value {
    const ADDED: [&str; 4] = ["input_paths", "output_path", "metadata", "component"];
    let own = parameters
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, _)| !ADDED.contains(&key.as_str()));
    own.map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

fn try_out(step: Step) -> io::Result<Value> {
    match step {
        Step::Env => {
            let variables = std::env::vars_os().map(|(name, value)| (lossy(&name), lossy(&value)));
            Ok(json!(variables.collect::<BTreeMap<_, _>>()))
        }
        Step::Argv => Ok(json!(
            std::env::args_os()
                .map(|arg| lossy(&arg))
                .collect::<Vec<_>>()
        )),
        Step::Stdin => {
            io::copy(&mut io::stdin().lock(), &mut io::sink()).map(|n_bytes| json!(n_bytes))
        }
        Step::List { path } => list(&path),
        Step::ListAsIs { path } => Ok(json!(names(&path)?)),
        Step::ListOften { path, n_files, n } => Ok(list_often(&path, n_files, n)),
        Step::OpenListings { path, n } => open_listings(&path, n),
        Step::Size { path } => Ok(json!(fs::metadata(path)?.len())),
        Step::MakeFiles { path, n } => {
            for index in 0..n {
                File::create(path.join(format!("f{index:05}")))?;
            }
            Ok(json!(n))
        }
        Step::RemoveAll { path } => done(fs::remove_dir_all(path)),
        Step::RemoveEach { path } => {
            for entry in fs::read_dir(&path)? {
                fs::remove_file(entry?.path())?;
            }
            Ok(json!(names(&path)?.len()))
        }
        Step::Read { path } => read(&path),
        Step::Write { path, text } => done(fs::write(path, text)),
        Step::MakeDir { path } => done(fs::create_dir(path)),
        Step::Remove { path } => {
            let is_folder = fs::symlink_metadata(&path)?.is_dir();
            done(if is_folder {
                fs::remove_dir(path)
            } else {
                fs::remove_file(path)
            })
        }
        Step::Symlink { from, to } => {
            #[expect(
                deprecated,
                reason = "the one stable way to make a symbolic link on WASI"
            )]
            let linked = fs::soft_link(from, to);
            done(linked)
        }
        Step::Rename { from, to } => done(fs::rename(from, to)),
        Step::HardLink { from, to } => done(fs::hard_link(from, to)),
        Step::OpenFiles { path, n } => open_files(&path, n),
        Step::Clock => {
            let time = SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .map_err(io::Error::other)?;
            Ok(json!(time.as_nanos() as u64))
        }
        Step::Random => Ok(json!(RandomState::new().hash_one(0))),
        Step::SleepMs { ms } => {
            std::thread::sleep(Duration::from_millis(ms));
            Ok(Value::Null)
        }
        Step::AllocateMib { n } => allocate(n),
        Step::Flood {
            stream: Stream::Stdout,
            mib,
        } => done(flood(io::stdout().lock(), mib)),
        Step::Flood {
            stream: Stream::Stderr,
            mib,
        } => done(flood(io::stderr().lock(), mib)),
        Step::Exit { code } => std::process::exit(code),
        Step::Trap => trap(),
        Step::Panic => panic!("the probe was told to panic"),
        Step::Recurse => Ok(json!(recurse(0))),
        Step::Spin => {
            while COUNTER.fetch_add(1, Ordering::Relaxed) != u64::MAX {}
            Ok(Value::Null)
        }
    }
}

fn done(result: io::Result<()>) -> io::Result<Value> {
    result.map(|()| Value::Null)
}

fn lossy(text: &OsStr) -> String {
    text.to_string_lossy().into_owned()
}

fn list(path: &Path) -> io::Result<Value> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let ending = if entry.file_type()?.is_dir() { "/" } else { "" };
        names.push(lossy(&entry.file_name()) + ending);
    }
    names.sort();
    Ok(json!(names))
}

fn names(path: &Path) -> io::Result<Vec<String>> {
    fs::read_dir(path)?
        .map(|entry| Ok(lossy(&entry?.file_name())))
        .collect()
}

fn list_often(path: &Path, n_files: usize, n: usize) -> Value {
    let (mut n_lacking, mut n_double, mut n_failed) = (0, 0, 0);
    for _ in 0..n {
        let Ok(mut names) = names(path) else {
            n_failed += 1;
            continue;
        };
        names.retain(|name| name.starts_with('f'));
        let n_names = names.len();
        names.sort();
        names.dedup();
        n_double += usize::from(names.len() < n_names);
        n_lacking += usize::from(names.len() < n_files);
    }
    json!({ "lacking": n_lacking, "double": n_double, "failed": n_failed })
}

fn open_listings(path: &Path, n: usize) -> io::Result<Value> {
    for n_open in 0..n {
        let listing = fs::read_dir(path).and_then(|mut listing| {
            listing.next().transpose()?;
            Ok(listing)
        });
        match listing {
            Ok(listing) => std::mem::forget(listing),
            Err(err) => {
                return Err(io::Error::new(
                    err.kind(),
                    format!("after {n_open} listings: {err}"),
                ));
            }
        }
    }
    Ok(json!(n))
}

fn read(path: &Path) -> io::Result<Value> {
    let mut bytes = Vec::new();
    File::open(path)?.take(1 << 20).read_to_end(&mut bytes)?;
    Ok(json!(String::from_utf8_lossy(&bytes)))
}

fn open_files(path: &Path, n: usize) -> io::Result<Value> {
    for n_open in 0..n {
        match File::open(path) {
            Ok(file) => std::mem::forget(file),
            Err(err) => {
                return Err(io::Error::new(
                    err.kind(),
                    format!("after {n_open} files: {err}"),
                ));
            }
        }
    }
    Ok(json!(n))
}

fn allocate(n_mib: usize) -> io::Result<Value> {
    let n_bytes = n_mib
        .checked_mul(1 << 20)
        .ok_or(io::ErrorKind::OutOfMemory)?;
    let mut memory: Vec<u8> = Vec::new();
    memory
        .try_reserve_exact(n_bytes)
        .map_err(io::Error::other)?;
    memory.resize(n_bytes, 1);
    std::mem::forget(std::hint::black_box(memory));
    Ok(json!(n_mib))
}

fn flood(mut stream: impl Write, n_mib: usize) -> io::Result<()> {
    let line = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde\n";
    let block = line.repeat(1024);
    for _ in 0..16 * n_mib {
        stream.write_all(block.as_bytes())?;
    }
    stream.flush()
}

fn trap() -> ! {
    #[cfg(target_arch = "wasm32")]
    core::arch::wasm32::unreachable();
    #[cfg(not(target_arch = "wasm32"))]
    std::process::abort();
}

/// Counts what never ends; as others could change it, loops over it cannot be left out.
static COUNTER: AtomicU64 = AtomicU64::new(0);

/// Its locals are in wasm locals, so the host's stack is used up and not the guest's own.
fn recurse(depth: u64) -> u64 {
    if COUNTER.fetch_add(1, Ordering::Relaxed) == u64::MAX {
        return depth;
    }
    recurse(depth + 1).rotate_left(7) ^ COUNTER.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_found_in_both_forms() {
        let (steps, is_list) =
            find_steps(&json!({"input_paths": [], "metadata": {}, "do": "exit", "code": 3}))
                .unwrap();
        assert!(matches!(steps[..], [(_, Step::Exit { code: 3 })]) && !is_list);
        let (steps, is_list) = find_steps(
            &json!({"steps": [{"do": "env"}, {"do": "flood", "stream": "stderr", "mib": 1}]}),
        )
        .unwrap();
        assert!(matches!(steps[..], [(_, Step::Env), (_, Step::Flood { .. })]) && is_list);
        let message = find_steps(&json!({"do": "fly"})).unwrap_err().to_string();
        assert!(
            message.starts_with(r#"step {"do":"fly"}: unknown variant `fly`"#),
            "{message}"
        );
    }

    #[test]
    fn a_failing_step_gives_an_error_text() {
        let path = PathBuf::from("/no-such-folder");
        assert!(
            try_out(Step::List { path: path.clone() })
                .unwrap_err()
                .to_string()
                .contains("os error")
        );
        assert!(
            try_out(Step::OpenFiles { path, n: 1 })
                .unwrap_err()
                .to_string()
                .starts_with("after 0 files: ")
        );
    }
}
