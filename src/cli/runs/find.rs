//! Search for work directories: in a folder, its subfolders, and theirs.

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use crate::folder::Folder;
use crate::workdir::{holds_begun_run, is_removed_name};

/// Maximum number of entries that are looked at.
const MAX_ENTRIES: usize = 100_000;
/// Maximum number of folders that are listed.
const MAX_FOUND: usize = 10_000;

/// Result of a search.
#[derive(Debug, Default)]
pub(super) struct Search {
    /// Runs that were found, in no particular order.
    pub(super) found: Vec<FoundFolder>,
    /// False if there was more than is searched or listed.
    pub(super) is_whole: bool,
    n_entries: usize,
}

/// A folder that was found.
#[derive(Debug)]
pub(super) enum FoundFolder {
    /// A work directory.
    Run(PathBuf),
    /// A work directory whose removal was interrupted.
    PartlyRemoved(PathBuf),
    /// A folder that cannot be searched.
    Unreadable(PathBuf, io::Error),
}

/// Searches a folder. Follows no link except the path of the folder itself.
///
/// # Errors
/// The operating system's error if the folder itself cannot be read.
pub(super) fn find(path: &Path) -> io::Result<Search> {
    let folder = Folder::open(path)?;
    let mut search = Search {
        is_whole: true,
        ..Search::default()
    };
    if holds_begun_run(&folder)? {
        search.found.push(FoundFolder::Run(path.to_owned()));
    } else {
        search.look_in(path, &folder, true)?;
    }
    Ok(search)
}

impl Search {
    /// Looks at the subfolders of a folder.
    ///
    /// * `goes_deeper`: true to look at theirs too.
    fn look_in(&mut self, path: &Path, folder: &Folder, goes_deeper: bool) -> io::Result<()> {
        folder.visit_entries(|name, kind| {
            if self.n_entries == MAX_ENTRIES || self.found.len() == MAX_FOUND {
                self.is_whole = false;
                return ControlFlow::Break(());
            }
            self.n_entries += 1;
            if kind == FileType::Directory {
                let path = path.join(name);
                let found = if is_removed_name(name) {
                    Ok(Some(FoundFolder::PartlyRemoved(path.clone())))
                } else {
                    folder
                        .open_folder(name)
                        .and_then(|folder| self.look_at(&path, &folder, goes_deeper))
                };
                match found {
                    Ok(found) => self.found.extend(found),
                    // It was removed or replaced meanwhile.
                    Err(err) if err.kind() == io::ErrorKind::NotFound => {}
                    Err(err) => self.found.push(FoundFolder::Unreadable(path, err)),
                }
            }
            ControlFlow::Continue(())
        })
    }

    fn look_at(
        &mut self,
        path: &Path,
        folder: &Folder,
        goes_deeper: bool,
    ) -> io::Result<Option<FoundFolder>> {
        if holds_begun_run(folder)? {
            return Ok(Some(FoundFolder::Run(path.to_owned())));
        }
        if goes_deeper {
            self.look_in(path, folder, false)?;
        }
        Ok(None)
    }
}
