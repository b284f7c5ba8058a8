//! Folders of a case and what tasks leave in theirs, walked by descriptors: no link in them is
//! followed.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use crate::folder::Folder;
use crate::model::HostError;

/// Folders in folders at most, each of which is open while those in it are walked.
const MAX_DEPTH: usize = 64;

/// A tree of files; folders count only by what is in them.
#[derive(Debug)]
pub(super) struct Tree {
    /// `None`: there is none.
    folder: Option<Folder>,
    path: PathBuf,
    /// Relative paths of regular files.
    pub(super) files: BTreeSet<PathBuf>,
    /// Relative paths of what is neither file nor folder, and of folders that are too deep: with
    /// what they are.
    pub(super) others: BTreeMap<PathBuf, &'static str>,
}

impl Tree {
    /// Lists a folder, without what systems leave in any folder that a person looks at.
    ///
    /// * `folder`: `None` is an empty one.
    /// * `path`: where it is, for messages.
    ///
    /// # Errors
    /// [`HostError::File`] for a folder that cannot be read.
    pub(super) fn read(folder: Option<Folder>, path: &Path) -> Result<Self, HostError> {
        let (mut files, mut others) = (BTreeSet::new(), BTreeMap::new());
        if let Some(folder) = &folder {
            list(folder, Path::new(""), 0, &mut files, &mut others)
                .map_err(HostError::file("list", path))?;
        }
        Ok(Self {
            folder,
            path: path.to_owned(),
            files,
            others,
        })
    }

    /// Opens a file of the tree.
    ///
    /// # Errors
    /// [`HostError::File`], also if there is something else by now.
    pub(super) fn open(&self, file: &Path) -> Result<File, HostError> {
        let open = || {
            let Some(root) = &self.folder else {
                return Err(io::ErrorKind::NotFound.into());
            };
            in_folder_of(root, file, |folder, name| folder.open_file(name))
        };
        open().map_err(HostError::file("open", &self.path.join(file)))
    }

    /// Copies its files to another folder, where none of them is.
    ///
    /// # Errors
    /// [`HostError::File`].
    pub(super) fn copy_to(&self, to: &Folder) -> Result<(), HostError> {
        for file in &self.files {
            let mut from = self.open(file)?;
            write_whole(to, file, |new| io::copy(&mut from, new).map(drop))
                .map_err(HostError::file("copy", &self.path.join(file)))?;
        }
        Ok(())
    }
}

fn list(
    folder: &Folder,
    path: &Path,
    depth: usize,
    files: &mut BTreeSet<PathBuf>,
    others: &mut BTreeMap<PathBuf, &'static str>,
) -> io::Result<()> {
    for (name, kind) in folder.entries()? {
        let path = path.join(&name);
        match kind {
            _ if is_clutter(&name) => {}
            FileType::RegularFile => _ = files.insert(path),
            FileType::Directory if depth < MAX_DEPTH => {
                list(
                    &folder.open_folder(&*name)?,
                    &path,
                    depth + 1,
                    files,
                    others,
                )?;
            }
            FileType::Directory => _ = others.insert(path, "is nested too deep"),
            _ => _ = others.insert(path, "is a link or a special file"),
        }
    }
    Ok(())
}

/// Files that file managers and editors leave in the folders that they show, and that no task
/// makes.
pub(super) fn is_clutter(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
    [".DS_Store", ".directory", "Thumbs.db", "ehthumbs.db", "desktop.ini"].into_iter().any(is)
        // What macOS keeps of a file on foreign file systems, and the lock of Emacs, which is a
        // link.
        || name.starts_with(b"._")
        || name.starts_with(b".#")
}

/// What need not be there.
pub(super) fn optional<T>(opened: io::Result<T>) -> io::Result<Option<T>> {
    match opened {
        Ok(opened) => Ok(Some(opened)),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(err) => Err(err),
    }
}

/// Writes a file so that there is the whole of it or what was there before; folders on its path are
/// created.
///
/// * `write`: writes the contents.
///
/// # Errors
/// The operating system's.
pub(super) fn write_whole(
    root: &Folder,
    file: &Path,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let in_folder = |folder: &Folder, name: &OsStr| {
        let mut new = folder.create_file(".mandelbox-", 0o666)?;
        write(&mut new.file)?;
        new.file.sync_all()?;
        new.persist(name).map(drop)
    };
    match folder_of(root, file, |folder, name| {
        folder.open_or_create_folder(name)
    })? {
        (None, name) => in_folder(root, name),
        (Some(folder), name) => in_folder(&folder, name),
    }
}

/// Removes a file, and the folders above it that are empty then, down from `root`.
///
/// # Errors
/// The operating system's, for the file.
pub(super) fn remove(root: &Folder, file: &Path) -> io::Result<()> {
    in_folder_of(root, file, |folder, name| folder.remove_file(name))?;
    for folder in file
        .ancestors()
        .skip(1)
        .filter(|folder| !folder.as_os_str().is_empty())
    {
        // One that is not empty is not removed, nor are those that it is in.
        if in_folder_of(root, folder, |parent, name| parent.remove_folder(name)).is_err() {
            break;
        }
    }
    Ok(())
}

/// Does something with a name in the folder that a relative path says it is in.
fn in_folder_of<T>(
    root: &Folder,
    path: &Path,
    act: impl FnOnce(&Folder, &OsStr) -> io::Result<T>,
) -> io::Result<T> {
    match folder_of(root, path, |folder, name| folder.open_folder(name))? {
        (None, name) => act(root, name),
        (Some(folder), name) => act(&folder, name),
    }
}

/// The folder that a relative path is in, opened one name at a time, and the path's last name;
/// `None` is the root.
fn folder_of<'p>(
    root: &Folder,
    path: &'p Path,
    open: impl Fn(&Folder, &'p OsStr) -> io::Result<Folder>,
) -> io::Result<(Option<Folder>, &'p OsStr)> {
    let mut names = path.iter();
    let name = names.next_back().ok_or(io::ErrorKind::InvalidInput)?;
    let mut folder = None;
    for name in names {
        folder = Some(open(folder.as_ref().unwrap_or(root), name)?);
    }
    Ok((folder, name))
}
