//! Writing a file whole or not at all.

use std::fs::{File, Metadata, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{Gid, Uid, fchown};
use tempfile::NamedTempFile;

use super::sync::{sync_file, sync_folder};
use crate::model::HostError;

/// Replaces a file: a new one is written beside it, synced, renamed over it, and its folder is
/// synced. The mode stays as it was, and the owner where this user may set it.
///
/// # Errors
/// [`HostError::File`]; the old file is then untouched and the new one is gone.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), HostError> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or(path.as_os_str());
    write_all_whole(folder, &[(name.as_ref(), &|file| file.write_all(bytes))])
}

/// Writes the contents of a file to it.
pub(crate) type WriteContents<'c> = dyn Fn(&mut dyn Write) -> std::io::Result<()> + 'c;

/// [`write_whole`] for files of one folder, which costs little more than one of them.
///
/// * `files`: names, and what writes their contents.
///
/// # Errors
/// As [`write_whole`], for each file: those before the one that cannot be replaced are new.
pub(crate) fn write_all_whole(
    folder: &Path,
    files: &[(&Path, &WriteContents<'_>)],
) -> Result<(), HostError> {
    let failed = |name: &Path| HostError::file("write", &folder.join(name));
    let mut written = Vec::new();
    for (name, write) in files {
        let file = write_beside(&folder.join(name), write).map_err(failed(name))?;
        written.push((*name, file));
    }
    sync_all(&written).map_err(|(name, err)| failed(name)(err))?;
    for (name, file) in written {
        file.persist(folder.join(name))
            .map_err(|err| failed(name)(err.error))?;
    }
    // Where syncing is not supported the log of the run says so.
    sync_folder(folder)
        .map(drop)
        .map_err(HostError::file("sync", folder))
}

/// [`write_whole`] for what can be made again: after a power failure it may be missing or a part.
///
/// # Errors
/// As [`write_whole`].
pub(crate) fn write_rebuildable(path: &Path, bytes: &[u8]) -> Result<(), HostError> {
    let written = write_beside(path, &|file| file.write_all(bytes))
        .and_then(|file| file.persist(path).map_err(|err| err.error));
    written.map(drop).map_err(HostError::file("write", path))
}

/// How names of files begin and end that are being written.
const UNFINISHED: &str = ".mandelbox-";
const UNFINISHED_END: &str = ".unfinished";

/// Removes files of a folder whose writing was interrupted.
pub(crate) fn remove_unfinished(folder: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_unfinished = name
            .to_str()
            .is_some_and(|name| name.starts_with(UNFINISHED) && name.ends_with(UNFINISHED_END));
        if is_unfinished && entry.file_type()?.is_file() {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Writes a new file next to `path`, which it will replace.
fn write_beside(path: &Path, write: &WriteContents<'_>) -> io::Result<NamedTempFile> {
    let mut file = unfinished_file(path)?;
    let mut buffer = BufWriter::with_capacity(64 << 10, file.as_file_mut());
    write(&mut buffer)?;
    buffer.flush()?;
    drop(buffer);
    Ok(file)
}

/// Creates the file that is to take the place of the one at `path`. One that is left behind by a
/// killed run is removed when that run is resumed.
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
    // What the umask leaves of it, as for any file that a program makes; the default is for
    // secrets.
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

/// Gives a file, before anything is in it, the owner, group and mode of the one that it replaces,
/// as far as this user may and the file system can. It never lets more people in: without the group
/// it has no rights for a group.
fn keep_access(file: &File, replaced: &Metadata) -> io::Result<()> {
    let new = file.metadata()?;
    let mut mode = replaced.mode() & 0o777;
    let group = (new.gid() != replaced.gid()).then(|| Gid::from_raw(replaced.gid()));
    if group.is_some() && fchown(file, None, group).is_err() {
        mode &= !0o070;
    }
    if new.uid() != replaced.uid() {
        // Only root may, and to the others the file is theirs now.
        let _ = fchown(file, Some(Uid::from_raw(replaced.uid())), None);
    }
    if new.mode() & 0o777 != mode {
        let _ = file.set_permissions(Permissions::from_mode(mode));
    }
    Ok(())
}

/// Waits until all files are on disk. Side by side, since a file system writes down together what
/// is asked for at a time.
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
                    // Where no thread can be had, one after the other.
                    Err(_) => Err(sync(file)),
                },
            )
            .collect();
        let first = sync(first);
        let others = threads.into_iter().map(|thread| match thread {
            Ok(thread) => thread.join().expect("syncing does not panic"),
            Err(synced) => synced,
        });
        // All of them are waited for, whichever failed.
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
        // A folder in its place cannot be replaced, whoever asks.
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
        // Only root can give a file to others, and with it the group that they are in.
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
