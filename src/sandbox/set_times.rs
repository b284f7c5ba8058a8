//! Setting the times of a file by its path.
//!
//! If a guest asks not to follow links, the runtime passes the path to the system call, which a
//! worker process may not do (`backend/process/confine`). If links are followed, the runtime opens
//! the file and passes the descriptor. For a file that is not a link, both have the same effect. So
//! the times of such a file are set as if the guest had asked to follow links.

use wasmtime::component::{Linker as ComponentLinker, Resource};
use wasmtime::{AsContextMut, Caller, Extern, Linker, StoreContextMut};
use wasmtime_wasi::filesystem::{Descriptor, WasiFilesystemView};
use wasmtime_wasi::p1::wasi_snapshot_preview1::{self, WasiSnapshotPreview1};
use wasmtime_wasi::p2::bindings::filesystem::types::{
    DescriptorType, ErrorCode, HostDescriptor, NewTimestamp, PathFlags,
};

use super::errno::{answer, forget_last, preview1_answer};
use super::host::Host;
use super::imports::PREVIEW1;
use super::lookup::{SYMLINK_FOLLOW, slice};

/// Replaces `path_filestat_set_times` of preview 1.
pub(super) fn link_core(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    linker.func_wrap_async(PREVIEW1, "path_filestat_set_times", |caller, params| {
        Box::new(path_filestat_set_times(caller, params))
    })?;
    Ok(())
}

/// Replaces `descriptor.set-times-at` of WASI 0.2.
pub(super) fn link_component(linker: &mut ComponentLinker<Host>) -> wasmtime::Result<()> {
    let mut types = linker.instance("wasi:filesystem/types@0.2.12")?;
    types.func_wrap_async("[method]descriptor.set-times-at", |store, params| {
        Box::new(set_times_at(store, params))
    })
}

type PathFilestatSetTimes = (i32, i32, i32, i32, i64, i64, i32);

async fn path_filestat_set_times(
    mut caller: Caller<'_, Host>,
    (folder, lookup, path, path_len, accessed, modified, flags): PathFilestatSetTimes,
) -> wasmtime::Result<i32> {
    let Some(Extern::Memory(memory)) = caller.get_export("memory") else {
        wasmtime::bail!("the module does not export its memory, which WASI needs");
    };
    let fuel = caller.as_context_mut().hostcall_fuel();
    let (bytes, host) = memory.data_and_store_mut(&mut caller);
    host.wasi.set_hostcall_fuel(fuel);
    let stat = slice(bytes, path, path_len)
        .and_then(|path| host.folders.stat(&mut host.wasi, folder, 0, path));
    let lookup = if stat.is_none_or(|stat| stat.is_link()) {
        lookup
    } else {
        lookup | SYMLINK_FOLLOW
    };
    let mut guest = wiggle::GuestMemory::Unshared(bytes);
    forget_last();
    let errno = wasi_snapshot_preview1::path_filestat_set_times(
        &mut host.wasi,
        &mut guest,
        folder,
        lookup,
        path,
        path_len,
        accessed,
        modified,
        flags,
    );
    Ok(preview1_answer(errno.await?))
}

type SetTimesAt = (
    Resource<Descriptor>,
    PathFlags,
    String,
    NewTimestamp,
    NewTimestamp,
);

async fn set_times_at(
    mut store: StoreContextMut<'_, Host>,
    (folder, mut flags, path, accessed, modified): SetTimesAt,
) -> wasmtime::Result<(Result<(), ErrorCode>,)> {
    let host = store.data_mut();
    if !flags.contains(PathFlags::SYMLINK_FOLLOW) {
        let borrowed = Resource::new_borrow(folder.rep());
        let stat = host
            .filesystem()
            .stat_at(borrowed, flags, path.clone())
            .await;
        if stat.is_ok_and(|stat| stat.type_ != DescriptorType::SymbolicLink) {
            flags |= PathFlags::SYMLINK_FOLLOW;
        }
    }
    forget_last();
    let done = host
        .filesystem()
        .set_times_at(folder, flags, path, accessed, modified)
        .await;
    Ok((answer(done, &host.warnings)?,))
}
