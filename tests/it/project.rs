//! A temporary folder with a project in it, and the real program run there.

use std::fmt::Write as _;
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use tempfile::TempDir;

/// What `--isolation` takes.
pub const ISOLATIONS: [&str; 2] = ["thread", "process"];
/// Folder in memory for the files of tests, on Linux.
const MEMORY_FOLDER: &str = "/dev/shm";
/// Free space in [`MEMORY_FOLDER`] for which it is used.
const MEMORY_BYTES: u64 = 4 << 30;
/// Maximum time of one run of the program in a test.
const TIMEOUT: Duration = Duration::from_secs(120);

/// A project: documents, input and output folders, and runs of the program in it.
pub struct Project {
    folder: TempDir,
}

/// How the program ended.
pub struct Ended {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    pub elapsed: Duration,
}

impl Ended {
    /// Fails the test with all that was printed, unless the exit code is `code`.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(
            self.code, code,
            "stdout: {}\nstderr: {}",
            self.stdout, self.stderr
        );
        self
    }

    /// Fails the test unless stderr holds each of the texts.
    #[track_caller]
    pub fn reports(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(
                self.stderr.contains(text),
                "{text:?} is not in: {}",
                self.stderr
            );
        }
        self
    }
}

/// Creates a folder for one test, in [`folder_of_tests`].
pub fn temporary_folder() -> TempDir {
    tempfile::Builder::new()
        .prefix("mandelbox-test")
        .tempdir_in(folder_of_tests())
        .expect("a folder")
}

/// Returns the folder of all folders of tests. It is in memory where there is enough, because tests
/// create and remove many small files. `TMPDIR` replaces it, and the exhaustive tests use the disk.
pub fn folder_of_tests() -> &'static Path {
    static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
        let in_memory = PathBuf::from(MEMORY_FOLDER);
        let is_on_disk = ["TMPDIR", "MANDELBOX_TEST_WHOLE"]
            .iter()
            .any(|name| std::env::var_os(name).is_some());
        if !is_on_disk && is_usable(&in_memory) {
            in_memory
        } else {
            std::env::temp_dir()
        }
    });
    &FOLDER
}

/// Whether a folder has the space for all tests, and programs in it can be run.
fn is_usable(folder: &Path) -> bool {
    use rustix::fs::{Access, StatVfsMountFlags, access, statvfs};
    let is_accessible = access(folder, Access::WRITE_OK | Access::EXEC_OK).is_ok();
    let Ok(file_system) = statvfs(folder) else {
        return false;
    };
    let free_bytes = file_system.f_bavail.saturating_mul(file_system.f_frsize);
    is_accessible
        && free_bytes >= MEMORY_BYTES
        && !file_system.f_flag.contains(StatVfsMountFlags::NOEXEC)
}

impl Project {
    pub fn new() -> Self {
        let project = Self {
            folder: temporary_folder(),
        };
        for name in ["in", "out"] {
            std::fs::create_dir(project.path(name)).expect("made");
        }
        project
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().canonicalize().expect("there").join(name)
    }

    pub fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        std::fs::write(&path, contents).expect("written");
        path
    }

    pub fn read(&self, name: &str) -> String {
        let path = self.path(name);
        std::fs::read_to_string(&path).unwrap_or_else(|err| panic!("{}: {err}", path.display()))
    }

    pub fn json(&self, name: &str) -> Value {
        serde_json::from_str(&self.read(name)).expect("JSON")
    }

    /// Events of the run in `work`, in order.
    pub fn events(&self) -> Vec<Value> {
        let log = self.read("work/events.jsonl");
        log.lines()
            .map(|line| serde_json::from_str(line).expect("an event"))
            .collect()
    }

    /// Events of one kind of the run in `work`, in order.
    pub fn events_of(&self, kind: &str) -> Vec<Value> {
        let mut events = self.events();
        events.retain(|event| event["event"] == kind);
        events
    }

    /// Writes workflow.json with the given workflow tasks.
    pub fn workflow(&self, task_list: &[Value]) -> PathBuf {
        self.write(
            "workflow.json",
            json!({ "name": "test", "task_list": task_list }).to_string(),
        )
    }

    /// A command of the program, with the project as its folder and nothing of the environment that
    /// it reads.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mandelbox"));
        command
            .args(arguments)
            .current_dir(self.path(""))
            .stdin(Stdio::null());
        // Compiled modules are shared by the tests, and the user's own cache stays as it is.
        command.env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"));
        command
            .env_remove("FRACTAL_LOCAL_CONFIG_FILE")
            .env_remove("FRACTAL_RUNNER_TASKS_INCLUDE_IMAGE");
        command
    }

    /// Runs the program with any arguments.
    #[track_caller]
    pub fn mandelbox(&self, arguments: &[&str]) -> Ended {
        finish(self.command(arguments))
    }

    /// `mandelbox run workflow.json --input in --output out --work-dir work`, and more arguments.
    #[track_caller]
    pub fn run(&self, more: &[&str]) -> Ended {
        let mut arguments = vec![
            "run",
            "workflow.json",
            "--input",
            "in",
            "--output",
            "out",
            "--work-dir",
            "work",
        ];
        arguments.extend(more);
        self.mandelbox(&arguments)
    }

    /// Names of all subcommands, in the order of `mandelbox --help`.
    pub fn subcommands(&self) -> Vec<String> {
        let help = self.mandelbox(&["--help"]).expect(0).stdout;
        let commands = help.split("\nCommands:\n").nth(1).expect("a list");
        let lines = commands.lines().take_while(|line| !line.is_empty());
        // Further lines of a description are indented more.
        let names = lines
            .filter_map(|line| line.strip_prefix("  ")?.split(' ').next())
            .filter(|name| !name.is_empty() && *name != "help");
        names.map(str::to_owned).collect()
    }

    /// Every path in the project, sorted, relative, folders with a slash at the end.
    pub fn tree(&self) -> Vec<String> {
        let mut paths = Vec::new();
        walk(&self.path(""), "", &mut paths);
        paths.sort();
        paths
    }
}

fn walk(folder: &Path, prefix: &str, paths: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let entry = entry.expect("an entry");
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type().expect("a type").is_dir() {
            paths.push(format!("{name}/"));
            walk(&entry.path(), &format!("{name}/"), paths);
        } else {
            paths.push(name);
        }
    }
}

/// Runs a command to its end; one that takes too long fails the test.
#[track_caller]
pub fn finish(command: Command) -> Ended {
    finish_within(command, TIMEOUT)
}

/// Copies a program that is run afterwards. Another process copies it: a file that this process has
/// open for writing stays open in the children that other tests start meanwhile, and cannot be run.
pub fn copy_program(from: &Path, to: &Path) {
    let status = Command::new("cp").arg(from).arg(to).status();
    assert!(status.expect("started").success(), "copied");
}

/// [`finish`] with another timeout.
#[track_caller]
pub fn finish_within(mut command: Command, timeout: Duration) -> Ended {
    let started = Instant::now();
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    let id = child.id();
    let (send, receive) = std::sync::mpsc::channel();
    std::thread::spawn(move || send.send(child.wait_with_output()));
    let Ok(output) = receive.recv_timeout(timeout) else {
        let _ = Command::new("kill").args(["-9", &id.to_string()]).status();
        panic!("the program did not end within {timeout:?}");
    };
    let Output {
        status,
        stdout,
        stderr,
    } = output.expect("waited for");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let mut stderr = text(stderr);
    let code = status.code().unwrap_or_else(|| {
        let _ = write!(stderr, "[{status}]");
        -1
    });
    Ended {
        code,
        stdout: text(stdout),
        stderr,
        elapsed: started.elapsed(),
    }
}

/// [`finish`], with a text on the program's stdin.
#[track_caller]
pub fn finish_with_input(mut command: Command, input: &str) -> Ended {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(input.as_bytes()).expect("written");
    file.rewind().expect("at its start");
    command.stdin(Stdio::from(file));
    finish(command)
}

/// The text of an event log with other contents in its lines, whose checksums are right again.
pub fn resealed(log: &str) -> Vec<u8> {
    let open = |line: &str| {
        line.rfind(",\"session\":")
            .map_or(line.to_owned(), |end| format!("{}}}", &line[..end]))
    };
    mandelbox::event::seal_lines(
        log.lines()
            .map(|line| open(line) + "\n")
            .collect::<String>()
            .as_bytes(),
    )
}

/// A built module of `task-examples/modules/`.
pub fn module(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("task-examples/modules")
        .join(name);
    assert!(path.is_file(), "{} is missing", path.display());
    path.to_str().expect("UTF-8").to_owned()
}

/// Gives a command the changes of the environment of another one.
pub fn copy_env(from: &Command, to: &mut Command) {
    for (name, value) in from.get_envs() {
        match value {
            Some(value) => to.env(name, value),
            None => to.env_remove(name),
        };
    }
}

/// Quotes a path as a shell does, for a `command`.
pub fn quoted(path: &str) -> String {
    format!("'{}'", path.replace('\'', "'\\''"))
}

/// A single workflow task whose module is `module`.
pub fn task(order: u64, name: &str, module: &str, args: Value) -> Value {
    json!({ "order": order, "args": args, "meta": {}, "task": { "name": name, "command": quoted(module), "meta": {} } })
}

/// A workflow task that runs once for each entry of `metadata[level]`.
pub fn parallel_task(order: u64, name: &str, module: &str, level: &str, args: Value) -> Value {
    let mut task = task(order, name, module, args);
    task["task"]["meta"] = json!({ "parallelization_level": level });
    task
}

/// History without what mandelbox adds to Fractal's items.
pub fn fractal_history(history: &Value) -> Vec<Value> {
    let items = history.as_array().expect("an array").iter().cloned();
    items
        .map(|mut item| {
            if item.get("mandelbox").is_some() {
                item.as_object_mut()
                    .map(|item: &mut Map<_, _>| item.shift_remove("mandelbox"));
            }
            item
        })
        .collect()
}

/// Peak resident memory of a process in bytes, or 0 until the process executes the program and
/// after it has ended.
///
/// A new process shares the memory of the tests until it executes the program, and its parent goes
/// on a moment before that.
#[cfg(target_os = "linux")]
pub fn peak_memory_bytes(process: u32) -> u64 {
    let folder = PathBuf::from(format!("/proc/{process}"));
    let tests = std::env::current_exe().expect("a path");
    let executed = std::fs::read_link(folder.join("exe"));
    if executed.is_ok_and(|executed| executed == tests) {
        return 0;
    }
    let status = std::fs::read_to_string(folder.join("status")).unwrap_or_default();
    let kib = status.lines().find_map(|line| {
        let kib = line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?;
        kib.parse::<u64>().ok()
    });
    kib.unwrap_or(0) << 10
}
