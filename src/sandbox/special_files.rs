//! FIFOs, sockets and devices in a folder that a guest sees are never opened.
//!
//! Opening a FIFO waits for its other end, where no limit reaches the guest, and opening a device can do anything. So
//! the type of a file is looked at when a guest opens it: at a cost for each open, and none for the size of the input.
//! A guest cannot make such files itself.

use wasmtime::component::{Linker as ComponentLinker, Resource};
use wasmtime::{AsContextMut, Caller, Extern, Linker, StoreContextMut};
use wasmtime_wasi::filesystem::{Descriptor, WasiFilesystemCtxView, WasiFilesystemView};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p1::wasi_snapshot_preview1::{self, WasiSnapshotPreview1};
use wasmtime_wasi::p2::FsError;
use wasmtime_wasi::p2::bindings::filesystem::types::{
    DescriptorFlags, DescriptorType, ErrorCode, HostDescriptor, OpenFlags, PathFlags,
};

use super::host::{Host, PREVIEW1};
use super::lookup::{FILESTAT_BYTES, slice};

/// Replaces `path_open` of preview 1.
pub(super) fn guard_core(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    linker.func_wrap_async(PREVIEW1, "path_open", |caller, params| Box::new(path_open(caller, params)))?;
    Ok(())
}

/// Replaces `descriptor.open-at` of WASI 0.2.
pub(super) fn guard_component(linker: &mut ComponentLinker<Host>) -> wasmtime::Result<()> {
    let mut types = linker.instance("wasi:filesystem/types@0.2.12")?;
    types.func_wrap_async("[method]descriptor.open-at", |store, params| Box::new(open_at(store, params)))
}

/// WASI's `errno` for "permission denied".
const ERRNO_ACCES: i32 = 2;
/// WASI's `errno` for "file exists".
const ERRNO_EXIST: i32 = 20;
/// WASI's `errno` for "name too long".
const ERRNO_NAMETOOLONG: i32 = 37;
/// Bytes of a path that a system takes; a longer one is not even copied.
const MAX_PATH_BYTES: usize = 4096;
/// Bits of WASI's `oflags`.
mod oflags {
    pub(super) const CREATE: i32 = 1;
    pub(super) const DIRECTORY: i32 = 2;
    pub(super) const EXCLUSIVE: i32 = 4;
}
/// Where the file type stands in WASI's `filestat`.
const FILETYPE_OFFSET: usize = 16;
/// WASI's file types that can be opened: a folder, a regular file, a symbolic link (which open then refuses).
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
    let open = async |wasi: &mut WasiP1Ctx, bytes: &mut [u8], flags| {
        let mut guest = wiggle::GuestMemory::Unshared(bytes);
        wasi_snapshot_preview1::path_open(
            wasi, &mut guest, folder, lookup, path, path_len, flags, rights, inherited, fdflags, opened,
        )
        .await
    };
    if flags & oflags::DIRECTORY == 0 {
        if flags & oflags::CREATE != 0 {
            // What is made new is a regular file, so there is nothing to look at.
            let errno = open(&mut host.wasi, bytes, flags | oflags::EXCLUSIVE).await?;
            if errno != ERRNO_EXIST || flags & oflags::EXCLUSIVE != 0 {
                return Ok(errno);
            }
        }
        if let Some(path) = slice(bytes, path, path_len) {
            let look = host.folders.look(&mut host.wasi, folder, lookup, path);
            let is_special = match look {
                Some(look) => look.is_special(),
                None => is_special(&mut host.wasi, folder, lookup, path).await?,
            };
            if is_special {
                return Ok(ERRNO_ACCES);
            }
        }
    }
    open(&mut host.wasi, bytes, flags).await
}

/// Asks WASI's own `path_filestat_get`, on a memory of the host's: path first, the answer behind it.
async fn is_special(wasi: &mut WasiP1Ctx, folder: i32, lookup: i32, path: &[u8]) -> wasmtime::Result<bool> {
    let answer = path.len().next_multiple_of(8);
    let mut memory = vec![0; answer + FILESTAT_BYTES];
    memory[..path.len()].copy_from_slice(path);
    let (path_len, at) = (i32::try_from(path.len())?, i32::try_from(answer)?);
    let mut guest = wiggle::GuestMemory::Unshared(&mut memory);
    let errno = wasi_snapshot_preview1::path_filestat_get(wasi, &mut guest, folder, lookup, 0, path_len, at).await?;
    // A file that is not there, or not within reach, is for `path_open` to answer.
    Ok(errno == 0 && !OPENABLE.contains(&memory[answer + FILETYPE_OFFSET]))
}

type OpenAt = (Resource<Descriptor>, PathFlags, String, OpenFlags, DescriptorFlags);
type Opened = Result<Resource<Descriptor>, ErrorCode>;

async fn open_at(mut store: StoreContextMut<'_, Host>, params: OpenAt) -> wasmtime::Result<(Opened,)> {
    let (folder, path_flags, path, open_flags, flags) = params;
    let host = store.data_mut();
    let mut files: WasiFilesystemCtxView<'_> = host.filesystem();
    if path.len() > MAX_PATH_BYTES {
        return Ok((Err(ErrorCode::NameTooLong),));
    }
    let borrowed = || Resource::new_borrow(folder.rep());
    if !open_flags.contains(OpenFlags::DIRECTORY) {
        if open_flags.contains(OpenFlags::CREATE) {
            let new = open_flags | OpenFlags::EXCLUSIVE;
            let opened = opened(files.open_at(borrowed(), path_flags, path.clone(), new, flags).await)?;
            let is_there = matches!(opened, Err(ErrorCode::Exist));
            if !is_there || open_flags.contains(OpenFlags::EXCLUSIVE) {
                return Ok((opened,));
            }
        }
        let stat = files.stat_at(borrowed(), path_flags, path.clone()).await;
        let openable = [DescriptorType::RegularFile, DescriptorType::Directory, DescriptorType::SymbolicLink];
        if stat.is_ok_and(|stat| !openable.contains(&stat.type_)) {
            return Ok((Err(ErrorCode::Access),));
        }
    }
    Ok((opened(files.open_at(borrowed(), path_flags, path, open_flags, flags).await)?,))
}

/// The answer for the guest, or a trap.
fn opened(answer: Result<Resource<Descriptor>, FsError>) -> wasmtime::Result<Opened> {
    answer.map_or_else(|err| err.downcast().map(Err), |file| Ok(Ok(file)))
}
