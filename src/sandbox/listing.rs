//! Snapshot of the names in a folder, which a guest reads at its own pace.
//!
//! The folder is read to its end before the guest gets the first name. Files that the guest, or
//! somebody else, creates or removes during the listing therefore cannot make a name appear twice
//! or disappear.
//!
//! A folder can contain millions of names. So reading yields to the limits of the call every
//! [`NAMES_A_TURN`] names, and the bytes of the snapshot count against the memory of the call. The
//! type of a file comes with its name. Only on file systems that do not store it there, each file
//! is looked up, and a file that no longer exists is left out.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use rustix::fs::{AtFlags, CWD, Dir, DirEntry, FileType, readlinkat, statat};
use rustix::io::Errno;

use super::limits::MemoryBudget;

/// Number of names that are read before the limits of the call are checked again.
const NAMES_A_TURN: usize = 1 << 10;
/// Number of names that are sorted at a time.
const NAMES_A_RUN: usize = 1 << 16;

/// Names in a folder at the time when it was opened for listing, without `.` and `..`.
pub(super) struct Listing {
    /// All names, one after the other.
    names: String,
    entries: Vec<Entry>,
    device: u64,
    folder_inode: u64,
    /// Bytes that count against the memory of the call.
    held_bytes: u64,
    left_out: LeftOut,
}

struct Entry {
    start: usize,
    inode: u64,
    length: u16,
    file_type: FileType,
}

/// Name of a file, with its number and type.
pub(super) struct Named<'a> {
    pub(super) name: &'a str,
    /// Number that identifies the file, from [`file_number`].
    pub(super) number: u64,
    pub(super) file_type: FileType,
}

/// Names that are not UTF-8, which a guest cannot get.
#[derive(Default)]
struct LeftOut {
    n_names: usize,
    first: Vec<u8>,
    /// Path of the folder on the host.
    folder: String,
}

impl Listing {
    /// Reads a folder to its end.
    ///
    /// * `folder`: descriptor that is used for this listing only, since its position moves.
    /// * `sorted`: true to sort names by their bytes, false for the order of the file system.
    ///
    /// # Errors
    /// The operating system's error, or `NOMEM` if the budget has no room for the names.
    pub(super) async fn read(
        folder: File,
        sorted: bool,
        budget: &mut MemoryBudget,
    ) -> Result<Self, Errno> {
        let metadata = folder
            .metadata()
            .map_err(|err| Errno::from_io_error(&err).unwrap_or(Errno::IO))?;
        let mut listing = Self {
            names: String::new(),
            entries: Vec::new(),
            device: metadata.dev(),
            folder_inode: metadata.ino(),
            held_bytes: 0,
            left_out: LeftOut::default(),
        };
        let read = listing.fill(Dir::new(folder)?, sorted, budget).await;
        if let Err(err) = read {
            budget.release(listing.held_bytes);
            return Err(err);
        }
        Ok(listing)
    }

    async fn fill(
        &mut self,
        mut folder: Dir,
        sorted: bool,
        budget: &mut MemoryBudget,
    ) -> Result<(), Errno> {
        let mut n_read = 0_usize;
        while let Some(entry) = folder.read() {
            self.add(&folder, &entry?)?;
            n_read += 1;
            if n_read.is_multiple_of(NAMES_A_TURN) {
                self.count(budget)?;
                tokio::task::yield_now().await;
            }
        }
        if self.left_out.n_names > 0 {
            let path = real_path(folder.fd()?);
            self.left_out.folder =
                path.map_or_else(|| "a folder".to_owned(), |path| path.display().to_string());
        }
        if sorted {
            self.sort().await;
        }
        self.names.shrink_to_fit();
        self.entries.shrink_to_fit();
        self.count(budget)
    }

    fn add(&mut self, folder: &Dir, entry: &DirEntry) -> Result<(), Errno> {
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            return Ok(());
        }
        let (Ok(name), Ok(length)) = (std::str::from_utf8(name), u16::try_from(name.len())) else {
            self.left_out.n_names += 1;
            if self.left_out.n_names == 1 {
                self.left_out.first = name.to_owned();
            }
            return Ok(());
        };
        let file_type = match entry.file_type() {
            FileType::Unknown => match statat(folder.fd()?, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                Err(Errno::NOENT) => return Ok(()),
                // A folder whose files may not be looked up still has names.
                Err(_) => FileType::Unknown,
            },
            known => known,
        };
        self.entries.push(Entry {
            start: self.names.len(),
            inode: entry.ino(),
            length,
            file_type,
        });
        self.names.push_str(name);
        Ok(())
    }

    /// Sorts runs of names and then merges them, so that the limits of the call are checked often.
    /// The standard library's stable sort recognizes that its input consists of two sorted halves,
    /// and merges them.
    async fn sort(&mut self) {
        let names = &self.names;
        let name = |entry: &Entry| &names[entry.start..][..entry.length.into()];
        let mut n_sorted = 1;
        let mut n_next = NAMES_A_RUN;
        while n_sorted < self.entries.len() {
            for run in self.entries.chunks_mut(n_next) {
                run.sort_by(|a, b| name(a).cmp(name(b)));
                tokio::task::yield_now().await;
            }
            n_sorted = n_next;
            n_next = n_next.saturating_mul(2);
        }
    }

    /// Counts the bytes of the listing against the budget.
    fn count(&mut self, budget: &mut MemoryBudget) -> Result<(), Errno> {
        let bytes = (self.names.capacity() + self.entries.capacity() * size_of::<Entry>()) as u64;
        budget.release(self.held_bytes);
        self.held_bytes = 0;
        if !budget.hold(bytes) {
            return Err(Errno::NOMEM);
        }
        self.held_bytes = bytes;
        Ok(())
    }

    /// Releases the bytes that were counted.
    pub(super) fn release(self, budget: &mut MemoryBudget) {
        budget.release(self.held_bytes);
    }

    /// Returns the name at an index; `None` past the last one.
    pub(super) fn get(&self, index: usize) -> Option<Named<'_>> {
        let entry = self.entries.get(index)?;
        Some(Named {
            name: &self.names[entry.start..][..entry.length.into()],
            number: file_number(self.device, entry.inode),
            file_type: entry.file_type,
        })
    }

    /// Returns the number of the folder itself.
    pub(super) fn folder_number(&self) -> u64 {
        file_number(self.device, self.folder_inode)
    }

    /// Returns a warning about names that were left out, if there are any.
    pub(super) fn warning(&self) -> Option<String> {
        let folder = &self.left_out.folder;
        let first = OsStr::from_bytes(&self.left_out.first);
        match self.left_out.n_names {
            0 => None,
            1 => Some(format!(
                "{folder}: the file name {first:?} is not UTF-8, so tasks cannot see the file; \
                 rename it"
            )),
            n => Some(format!(
                "{folder}: {n} file names are not UTF-8, so tasks cannot see the files (the first \
                 is {first:?}); rename them"
            )),
        }
    }
}

/// Returns the path of an open folder on the host, without links. This uses only system calls that
/// worker processes may make.
pub(super) fn real_path(folder: BorrowedFd<'_>) -> Option<PathBuf> {
    let link = format!("/proc/self/fd/{}", folder.as_raw_fd());
    let path = readlinkat(CWD, link, Vec::new()).ok()?;
    Some(OsString::from_vec(path.into_bytes()).into())
}

/// Returns the number that identifies a file for guests, computed from device and inode as the
/// runtime does.
pub(super) fn file_number(device: u64, inode: u64) -> u64 {
    let mut number = DefaultHasher::new();
    (device, inode).hash(&mut number);
    number.finish()
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::model::Limits;

    fn folder_with(n_files: usize) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for index in 0..n_files {
            std::fs::write(
                folder
                    .path()
                    .join(format!("a_name_of_some_length_{index:05}")),
                "",
            )
            .expect("written");
        }
        folder
    }

    #[test]
    fn reading_gives_way_and_does_not_see_what_comes_later() {
        let folder = folder_with(5 * NAMES_A_TURN);
        let mut budget = MemoryBudget::new(&Limits::default());
        let opened = File::open(folder.path()).expect("there");
        let mut reading = pin!(Listing::read(opened, true, &mut budget));
        let mut n_turns = 1;
        let listing = loop {
            match reading
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()))
            {
                Poll::Pending => n_turns += 1,
                Poll::Ready(listing) => break listing.expect("read"),
            }
        };
        assert!(n_turns >= 5, "{n_turns}");
        std::fs::remove_dir_all(folder.path()).expect("removed");
        let names: Vec<_> = (0..)
            .map_while(|index| listing.get(index))
            .map(|entry| entry.name)
            .collect();
        assert_eq!(names.len(), 5 * NAMES_A_TURN);
        assert!(names.is_sorted());
    }

    #[test]
    fn a_listing_without_room_is_refused_and_given_back() {
        let folder = folder_with(5 * NAMES_A_TURN);
        let mut budget = MemoryBudget::new(&Limits {
            memory_bytes: 1 << 20,
            ..Limits::default()
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime");
        let mut read = || {
            let opened = File::open(folder.path()).expect("there");
            runtime.block_on(Listing::read(opened, false, &mut budget))
        };
        let first = read().expect("fits");
        let held = first.held_bytes;
        // While a folder is read, its names occupy up to twice their final space.
        let others: Vec<_> = std::iter::from_fn(|| read().ok()).take(100).collect();
        let n = others.len() as u64 + 1;
        assert!(
            n * held <= 2 << 20 && (n + 2) * held > 2 << 20,
            "{n} listings of {held} bytes"
        );
        assert_eq!(read().err(), Some(Errno::NOMEM));
        first.release(&mut budget);
        let opened = File::open(folder.path()).expect("there");
        assert!(
            runtime
                .block_on(Listing::read(opened, false, &mut budget))
                .is_ok()
        );
    }

    #[test]
    fn long_listings_are_sorted_in_runs() {
        let n = 2 * NAMES_A_RUN + 10;
        let name = |index: usize| format!("{:08}", index * 7919 % n);
        let (names, entries) = (
            (0..n).map(name).collect::<String>(),
            (0..n).map(|index| Entry {
                start: 8 * index,
                inode: 0,
                length: 8,
                file_type: FileType::RegularFile,
            }),
        );
        let (device, folder_inode, held_bytes, left_out) = (0, 0, 0, LeftOut::default());
        let entries = entries.collect();
        let mut listing = Listing {
            names,
            entries,
            device,
            folder_inode,
            held_bytes,
            left_out,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime");
        runtime.block_on(listing.sort());
        assert!(
            (0..n)
                .map(|index| listing.get(index).expect("there").name)
                .is_sorted()
        );
    }
}
