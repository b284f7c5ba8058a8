//! Folders as open descriptors, for locations where others can write.
//!
//! A path is resolved each time it is used. Whoever can write to a folder on the path can put a
//! symbolic link there between two uses. A descriptor keeps referring to the folder that was
//! opened. So a [`Folder`] is opened once, and the names below it are opened one at a time. No name
//! may be a link, so nothing outside the folder can be reached, whatever is renamed meanwhile.
//!
//! For names without `..`, this has the effect of Linux's `openat2` with `RESOLVE_BENEATH` and
//! `RESOLVE_NO_SYMLINKS`. But it also works where this system call is missing or blocked.

mod removal;
mod sync;
#[cfg(feature = "cli")]
mod walk;
mod write;

use std::ffi::{CStr, OsStr, OsString};
use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, linkat, mkdirat, openat, renameat, statat,
    unlinkat,
};
use rustix::io::{Errno, retry_on_intr};
use rustix::path::Arg;

use removal::remove_contents;

pub use sync::Synced;
pub(crate) use sync::{sync_contents, sync_folder};
#[cfg(feature = "cli")]
pub(crate) use write::is_unfinished_name;
pub(crate) use write::{WriteContents, write_rebuildable, write_whole};
pub(crate) use write::{remove_unfinished, unfinished_file, write_all_whole};

/// Flags that open only a folder, and not a link to one.
const FOLDER_FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);
/// Flags that open a file without following a link, and without waiting for the other end of a
/// FIFO.
pub(crate) const FILE_FLAGS: OFlags = OFlags::NOFOLLOW
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

/// Open folder.
#[derive(Debug)]
pub(crate) struct Folder(OwnedFd);

impl From<OwnedFd> for Folder {
    fn from(folder: OwnedFd) -> Self {
        Self(folder)
    }
}

impl From<Folder> for OwnedFd {
    fn from(folder: Folder) -> Self {
        folder.0
    }
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Folder {
    /// Opens a folder that the operator named. Links in its path are followed.
    ///
    /// # Errors
    /// The operating system's error.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = FOLDER_FLAGS.difference(OFlags::NOFOLLOW);
        Ok(Self(retry_on_intr(|| {
            openat(CWD, path, flags, Mode::empty())
        })?))
    }

    /// Opens a folder in this one.
    ///
    /// # Errors
    /// The operating system's error. For a link or a file, the error names its type.
    pub(crate) fn open_folder(&self, name: impl Arg + Copy) -> io::Result<Self> {
        match retry_on_intr(|| openat(&self.0, name, FOLDER_FLAGS, Mode::empty())) {
            Ok(folder) => Ok(Self(folder)),
            Err(err) => Err(self.describe(name, err, FileType::Directory)),
        }
    }

    /// Opens a folder in this one, which is created if nothing has its name.
    ///
    /// # Errors
    /// As for [`Self::open_folder`].
    pub(crate) fn open_or_create_folder(&self, name: impl Arg + Copy) -> io::Result<Self> {
        match mkdirat(&self.0, name, Mode::from_raw_mode(0o777)) {
            Ok(()) | Err(Errno::EXIST) => self.open_folder(name),
            Err(err) => Err(err.into()),
        }
    }

    /// Opens a regular file for reading. The type is checked before opening, since opening a device
    /// or a FIFO has effects.
    ///
    /// # Errors
    /// The operating system's error. If it is not a regular file, the error names its type.
    pub(crate) fn open_file(&self, name: impl Arg + Copy) -> io::Result<File> {
        let found =
            FileType::from_raw_mode(statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode);
        if found != FileType::RegularFile {
            return Err(not_the_type(found, FileType::RegularFile));
        }
        match retry_on_intr(|| openat(&self.0, name, FILE_FLAGS, Mode::empty())) {
            Ok(file) => {
                let file = File::from(file);
                check_plain(file.metadata()?.file_type())?;
                Ok(file)
            }
            Err(err) => Err(self.describe(name, err, FileType::RegularFile)),
        }
    }

    /// Returns the device and the inode.
    ///
    /// # Errors
    /// The operating system's error.
    #[cfg(feature = "cli")]
    pub(crate) fn identity(&self) -> io::Result<(u64, u64)> {
        Ok(identity(&rustix::fs::fstat(&self.0)?))
    }

    /// Creates a file that gets its name when it is complete.
    ///
    /// * `prefix`: prefix of its name until then.
    /// * `mode`: mode of the file, before the umask is applied.
    ///
    /// # Errors
    /// The operating system's error.
    pub(crate) fn create_file(&self, prefix: &str, mode: u32) -> io::Result<NewFile<'_>> {
        // Nobody else who can write to this folder can guess the number.
        let name = format!(
            "{prefix}{:016x}",
            getrandom::u64().map_err(io::Error::other)?
        );
        let flags = FILE_FLAGS | OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let file = retry_on_intr(|| openat(&self.0, &name, flags, Mode::from_raw_mode(mode)))?;
        Ok(NewFile {
            folder: self,
            name: Some(name),
            file: File::from(file),
        })
    }

    /// Removes a file. If it is a link, the link itself is removed.
    ///
    /// # Errors
    /// The operating system's error.
    pub(crate) fn remove_file(&self, name: impl Arg) -> io::Result<()> {
        Ok(unlinkat(&self.0, name, AtFlags::empty())?)
    }

    /// Returns the names and types of the entries, in no particular order.
    ///
    /// # Errors
    /// The operating system's error.
    pub(crate) fn entries(&self) -> io::Result<Vec<(OsString, FileType)>> {
        let mut entries = Vec::new();
        self.visit_entries(|name, kind| {
            entries.push((name.to_owned(), kind));
            ControlFlow::Continue(())
        })?;
        Ok(entries)
    }

    /// Visits the entries with their types, in no particular order, until `visit` breaks. Only one
    /// entry is in memory at a time.
    ///
    /// # Errors
    /// The operating system's error.
    pub(crate) fn visit_entries(
        &self,
        mut visit: impl FnMut(&OsStr, FileType) -> ControlFlow<()>,
    ) -> io::Result<()> {
        for entry in Dir::read_from(&self.0)? {
            let entry = entry?;
            let mut kind = entry.file_type();
            if is_dots(entry.file_name()) {
                continue;
            }
            if kind == FileType::Unknown {
                kind = self.file_type(entry.file_name())?;
            }
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if visit(name, kind).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Renames an entry of this folder. An empty folder, or a file, with the new name is replaced.
    ///
    /// # Errors
    /// The operating system's error.
    #[cfg(feature = "cli")]
    pub(crate) fn rename(&self, old: impl Arg, new: impl Arg) -> io::Result<()> {
        Ok(renameat(&self.0, old, &self.0, new)?)
    }

    /// Returns the type of an entry. A link is not followed.
    ///
    /// # Errors
    /// The operating system's error.
    pub(crate) fn file_type(&self, name: impl Arg) -> io::Result<FileType> {
        Ok(FileType::from_raw_mode(
            statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode,
        ))
    }

    /// Returns the metadata of an entry. A link is not followed.
    ///
    /// # Errors
    /// The operating system's error.
    #[cfg(feature = "cli")]
    pub(crate) fn stat(&self, name: impl Arg) -> io::Result<Stat> {
        Ok(statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Removes an empty folder.
    ///
    /// # Errors
    /// The operating system's error.
    pub(crate) fn remove_folder(&self, name: impl Arg) -> io::Result<()> {
        Ok(unlinkat(&self.0, name, AtFlags::REMOVEDIR)?)
    }

    /// Removes an entry. A folder is removed with its contents, at any depth. No link is followed.
    ///
    /// # Errors
    /// The operating system's error. A part of the contents may be removed by then.
    pub(crate) fn remove_tree(&self, name: impl Arg + Copy) -> io::Result<()> {
        match retry_on_intr(|| openat(&self.0, name, FOLDER_FLAGS, Mode::empty())) {
            Ok(folder) => {
                remove_contents(folder)?;
                Ok(unlinkat(&self.0, name, AtFlags::REMOVEDIR)?)
            }
            Err(err) if is_no_folder(err) => Ok(unlinkat(&self.0, name, AtFlags::empty())?),
            Err(err) => Err(err.into()),
        }
    }

    /// Removes the contents of this folder, like [`Self::remove_tree`].
    ///
    /// # Errors
    /// As for [`Self::remove_tree`].
    pub(crate) fn remove_contents(&self) -> io::Result<()> {
        remove_contents(self.0.try_clone()?)
    }

    /// Converts the error of opening an entry that should have had the type `wanted`. If it has
    /// another type, the error names that type.
    fn describe(&self, name: impl Arg + Copy, err: Errno, wanted: FileType) -> io::Error {
        let found = statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW);
        match found.map(|stat| FileType::from_raw_mode(stat.st_mode)) {
            Ok(found) if found != wanted => not_the_type(found, wanted),
            _ => err.into(),
        }
    }
}

/// File that is being written. It is removed unless it gets its final name.
pub(crate) struct NewFile<'f> {
    folder: &'f Folder,
    /// Temporary name, until the file gets its final name.
    name: Option<String>,
    pub(crate) file: File,
}

impl NewFile<'_> {
    /// Gives the file its final name, and replaces any file with this name.
    ///
    /// # Errors
    /// The operating system's error. The file is then removed.
    pub(crate) fn persist(mut self, name: impl Arg) -> io::Result<File> {
        if let Some(old) = &self.name {
            renameat(self.folder, old, self.folder, name)?;
        }
        self.name = None;
        self.file.try_clone()
    }

    /// Gives the file its final name if nothing has this name.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`], or another error of the operating system. The file is then
    /// removed.
    pub(crate) fn persist_new(self, name: impl Arg + Copy) -> io::Result<()> {
        let Some(old) = &self.name else { return Ok(()) };
        match linkat(self.folder, old, self.folder, name, AtFlags::empty()) {
            Ok(()) => Ok(()),
            Err(Errno::EXIST) => Err(io::ErrorKind::AlreadyExists.into()),
            // The file system has no hard links. Rename the file, although this would replace
            // another one.
            Err(_) => self.persist(name).map(drop),
        }
    }
}

impl Drop for NewFile<'_> {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            // The name of a file that stays shows what it is.
            let _ = self.folder.remove_file(name);
        }
    }
}

/// Returns the device and the inode, whose types differ between systems.
#[allow(
    clippy::unnecessary_cast,
    reason = "they are of other types on other systems"
)]
pub(crate) fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev as u64, stat.st_ino as u64)
}

/// Opens a regular file for reading. Everything else with the last name of the path is refused, and
/// a FIFO is not waited for. Links in the folders above it are followed.
///
/// # Errors
/// The operating system's error. For a link or a special file, the error names its type.
pub(crate) fn open_plain_file(path: &Path) -> io::Result<File> {
    // Check the type before opening: opening a device can have any effect.
    check_plain(std::fs::symlink_metadata(path)?.file_type())?;
    let file = File::from(retry_on_intr(|| {
        openat(CWD, path, FILE_FLAGS, Mode::empty())
    })?);
    check_plain(file.metadata()?.file_type())?;
    Ok(file)
}

/// Fails unless the type is that of a regular file.
///
/// # Errors
/// An error that names the type.
pub(crate) fn check_plain(found: std::fs::FileType) -> io::Result<()> {
    check_type(found, FileType::RegularFile)
}

/// Fails unless the type is that of a folder.
///
/// # Errors
/// An error that names the type.
pub(crate) fn check_folder(found: std::fs::FileType) -> io::Result<()> {
    check_type(found, FileType::Directory)
}

fn check_type(found: std::fs::FileType, wanted: FileType) -> io::Result<()> {
    let found = if found.is_file() {
        FileType::RegularFile
    } else if found.is_symlink() {
        FileType::Symlink
    } else if found.is_dir() {
        FileType::Directory
    } else {
        FileType::Unknown
    };
    if found == wanted {
        Ok(())
    } else {
        Err(not_the_type(found, wanted))
    }
}

fn not_the_type(found: FileType, wanted: FileType) -> io::Error {
    let found = match found {
        FileType::Symlink => "it is a symbolic link, and links are not followed here",
        FileType::Directory => "it is a folder",
        FileType::RegularFile => "it is a file",
        _ => "it is a FIFO, a socket or a device",
    };
    let wanted = if wanted == FileType::Directory {
        "a folder"
    } else {
        "a plain file"
    };
    io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("{found}; put {wanted} in its place"),
    )
}

/// Returns the size of an entry on disk, in bytes.
#[cfg(feature = "cli")]
#[allow(
    clippy::unnecessary_cast,
    reason = "it is of another type on other systems"
)]
pub(crate) fn disk_bytes(stat: &Stat) -> u64 {
    // Blocks of this unit, whatever the file system's own are.
    const BLOCK_BYTES: u64 = 512;
    (stat.st_blocks as u64).saturating_mul(BLOCK_BYTES)
}

/// Returns true if a folder could not be opened because something else has its name.
fn is_no_folder(err: Errno) -> bool {
    // Some systems other than Linux return MLINK for a link.
    matches!(err, Errno::NOTDIR | Errno::LOOP | Errno::MLINK)
}

/// Returns true for `.` and `..`, which every folder contains.
pub(crate) fn is_dots(name: &CStr) -> bool {
    matches!(name.to_bytes(), b"." | b"..")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_is_opened_is_what_it_should_be() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("folder")).expect("made");
        fs::write(path("file"), "x").expect("written");
        symlink("folder", path("folder_link")).expect("made");
        symlink("file", path("file_link")).expect("made");
        rustix::fs::mknodat(CWD, path("fifo"), FileType::Fifo, Mode::RWXU, 0).expect("made");
        let opened = Folder::open(folder.path()).expect("opened");
        let check = |name: &str, as_folder: Result<(), &str>, as_file: Result<(), &str>| {
            let tried = [
                (opened.open_folder(name).map(drop), as_folder),
                (opened.open_or_create_folder(name).map(drop), as_folder),
                (open_plain_file(&path(name)).map(drop), as_file),
            ];
            for (tried, expected) in tried {
                match expected {
                    Ok(()) => tried.unwrap_or_else(|err| panic!("{name}: {err}")),
                    Err(text) => {
                        assert!(tried.expect_err(name).to_string().contains(text), "{name}")
                    }
                }
            }
        };
        check(
            "folder",
            Ok(()),
            Err("is a folder; put a plain file in its place"),
        );
        check("file", Err("is a file; put a folder in its place"), Ok(()));
        check(
            "folder_link",
            Err("is a symbolic link"),
            Err("is a symbolic link"),
        );
        check(
            "file_link",
            Err("is a symbolic link"),
            Err("is a symbolic link"),
        );
        check("fifo", Err("is a FIFO"), Err("is a FIFO"));
        assert!(
            opened
                .open_folder("none")
                .is_err_and(|err| err.kind() == io::ErrorKind::NotFound)
        );
    }
}
