//! Errors of the operating system as guests see them.
//!
//! The runtime has no number for an exceeded quota, a read-only file system, a rename across file
//! systems, too many open files and some other errors. It answers "I/O error" instead, as for a
//! broken disk, and drops the original error. But a failed system call also leaves its error in the
//! `errno` of the thread, and the runtime makes its system calls on the thread of the guest. So
//! this module sets `errno` to 0 before an operation, and reads it if the answer is "I/O error".
//!
//! On Linux this needs rustix's feature `use-libc`, since rustix's own system calls do not set
//! `errno`.

use rustix::io::Errno;
use wasmtime::component::{Linker as ComponentLinker, Resource};
use wasmtime::{AsContextMut, Caller, Extern, Linker, StoreContextMut};
use wasmtime_wasi::filesystem::{Descriptor, WasiFilesystemView};
use wasmtime_wasi::p1::types;
use wasmtime_wasi::p1::wasi_snapshot_preview1::{self, WasiSnapshotPreview1};
use wasmtime_wasi::p2::FsResult;
use wasmtime_wasi::p2::bindings::filesystem::types::{
    DescriptorFlags, DescriptorStat, DescriptorType, ErrorCode, HostDescriptor, NewTimestamp,
    PathFlags,
};

use super::host::Host;
use super::imports::PREVIEW1;
use super::warnings::GuestWarnings;

/// WASI's `errno` for "operation not permitted", the runtime's answer to a path that leaves its
/// folder.
pub(super) const ERRNO_PERM: i32 = 63;

/// Returns the numbers of an error that the runtime has no number for: the number in preview 1, and
/// the code in WASI 0.2 if it has one.
fn own_numbers(err: Errno) -> Option<(types::Errno, Option<ErrorCode>)> {
    Some(match err {
        Errno::AGAIN => (types::Errno::Again, Some(ErrorCode::WouldBlock)),
        Errno::DEADLK => (types::Errno::Deadlk, Some(ErrorCode::Deadlock)),
        Errno::DQUOT => (types::Errno::Dquot, Some(ErrorCode::Quota)),
        Errno::HOSTUNREACH => (types::Errno::Hostunreach, None),
        Errno::MFILE => (types::Errno::Mfile, None),
        Errno::NETDOWN => (types::Errno::Netdown, None),
        Errno::NETUNREACH => (types::Errno::Netunreach, None),
        Errno::NFILE => (types::Errno::Nfile, None),
        Errno::NODEV => (types::Errno::Nodev, Some(ErrorCode::NoDevice)),
        Errno::NOLCK => (types::Errno::Nolck, Some(ErrorCode::NoLock)),
        Errno::NOTCONN => (types::Errno::Notconn, None),
        Errno::NXIO => (types::Errno::Nxio, Some(ErrorCode::NoSuchDevice)),
        Errno::ROFS => (types::Errno::Rofs, Some(ErrorCode::ReadOnly)),
        Errno::STALE => (types::Errno::Stale, None),
        Errno::TIMEDOUT => (types::Errno::Timedout, None),
        Errno::TXTBSY => (types::Errno::Txtbsy, Some(ErrorCode::TextFileBusy)),
        Errno::XDEV => (types::Errno::Xdev, Some(ErrorCode::CrossDevice)),
        _ => return None,
    })
}

/// Returns preview 1's `errno` for an error.
pub(super) fn preview1_errno(err: Errno) -> i32 {
    let errno = match own_numbers(err) {
        Some((errno, _)) => errno,
        None => ErrorCode::from(std::io::Error::from(err)).into(),
    };
    i32::from(errno as u16)
}

/// Returns WASI 0.2's code for an error. If WASI 0.2 has none, the guest gets an I/O error and the
/// user gets a warning.
pub(super) fn error_code(err: Errno, warnings: &GuestWarnings) -> ErrorCode {
    match own_numbers(err) {
        Some((_, Some(code))) => code,
        Some((_, None)) => {
            let err = std::io::Error::from(err);
            warnings.warn(&format!(
                "a file operation failed: {err}; WASI 0.2 has no such error, so tasks see an I/O \
                 error"
            ));
            ErrorCode::Io
        }
        None => std::io::Error::from(err).into(),
    }
}

/// Clears the `errno` of the thread, before an operation of the runtime.
pub(super) fn forget_last() {
    errno::set_errno(errno::Errno(0));
}

/// Returns the last error of the thread, if the runtime has no number for it.
fn last_unknown() -> Option<Errno> {
    let number = errno::errno().0;
    let err = (number != 0).then(|| Errno::from_raw_os_error(number))?;
    own_numbers(err).map(|_| err)
}

/// Returns the answer for a guest of preview 1.
///
/// * `answer`: answer of the runtime to an operation that was preceded by [`forget_last`].
pub(super) fn preview1_answer(answer: i32) -> i32 {
    if answer != types::Errno::Io as i32 {
        return answer;
    }
    last_unknown().map_or(answer, preview1_errno)
}

/// Returns the answer for a guest of WASI 0.2, or a trap.
///
/// * `answer`: answer of the runtime to an operation that was preceded by [`forget_last`].
pub(super) fn answer<T>(
    answer: FsResult<T>,
    warnings: &GuestWarnings,
) -> wasmtime::Result<Result<T, ErrorCode>> {
    match answer.map_err(|err| err.downcast()) {
        Ok(answer) => Ok(Ok(answer)),
        Err(Ok(ErrorCode::Io)) => Ok(Err(
            last_unknown().map_or(ErrorCode::Io, |err| error_code(err, warnings))
        )),
        Err(Ok(code)) => Ok(Err(code)),
        Err(Err(trap)) => Err(trap),
    }
}

/// Replaces functions of preview 1 with the runtime's own functions and more precise errors.
macro_rules! preview1_functions {
    ($linker:ident, $($name:ident($($arg:ident: $ty:ty),*);)*) => {$(
        $linker.func_wrap_async(PREVIEW1, stringify!($name), |mut caller: Caller<'_, Host>, params: ($($ty,)*)| {
            Box::new(async move {
                let Some(Extern::Memory(memory)) = caller.get_export("memory") else {
                    wasmtime::bail!("the module does not export its memory, which WASI needs");
                };
                let fuel = caller.as_context_mut().hostcall_fuel();
                let (bytes, host) = memory.data_and_store_mut(&mut caller);
                host.wasi.set_hostcall_fuel(fuel);
                let mut memory = wiggle::GuestMemory::Unshared(bytes);
                let ($($arg,)*) = params;
                forget_last();
                let answer = wasi_snapshot_preview1::$name(&mut host.wasi, &mut memory, $($arg),*).await?;
                Ok(preview1_answer(answer))
            })
        })?;
    )*};
}

/// Replaces the functions of preview 1 that can fail because of the file system and that no other
/// module replaces.
pub(super) fn link_core(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    preview1_functions! { linker,
        fd_datasync(fd: i32);
        fd_filestat_get(fd: i32, answer: i32);
        fd_filestat_set_size(fd: i32, size: i64);
        fd_filestat_set_times(fd: i32, accessed: i64, modified: i64, flags: i32);
        fd_pread(fd: i32, buffers: i32, n_buffers: i32, offset: i64, n_read: i32);
        fd_pwrite(fd: i32, buffers: i32, n_buffers: i32, offset: i64, n_written: i32);
        fd_read(fd: i32, buffers: i32, n_buffers: i32, n_read: i32);
        fd_sync(fd: i32);
        fd_write(fd: i32, buffers: i32, n_buffers: i32, n_written: i32);
        path_create_directory(fd: i32, path: i32, path_len: i32);
        path_link(
            old_fd: i32, lookup: i32, old_path: i32, old_path_len: i32, new_fd: i32, new_path: i32, new_path_len: i32
        );
        path_readlink(fd: i32, path: i32, path_len: i32, buffer: i32, buffer_len: i32, n_used: i32);
        path_remove_directory(fd: i32, path: i32, path_len: i32);
        path_rename(old_fd: i32, old_path: i32, old_path_len: i32, new_fd: i32, new_path: i32, new_path_len: i32);
        path_symlink(old_path: i32, old_path_len: i32, fd: i32, new_path: i32, new_path_len: i32);
        path_unlink_file(fd: i32, path: i32, path_len: i32);
    }
    Ok(())
}

/// Replaces methods of WASI 0.2's `descriptor` with the runtime's own methods and more precise
/// errors.
macro_rules! descriptor_methods {
    ($types:ident, $($name:literal $method:ident($($arg:ident: $ty:ty),*) -> $answer:ty;)*) => {$(
        $types.func_wrap_async(
            concat!("[method]descriptor.", $name),
            |mut store: StoreContextMut<'_, Host>, params: (Resource<Descriptor>, $($ty,)*)| {
                Box::new(async move {
                    let host = store.data_mut();
                    let (descriptor, $($arg,)*) = params;
                    forget_last();
                    let done: FsResult<$answer> = host.filesystem().$method(descriptor, $($arg),*).await;
                    Ok((answer(done, &host.warnings)?,))
                })
            },
        )?;
    )*};
}

/// Replaces the functions of WASI 0.2 that can fail because of the file system and that no other
/// module replaces.
pub(super) fn link_component(linker: &mut ComponentLinker<Host>) -> wasmtime::Result<()> {
    let mut types = linker.instance("wasi:filesystem/types@0.2.12")?;
    descriptor_methods! { types,
        "create-directory-at" create_directory_at(path: String) -> ();
        "get-flags" get_flags() -> DescriptorFlags;
        "get-type" get_type() -> DescriptorType;
        "link-at" link_at(flags: PathFlags, old: String, folder: Resource<Descriptor>, new: String) -> ();
        "read" read(length: u64, offset: u64) -> (Vec<u8>, bool);
        "readlink-at" readlink_at(path: String) -> String;
        "remove-directory-at" remove_directory_at(path: String) -> ();
        "rename-at" rename_at(old: String, folder: Resource<Descriptor>, new: String) -> ();
        "set-size" set_size(size: u64) -> ();
        "set-times" set_times(accessed: NewTimestamp, modified: NewTimestamp) -> ();
        "stat" stat() -> DescriptorStat;
        "symlink-at" symlink_at(old: String, new: String) -> ();
        "sync" sync() -> ();
        "sync-data" sync_data() -> ();
        "unlink-file-at" unlink_file_at(path: String) -> ();
        "write" write(bytes: Vec<u8>, offset: u64) -> u64;
    }
    types.func_wrap("filesystem-error-code", filesystem_error_code)
}

/// Returns the error code of a stream's error, if it is the error of a file. The streams of files
/// keep the operating system's error.
fn filesystem_error_code(
    mut store: StoreContextMut<'_, Host>,
    (err,): (Resource<wasmtime::Error>,),
) -> wasmtime::Result<(Option<ErrorCode>,)> {
    let host = store.data_mut();
    let err = host
        .filesystem()
        .table
        .get(&err)?
        .downcast_ref::<std::io::Error>();
    // Take the numbers out first: the error borrows the table, and so the host.
    let code = err.map(|err| match Errno::from_io_error(err) {
        Some(err) => (Some(err), ErrorCode::Io),
        None => (None, ErrorCode::from(err)),
    });
    Ok((code.map(|(err, code)| err.map_or(code, |err| error_code(err, &host.warnings))),))
}
