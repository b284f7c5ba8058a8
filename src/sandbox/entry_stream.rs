//! Listing a folder, for WASI 0.2: each open listing is one [`Listing`].
//!
//! In WASI 0.2 a listing is a resource that is read from its start to its end. But most guests of
//! WASI 0.2 are made for preview 1 and have an adapter, which keeps one listing only: when a guest
//! goes on with another, it begins that one anew and passes over as many names as the guest has
//! read already. So a listing that an adapter has not read to its end is kept with the folder, and
//! the folder's next listing is the same one from its start. The adapter is known by asking for the
//! number of each file that it has read the name of.

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
    /// Takes note that a guest of WASI 0.2 has asked for the number of a file, which shows an
    /// adapter.
    pub(super) fn number_was_asked(&mut self, folder: u32, path: &str) {
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
        if stream.is_adapters
            || stream
                .listing
                .get(stream.next - 1)
                .is_none_or(|entry| entry.name != path)
        {
            return;
        }
        stream.is_adapters = true;
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

/// A listing, and how far a guest of WASI 0.2 has read it.
struct EntryStream {
    listing: Arc<Listing>,
    folder: u32,
    opened: Weak<File>,
    next: usize,
    is_adapters: bool,
}

/// Gives back what a listing counts, if this is the last handle of it.
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
    let (listing, is_adapters) = match unfinished {
        Some((_, listing)) => (Arc::clone(listing), true),
        None => {
            // Not a copy of the descriptor, which would share its position.
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
        is_adapters,
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
    } else if stream.is_adapters {
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
