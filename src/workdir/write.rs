//! Writing a file whole or not at all.

use std::io::Write;
use std::path::Path;

use crate::error::HostError;

/// Replaces a file: a new one is written beside it, synced, renamed over it, and its folder is synced.
///
/// # Errors
/// [`HostError::File`]; the old file is then untouched and the new one is gone.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), HostError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    replace(path, folder, bytes).map_err(HostError::file("write", path))
}

fn replace(path: &Path, folder: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".mandelbox-");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // What the umask leaves of it, as for any file that a program makes; the default is for secrets.
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let mut file = builder.tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|err| err.error)?;
    std::fs::File::open(folder)?.sync_all()
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
