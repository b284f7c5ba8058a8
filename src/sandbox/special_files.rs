//! Refusal to open FIFOs, sockets and devices in the folders of a guest.
//!
//! Opening a FIFO waits for its other end, and no limit can end the guest meanwhile. Opening a
//! device can have any effect. So the type of a file is checked whenever a guest opens it. The
//! check has a cost per open, which does not depend on the size of the file. A guest cannot create
//! such files itself.

use wasmtime::component::{Linker as ComponentLinker, Resource};
use wasmtime::{AsContextMut, Caller, Extern, Linker, StoreContextMut};
use wasmtime_wasi::filesystem::{Descriptor, WasiFilesystemView};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p1::wasi_snapshot_preview1::{self, WasiSnapshotPreview1};
use wasmtime_wasi::p2::bindings::filesystem::types::{
    DescriptorFlags, DescriptorType, ErrorCode, HostDescriptor, OpenFlags, PathFlags,
};

use super::errno::{self, ERRNO_PERM, forget_last, preview1_answer};
use super::host::Host;
use super::imports::PREVIEW1;
use super::lookup::{FILESTAT_BYTES, OwnMemory, SYMLINK_FOLLOW, slice};

/// Replaces `path_open` of preview 1.
pub(super) fn guard_core(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    linker.func_wrap_async(PREVIEW1, "path_open", |caller, params| {
        Box::new(path_open(caller, params))
    })?;
    Ok(())
}

/// Replaces `descriptor.open-at` of WASI 0.2.
pub(super) fn guard_component(linker: &mut ComponentLinker<Host>) -> wasmtime::Result<()> {
    let mut types = linker.instance("wasi:filesystem/types@0.2.12")?;
    types.func_wrap_async("[method]descriptor.open-at", |store, params| {
        Box::new(open_at(store, params))
    })
}

/// WASI's `errno` for "permission denied".
const ERRNO_ACCES: i32 = 2;
/// WASI's `errno` for "file exists".
const ERRNO_EXIST: i32 = 20;
/// WASI's `errno` for "name too long".
const ERRNO_NAMETOOLONG: i32 = 37;
/// Maximum size in bytes of a path on most systems. A longer path is not even copied.
const MAX_PATH_BYTES: usize = 4096;
/// Bits of WASI's `oflags`.
mod oflags {
    pub(super) const CREATE: i32 = 1;
    pub(super) const DIRECTORY: i32 = 2;
    pub(super) const EXCLUSIVE: i32 = 4;
}
/// Offset of the file type in WASI's `filestat`.
const FILETYPE_OFFSET: usize = 16;
/// WASI's file types that may be opened: folder, regular file and symbolic link. Opening then
/// refuses a link.
const OPENABLE: [u8; 3] = [3, 4, 7];

type PathOpen = (i32, i32, i32, i32, i32, i64, i64, i32, i32);

async fn path_open(mut caller: Caller<'_, Host>, params: PathOpen) -> wasmtime::Result<i32> {
    let (folder, lookup, path, path_len, flags, rights, inherited, fdflags, opened) = params;
    let Some(Extern::Memory(memory)) = caller.get_export("memory") else {
        wasmtime::bail!("the module does not export its memory, which WASI needs");
    };
    if path_len.cast_unsigned() as usize > MAX_PATH_BYTES {
        return Ok(ERRNO_NAMETOOLONG);
    }
    let fuel = caller.as_context_mut().hostcall_fuel();
    let (bytes, host) = memory.data_and_store_mut(&mut caller);
    host.wasi.set_hostcall_fuel(fuel);
    let errno = open_plain(host, bytes, params).await?;
    if errno != ERRNO_PERM {
        return Ok(errno);
    }
    let Some(path) = slice(bytes, path, path_len) else {
        return Ok(errno);
    };
    let Some((folder, path)) = host.resolve_refused(folder, path, lookup & SYMLINK_FOLLOW != 0)
    else {
        return Ok(errno);
    };
    let mut own = OwnMemory::new(path.as_bytes(), 4)?;
    host.wasi.set_hostcall_fuel(fuel);
    let params = (
        folder,
        lookup,
        0,
        own.path_len,
        flags,
        rights,
        inherited,
        fdflags,
        own.answer,
    );
    let errno = open_plain(host, &mut own.bytes, params).await?;
    if errno == 0 {
        memory.write(&mut caller, opened.cast_unsigned() as usize, own.answer())?;
    }
    Ok(errno)
}

/// Runs `path_open` for a path that the runtime can resolve.
async fn open_plain(host: &mut Host, bytes: &mut [u8], params: PathOpen) -> wasmtime::Result<i32> {
    let (folder, lookup, path, path_len, flags, rights, inherited, fdflags, opened) = params;
    let open = async |wasi: &mut WasiP1Ctx, bytes: &mut [u8], flags| {
        let mut guest = wiggle::GuestMemory::Unshared(bytes);
        forget_last();
        let answer = wasi_snapshot_preview1::path_open(
            wasi, &mut guest, folder, lookup, path, path_len, flags, rights, inherited, fdflags,
            opened,
        )
        .await;
        answer.map(preview1_answer)
    };
    if flags & oflags::DIRECTORY == 0 {
        if flags & oflags::CREATE != 0 {
            // Try to create the file first: a new file is a regular one and needs no check.
            let errno = open(&mut host.wasi, bytes, flags | oflags::EXCLUSIVE).await?;
            if errno != ERRNO_EXIST || flags & oflags::EXCLUSIVE != 0 {
                return Ok(errno);
            }
        }
        if let Some(path) = slice(bytes, path, path_len) {
            let stat = host.folders.stat(&mut host.wasi, folder, lookup, path);
            let is_special = match stat {
                Some(stat) => stat.is_special(),
                None => is_special(&mut host.wasi, folder, lookup, path).await?,
            };
            if is_special {
                return Ok(ERRNO_ACCES);
            }
        }
    }
    open(&mut host.wasi, bytes, flags).await
}

/// Returns true if WASI's own `path_filestat_get` reports a special file.
async fn is_special(
    wasi: &mut WasiP1Ctx,
    folder: i32,
    lookup: i32,
    path: &[u8],
) -> wasmtime::Result<bool> {
    let mut own = OwnMemory::new(path, FILESTAT_BYTES)?;
    let mut guest = wiggle::GuestMemory::Unshared(&mut own.bytes);
    let errno = wasi_snapshot_preview1::path_filestat_get(
        wasi,
        &mut guest,
        folder,
        lookup,
        0,
        own.path_len,
        own.answer,
    )
    .await?;
    // `path_open` reports the error for a file that does not exist or cannot be reached.
    Ok(errno == 0 && !OPENABLE.contains(&own.answer()[FILETYPE_OFFSET]))
}

type OpenAt = (
    Resource<Descriptor>,
    PathFlags,
    String,
    OpenFlags,
    DescriptorFlags,
);
type Opened = Result<Resource<Descriptor>, ErrorCode>;

async fn open_at(
    mut store: StoreContextMut<'_, Host>,
    params: OpenAt,
) -> wasmtime::Result<(Opened,)> {
    let (folder, path_flags, path, open_flags, flags) = params;
    let host = store.data_mut();
    if path.len() > MAX_PATH_BYTES {
        return Ok((Err(ErrorCode::NameTooLong),));
    }
    let answer = open_at_plain(host, &folder, path_flags, &path, open_flags, flags).await?;
    if !matches!(answer, Err(ErrorCode::NotPermitted)) {
        return Ok((answer,));
    }
    let follow = path_flags.contains(PathFlags::SYMLINK_FOLLOW);
    let Some((folder, path)) = host.resolve_refused_at(&folder, &path, follow)? else {
        return Ok((answer,));
    };
    let answer = open_at_plain(host, &folder, path_flags, &path, open_flags, flags).await;
    host.filesystem().table.delete(folder)?;
    Ok((answer?,))
}

/// Runs `descriptor.open-at` for a path that the runtime can resolve.
async fn open_at_plain(
    host: &mut Host,
    folder: &Resource<Descriptor>,
    path_flags: PathFlags,
    path: &str,
    open_flags: OpenFlags,
    flags: DescriptorFlags,
) -> wasmtime::Result<Opened> {
    let borrowed = || Resource::new_borrow(folder.rep());
    let path = || path.to_owned();
    if !open_flags.contains(OpenFlags::DIRECTORY) {
        if open_flags.contains(OpenFlags::CREATE) {
            let new = open_flags | OpenFlags::EXCLUSIVE;
            forget_last();
            let opened = host
                .filesystem()
                .open_at(borrowed(), path_flags, path(), new, flags)
                .await;
            let opened = errno::answer(opened, &host.warnings)?;
            let is_there = matches!(opened, Err(ErrorCode::Exist));
            if !is_there || open_flags.contains(OpenFlags::EXCLUSIVE) {
                return Ok(opened);
            }
        }
        let stat = host
            .filesystem()
            .stat_at(borrowed(), path_flags, path())
            .await;
        let openable = [
            DescriptorType::RegularFile,
            DescriptorType::Directory,
            DescriptorType::SymbolicLink,
        ];
        if stat.is_ok_and(|stat| !openable.contains(&stat.type_)) {
            return Ok(Err(ErrorCode::Access));
        }
    }
    forget_last();
    let opened = host
        .filesystem()
        .open_at(borrowed(), path_flags, path(), open_flags, flags)
        .await;
    errno::answer(opened, &host.warnings)
}
