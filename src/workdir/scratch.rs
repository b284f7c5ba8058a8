//! The scratch folder of one call: the only folder of the work directory that a guest sees.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::outcome::bytes_text;
use crate::sandbox::WEAKENED;

/// A folder for one call, removed when it is dropped.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

/// Why the file that a guest left cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// What the guest left is not a plain file, or too large; a sentence for the user.
    #[error("{0}")]
    Guest(String),
    /// The host could not read it.
    #[error("failed to read it: {0}")]
    Host(#[from] io::Error),
}

impl Scratch {
    pub(super) fn create(path: PathBuf) -> io::Result<Self> {
        fs::create_dir(&path)?;
        Ok(Self { path })
    }

    /// The folder on the host.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Puts a file there before the guest runs.
    ///
    /// # Errors
    /// The operating system's.
    #[expect(clippy::disallowed_methods, reason = "the scratch folder is in the work directory")]
    pub fn put(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        fs::write(self.path.join(name), bytes)
    }

    /// Reads a file that the guest left, at most `max_bytes` of it; `None` if there is none.
    ///
    /// # Errors
    /// [`TakeError::Guest`] for a link, a folder, a file with a second name, or too many bytes.
    pub fn take(&self, name: &str, max_bytes: u64) -> Result<Option<Vec<u8>>, TakeError> {
        let path = self.path.join(name);
        let opened = if WEAKENED { File::open(&path) } else { open_no_follow(&path) };
        let file = match opened {
            Ok(file) => file,
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(err) if is_link_error(&path, &err) => {
                return Err(TakeError::Guest("the file is a symbolic link; write a plain file".to_owned()));
            }
            Err(err) => return Err(err.into()),
        };
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(TakeError::Guest("it is not a plain file".to_owned()));
        }
        if n_names(&metadata) > 1 {
            return Err(TakeError::Guest(
                "the file has a second name (a hard link); write a file of its own".to_owned(),
            ));
        }
        let too_large = || TakeError::Guest(format!("the file is larger than {}", bytes_text(max_bytes)));
        if metadata.len() > max_bytes {
            return Err(too_large());
        }
        let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0));
        file.take(max_bytes.saturating_add(1)).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > max_bytes { Err(too_large()) } else { Ok(Some(bytes)) }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A folder that cannot be removed stays in the work directory, where a person can see it.
        let _ = remove_tree(&self.path);
    }
}

/// Removes a folder with all below it, at any depth, and follows no link: folders are moved up to a folder beside it
/// before they are emptied, so that no path gets long and no more than one is open at a time.
fn remove_tree(path: &Path) -> io::Result<()> {
    let beside = path.with_extension("removed");
    let mut n_moved: u64 = 0;
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if !entry.file_type()?.is_dir() {
                fs::remove_file(entry.path())?;
                continue;
            }
            if n_moved == 0 {
                fs::create_dir(&beside)?;
            }
            n_moved += 1;
            let moved = beside.join(n_moved.to_string());
            fs::rename(entry.path(), &moved)?;
            folders.push(moved);
        }
        fs::remove_dir(folder)?;
    }
    if n_moved > 0 { fs::remove_dir(beside) } else { Ok(()) }
}

fn open_no_follow(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use rustix::fs::OFlags;
        use std::os::unix::fs::OpenOptionsExt;
        options.custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32);
    }
    options.open(path)
}

fn is_link_error(path: &Path, err: &io::Error) -> bool {
    let is_link = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink());
    is_link && err.kind() != io::ErrorKind::PermissionDenied
}

#[cfg(unix)]
fn n_names(metadata: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::nlink(metadata)
}

#[cfg(not(unix))]
fn n_names(_: &fs::Metadata) -> u64 {
    1
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn check(make: impl FnOnce(&Path, &Path), expected: Result<Option<&[u8]>, &str>) {
        let folder = tempfile::tempdir().expect("a folder");
        let secret = folder.path().join("secret");
        fs::write(&secret, "SECRET").expect("written");
        let scratch = Scratch::create(folder.path().join("scratch")).expect("made");
        make(&scratch.path().join("m"), &secret);
        let taken = scratch.take("m", 10);
        match expected {
            Ok(expected) => assert_eq!(taken.expect("taken").as_deref(), expected),
            Err(text) => assert!(taken.expect_err(text).to_string().contains(text)),
        }
        drop(scratch);
        assert!(!folder.path().join("scratch").exists());
        assert_eq!(fs::read(&secret).expect("untouched"), b"SECRET");
    }

    #[test]
    fn deep_trees_are_removed_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("kept"), "x").expect("written");
        let scratch = Scratch::create(folder.path().join("7")).expect("made");
        // Made from the inside out, since a path of this length cannot be named.
        for _ in 0..5000 {
            let outer = folder.path().join("outer");
            fs::create_dir(&outer).expect("made");
            let inner = scratch.path().join("deep");
            if inner.exists() {
                fs::rename(&inner, outer.join("deep")).expect("moved");
            }
            fs::write(outer.join("file"), "x").expect("written");
            symlink(folder.path(), outer.join("link")).expect("made");
            fs::rename(outer, inner).expect("moved");
        }
        drop(scratch);
        let left: Vec<_> =
            fs::read_dir(folder.path()).expect("there").filter_map(|entry| Some(entry.ok()?.file_name())).collect();
        assert_eq!(left, ["kept"]);
    }

    #[test]
    fn only_plain_files_are_taken() {
        check(|_, _| {}, Ok(None));
        check(|path, _| fs::write(path, "0123456789").expect("written"), Ok(Some(b"0123456789")));
        check(|path, _| fs::write(path, "0123456789x").expect("written"), Err("larger than 10 bytes"));
        check(|path, secret| symlink(secret, path).expect("made"), Err("symbolic link"));
        check(|path, _| symlink("nowhere", path).expect("made"), Err("symbolic link"));
        check(|path, secret| fs::hard_link(secret, path).expect("made"), Err("second name"));
        check(|path, _| fs::create_dir(path).expect("made"), Err("not a plain file"));
        let fifo = |path: &Path, _: &Path| {
            let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
            rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).expect("made");
        };
        check(fifo, Err("not a plain file"));
    }
}
