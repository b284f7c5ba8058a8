//! Walk through a tree of folders that others may have created, without changing it.

use std::ffi::CStr;
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Dir, FileType, Mode, Stat, fstat, openat, statat};
use rustix::io::{Errno, retry_on_intr};

use super::{FOLDER_FLAGS, Folder, is_dots};

/// Maximum number of folders inside one another that are entered. Each of them is open during the
/// walk.
const MAX_DEPTH: usize = 32;

impl Folder {
    /// Visits all entries below this folder. Follows no link, enters no other file system, and
    /// enters no folder that is deeper than [`MAX_DEPTH`]. Entries that disappear meanwhile are
    /// left out.
    ///
    /// Returns true if all folders were entered and read.
    ///
    /// # Errors
    /// The operating system's error if this folder itself cannot be read.
    pub(crate) fn walk(&self, mut visit: impl FnMut(&CStr, &Stat)) -> io::Result<bool> {
        let device = fstat(&self.0)?.st_dev;
        let mut open = vec![list(self.0.try_clone()?)?];
        let mut is_whole = true;
        loop {
            let depth = open.len();
            let Some(folder) = open.last_mut() else {
                return Ok(is_whole);
            };
            let entry = match folder.read() {
                Some(Ok(entry)) => entry,
                Some(Err(_)) => {
                    is_whole = false;
                    open.pop();
                    continue;
                }
                None => {
                    open.pop();
                    continue;
                }
            };
            let name = entry.file_name();
            if is_dots(name) {
                continue;
            }
            let parent = folder.fd()?;
            let stat = match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(_) => {
                    is_whole = false;
                    continue;
                }
            };
            visit(name, &stat);
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                continue;
            }
            if stat.st_dev != device || depth >= MAX_DEPTH {
                is_whole = false;
                continue;
            }
            let opened = retry_on_intr(|| openat(parent, name, FOLDER_FLAGS, Mode::empty()));
            match opened.map_err(io::Error::from).and_then(list) {
                Ok(folder) => open.push(folder),
                Err(err) => is_whole &= err.kind() == io::ErrorKind::NotFound,
            }
        }
    }
}

fn list(folder: OwnedFd) -> io::Result<Dir> {
    let mut list = Dir::new(folder)?;
    // A duplicate of a descriptor shares its position, which can be anywhere.
    list.rewind();
    Ok(list)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::folder::disk_bytes;

    #[test]
    fn every_entry_is_visited_once_and_no_link_is_followed() {
        let folder = tempfile::tempdir().expect("a folder");
        let outside = tempfile::tempdir().expect("a folder");
        fs::write(outside.path().join("large"), vec![1; 1 << 20]).expect("written");
        fs::create_dir_all(folder.path().join("a/b")).expect("made");
        fs::write(folder.path().join("a/b/file"), vec![1; 100_000]).expect("written");
        symlink(outside.path(), folder.path().join("a/link")).expect("made");
        let opened = Folder::open(folder.path()).expect("opened");
        for _ in 0..2 {
            let (mut names, mut bytes) = (Vec::new(), 0);
            let is_whole = opened.walk(|name, stat| {
                names.push(name.to_str().expect("UTF-8").to_owned());
                bytes += disk_bytes(stat);
            });
            names.sort();
            assert!(is_whole.expect("read"));
            assert_eq!(names, ["a", "b", "file", "link"]);
            assert!((100_000..500_000).contains(&bytes), "{bytes}");
        }
    }

    #[test]
    fn a_tree_that_is_too_deep_is_not_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let opened = Folder::open(folder.path()).expect("opened");
        let is_whole = |depth: usize| {
            fs::create_dir_all(folder.path().join("d/".repeat(depth))).expect("made");
            opened.walk(|_, _| {}).expect("read")
        };
        assert!(is_whole(MAX_DEPTH - 1));
        assert!(!is_whole(MAX_DEPTH));
    }
}
