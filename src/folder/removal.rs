//! Removal of trees of any depth through descriptors.
//!
//! A guest can create a tree that is so deep that a recursive removal would exceed the stack, the
//! number of open files or the length of a path. So subfolders are not visited in place. Each one
//! is moved into one folder at the top, the pile, before it is emptied itself. No more than three
//! folders are open at a time, none has to be remembered, and no path gets long.
//!
//! Others may change the tree meanwhile. All operations go through descriptors and follow no link,
//! so a change can make the removal fail, but cannot redirect it.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, Mode, mkdirat, openat, renameat, unlinkat};
use rustix::io::{Errno, retry_on_intr};

use super::{FOLDER_FLAGS, is_dots, is_no_folder};

/// Removes the contents of a folder. Its subfolders are moved into the pile, and so are theirs.
pub(super) fn remove_contents(folder: OwnedFd) -> io::Result<()> {
    // Nobody who can write to the folder can guess this name.
    let pile_name = format!(
        ".removed-{:016x}",
        getrandom::u64().map_err(io::Error::other)?
    );
    let mut root = Remaining::of(folder)?;
    let mut pile: Option<Pile> = None;
    while let Some(name) = root.next(Some(&pile_name))? {
        if unlink(root.fd()?, &name)? {
            continue;
        }
        let pile = match &mut pile {
            Some(pile) => pile,
            none => none.insert(Pile::create(root.fd()?, &pile_name)?),
        };
        pile.take(root.fd()?, &name)?;
    }
    let Some(mut pile) = pile else { return Ok(()) };
    let mut n_removed = 0;
    // The pile grows while its folders are removed.
    while n_removed < pile.n_moved {
        n_removed += 1;
        pile.remove(&n_removed.to_string())?;
    }
    Ok(unlinkat(root.fd()?, &pile_name, AtFlags::REMOVEDIR)?)
}

/// Folder that contains the folders to be emptied, named by numbers from 1.
struct Pile {
    folder: OwnedFd,
    n_moved: u64,
}

impl Pile {
    fn create(root: BorrowedFd<'_>, name: &str) -> io::Result<Self> {
        mkdirat(root, name, Mode::RWXU)?;
        Ok(Self {
            folder: openat(root, name, FOLDER_FLAGS, Mode::empty())?,
            n_moved: 0,
        })
    }

    /// Moves a folder into the pile.
    fn take(&mut self, from: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
        self.n_moved += 1;
        Ok(renameat(
            from,
            name,
            &self.folder,
            self.n_moved.to_string(),
        )?)
    }

    /// Removes a folder of the pile. Its subfolders are moved into the pile.
    fn remove(&mut self, name: &str) -> io::Result<()> {
        match retry_on_intr(|| openat(&self.folder, name, FOLDER_FLAGS, Mode::empty())) {
            Ok(folder) => {
                let mut folder = Remaining::of(folder)?;
                while let Some(name) = folder.next(None)? {
                    if !unlink(folder.fd()?, &name)? {
                        self.take(folder.fd()?, &name)?;
                    }
                }
                Ok(unlinkat(&self.folder, name, AtFlags::REMOVEDIR)?)
            }
            // Something else was put in place of the folder that was moved.
            Err(err) if is_no_folder(err) => Ok(unlinkat(&self.folder, name, AtFlags::empty())?),
            Err(err) => Err(err.into()),
        }
    }
}

/// Maximum number of passes over the entries of a folder. Each pass may leave out half of them, and
/// a guest that is still running may create more.
const MAX_LISTS: u32 = 20;

/// Entries of a folder from which entries are being removed. Some file systems then leave out some
/// of them, so the folder is read again until it is empty.
struct Remaining {
    list: Dir,
    n_lists: u32,
    has_entries: bool,
}

impl Remaining {
    fn of(folder: OwnedFd) -> io::Result<Self> {
        let mut list = Dir::new(folder)?;
        // A duplicate of a descriptor shares its position, which can be anywhere.
        list.rewind();
        Ok(Self {
            list,
            n_lists: 1,
            has_entries: false,
        })
    }

    fn fd(&self) -> rustix::io::Result<BorrowedFd<'_>> {
        self.list.fd()
    }

    /// Returns the next entry except `.`, `..` and the name that stays.
    fn next(&mut self, stays: Option<&str>) -> io::Result<Option<CString>> {
        loop {
            match self.list.read().transpose()? {
                Some(entry) => {
                    let name = entry.file_name();
                    if !is_dots(name)
                        && stays.is_none_or(|stays| stays.as_bytes() != name.to_bytes())
                    {
                        self.has_entries = true;
                        return Ok(Some(name.to_owned()));
                    }
                }
                None if self.has_entries && self.n_lists < MAX_LISTS => {
                    self.has_entries = false;
                    self.n_lists += 1;
                    self.list.rewind();
                }
                None => return Ok(None),
            }
        }
    }
}

/// Removes an entry that is not a folder. Returns true if nothing has its name any more.
fn unlink(folder: BorrowedFd<'_>, name: &CStr) -> io::Result<bool> {
    match unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        // Systems other than Linux return PERM for a folder.
        Err(Errno::ISDIR | Errno::PERM) => Ok(false),
        Err(err) => Err(err.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use crate::folder::Folder;

    /// Creates a tree that is too deep for any path, from the inside out. Each level contains a
    /// file and a link.
    fn deep_tree(at: &Path, depth: usize, outside: &Path) {
        let outer = at.with_extension("outer");
        fs::create_dir(at).expect("made");
        for _ in 0..depth {
            fs::create_dir(&outer).expect("made");
            fs::write(outer.join("file"), "x").expect("written");
            symlink(outside, outer.join("link")).expect("made");
            fs::rename(at, outer.join("deep")).expect("moved");
            fs::rename(&outer, at).expect("moved");
        }
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("a folder").flatten();
        let mut names: Vec<_> = entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn trees_of_any_depth_are_removed_and_no_link_is_followed() {
        let folder = tempfile::tempdir().expect("a folder");
        let outside = folder.path().join("outside");
        fs::create_dir(&outside).expect("made");
        fs::write(outside.join("kept"), "x").expect("written");
        let opened = Folder::open(folder.path()).expect("opened");
        deep_tree(&folder.path().join("deep"), 5000, &outside);
        opened.remove_tree("deep").expect("removed");
        assert_eq!(names(folder.path()), ["outside"]);
        // Also remove wide trees, and links and files by themselves.
        let wide = folder.path().join("wide");
        for n in 0..300 {
            fs::create_dir_all(wide.join(format!("{n}/a/b"))).expect("made");
            fs::write(wide.join(format!("{n}/a/file")), "x").expect("written");
        }
        symlink(&outside, wide.join("link")).expect("made");
        opened
            .open_folder("wide")
            .expect("opened")
            .remove_contents()
            .expect("emptied");
        assert_eq!(names(&wide), [""; 0]);
        fs::remove_dir(&wide).expect("removed");
        symlink(&outside, &wide).expect("made");
        opened.remove_tree("wide").expect("removed");
        assert_eq!(
            (names(folder.path()), names(&outside)),
            (vec!["outside".to_owned()], vec!["kept".to_owned()])
        );
    }
}
