//! Folder listings for preview 1. Each open listing is one [`Listing`].
//!
//! Preview 1 has no handle for a listing: a guest passes the number of a folder, and a cookie for
//! the position. So a listing belongs to a number. Cookie 0 starts a new listing, as opening and
//! rewinding a folder do. Any other cookie continues the open listing from that position. A listing
//! ends when the guest closes its number or assigns it to another file, so those functions are
//! replaced as well.
//!
//! The runtime does not expose the folder behind a number. [`open_folder`] explains how to get it.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::{Arc, Weak};

use rustix::fs::FileType;
use rustix::io::Errno;
use wasmtime::component::Resource;
use wasmtime::{Caller, Extern, Linker};
use wasmtime_wasi::WasiView;
use wasmtime_wasi::filesystem::Descriptor;
use wasmtime_wasi::p1::wasi_snapshot_preview1::{self, WasiSnapshotPreview1};

use super::errno::{forget_last, preview1_answer, preview1_errno};
use super::host::Host;
use super::imports::PREVIEW1;
use super::listing::Listing;

/// Replaces `fd_readdir` of preview 1, and the functions that end a listing.
pub(super) fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    linker.func_wrap_async(PREVIEW1, "fd_readdir", |caller, params| {
        Box::new(fd_readdir(caller, params))
    })?;
    linker.func_wrap_async(PREVIEW1, "fd_close", |caller, params| {
        Box::new(fd_close(caller, params))
    })?;
    linker.func_wrap_async(PREVIEW1, "fd_renumber", |caller, params| {
        Box::new(fd_renumber(caller, params))
    })?;
    Ok(())
}

/// Open listings of a guest.
#[derive(Default)]
pub(super) struct Listings {
    /// Listings of preview 1, by the numbers of their folders.
    by_number: BTreeMap<i32, Listing>,
    /// Listings of WASI 0.2 that an adapter has not read to their end, by the indices of their
    /// folders. An index can refer to another folder by now, so the folder itself is compared as
    /// well.
    pub(super) unfinished: BTreeMap<u32, (Weak<File>, Arc<Listing>)>,
    /// Indices of the folder and of the stream in WASI 0.2 from which a name was read last.
    pub(super) last_read: Option<(u32, u32)>,
    /// True to sort names, so that two runs see them in the same order.
    sorted: bool,
}

impl Listings {
    pub(super) fn new(sorted: bool) -> Self {
        Self {
            sorted,
            ..Self::default()
        }
    }
}

impl Host {
    /// Reads a folder that was opened for this listing, and warns about names that the guest cannot
    /// get.
    pub(super) async fn list(&mut self, folder: File) -> Result<Listing, Errno> {
        let listing = Listing::read(folder, self.listings.sorted, &mut self.budget).await?;
        if let Some(warning) = listing.warning() {
            self.warnings.warn(&warning);
        }
        Ok(listing)
    }

    fn close_listing(&mut self, number: i32) {
        if let Some(listing) = self.listings.by_number.remove(&number) {
            listing.release(&mut self.budget);
        }
    }
}

/// Size of WASI's `dirent`, without the name that follows it.
const DIRENT_BYTES: usize = 24;
/// Number of cookies for `.` and `..`, which preview 1 lists first.
const N_DOTS: usize = 2;

type FdReaddir = (i32, i32, i32, i64, i32);

async fn fd_readdir(mut caller: Caller<'_, Host>, params: FdReaddir) -> wasmtime::Result<i32> {
    let (number, buffer, buffer_len, cookie, used) = params;
    let Some(Extern::Memory(memory)) = caller.get_export("memory") else {
        wasmtime::bail!("the module does not export its memory, which WASI needs");
    };
    let (bytes, host) = memory.data_and_store_mut(&mut caller);
    // A guest may also start with another cookie, which is then a position in a new listing.
    if cookie == 0 || !host.listings.by_number.contains_key(&number) {
        host.close_listing(number);
        let folder = match open_folder(host, number).await? {
            Ok(folder) => folder,
            Err(errno) => return Ok(errno),
        };
        match host.list(folder).await {
            Ok(listing) => drop(host.listings.by_number.insert(number, listing)),
            Err(err) => return Ok(preview1_errno(err)),
        }
    }
    let outside = || wasmtime::format_err!("a pointer outside the module's memory");
    let (start, length) = (
        buffer.cast_unsigned() as usize,
        buffer_len.cast_unsigned() as usize,
    );
    let buffer = bytes
        .get_mut(start..)
        .and_then(|rest| rest.get_mut(..length))
        .ok_or_else(outside)?;
    let listing = &host.listings.by_number[&number];
    let n_used = write_dirents(
        listing,
        usize::try_from(cookie).unwrap_or(usize::MAX),
        buffer,
    );
    memory.write(
        &mut caller,
        used.cast_unsigned() as usize,
        &u32::try_from(n_used)?.to_le_bytes(),
    )?;
    Ok(0)
}

/// Writes entries from a position on until the buffer is full. The last entry may be truncated.
/// Returns the number of bytes written.
fn write_dirents(listing: &Listing, first: usize, buffer: &mut [u8]) -> usize {
    let mut n_used = 0;
    let mut write = |bytes: &[u8]| {
        let n = bytes.len().min(buffer.len() - n_used);
        buffer[n_used..][..n].copy_from_slice(&bytes[..n]);
        n_used += n;
        n == bytes.len()
    };
    // A guest may pass any position.
    let mut position = first;
    loop {
        let (name, number, file_type) = match position.checked_sub(N_DOTS) {
            None => (
                [".", ".."][position],
                listing.folder_number(),
                FileType::Directory,
            ),
            Some(index) => match listing.get(index) {
                Some(entry) => (entry.name, entry.number, entry.file_type),
                None => break,
            },
        };
        position += 1;
        let mut dirent = [0; DIRENT_BYTES];
        dirent[..8].copy_from_slice(&(position as u64).to_le_bytes());
        dirent[8..16].copy_from_slice(&number.to_le_bytes());
        dirent[16..20].copy_from_slice(&(name.len() as u32).to_le_bytes());
        dirent[20] = preview1_type(file_type);
        if !write(&dirent) || !write(name.as_bytes()) {
            break;
        }
    }
    n_used
}

/// Returns WASI's `filetype`, which has no value for FIFOs and two values for sockets.
fn preview1_type(file_type: FileType) -> u8 {
    match file_type {
        FileType::BlockDevice => 1,
        FileType::CharacterDevice => 2,
        FileType::Directory => 3,
        FileType::RegularFile => 4,
        FileType::Symlink => 7,
        _ => 0,
    }
}

/// Opens the folder of a number again, or returns WASI's `errno`.
///
/// The runtime does not expose what a number refers to. So the folder is opened as a guest would
/// open it, which gives it a new number. The runtime stores an opened folder at the next free index
/// of the resource table, and the folder is taken from there.
async fn open_folder(host: &mut Host, number: i32) -> wasmtime::Result<Result<File, i32>> {
    /// `oflags`: the path must lead to a folder.
    const DIRECTORY: i32 = 2;
    /// `rights`: reading.
    const READ: i64 = 2;
    const PATH: &[u8] = b".";
    /// Offset of the new number, aligned as WASI requires.
    const ANSWER: usize = 4;

    // The first function that a guest calls fills the table. Call one here, so that opening the
    // folder takes the next free index.
    let mut memory = wiggle::GuestMemory::Unshared(&mut []);
    wasi_snapshot_preview1::fd_prestat_dir_name(&mut host.wasi, &mut memory, number, 0, 0)?;
    host.wasi.set_hostcall_fuel(PATH.len());
    let table = host.wasi.ctx().table;
    let next = table.push(())?;
    let index = next.rep();
    table.delete(next)?;
    let mut bytes = [0; ANSWER + 4];
    bytes[..PATH.len()].copy_from_slice(PATH);
    let mut memory = wiggle::GuestMemory::Unshared(&mut bytes);
    let (path_len, answer) = (PATH.len() as i32, ANSWER as i32);
    forget_last();
    let errno = wasi_snapshot_preview1::path_open(
        &mut host.wasi,
        &mut memory,
        number,
        0,
        0,
        path_len,
        DIRECTORY,
        READ,
        0,
        0,
        answer,
    )
    .await?;
    if errno != 0 {
        return Ok(Err(preview1_answer(errno)));
    }
    let opened = match host
        .wasi
        .ctx()
        .table
        .get(&Resource::<Descriptor>::new_borrow(index))
    {
        Ok(Descriptor::Dir(folder)) => Some(Arc::clone(&folder.dir)),
        _ => None,
    };
    let opened_number = i32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
    let mut memory = wiggle::GuestMemory::Unshared(&mut []);
    wasi_snapshot_preview1::fd_close(&mut host.wasi, &mut memory, opened_number).await?;
    let opened = opened.and_then(Arc::into_inner);
    opened.map(Ok).ok_or_else(|| {
        wasmtime::format_err!("the runtime stored an opened folder at an unexpected index")
    })
}

async fn fd_close(mut caller: Caller<'_, Host>, (number,): (i32,)) -> wasmtime::Result<i32> {
    let host = caller.data_mut();
    host.close_listing(number);
    let mut memory = wiggle::GuestMemory::Unshared(&mut []);
    wasi_snapshot_preview1::fd_close(&mut host.wasi, &mut memory, number).await
}

async fn fd_renumber(
    mut caller: Caller<'_, Host>,
    (from, to): (i32, i32),
) -> wasmtime::Result<i32> {
    let host = caller.data_mut();
    let mut memory = wiggle::GuestMemory::Unshared(&mut []);
    let errno = wasi_snapshot_preview1::fd_renumber(&mut host.wasi, &mut memory, from, to).await?;
    if errno == 0 && from != to {
        host.close_listing(to);
        if let Some(listing) = host.listings.by_number.remove(&from) {
            host.listings.by_number.insert(to, listing);
        }
    }
    Ok(errno)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Limits;
    use crate::sandbox::limits::MemoryBudget;

    /// Lists a new folder that contains these files and a subfolder.
    fn listing(names: &[&str]) -> Listing {
        let folder = tempfile::tempdir().expect("a folder");
        for name in names {
            std::fs::write(folder.path().join(name), "").expect("written");
        }
        std::fs::create_dir(folder.path().join("folder")).expect("made");
        let mut budget = MemoryBudget::new(&Limits::default());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime");
        let opened = File::open(folder.path()).expect("there");
        runtime
            .block_on(Listing::read(opened, true, &mut budget))
            .expect("read")
    }

    /// Returns the complete entries in a buffer: cookie, type and name.
    fn entries(mut bytes: &[u8]) -> Vec<(u64, u8, String)> {
        let mut entries = Vec::new();
        while bytes.len() >= DIRENT_BYTES {
            let (dirent, rest) = bytes.split_at(DIRENT_BYTES);
            let length = u32::from_le_bytes(dirent[16..20].try_into().expect("4 bytes")) as usize;
            let Some(name) = rest.get(..length) else {
                break;
            };
            let cookie = u64::from_le_bytes(dirent[..8].try_into().expect("8 bytes"));
            entries.push((
                cookie,
                dirent[20],
                String::from_utf8(name.to_owned()).expect("UTF-8"),
            ));
            bytes = &rest[length..];
        }
        entries
    }

    #[test]
    fn entries_are_cut_where_the_buffer_ends() {
        let listing = listing(&["a", "bb"]);
        let mut buffer = [0; 200];
        let n_used = write_dirents(&listing, 0, &mut buffer);
        let all = entries(&buffer[..n_used]);
        let expected = [
            (1, 3, "."),
            (2, 3, ".."),
            (3, 4, "a"),
            (4, 4, "bb"),
            (5, 3, "folder"),
        ];
        assert_eq!(
            all,
            expected.map(|(cookie, kind, name)| (cookie, kind, name.to_owned()))
        );
        for (first, length, n_expected, n_whole) in [
            (0, 10, 10, 0),
            (0, 24, 24, 0),
            (0, 25, 25, 1),
            (2, 26, 26, 1),
            (3, 0, 0, 0),
            (4, 200, 30, 1),
            (5, 200, 0, 0),
        ] {
            let n_used = write_dirents(&listing, first, &mut buffer[..length]);
            assert_eq!(
                (n_used, entries(&buffer[..n_used]).len()),
                (n_expected, n_whole),
                "{first} {length}"
            );
        }
        assert_eq!(write_dirents(&listing, usize::MAX, &mut buffer), 0);
    }

    #[test]
    fn any_buffer_continues_where_the_previous_one_ended() {
        let names: Vec<_> = (0..50)
            .map(|n| format!("{n:02}{}", "x".repeat(n)))
            .collect();
        let listing = listing(&names.iter().map(String::as_str).collect::<Vec<_>>());
        for length in [100, 128, 1000] {
            let (mut cookie, mut found) = (0, Vec::new());
            loop {
                let mut buffer = vec![0; length];
                let n_used = write_dirents(
                    &listing,
                    usize::try_from(cookie).expect("small"),
                    &mut buffer,
                );
                let entries = entries(&buffer[..n_used]);
                cookie = entries.last().map_or(cookie, |(cookie, ..)| *cookie);
                found.extend(entries.into_iter().map(|(.., name)| name));
                if n_used < length {
                    break;
                }
            }
            assert_eq!(found[2..52], names, "{length}");
            assert_eq!(found.len(), 53);
        }
    }
}
