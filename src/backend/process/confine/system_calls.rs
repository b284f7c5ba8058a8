//! System call layer: a seccomp filter with an allow-list of the calls that guests and their host
//! need. All others fail with EPERM; the process continues.
//!
//! The filter sees the arguments but not the memory that they point to, so it cannot distinguish
//! paths: Landlock does that. Calls that Landlock does not restrict are omitted if they change
//! files (modes, owners, extended attributes, times by path). Calls that only look at a path, such
//! as `stat`, are allowed: names, sizes and times of other files are not secret to escaped code.

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch, apply_filter,
};

use super::super::layers::{Confinement, Layer, LayerState};

/// System calls allowed with any arguments.
const ALLOWED: &[i64] = &[
    // Open files.
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_preadv2,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_lseek,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fadvise64,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_fstat,
    libc::SYS_getdents64,
    libc::SYS_close,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_ppoll,
    // Paths, restricted by Landlock.
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    libc::SYS_renameat2,
    libc::SYS_linkat,
    libc::SYS_symlinkat,
    // Memory of this process, including compiled code.
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_memfd_create,
    libc::SYS_membarrier,
    // Threads of this process, and waiting.
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // Guest traps are signals.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    // Identity. Libraries rely on these to succeed.
    libc::SYS_getppid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    // System information.
    libc::SYS_uname,
    libc::SYS_sysinfo,
];

/// Older forms of calls in [`ALLOWED`], used by some C libraries.
#[cfg(target_arch = "x86_64")]
const OLDER: &[i64] = &[libc::SYS_poll, libc::SYS_dup2, libc::SYS_renameat];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[i64] = &[libc::SYS_renameat];

/// Flags of `clone` for a new thread of this process, in glibc and in musl.
const THREAD_FLAGS: [u64; 2] = [0x003d_0f00, 0x007d_0f00];
/// Commands of `fcntl`. Omitted: owners of signals, leases, locks.
const FCNTL_COMMANDS: [i32; 8] = [
    libc::F_DUPFD,
    libc::F_DUPFD_CLOEXEC,
    libc::F_GETFD,
    libc::F_SETFD,
    libc::F_GETFL,
    libc::F_SETFL,
    libc::F_ADD_SEALS,
    libc::F_GET_SEALS,
];
/// `PAGEMAP_SCAN`: lists the pages that a guest has changed.
const PAGEMAP_SCAN: u64 = 0xc060_6610;
/// Tests whether a file is a terminal. Omitted: `TIOCSTI`, which types into one.
const TCGETS: u64 = 0x5401;

/// Installs the filter and reports its state.
pub(super) fn restrict(confinement: &mut Confinement) {
    let (state, detail) = match apply() {
        Ok(()) => (LayerState::InForce, "seccomp".to_owned()),
        Err(err) => (
            LayerState::Missing,
            format!("failed to set up seccomp: {err}"),
        ),
    };
    confinement.add(Layer::SystemCalls, state, detail);
}

fn apply() -> Result<(), seccompiler::Error> {
    for program in [unknown()?, known()?] {
        apply_filter(&program)?;
    }
    Ok(())
}

/// Builds a filter that fails `clone3` with ENOSYS. Its flags are in memory, where no filter sees
/// them; C libraries then fall back to `clone`. [`known`] allows the call, so that this error is
/// the one returned.
fn unknown() -> Result<BpfProgram, BackendError> {
    let rules = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let refuse = SeccompAction::Errno(libc::ENOSYS as u32);
    SeccompFilter::new(rules, SeccompAction::Allow, refuse, architecture()?)?.try_into()
}

/// Builds the allow-list.
fn known() -> Result<BpfProgram, BackendError> {
    let always = ALLOWED.iter().chain(OLDER).chain([&libc::SYS_clone3]);
    let mut rules: BTreeMap<_, _> = always.map(|number| (*number, Vec::new())).collect();
    let own_process = u64::from(std::process::id());
    let sometimes = [
        (libc::SYS_clone, any_of(0, THREAD_FLAGS)?),
        (
            libc::SYS_fcntl,
            any_of(1, FCNTL_COMMANDS.map(|command| command as u64))?,
        ),
        (libc::SYS_ioctl, any_of(1, [PAGEMAP_SCAN, TCGETS])?),
        (libc::SYS_prctl, any_of(0, [libc::PR_SET_NAME as u64])?),
        // A signal to itself, as sent by `abort`.
        (libc::SYS_tgkill, any_of(0, [own_process])?),
        // Times of an open file: the path is null.
        (
            libc::SYS_utimensat,
            vec![SeccompRule::new(vec![equal(
                1,
                SeccompCmpArgLen::Qword,
                0,
            )?])?],
        ),
        // Reading its own limits.
        (
            libc::SYS_prlimit64,
            vec![SeccompRule::new(vec![
                equal(0, SeccompCmpArgLen::Dword, 0)?,
                equal(2, SeccompCmpArgLen::Qword, 0)?,
            ])?],
        ),
    ];
    rules.extend(sometimes);
    let refuse = SeccompAction::Errno(libc::EPERM as u32);
    SeccompFilter::new(rules, refuse, SeccompAction::Allow, architecture()?)?.try_into()
}

fn architecture() -> Result<TargetArch, BackendError> {
    std::env::consts::ARCH.try_into()
}

/// Builds rules that hold if the lower half of an argument is one of the values.
fn any_of(
    argument: u8,
    values: impl IntoIterator<Item = u64>,
) -> Result<Vec<SeccompRule>, BackendError> {
    let rule = |value| SeccompRule::new(vec![equal(argument, SeccompCmpArgLen::Dword, value)?]);
    values.into_iter().map(rule).collect()
}

fn equal(
    argument: u8,
    length: SeccompCmpArgLen,
    value: u64,
) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, length, SeccompCmpOp::Eq, value)
}
