//! Lookup of a file below a guest's folder with one walk of its path, where the runtime walks it at
//! least twice.
//!
//! Each file is looked up before a guest opens it, so this is worth the effort. On Linux, `openat2`
//! keeps the path beneath the folder (`RESOLVE_BENEATH`), and one `fstat` returns the metadata. A
//! plain name needs only one `fstatat`.
//!
//! This is an optimization and not a second implementation. The runtime handles everything that is
//! not plain: a path that is not UTF-8, a folder that the guest has opened itself, a special file,
//! and every error except "no such file". Where the runtime refuses a path, its absolute links are
//! resolved and the lookup is repeated, see `absolute_links`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use wasmtime::{Caller, Extern, Linker};
use wasmtime_wasi::filesystem::Dir;
use wasmtime_wasi::p1::wasi_snapshot_preview1::WasiSnapshotPreview1;
use wasmtime_wasi::p1::{WasiP1Ctx, wasi_snapshot_preview1};

use super::errno::{ERRNO_PERM, forget_last, preview1_answer};
use super::host::Host;
use super::imports::PREVIEW1;

#[cfg(target_os = "linux")]
use super::listing::file_number;

/// Replaces `path_filestat_get` of preview 1.
pub(super) fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    linker.func_wrap_async(PREVIEW1, "path_filestat_get", |caller, params| {
        Box::new(path_filestat_get(caller, params))
    })?;
    Ok(())
}

/// Number of a guest's first folder in preview 1, after the three standard streams.
const FIRST_FOLDER: i32 = 3;
/// WASI's `errno` for "no such file or directory".
const ERRNO_NOENT: i32 = 44;
/// WASI's `lookupflags` for following a link at the end of the path.
pub(super) const SYMLINK_FOLLOW: i32 = 1;
/// Size of WASI's `filestat`, and its alignment.
pub(super) const FILESTAT_BYTES: usize = 64;
const FILESTAT_ALIGNMENT: usize = 8;

/// Folder that a guest was given.
pub(super) struct GuestFolder {
    /// Path of the folder for the guest.
    pub(super) name: String,
    /// Paths of the folder on the host: as granted, and without links.
    pub(super) host_paths: [PathBuf; 2],
    pub(super) dir: Dir,
}

/// Folders that a guest was given.
#[derive(Clone, Default)]
pub(super) struct GuestFolders(Arc<[GuestFolder]>);

impl GuestFolders {
    /// Collects the folders of a guest.
    ///
    /// * `folders`: in the order of their numbers.
    pub(super) fn new(folders: Vec<GuestFolder>) -> Self {
        let mut names: Vec<_> = folders.iter().map(|folder| &folder.name).collect();
        names.sort_unstable();
        // Folders are recognized by their names, so a duplicate name is ambiguous. The runtime then
        // handles all paths.
        if names.windows(2).any(|pair| pair[0] == pair[1]) {
            Self::default()
        } else {
            Self(folders.into())
        }
    }

    /// Returns the index of the given folder that a number of preview 1 refers to. `None` if it
    /// refers to something else, since a guest can assign a number to another file.
    pub(super) fn index_of_number(&self, wasi: &mut WasiP1Ctx, number: i32) -> Option<usize> {
        let index = usize::try_from(number.checked_sub(FIRST_FOLDER)?).ok()?;
        let name = &self.0.get(index)?.name;
        let mut memory = vec![0; name.len()];
        let length = i32::try_from(name.len()).ok()?;
        let mut guest = wiggle::GuestMemory::Unshared(&mut memory);
        let errno =
            wasi_snapshot_preview1::fd_prestat_dir_name(wasi, &mut guest, number, 0, length)
                .ok()?;
        (errno == 0 && memory == name.as_bytes()).then_some(index)
    }

    /// Returns the number of a given folder in preview 1, if it still refers to this folder.
    pub(super) fn number_of_index(&self, wasi: &mut WasiP1Ctx, index: usize) -> Option<i32> {
        let number = FIRST_FOLDER.checked_add(i32::try_from(index).ok()?)?;
        self.index_of_number(wasi, number).map(|_| number)
    }

    /// Returns the index of the given folder that is this open folder.
    pub(super) fn index_of_dir(&self, dir: &Dir) -> Option<usize> {
        self.0
            .iter()
            .position(|folder| Arc::ptr_eq(&folder.dir.dir, &dir.dir))
    }

    pub(super) fn of_index(&self, index: usize) -> Option<&GuestFolder> {
        self.0.get(index)
    }

    /// Returns the innermost given folder that contains an absolute path of the host, and the path
    /// below it.
    pub(super) fn holding(&self, path: &Path) -> Option<(usize, PathBuf)> {
        let below = self.0.iter().enumerate().flat_map(|(index, folder)| {
            let depth_and_rest = |folder: &PathBuf| {
                Some((folder.components().count(), path.strip_prefix(folder).ok()?))
            };
            folder
                .host_paths
                .iter()
                .filter_map(depth_and_rest)
                .map(move |(depth, rest)| (depth, index, rest))
        });
        below
            .max_by_key(|(depth, ..)| *depth)
            .map(|(_, index, rest)| (index, rest.to_owned()))
    }

    /// Looks up a path; `None` if only the runtime can answer.
    ///
    /// * `number`, `lookup`, `path`: parameters of the function of preview 1.
    pub(super) fn stat(
        &self,
        wasi: &mut WasiP1Ctx,
        number: i32,
        lookup: i32,
        path: &[u8],
    ) -> Option<PathStat> {
        let path = std::str::from_utf8(path)
            .ok()
            .filter(|path| !path.is_empty())?;
        let index = self.index_of_number(wasi, number)?;
        stat_beneath(&self.0[index].dir.dir, path, lookup & SYMLINK_FOLLOW != 0)
    }
}

/// Result of looking up a path.
pub(super) enum PathStat {
    /// The path does not exist.
    Missing,
    /// The path leads to a file, a folder, a link or something else.
    Found(FileStat),
}

#[cfg(target_os = "linux")]
type FileStat = rustix::fs::Stat;
/// Type without a value: a system without a fast lookup finds nothing.
#[cfg(not(target_os = "linux"))]
type FileStat = std::convert::Infallible;

#[cfg(not(target_os = "linux"))]
fn stat_beneath(_: &File, _: &str, _: bool) -> Option<PathStat> {
    None
}

#[cfg(target_os = "linux")]
fn stat_beneath(folder: &File, path: &str, follow: bool) -> Option<PathStat> {
    use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, fstat, openat2, statat};

    // A plain name cannot lead out of the folder.
    if !follow && !path.contains('/') && path != "." && path != ".." {
        return stat_from(statat(folder, path, AtFlags::SYMLINK_NOFOLLOW));
    }
    let mut flags = OFlags::PATH | OFlags::CLOEXEC;
    flags.set(OFlags::NOFOLLOW, !follow);
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    stat_from(openat2(folder, path, flags, Mode::empty(), resolve).and_then(fstat))
}

#[cfg(target_os = "linux")]
fn stat_from(found: rustix::io::Result<FileStat>) -> Option<PathStat> {
    match found {
        Ok(found) => Some(PathStat::Found(found)),
        Err(rustix::io::Errno::NOENT) => Some(PathStat::Missing),
        Err(_) => None,
    }
}

impl PathStat {
    /// Returns true for a FIFO, a socket or a device.
    pub(super) fn is_special(&self) -> bool {
        match self {
            Self::Missing => false,
            Self::Found(found) => file_type(found).is_none(),
        }
    }

    /// Returns true for a symbolic link.
    pub(super) fn is_link(&self) -> bool {
        match self {
            Self::Missing => false,
            Self::Found(found) => file_type(found) == Some(FILE_TYPE_LINK),
        }
    }
}

/// WASI's file type of a symbolic link.
const FILE_TYPE_LINK: u8 = 7;

/// Returns WASI's file type of a folder, a regular file or a link; `None` for other files.
#[cfg(target_os = "linux")]
fn file_type(found: &FileStat) -> Option<u8> {
    use rustix::fs::FileType;
    match FileType::from_raw_mode(found.st_mode) {
        FileType::Directory => Some(3),
        FileType::RegularFile => Some(4),
        FileType::Symlink => Some(FILE_TYPE_LINK),
        _ => None,
    }
}

#[cfg(not(target_os = "linux"))]
fn file_type(found: &FileStat) -> Option<u8> {
    match *found {}
}

type PathFilestatGet = (i32, i32, i32, i32, i32);

async fn path_filestat_get(
    mut caller: Caller<'_, Host>,
    params: PathFilestatGet,
) -> wasmtime::Result<i32> {
    let (folder, lookup, path, path_len, answer) = params;
    let Some(Extern::Memory(memory)) = caller.get_export("memory") else {
        wasmtime::bail!("the module does not export its memory, which WASI needs");
    };
    let fuel = wasmtime::AsContextMut::as_context_mut(&mut caller).hostcall_fuel();
    let (bytes, host) = memory.data_and_store_mut(&mut caller);
    host.wasi.set_hostcall_fuel(fuel);
    let errno = look_plain(host, bytes, params).await?;
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
    let mut own = OwnMemory::new(path.as_bytes(), FILESTAT_BYTES)?;
    host.wasi.set_hostcall_fuel(fuel);
    let errno = look_plain(
        host,
        &mut own.bytes,
        (folder, lookup, 0, own.path_len, own.answer),
    )
    .await?;
    if errno == 0 {
        memory.write(&mut caller, answer.cast_unsigned() as usize, own.answer())?;
    }
    Ok(errno)
}

/// Runs `path_filestat_get` for a path that the runtime can resolve.
async fn look_plain(
    host: &mut Host,
    bytes: &mut [u8],
    params: PathFilestatGet,
) -> wasmtime::Result<i32> {
    let (folder, lookup, path, path_len, answer) = params;
    if let Some(path) = slice(bytes, path, path_len) {
        match host.folders.stat(&mut host.wasi, folder, lookup, path) {
            Some(PathStat::Missing) => return Ok(ERRNO_NOENT),
            Some(PathStat::Found(found)) => {
                let start = answer.cast_unsigned() as usize;
                let target = bytes
                    .get_mut(start..)
                    .and_then(|rest| rest.get_mut(..FILESTAT_BYTES));
                if let (Some(target), Some(filestat)) = (target, filestat(&found))
                    && start.is_multiple_of(FILESTAT_ALIGNMENT)
                {
                    target.copy_from_slice(&filestat);
                    return Ok(0);
                }
            }
            None => {}
        }
    }
    let mut guest = wiggle::GuestMemory::Unshared(bytes);
    forget_last();
    let errno = wasi_snapshot_preview1::path_filestat_get(
        &mut host.wasi,
        &mut guest,
        folder,
        lookup,
        path,
        path_len,
        answer,
    )
    .await?;
    Ok(preview1_answer(errno))
}

/// Memory of the host for a function of preview 1: a path, followed by space for the answer.
pub(super) struct OwnMemory {
    pub(super) bytes: Vec<u8>,
    /// Length of the path, which starts at 0.
    pub(super) path_len: i32,
    /// Offset of the answer.
    pub(super) answer: i32,
}

impl OwnMemory {
    pub(super) fn new(path: &[u8], answer_bytes: usize) -> wasmtime::Result<Self> {
        let answer = path.len().next_multiple_of(8);
        let mut bytes = vec![0; answer + answer_bytes];
        bytes[..path.len()].copy_from_slice(path);
        Ok(Self {
            bytes,
            path_len: i32::try_from(path.len())?,
            answer: i32::try_from(answer)?,
        })
    }

    pub(super) fn answer(&self) -> &[u8] {
        &self.bytes[self.answer.cast_unsigned() as usize..]
    }
}

/// Returns a part of a guest's memory.
pub(super) fn slice(memory: &[u8], pointer: i32, length: i32) -> Option<&[u8]> {
    let start = pointer.cast_unsigned() as usize;
    memory.get(start..start.checked_add(length.cast_unsigned() as usize)?)
}

/// Builds WASI's `filestat` as the runtime does: with the same device for all files, and with a
/// number that identifies the file instead of its inode.
#[cfg(target_os = "linux")]
fn filestat(found: &FileStat) -> Option<[u8; FILESTAT_BYTES]> {
    const NANOSECONDS: u64 = 1_000_000_000;
    let time = |seconds: i64, nanoseconds: i64| -> Option<u64> {
        u64::try_from(seconds)
            .ok()?
            .checked_mul(NANOSECONDS)?
            .checked_add(u64::try_from(nanoseconds).ok()?)
    };
    let mut filestat = [0; FILESTAT_BYTES];
    for (index, value) in [
        1,
        file_number(found.st_dev, found.st_ino),
        u64::from(file_type(found)?),
        found.st_nlink,
        u64::try_from(found.st_size).ok()?,
        time(found.st_atime, found.st_atime_nsec)?,
        time(found.st_mtime, found.st_mtime_nsec)?,
        time(found.st_ctime, found.st_ctime_nsec)?,
    ]
    .into_iter()
    .enumerate()
    {
        filestat[index * 8..][..8].copy_from_slice(&value.to_le_bytes());
    }
    Some(filestat)
}

#[cfg(not(target_os = "linux"))]
fn filestat(found: &FileStat) -> Option<[u8; FILESTAT_BYTES]> {
    match *found {}
}
