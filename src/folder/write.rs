//! Atomic writing of files.
//!
//! The contents go to a new file in the same folder, which is synced and renamed over the old file.
//! Then the folder is synced. Readers see the old or the new file, never a part, and so does a run
//! that is resumed after a power failure. New files have names by which a resumed run recognizes
//! and removes those that a killed run has left behind.

use std::fs::{File, Metadata, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{Gid, Uid, fchown};
use tempfile::NamedTempFile;

use super::sync::{sync_file, sync_folder};
use crate::model::HostError;

/// Replaces a file: a new one is written next to it, synced and renamed over it, and the folder is
/// synced. The mode is kept, and so is the owner if this user may set it.
///
/// # Errors
/// [`HostError::File`]. The old file is then unchanged, and the new one is removed.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), HostError> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or(path.as_os_str());
    write_all_whole(folder, &[(name.as_ref(), &|file| file.write_all(bytes))])
}

/// Function that writes the contents of a file.
pub(crate) type WriteContents<'c> = dyn Fn(&mut dyn Write) -> std::io::Result<()> + 'c;

/// Replaces several files of one folder like [`write_whole`]. This costs little more than one of
/// them.
///
/// * `files`: names, and functions that write the contents.
///
/// # Errors
/// As for [`write_whole`], for each file. The files before the one that cannot be replaced are new.
pub(crate) fn write_all_whole(
    folder: &Path,
    files: &[(&Path, &WriteContents<'_>)],
) -> Result<(), HostError> {
    let failed = |name: &Path| HostError::file("write", &folder.join(name));
    let mut written = Vec::new();
    for (name, write) in files {
        let file = write_unfinished(&folder.join(name), write).map_err(failed(name))?;
        written.push((*name, file));
    }
    sync_all(&written).map_err(|(name, err)| failed(name)(err))?;
    for (name, file) in written {
        file.persist(folder.join(name))
            .map_err(|err| failed(name)(err.error))?;
    }
    // The log of the run contains a warning if syncing is not supported.
    sync_folder(folder)
        .map(drop)
        .map_err(HostError::file("sync", folder))
}

/// Replaces a file that can be rebuilt, without syncing it. After a power failure, the file may be
/// missing or incomplete.
///
/// # Errors
/// As for [`write_whole`].
pub(crate) fn write_rebuildable(path: &Path, bytes: &[u8]) -> Result<(), HostError> {
    let written = write_unfinished(path, &|file| file.write_all(bytes))
        .and_then(|file| file.persist(path).map_err(|err| err.error));
    written.map(drop).map_err(HostError::file("write", path))
}

/// Prefix and suffix of the names of files that are being written.
const UNFINISHED: &str = ".mandelbox-";
const UNFINISHED_END: &str = ".unfinished";

/// Returns true if a name is that of a file that is being written.
pub(crate) fn is_unfinished_name(name: &str) -> bool {
    name.starts_with(UNFINISHED) && name.ends_with(UNFINISHED_END)
}

/// Removes the files of a folder whose writing was interrupted.
pub(crate) fn remove_unfinished(folder: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_unfinished = name.to_str().is_some_and(is_unfinished_name);
        if is_unfinished && entry.file_type()?.is_file() {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Writes a new file next to `path`, which it will replace.
fn write_unfinished(path: &Path, write: &WriteContents<'_>) -> io::Result<NamedTempFile> {
    let mut file = unfinished_file(path)?;
    let mut buffer = BufWriter::with_capacity(64 << 10, file.as_file_mut());
    write(&mut buffer)?;
    buffer.flush()?;
    drop(buffer);
    Ok(file)
}

/// Creates the file that will replace the one at `path`. If a killed run leaves it behind, it is
/// removed when that run is resumed.
pub(crate) fn unfinished_file(path: &Path) -> io::Result<NamedTempFile> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let replaced = path.symlink_metadata().ok().filter(Metadata::is_file);
    let mode = replaced
        .as_ref()
        .map_or(0o666, |replaced| replaced.mode() & 0o777);
    let mut builder = tempfile::Builder::new();
    // Let the umask decide, as for any file that a program creates. The default of `tempfile` is
    // for secrets.
    builder
        .prefix(UNFINISHED)
        .suffix(UNFINISHED_END)
        .permissions(Permissions::from_mode(mode));
    let file = builder.tempfile_in(folder)?;
    if let Some(replaced) = replaced {
        keep_access(file.as_file(), &replaced)?;
    }
    Ok(file)
}

/// Gives an empty file the owner, group and mode of the one that it replaces, as far as this user
/// and the file system allow. This never extends access: without the group, the file has no rights
/// for a group.
fn keep_access(file: &File, replaced: &Metadata) -> io::Result<()> {
    let new = file.metadata()?;
    let mut mode = replaced.mode() & 0o777;
    let group = (new.gid() != replaced.gid()).then(|| Gid::from_raw(replaced.gid()));
    if group.is_some() && fchown(file, None, group).is_err() {
        mode &= !0o070;
    }
    if new.uid() != replaced.uid() {
        // Only root may do this. For other users, the new file belongs to them.
        let _ = fchown(file, Some(Uid::from_raw(replaced.uid())), None);
    }
    if new.mode() & 0o777 != mode {
        let _ = file.set_permissions(Permissions::from_mode(mode));
    }
    Ok(())
}

/// Waits until all files are on disk. They are synced concurrently, since a file system writes
/// concurrent requests together.
fn sync_all<'n>(files: &[(&'n Path, NamedTempFile)]) -> Result<(), (&'n Path, io::Error)> {
    let sync = |(name, file): &(&'n Path, NamedTempFile)| match sync_file(file.as_file()) {
        Ok(_) => Ok(()),
        Err(err) => Err((*name, err)),
    };
    let [first, others @ ..] = files else {
        return Ok(());
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = others
            .iter()
            .map(
                |file| match std::thread::Builder::new().spawn_scoped(scope, move || sync(file)) {
                    Ok(thread) => Ok(thread),
                    // No thread can be started: sync the file on this one.
                    Err(_) => Err(sync(file)),
                },
            )
            .collect();
        let first = sync(first);
        let others = threads.into_iter().map(|thread| match thread {
            Ok(thread) => thread.join().expect("syncing does not panic"),
            Err(synced) => synced,
        });
        // Wait for all of them, even if one has failed.
        others.fold(first, Result::and)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("record.json");
        write_whole(&path, b"old").expect("written");
        write_whole(&path, b"new").expect("replaced");
        assert_eq!(std::fs::read(&path).expect("there"), b"new");
        // Not even root can replace a folder with a file.
        let folder_in_place = folder.path().join("folder");
        std::fs::create_dir(&folder_in_place).expect("made");
        assert!(write_whole(&folder_in_place, b"x").is_err());
        assert!(write_whole(&folder.path().join("none/record.json"), b"x").is_err());
        assert!(folder_in_place.is_dir());
        assert_eq!(
            std::fs::read_dir(folder.path()).expect("a folder").count(),
            2,
            "no temporary file is left"
        );
    }

    #[test]
    fn a_file_that_is_replaced_keeps_its_mode() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("record.json");
        let mode = || path.metadata().expect("there").mode() & 0o7777;
        write_whole(&path, b"old").expect("written");
        for closed in [0o600, 0o640, 0o666, 0o400] {
            std::fs::set_permissions(&path, Permissions::from_mode(closed)).expect("changed");
            write_whole(&path, b"new").expect("replaced");
            assert_eq!(mode(), closed, "{closed:o}");
            write_rebuildable(&path, b"newer").expect("replaced");
            assert_eq!(mode(), closed, "{closed:o}");
        }
        // Only root can give a file to another user and group.
        if std::os::unix::fs::chown(&path, Some(65_534), Some(65_533)).is_ok() {
            std::fs::set_permissions(&path, Permissions::from_mode(0o640)).expect("changed");
            write_whole(&path, b"new").expect("replaced");
            let metadata = path.metadata().expect("there");
            assert_eq!(
                (metadata.uid(), metadata.gid(), mode()),
                (65_534, 65_533, 0o640)
            );
        }
    }
}
