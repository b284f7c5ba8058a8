//! Folder listings for WASI 0.2. Each open stream reads one [`Listing`].
//!
//! In WASI 0.2, a listing is a resource that is read once from start to end. But most guests of
//! WASI 0.2 are compiled for preview 1 and contain an adapter, which keeps only one listing open.
//! When such a guest continues another listing, the adapter starts that listing from scratch and
//! skips as many names as the guest has already read. If the folder has changed in between, the
//! guest would miss names or see them twice.
//!
//! A listing that an adapter has not read to its end is therefore stored with its folder, and the
//! next stream of the folder reads the same listing from its start. An adapter is recognized by its
//! requests: after each name it asks for the number of that file.

use std::fs::File;
use std::sync::{Arc, Weak};

use rustix::fs::{FileType, Mode, OFlags, openat};
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource, ResourceType};
use wasmtime_wasi::WasiView;
use wasmtime_wasi::filesystem::Descriptor;
use wasmtime_wasi::p2::bindings::filesystem::types::{DescriptorType, DirectoryEntry, ErrorCode};

use super::errno::error_code;
use super::host::Host;
use super::limits::MemoryBudget;
use super::listing::Listing;

/// Replaces `descriptor.read-directory` of WASI 0.2, and the resource that it returns.
pub(super) fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    let mut types = linker.instance("wasi:filesystem/types@0.2.12")?;
    types.resource(
        "descriptor",
        ResourceType::host::<Descriptor>(),
        drop_descriptor,
    )?;
    types.resource(
        "directory-entry-stream",
        ResourceType::host::<EntryStream>(),
        drop_stream,
    )?;
    types.func_wrap_async("[method]descriptor.read-directory", |store, params| {
        Box::new(read_directory(store, params))
    })?;
    types.func_wrap(
        "[method]directory-entry-stream.read-directory-entry",
        read_directory_entry,
    )
}

impl Host {
    /// Records that a guest of WASI 0.2 has asked for the number of a file. If the guest has just
    /// read the name of this file, it contains an adapter, and its listing is stored for the next
    /// stream.
    pub(super) fn note_number_lookup(&mut self, folder: u32, path: &str) {
        let Some((_, stream)) = self.listings.last_read.filter(|(last, _)| *last == folder) else {
            return;
        };
        let Ok(stream) = self
            .wasi
            .ctx()
            .table
            .get_mut(&Resource::<EntryStream>::new_borrow(stream))
        else {
            return;
        };
        if stream.is_from_adapter
            || stream
                .listing
                .get(stream.next - 1)
                .is_none_or(|entry| entry.name != path)
        {
            return;
        }
        stream.is_from_adapter = true;
        let unfinished = (Weak::clone(&stream.opened), Arc::clone(&stream.listing));
        if let Some((_, other)) = self.listings.unfinished.insert(folder, unfinished) {
            release(other, &mut self.budget);
        }
    }

    fn finish_listing(&mut self, folder: u32) {
        if let Some((_, listing)) = self.listings.unfinished.remove(&folder) {
            release(listing, &mut self.budget);
        }
    }
}

/// Listing, and the position up to which a guest of WASI 0.2 has read it.
struct EntryStream {
    listing: Arc<Listing>,
    folder: u32,
    opened: Weak<File>,
    next: usize,
    is_from_adapter: bool,
}

/// Releases the memory that a listing counts, if this is its last handle.
fn release(listing: Arc<Listing>, budget: &mut MemoryBudget) {
    if let Some(listing) = Arc::into_inner(listing) {
        listing.release(budget);
    }
}

type Opened = Result<Resource<EntryStream>, ErrorCode>;

async fn read_directory(
    mut store: StoreContextMut<'_, Host>,
    (descriptor,): (Resource<Descriptor>,),
) -> wasmtime::Result<(Opened,)> {
    let host = store.data_mut();
    let folder = match host.wasi.ctx().table.get(&descriptor)? {
        Descriptor::File(_) => return Ok((Err(ErrorCode::NotDirectory),)),
        Descriptor::Dir(folder) => Arc::clone(&folder.dir),
    };
    let (index, opened) = (descriptor.rep(), Arc::downgrade(&folder));
    let unfinished = host
        .listings
        .unfinished
        .get(&index)
        .filter(|(other, _)| Weak::ptr_eq(other, &opened));
    let (listing, is_from_adapter) = match unfinished {
        Some((_, listing)) => (Arc::clone(listing), true),
        None => {
            // Open the folder again: a copy of the descriptor would share its position.
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let listing = match openat(&*folder, ".", flags, Mode::empty()) {
                Ok(folder) => host.list(folder.into()).await,
                Err(err) => Err(err),
            };
            match listing {
                Ok(listing) => (Arc::new(listing), false),
                Err(err) => return Ok((Err(error_code(err, &host.warnings)),)),
            }
        }
    };
    let stream = EntryStream {
        listing,
        folder: index,
        opened,
        next: 0,
        is_from_adapter,
    };
    Ok((Ok(host.wasi.ctx().table.push(stream)?),))
}

type Next = Result<Option<DirectoryEntry>, ErrorCode>;

fn read_directory_entry(
    mut store: StoreContextMut<'_, Host>,
    (resource,): (Resource<EntryStream>,),
) -> wasmtime::Result<(Next,)> {
    let host = store.data_mut();
    let stream = host.wasi.ctx().table.get_mut(&resource)?;
    let entry = stream.listing.get(stream.next).map(|entry| DirectoryEntry {
        type_: descriptor_type(entry.file_type),
        name: entry.name.to_owned(),
    });
    let folder = stream.folder;
    if entry.is_some() {
        stream.next += 1;
        host.listings.last_read = Some((folder, resource.rep()));
    } else if stream.is_from_adapter {
        host.finish_listing(folder);
    }
    Ok((Ok(entry),))
}

fn descriptor_type(file_type: FileType) -> DescriptorType {
    match file_type {
        FileType::BlockDevice => DescriptorType::BlockDevice,
        FileType::CharacterDevice => DescriptorType::CharacterDevice,
        FileType::Directory => DescriptorType::Directory,
        FileType::RegularFile => DescriptorType::RegularFile,
        FileType::Symlink => DescriptorType::SymbolicLink,
        _ => DescriptorType::Unknown,
    }
}

fn drop_stream(mut store: StoreContextMut<'_, Host>, index: u32) -> wasmtime::Result<()> {
    let host = store.data_mut();
    let stream = host
        .wasi
        .ctx()
        .table
        .delete(Resource::<EntryStream>::new_own(index))?;
    host.listings.last_read.take_if(|(_, last)| *last == index);
    release(stream.listing, &mut host.budget);
    Ok(())
}

fn drop_descriptor(mut store: StoreContextMut<'_, Host>, index: u32) -> wasmtime::Result<()> {
    let host = store.data_mut();
    host.finish_listing(index);
    host.wasi
        .ctx()
        .table
        .delete(Resource::<Descriptor>::new_own(index))?;
    Ok(())
}
