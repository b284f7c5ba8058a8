//! Attempts of escaped code in a worker, which run in place of a guest. Only in the build with
//! `weakened-for-tests`: a test asserts that each attempt is refused.
//!
//! An attempt either succeeds for any user unless a layer refuses it, or is a system call with
//! invalid arguments. A filter refuses the latter with EPERM before the kernel checks the
//! arguments.
#![expect(unsafe_code, reason = "system calls by number")]

use std::collections::HashMap;
use std::ffi::CString;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::protocol::WireInvocation;
use crate::model::Rights;

/// Program name (`argv[0]`) of the call whose guest is replaced.
const TRIGGER: &str = "try-what-is-forbidden.wasm";

/// Result of an attempt: an error number, 0 on success.
type Errno = i32;

/// Makes the attempts if the call asks for them. Returns one line per attempt: name, error number.
///
/// Environment variables of the call name the targets: `elsewhere` (a folder with the files `file`,
/// `old` and `times`), `granted` (a folder with the file `file`), `socket` and `abstract` (names of
/// unix sockets), `port` (of a TCP listener), `process` (id of a process of the same user),
/// `open_file` (number of a descriptor that the parent process has left open).
pub(super) fn instead_of_guest(invocation: &WireInvocation) -> Option<String> {
    if invocation.argv.first().map(String::as_str) != Some(TRIGGER) {
        return None;
    }
    let targets = Targets(invocation.env.iter().cloned().collect());
    let mut report = format!("process {}\n", std::process::id());
    let attempts = [
        on_folders(invocation),
        on_files(&targets),
        on_sockets(&targets),
        on_processes(&targets),
        on_itself(&targets),
        on_system(),
    ];
    for (name, errno) in attempts.into_iter().flatten() {
        let _ = writeln!(report, "{name} {errno}");
    }
    Some(report)
}

type Attempts = Vec<(&'static str, Errno)>;

struct Targets(HashMap<String, String>);

impl Targets {
    fn text(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    fn number(&self, name: &str) -> i64 {
        self.text(name).parse().unwrap_or(-1)
    }

    fn path(&self, name: &str, file: &str) -> CString {
        CString::new(Path::new(self.text(name)).join(file).as_os_str().as_bytes())
            .unwrap_or_default()
    }
}

/// Makes a system call; returns its value or the error number.
fn call<const N: usize>(number: i64, arguments: [i64; N]) -> Result<i64, Errno> {
    let argument = |index: usize| arguments.get(index).copied().unwrap_or(0);
    // SAFETY: pointers among the arguments are null or point to memory that the caller keeps alive.
    let value = unsafe {
        libc::syscall(
            number,
            argument(0),
            argument(1),
            argument(2),
            argument(3),
            argument(4),
            argument(5),
        )
    };
    if value < 0 {
        Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(-1))
    } else {
        Ok(value)
    }
}

fn errno(result: Result<i64, Errno>) -> Errno {
    result.err().unwrap_or(0)
}

/// Returns the error number of a call that opens a descriptor, and closes the descriptor.
fn opened(result: Result<i64, Errno>) -> Errno {
    if let Ok(descriptor) = result {
        let _ = call(libc::SYS_close, [descriptor]);
    }
    errno(result)
}

/// Creates a file two levels above each writable folder: for a scratch folder, where the scratch
/// folders of other workers are.
fn on_folders(invocation: &WireInvocation) -> Attempts {
    let written = invocation
        .grants
        .iter()
        .filter(|grant| grant.rights == Rights::ReadWrite);
    let next_to = written
        .filter_map(|grant| grant.host_path.parent()?.parent())
        .map(|folder| folder.join("beside"));
    let create = |path: PathBuf| {
        let path = CString::new(path.as_os_str().as_bytes()).unwrap_or_default();
        let flags = libc::O_WRONLY | libc::O_CREAT;
        opened(call(
            libc::SYS_openat,
            [
                libc::AT_FDCWD.into(),
                path.as_ptr() as i64,
                flags.into(),
                0o600,
            ],
        ))
    };
    next_to
        .map(|path| ("create_beside", create(path)))
        .collect()
}

fn on_files(targets: &Targets) -> Attempts {
    let here = i64::from(libc::AT_FDCWD);
    let address = |text: &CString| text.as_ptr() as i64;
    let open = |path: &CString, flags: i32| {
        opened(call(
            libc::SYS_openat,
            [here, address(path), flags.into(), 0o600],
        ))
    };
    let [elsewhere, old, times] =
        ["file", "old", "times"].map(|name| targets.path("elsewhere", name));
    let [own, new, moved] = ["file", "new", "moved"].map(|name| targets.path("granted", name));
    let passwd = CString::from(c"/etc/passwd");
    let folder = targets.path("elsewhere", "");
    let process_memory =
        CString::new(format!("/proc/{}/mem", targets.text("process"))).unwrap_or_default();
    let own_file = call(libc::SYS_openat, [here, address(&own), libc::O_RDWR.into()]).unwrap_or(-1);
    let one_time = [libc::timespec {
        tv_sec: 1,
        tv_nsec: 0,
    }; 2];
    let value = c"x".as_ptr() as i64;
    let fifo = i64::from(libc::S_IFIFO | 0o600);
    vec![
        ("read_file", open(&elsewhere, libc::O_RDONLY)),
        ("read_passwd", open(&passwd, libc::O_RDONLY)),
        ("write_file", open(&elsewhere, libc::O_WRONLY)),
        (
            "create_file",
            open(
                &targets.path("elsewhere", "new"),
                libc::O_WRONLY | libc::O_CREAT,
            ),
        ),
        (
            "list_folder",
            open(&folder, libc::O_RDONLY | libc::O_DIRECTORY),
        ),
        ("memory_of_process", open(&process_memory, libc::O_RDONLY)),
        (
            "make_folder",
            errno(call(
                libc::SYS_mkdirat,
                [here, address(&targets.path("elsewhere", "folder")), 0o700],
            )),
        ),
        (
            "rename_into",
            errno(call(
                libc::SYS_renameat2,
                [here, address(&old), here, address(&moved), 0],
            )),
        ),
        (
            "link_into",
            errno(call(
                libc::SYS_linkat,
                [here, address(&elsewhere), here, address(&new), 0],
            )),
        ),
        (
            "remove_file",
            errno(call(libc::SYS_unlinkat, [here, address(&elsewhere), 0])),
        ),
        (
            "truncate",
            errno(call(libc::SYS_truncate, [address(&times), 0])),
        ),
        (
            "times_by_path",
            errno(call(
                libc::SYS_utimensat,
                [here, address(&times), one_time.as_ptr() as i64, 0],
            )),
        ),
        (
            "mode_by_path",
            errno(call(libc::SYS_fchmodat, [here, address(&times), 0o777])),
        ),
        (
            "mode_of_own",
            errno(call(libc::SYS_fchmod, [own_file, 0o777])),
        ),
        (
            "mode_of_own_2",
            errno(call(libc::SYS_fchmodat2, [here, address(&own), 0o777, 0])),
        ),
        (
            "owner_of_own",
            errno(call(libc::SYS_fchown, [own_file, -1, -1])),
        ),
        (
            "owner_by_path",
            errno(call(libc::SYS_fchownat, [here, address(&times), -1, -1, 0])),
        ),
        (
            "attribute",
            errno(call(
                libc::SYS_setxattr,
                [address(&times), c"user.x".as_ptr() as i64, value, 1, 0],
            )),
        ),
        (
            "make_fifo",
            errno(call(
                libc::SYS_mknodat,
                [here, address(&targets.path("granted", "fifo")), fifo, 0],
            )),
        ),
        (
            "inherited_file",
            errno(call(
                libc::SYS_fcntl,
                [targets.number("open_file"), libc::F_GETFD.into(), 0],
            )),
        ),
        (
            "owner_of_signals",
            errno(call(
                libc::SYS_fcntl,
                [own_file, libc::F_SETOWN.into(), targets.number("process")],
            )),
        ),
        (
            "type_into_terminal",
            errno(call(
                libc::SYS_ioctl,
                [own_file, libc::TIOCSTI as i64, value],
            )),
        ),
        ("change_root", errno(call(libc::SYS_chroot, [0]))),
        ("mount", errno(call(libc::SYS_mount, [0, 0, 0, 0, 0]))),
        (
            "open_by_handle",
            errno(call(libc::SYS_open_by_handle_at, [here, 0, 0])),
        ),
        ("watch_folder", opened(call(libc::SYS_inotify_init1, [0]))),
    ]
}

fn on_sockets(targets: &Targets) -> Attempts {
    let socket = |domain: i32, kind: i32| call(libc::SYS_socket, [domain.into(), kind.into(), 0]);
    let with = |socket: Result<i64, Errno>, then: &dyn Fn(i64) -> Result<i64, Errno>| {
        let result = socket.and_then(then);
        if let Ok(socket) = socket {
            let _ = call(libc::SYS_close, [socket]);
        }
        errno(result)
    };
    // The address family, then the name; an abstract name starts with a zero byte.
    let unix = |name: &[u8]| [&(libc::AF_UNIX as u16).to_ne_bytes()[..], name].concat();
    let named = unix(targets.text("socket").as_bytes());
    let abstract_name = unix(&[b"\0", targets.text("abstract").as_bytes()].concat());
    let port = u16::try_from(targets.number("port")).unwrap_or(0);
    let internet = |port: u16| {
        [
            &(libc::AF_INET as u16).to_ne_bytes()[..],
            &port.to_be_bytes(),
            &[127, 0, 0, 1],
            &[0; 8],
        ]
        .concat()
    };
    let (listener, any_port) = (internet(port), internet(0));
    let connect = |address: &[u8], socket| {
        call(
            libc::SYS_connect,
            [socket, address.as_ptr() as i64, address.len() as i64],
        )
    };
    let bind = |address: &[u8], socket| {
        call(
            libc::SYS_bind,
            [socket, address.as_ptr() as i64, address.len() as i64],
        )
    };
    let stream = |domain| socket(domain, libc::SOCK_STREAM);
    let sent = |socket| {
        let to = [listener.as_ptr() as i64, listener.len() as i64];
        call(
            libc::SYS_sendto,
            [socket, c"x".as_ptr() as i64, 1, 0, to[0], to[1]],
        )
    };
    let mut pair = [0_i32; 2];
    vec![
        (
            "unix_socket",
            with(stream(libc::AF_UNIX), &|socket| connect(&named, socket)),
        ),
        (
            "abstract_socket",
            with(stream(libc::AF_UNIX), &|socket| {
                connect(&abstract_name, socket)
            }),
        ),
        (
            "tcp_connect",
            with(stream(libc::AF_INET), &|socket| connect(&listener, socket)),
        ),
        (
            "tcp_bind",
            with(stream(libc::AF_INET), &|socket| bind(&any_port, socket)),
        ),
        (
            "udp_send",
            with(socket(libc::AF_INET, libc::SOCK_DGRAM), &sent),
        ),
        ("netlink", opened(socket(libc::AF_NETLINK, libc::SOCK_RAW))),
        (
            "packet_socket",
            opened(socket(libc::AF_PACKET, libc::SOCK_RAW)),
        ),
        ("vsock", opened(socket(libc::AF_VSOCK, libc::SOCK_STREAM))),
        (
            "socket_pair",
            errno(call(
                libc::SYS_socketpair,
                [1, 1, 0, pair.as_mut_ptr() as i64],
            )),
        ),
    ]
}

fn on_processes(targets: &Targets) -> Attempts {
    let process = targets.number("process");
    let parent =
        i64::from(rustix::process::getppid().map_or(-1, |parent| parent.as_raw_nonzero().get()));
    let forked = call(libc::SYS_clone, [libc::SIGCHLD.into(), 0, 0, 0, 0]);
    if forked == Ok(0) {
        let _ = call(libc::SYS_exit_group, [0]);
    }
    // `struct clone_args` with the exit signal only.
    let clone_arguments: [u64; 8] = [0, 0, 0, 0, libc::SIGCHLD as u64, 0, 0, 0];
    let forked_3 = call(libc::SYS_clone3, [clone_arguments.as_ptr() as i64, 64]);
    if forked_3 == Ok(0) {
        let _ = call(libc::SYS_exit_group, [0]);
    }
    let mut signal = [0_i32; 32];
    signal[2] = libc::SI_QUEUE;
    let mut byte = 0_u8;
    let own = libc::iovec {
        iov_base: (&raw mut byte).cast(),
        iov_len: 1,
    };
    let theirs = libc::iovec {
        iov_base: 4096 as *mut libc::c_void,
        iov_len: 1,
    };
    let (own, theirs) = (&raw const own as i64, &raw const theirs as i64);
    let program = c"/no/program".as_ptr() as i64;
    let memory = call(libc::SYS_memfd_create, [c"x".as_ptr() as i64, 0]).unwrap_or(-1);
    let nobody = c"".as_ptr() as i64;
    let limit = [1000_u64; 2];
    let get_keyring = 0;
    vec![
        ("signal_parent", errno(call(libc::SYS_kill, [parent, 0]))),
        ("signal_process", errno(call(libc::SYS_kill, [process, 0]))),
        (
            "signal_thread",
            errno(call(libc::SYS_tgkill, [process, process, 0])),
        ),
        (
            "signal_any_thread",
            errno(call(libc::SYS_tkill, [process, 0])),
        ),
        (
            "queue_signal",
            errno(call(
                libc::SYS_rt_sigqueueinfo,
                [process, 0, signal.as_ptr() as i64],
            )),
        ),
        (
            "process_descriptor",
            opened(call(libc::SYS_pidfd_open, [process, 0])),
        ),
        (
            "file_of_process",
            errno(call(libc::SYS_pidfd_getfd, [-1, 0, 0])),
        ),
        (
            "signal_by_descriptor",
            errno(call(libc::SYS_pidfd_send_signal, [-1, 0, 0, 0])),
        ),
        ("fork", errno(forked)),
        ("fork_3", errno(forked_3)),
        (
            "run_program",
            errno(call(libc::SYS_execve, [program, 0, 0])),
        ),
        (
            "run_memory",
            errno(call(
                libc::SYS_execveat,
                [memory, nobody, 0, 0, libc::AT_EMPTY_PATH.into()],
            )),
        ),
        (
            "trace",
            errno(call(
                libc::SYS_ptrace,
                [libc::PTRACE_SEIZE.into(), process, 0, 0],
            )),
        ),
        (
            "read_memory",
            errno(call(
                libc::SYS_process_vm_readv,
                [process, own, 1, theirs, 1, 0],
            )),
        ),
        (
            "write_memory",
            errno(call(
                libc::SYS_process_vm_writev,
                [process, own, 1, theirs, 1, 0],
            )),
        ),
        (
            "limit_of_process",
            errno(call(
                libc::SYS_prlimit64,
                [process, 4, limit.as_ptr() as i64, 0],
            )),
        ),
        (
            "priority",
            errno(call(libc::SYS_setpriority, [0, process, 19])),
        ),
        (
            "affinity",
            errno(call(libc::SYS_sched_setaffinity, [process, 0, 0])),
        ),
        (
            "compare",
            errno(call(libc::SYS_kcmp, [parent, process, 0, 0, 0])),
        ),
        (
            "keyring",
            errno(call(libc::SYS_keyctl, [get_keyring, -4, 1])),
        ),
        ("add_key", errno(call(libc::SYS_add_key, [0, 0, 0, 0, -4]))),
        ("shared_memory", errno(call(libc::SYS_shmget, [1, 0, 0]))),
        ("message_queue", errno(call(libc::SYS_msgget, [1, 0]))),
        ("session", errno(call(libc::SYS_setsid, [0; 0]))),
        ("group", errno(call(libc::SYS_setpgid, [0, 0]))),
    ]
}

fn on_itself(targets: &Targets) -> Attempts {
    let own_file = targets.path("granted", "file");
    let file = call(
        libc::SYS_openat,
        [
            libc::AT_FDCWD.into(),
            own_file.as_ptr() as i64,
            libc::O_RDWR.into(),
        ],
    );
    let file = file.unwrap_or(-1);
    // The flags of a thread, and a new user namespace: invalid, so that no thread is created.
    let other_flags =
        i64::from(libc::CLONE_VM | libc::CLONE_SIGHAND | libc::CLONE_THREAD | libc::CLONE_NEWUSER);
    vec![
        (
            "dumpable",
            errno(call(
                libc::SYS_prctl,
                [libc::PR_SET_DUMPABLE.into(), 1, 0, 0, 0],
            )),
        ),
        (
            "outlive_parent",
            errno(call(
                libc::SYS_prctl,
                [libc::PR_SET_PDEATHSIG.into(), 0, 0, 0, 0],
            )),
        ),
        (
            "odd_thread",
            errno(call(libc::SYS_clone, [other_flags, 0, 0, 0, 0])),
        ),
        (
            "leave_namespace",
            errno(call(libc::SYS_unshare, [i64::from(libc::CLONE_FS)])),
        ),
        ("enter_namespace", errno(call(libc::SYS_setns, [-1, 0]))),
        ("capabilities", errno(call(libc::SYS_capset, [0, 0]))),
        ("user", errno(call(libc::SYS_setresuid, [-1, -1, -1]))),
        ("groups", errno(call(libc::SYS_setgid, [-1]))),
        ("filter", errno(call(libc::SYS_seccomp, [2, 0, 0]))),
        (
            "lease",
            errno(call(
                libc::SYS_fcntl,
                [file, libc::F_SETLEASE.into(), libc::F_UNLCK.into()],
            )),
        ),
        ("change_folder", errno(call(libc::SYS_fchdir, [-1]))),
        (
            "personality",
            errno(call(libc::SYS_personality, [0xffff_ffff])),
        ),
    ]
}

/// System calls with invalid arguments.
fn on_system() -> Attempts {
    [
        ("ring", libc::SYS_io_uring_setup),
        ("ring_enter", libc::SYS_io_uring_enter),
        ("ring_register", libc::SYS_io_uring_register),
        ("asynchronous_io", libc::SYS_io_setup),
        ("bpf", libc::SYS_bpf),
        ("performance_events", libc::SYS_perf_event_open),
        ("page_faults", libc::SYS_userfaultfd),
        ("unmount", libc::SYS_umount2),
        ("new_root", libc::SYS_pivot_root),
        ("new_mount", libc::SYS_fsopen),
        ("move_mount", libc::SYS_move_mount),
        ("open_tree", libc::SYS_open_tree),
        ("mount_attributes", libc::SYS_mount_setattr),
        ("watch_all_files", libc::SYS_fanotify_init),
        ("landlock", libc::SYS_landlock_create_ruleset),
        ("module", libc::SYS_init_module),
        ("module_file", libc::SYS_finit_module),
        ("kernel", libc::SYS_kexec_load),
        ("swap", libc::SYS_swapon),
        ("clock", libc::SYS_clock_settime),
        ("host_name", libc::SYS_sethostname),
        ("log", libc::SYS_syslog),
        ("accounting", libc::SYS_acct),
        ("quota", libc::SYS_quotactl),
        ("splice", libc::SYS_vmsplice),
        ("lock_memory", libc::SYS_mlockall),
    ]
    .into_iter()
    .map(|(name, number)| (name, errno(call(number, [-1, 0, 0, 0, 0, 0]))))
    .collect()
}
