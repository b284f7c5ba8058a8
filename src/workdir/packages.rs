//! Copies of task packages in the work directory, for machines that see no other folder of it.

use std::path::Path;
use std::{fs, io};

use super::{JobFolder, WorkDir};
use crate::model::HostError;
use crate::workdir::layout::PACKAGES_DIR;

impl WorkDir {
    /// Copies a folder into that of the packages, unless its copy exists. Only plain files and
    /// folders are copied.
    ///
    /// * `name`: name of the copy. Folders with other contents have other names.
    ///
    /// # Errors
    /// [`HostError::File`].
    pub(crate) fn copy_package(&self, from: &Path, name: &str) -> Result<(), HostError> {
        let packages = self.path.join(PACKAGES_DIR);
        let target = packages.join(name);
        let failed = || HostError::file("create the folder", &target);
        // A link in place of this folder is not followed.
        self.folder
            .open_or_create_folder(PACKAGES_DIR)
            .map_err(failed())?;
        if target.is_dir() {
            return Ok(());
        }
        // Jobs of an interrupted run can use a copy, so it is whole as soon as it has its name.
        let unfinished = packages.join(format!(".new-{name}"));
        JobFolder::new(unfinished.clone()).remove();
        copy_tree(from, &unfinished)
            .and_then(|()| fs::rename(&unfinished, &target))
            .map_err(|err| {
                JobFolder::new(unfinished).remove();
                failed()(err)
            })
    }
}

fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (kind, to) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            copy_tree(&entry.path(), &to)?;
        } else if kind.is_file() {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_copied_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let package = folder.path().join("package");
        fs::create_dir_all(package.join("a/b")).expect("created");
        fs::File::create(package.join("a/b/c")).expect("created");
        let work_dir = WorkDir::create(&folder.path().join("work")).expect("created");
        work_dir.copy_package(&package, "p-1").expect("copied");
        let copy = folder.path().join("work").join(PACKAGES_DIR).join("p-1");
        assert!(copy.join("a/b/c").is_file());
        // An interrupted copy is replaced, and a whole one is kept.
        fs::rename(&copy, copy.with_file_name(".new-p-2")).expect("moved");
        work_dir.copy_package(&package, "p-2").expect("copied");
        fs::remove_dir_all(&package).expect("removed");
        work_dir.copy_package(&package, "p-2").expect("kept");
        assert!(work_dir.copy_package(&package, "p-3").is_err());
        let names = JobFolder::new(copy.with_file_name("")).names();
        assert_eq!(names, ["p-2"]);
    }
}
