//! Trees of files, in the folders of cases and in output folders. They are walked by descriptors,
//! and no link in them is followed.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use crate::folder::Folder;
use crate::model::HostError;

/// Maximum depth of folders. Each folder stays open while its subfolders are walked.
const MAX_DEPTH: usize = 64;

/// Tree of files. Empty folders are ignored.
#[derive(Debug)]
pub(super) struct Tree {
    /// Root of the tree; `None` if it does not exist.
    folder: Option<Folder>,
    path: PathBuf,
    /// Relative paths of regular files.
    pub(super) files: BTreeSet<PathBuf>,
    /// Relative paths of entries that are neither file nor folder, and of folders that are too
    /// deep. The value is a phrase for messages.
    pub(super) others: BTreeMap<PathBuf, &'static str>,
}

impl Tree {
    /// Lists a folder, without the files that file managers and editors leave in folders.
    ///
    /// * `folder`: `None` for an empty tree.
    /// * `path`: path of the folder, for messages.
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
    /// [`HostError::File`], also if something else has replaced the file.
    pub(super) fn open(&self, file: &Path) -> Result<File, HostError> {
        let open = || {
            let Some(root) = &self.folder else {
                return Err(io::ErrorKind::NotFound.into());
            };
            in_folder_of(root, file, |folder, name| folder.open_file(name))
        };
        open().map_err(HostError::file("open", &self.path.join(file)))
    }

    /// Copies its files to another folder, which contains none of them.
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

/// Returns true for files that file managers and editors leave in folders, and that no task
/// creates.
pub(super) fn is_clutter(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
    [".DS_Store", ".directory", "Thumbs.db", "ehthumbs.db", "desktop.ini"].into_iter().any(is)
        // macOS keeps attributes of a file on foreign file systems in `._NAME`. The lock of Emacs
        // is a link.
        || name.starts_with(b"._")
        || name.starts_with(b".#")
}

/// Turns a missing file or folder into `None`.
pub(super) fn optional<T>(opened: io::Result<T>) -> io::Result<Option<T>> {
    match opened {
        Ok(opened) => Ok(Some(opened)),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(err) => Err(err),
    }
}

/// Replaces a file atomically, or creates it together with its parent folders.
///
/// * `write`: writes the contents.
///
/// # Errors
/// Those of the operating system.
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

/// Removes a file, and its parent folders below `root` that are then empty.
///
/// # Errors
/// Those of the operating system for the file.
pub(super) fn remove(root: &Folder, file: &Path) -> io::Result<()> {
    in_folder_of(root, file, |folder, name| folder.remove_file(name))?;
    for folder in file
        .ancestors()
        .skip(1)
        .filter(|folder| !folder.as_os_str().is_empty())
    {
        // A folder that is not empty is not removed, so neither are its parents.
        if in_folder_of(root, folder, |parent, name| parent.remove_folder(name)).is_err() {
            break;
        }
    }
    Ok(())
}

/// Calls `act` with the parent folder and the last name of a relative path.
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

/// Returns the parent folder of a relative path, opened name by name, and the last name of the
/// path. The folder is `None` for the root.
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
