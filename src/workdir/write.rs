//! Writing a file whole or not at all.

use std::io::Write;
use std::path::Path;

use tempfile::NamedTempFile;

use crate::error::HostError;

/// Replaces a file: a new one is written beside it, synced, renamed over it, and its folder is synced.
///
/// # Errors
/// [`HostError::File`]; the old file is then untouched and the new one is gone.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), HostError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or(path.as_os_str());
    write_all_whole(folder, &[(Path::new(name), bytes)])
}

/// [`write_whole`] for files of one folder, which costs little more than one of them.
///
/// * `files`: names and contents.
///
/// # Errors
/// As [`write_whole`], for each file: those before the one that cannot be replaced are new.
pub(super) fn write_all_whole(folder: &Path, files: &[(&Path, &[u8])]) -> Result<(), HostError> {
    let failed = |name: &Path| HostError::file("write", &folder.join(name));
    let mut written = Vec::new();
    for (name, bytes) in files {
        let file = write_beside(folder, bytes).map_err(failed(name))?;
        written.push((*name, file));
    }
    sync_all(&written).map_err(|(name, err)| failed(name)(err))?;
    for (name, file) in written {
        file.persist(folder.join(name)).map_err(|err| failed(name)(err.error))?;
    }
    let synced = std::fs::File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(HostError::file("sync", folder))
}

/// [`write_whole`] for what can be made again: after a power failure it may be missing or a part.
///
/// # Errors
/// As [`write_whole`].
pub fn write_rebuildable(path: &Path, bytes: &[u8]) -> Result<(), HostError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let written = write_beside(folder, bytes).and_then(|file| file.persist(path).map_err(|err| err.error));
    written.map(drop).map_err(HostError::file("write", path))
}

/// How names of files begin and end that are being written.
const UNFINISHED: &str = ".mandelbox-";
const UNFINISHED_END: &str = ".unfinished";

/// Removes files of a folder whose writing was interrupted.
pub(super) fn remove_unfinished(folder: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_unfinished =
            name.to_str().is_some_and(|name| name.starts_with(UNFINISHED) && name.ends_with(UNFINISHED_END));
        if is_unfinished && entry.file_type()?.is_file() {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn write_beside(folder: &Path, bytes: &[u8]) -> std::io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(UNFINISHED).suffix(UNFINISHED_END);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // What the umask leaves of it, as for any file that a program makes; the default is for secrets.
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let mut file = builder.tempfile_in(folder)?;
    file.write_all(bytes)?;
    Ok(file)
}

/// Waits until all files are on disk. Side by side, since a file system writes down together what is asked for at a time.
fn sync_all<'n>(files: &[(&'n Path, NamedTempFile)]) -> Result<(), (&'n Path, std::io::Error)> {
    let sync = |(name, file): &(&'n Path, NamedTempFile)| file.as_file().sync_all().map_err(|err| (*name, err));
    let [first, others @ ..] = files else { return Ok(()) };
    std::thread::scope(|scope| {
        let threads: Vec<_> = others
            .iter()
            .map(|file| match std::thread::Builder::new().spawn_scoped(scope, move || sync(file)) {
                Ok(thread) => Ok(thread),
                // Where no thread can be had, one after the other.
                Err(_) => Err(sync(file)),
            })
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
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 2, "no temporary file is left");
    }
}
