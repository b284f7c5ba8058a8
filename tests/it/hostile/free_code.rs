//! Code that runs free in a child process, as after an escape from the sandbox: each thing that it
//! tries must be refused.
//!
//! The worker of this build makes the attempts in place of a guest. With all layers, each is
//! refused; with one layer less, the attempts that only this layer refuses get through, which shows
//! that they are attempts and that their refusal is that layer's work. What a layer of this kernel
//! does not have is left out, with a word on stderr.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mandelbox::backend::{Isolation, Layer, LayerState, Local, WorkerCommand};
use mandelbox::model::{CancelToken, Grant, Limits, ModuleFile, Modules, Rights};
use mandelbox::sandbox::{
    Entry, GuestEnd, GuestInput, GuestOutput, GuestWarnings, Invocation, SandboxOptions,
};
use rustix::io::{FdFlags, fcntl_setfd};
use serde_json::json;

use crate::project::{Project, module, parallel_task};

/// What refusals come as: EPERM, EACCES, EXDEV (a link or a new name elsewhere).
const REFUSALS: [i32; 3] = [1, 13, 18];
/// For the one call that libraries then make in another way.
const ENOSYS: i32 = 38;
/// For a file that is not open.
const EBADF: i32 = 9;

/// What Landlock refuses, and what else does.
const OF_FILES: [(&str, &[Layer]); 12] = [
    ("read_file", &[]),
    ("read_passwd", &[]),
    ("write_file", &[]),
    ("create_file", &[]),
    ("list_folder", &[]),
    ("make_folder", &[]),
    ("rename_into", &[]),
    ("link_into", &[]),
    ("remove_file", &[]),
    ("truncate", &[Layer::SystemCalls]),
    ("make_fifo", &[Layer::SystemCalls]),
    ("memory_of_process", &[]),
];
const OF_NETWORK: [&str; 2] = ["tcp_connect", "tcp_bind"];
const OF_SCOPES: [&str; 6] = [
    "abstract_socket",
    "signal_parent",
    "signal_process",
    "signal_thread",
    "signal_any_thread",
    "queue_signal",
];
/// What any user may do where neither the filter of system calls nor another layer refuses it.
const OF_FILTER: [&str; 19] = [
    "unix_socket",
    "udp_send",
    "netlink",
    "socket_pair",
    "times_by_path",
    "mode_by_path",
    "mode_of_own",
    "mode_of_own_2",
    "owner_of_own",
    "watch_folder",
    "owner_of_signals",
    "process_descriptor",
    "fork",
    "fork_3",
    "run_program",
    "run_memory",
    "session",
    "outlive_parent",
    "leave_namespace",
];

/// What the attempts are made on.
struct Targets {
    folder: tempfile::TempDir,
    process: Child,
    port: u16,
    abstract_name: String,
    open_file: std::fs::File,
    _listeners: (UnixListener, UnixListener, TcpListener),
}

impl Targets {
    fn new() -> Self {
        let folder = crate::project::temporary_folder();
        for name in [
            "elsewhere/file",
            "elsewhere/old",
            "elsewhere/times",
            "granted/file",
        ] {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            std::fs::write(path, "x").expect("written");
        }
        let named = UnixListener::bind(folder.path().join("socket")).expect("bound");
        let abstract_name = format!("mandelbox-test-{}", folder.path().display());
        let address = SocketAddr::from_abstract_name(&abstract_name).expect("a name");
        let abstract_listener = UnixListener::bind_addr(&address).expect("bound");
        let tcp = TcpListener::bind("127.0.0.1:0").expect("bound");
        let process = Command::new("sleep")
            .arg("600")
            .stdin(Stdio::null())
            .spawn()
            .expect("started");
        let open_file = std::fs::File::open(folder.path().join("elsewhere/file")).expect("opened");
        fcntl_setfd(&open_file, FdFlags::empty()).expect("left open for programs that are started");
        let port = tcp.local_addr().expect("an address").port();
        Self {
            folder,
            process,
            port,
            abstract_name,
            open_file,
            _listeners: (named, abstract_listener, tcp),
        }
    }

    fn env(&self) -> Vec<(String, String)> {
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        let env = [
            ("elsewhere", path("elsewhere")),
            ("granted", path("granted")),
            ("socket", path("socket")),
            ("abstract", self.abstract_name.clone()),
            ("port", self.port.to_string()),
            ("process", self.process.id().to_string()),
            ("open_file", self.open_file.as_raw_fd().to_string()),
        ];
        env.map(|(name, value)| (name.to_owned(), value)).to_vec()
    }
}

impl Drop for Targets {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What came of the attempts.
struct Tried {
    errors: BTreeMap<String, i32>,
    /// `/proc/…/status` of the child, while it ran.
    status: String,
    backend: Local,
}

impl Tried {
    fn is_in_force(&self, layer: Layer) -> bool {
        let confinement = self
            .backend
            .confinement(&[])
            .expect("in processes")
            .expect("started");
        confinement.state(layer) == LayerState::InForce
    }

    fn is_refused(&self, name: &str) -> bool {
        let errno = *self
            .errors
            .get(name)
            .unwrap_or_else(|| panic!("{name} was not tried"));
        match name {
            "fork_3" => errno == ENOSYS,
            "inherited_file" => errno == EBADF,
            _ => REFUSALS.contains(&errno),
        }
    }
}

/// Takes the report, and looks at the child when it comes.
#[derive(Clone, Default)]
struct Report(Arc<Mutex<(String, String)>>);

impl Write for Report {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let (text, status) = &mut *self.0.lock().expect("not poisoned");
        text.push_str(&String::from_utf8_lossy(bytes));
        if let Some(id) = text
            .lines()
            .next()
            .and_then(|line| line.strip_prefix("process "))
        {
            *status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Makes the attempts in a worker without some of the layers.
fn try_without(layers: &[Layer]) -> Tried {
    let targets = Targets::new();
    let mut arguments = vec!["worker".to_owned()];
    arguments.extend(
        layers
            .iter()
            .flat_map(|layer| ["--without".to_owned(), layer.name().to_owned()]),
    );
    let command = WorkerCommand {
        program: env!("CARGO_BIN_EXE_mandelbox").into(),
        arguments,
    };
    let backend = Local::with_options(1, &SandboxOptions::default(), Isolation::Process(command))
        .expect("a backend");
    let wasm = wat::parse_str("(module (func (export \"_start\")))").expect("WAT");
    let module = ModuleFile::from_bytes("nothing.wasm".into(), wasm);
    backend
        .prepare(&module, &Limits::default(), Duration::from_secs(60))
        .expect("prepared");
    let report = Report::default();
    let granted = targets.folder.path().join("granted");
    let grant = Grant::new(
        granted.clone(),
        granted.display().to_string(),
        Rights::ReadWrite,
    );
    let end = backend.run_guest(&Invocation {
        module_sha256: &module.sha256,
        entry: Entry::Command,
        argv: &["try-what-is-forbidden.wasm".to_owned()],
        env: &targets.env(),
        grants: &[grant],
        stdin: GuestInput::Empty,
        stdout: GuestOutput::new(Some(Box::new(report.clone())), 1 << 20),
        stderr: GuestOutput::new(None, 0),
        warnings: GuestWarnings::dropped(),
        limits: &Limits::default(),
        seed: 0,
        cancel: &CancelToken::new(),
    });
    assert_eq!(end.expect("run"), GuestEnd::Exited(0));
    check_targets(targets.folder.path(), layers);
    let (text, status) = report.0.lock().expect("not poisoned").clone();
    let lines = text.lines().skip(1).filter_map(|line| line.split_once(' '));
    let errors = lines
        .map(|(name, errno)| (name.to_owned(), errno.parse().expect("a number")))
        .collect();
    Tried {
        errors,
        status,
        backend,
    }
}

/// With all layers, nothing that was not granted is other than it was.
fn check_targets(folder: &Path, without: &[Layer]) {
    if without.is_empty() {
        let mut names: Vec<_> = std::fs::read_dir(folder.join("elsewhere"))
            .expect("a folder")
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["file", "old", "times"]);
        assert_eq!(
            std::fs::read_to_string(folder.join("elsewhere/file")).expect("there"),
            "x"
        );
    }
}

/// Returns true if this kernel has what a test of a layer needs; prints so otherwise.
fn has(tried: &Tried, layer: Layer) -> bool {
    let has = tried.is_in_force(layer);
    if !has {
        let _ = writeln!(
            std::io::stderr(),
            "left out, since this machine does not have all of it: {}",
            layer.name()
        );
    }
    has
}

#[test]
fn free_code_is_refused_all_that_it_tries() {
    let tried = try_without(&[]);
    assert!(tried.errors.len() > 90, "{:?}", tried.errors);
    let kept = |name: &&String| {
        let name = name.as_str();
        let of_files = OF_FILES.iter().any(|(of_files, _)| *of_files == name);
        !of_files || tried.is_in_force(Layer::Files)
    };
    let through: Vec<_> = tried
        .errors
        .keys()
        .filter(kept)
        .filter(|name| !tried.is_refused(name))
        .collect();
    if has(&tried, Layer::SystemCalls) {
        assert!(through.is_empty(), "let through: {through:?}");
    }
    let line = |name: &str| {
        let line = tried
            .status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap_or_else(|| panic!("{name}"));
        line.trim().to_owned()
    };
    for name in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        // A user without capabilities cannot lower the bound on those that it could get, and can
        // get none.
        if name != "CapBnd:" || rustix::process::geteuid().is_root() {
            assert_eq!(line(name), "0000000000000000", "{name}");
        }
    }
    assert_eq!(line("NoNewPrivs:"), "1");
    if tried.is_in_force(Layer::SystemCalls) {
        assert_eq!(line("Seccomp:"), "2");
    }
}

/// The process of a worker may access its own scratch folders, and not those of other workers.
#[test]
fn free_code_reaches_no_scratch_folder_of_another_worker() {
    let project = Project::new();
    std::fs::copy(
        module("swiss.wasm"),
        project.path("try-what-is-forbidden.wasm"),
    )
    .expect("copied");
    project.write(
        "metadata.json",
        json!({ "c": ["a", "b", "c", "d"] }).to_string(),
    );
    project.workflow(&[parallel_task(
        0,
        "t",
        "try-what-is-forbidden.wasm",
        "c",
        json!({}),
    )]);
    let more = [
        "--isolation",
        "process",
        "--jobs",
        "2",
        "--metadata",
        "metadata.json",
    ];
    project.run(&more).expect(0);
    if !project
        .read("work/workflow.log")
        .contains("files: in force")
    {
        return;
    }
    let outputs = project
        .tree()
        .into_iter()
        .filter(|path| path.starts_with("work/0_t/") && path.ends_with(".out"));
    let outputs: Vec<_> = outputs.map(|path| project.read(&path)).collect();
    assert_eq!(outputs.len(), 4);
    for output in outputs {
        let created: Vec<_> = output
            .lines()
            .filter_map(|line| line.strip_prefix("create_beside "))
            .collect();
        // The output folder, and the scratch folder by each of its names.
        assert!(
            created.len() >= 3 && created.iter().all(|errno| *errno == "13"),
            "{output}"
        );
    }
}

/// Each layer by itself: the others are turned off.
#[test]
fn each_layer_refuses_the_operations_that_it_covers() {
    let all_but = |kept: Layer| -> Vec<_> {
        Layer::ALL
            .into_iter()
            .filter(|layer| *layer != kept)
            .collect()
    };
    let check = |layer: Layer, names: &[&str]| {
        let tried = try_without(&all_but(layer));
        if has(&tried, layer) {
            let through: Vec<_> = names
                .iter()
                .filter(|name| !tried.is_refused(name))
                .collect();
            assert!(
                through.is_empty(),
                "{}: let through: {through:?}",
                layer.name()
            );
        }
    };
    check(Layer::Files, &OF_FILES.map(|(name, _)| name));
    check(Layer::Network, &OF_NETWORK);
    check(Layer::Scopes, &OF_SCOPES);
    let of_filter = [
        &OF_FILTER[..],
        &OF_NETWORK,
        &OF_SCOPES,
        &["truncate", "make_fifo"],
    ]
    .concat();
    check(Layer::SystemCalls, &of_filter);
}

/// Without a layer, what it alone refuses is not refused: the attempts are real.
#[test]
fn a_missing_layer_is_noticed() {
    let check = |without: &[Layer], names: &[&str]| {
        let tried = try_without(without);
        let refused: Vec<_> = names.iter().filter(|name| tried.is_refused(name)).collect();
        assert!(
            refused.is_empty(),
            "without {without:?}, refused all the same: {refused:?}"
        );
        assert!(without.iter().all(|layer| !tried.is_in_force(*layer)));
    };
    let alone: Vec<_> = OF_FILES
        .iter()
        .filter(|(name, also)| also.is_empty() && *name != "memory_of_process")
        .collect();
    check(
        &[Layer::Files],
        &alone.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
    );
    check(&[Layer::SystemCalls], &OF_FILTER);
    check(&[Layer::SystemCalls, Layer::Network], &OF_NETWORK);
    check(&[Layer::SystemCalls, Layer::Scopes], &OF_SCOPES);
}
