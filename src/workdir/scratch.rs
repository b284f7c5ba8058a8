//! The scratch folder of one call: the only folder of the work directory that a guest sees.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::outcome::bytes_text;
use crate::sandbox::WEAKENED;

/// A folder for one call, or for one after the other; removed when it is dropped.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    /// Name of the file that was put there and is the host's to write again.
    kept: Option<String>,
}

/// Entries that [`Scratch::clean`] removes; a folder with more is cheaper to make anew.
const MAX_CLEANED: usize = 16;

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
        Ok(Self { path, kept: None })
    }

    /// The folder on the host.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Puts a file there before the guest runs. The one of the call before is written over: making a file costs a
    /// file system more than all else here, the more so where others were just removed.
    ///
    /// # Errors
    /// The operating system's.
    pub fn put(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let path = self.path.join(name);
        let mut file = match self.kept.take() {
            Some(kept) => {
                fs::rename(self.path.join(kept), &path)?;
                open_no_follow(OpenOptions::new().write(true).truncate(true), &path)?
            }
            None => File::create_new(&path)?,
        };
        file.write_all(bytes)?;
        self.kept = Some(name.to_owned());
        Ok(())
    }

    /// Removes all that the guest has left, once it has ended. Returns whether the folder is as good as new; else it
    /// must not be used again.
    pub fn clean(&mut self) -> bool {
        let kept = self.kept.take();
        let cleaned = (|| {
            for (n_seen, entry) in fs::read_dir(&self.path)?.enumerate() {
                let entry = entry?;
                if n_seen > MAX_CLEANED || entry.file_type()?.is_dir() {
                    return Ok(false);
                }
                let is_kept = kept.as_ref().is_some_and(|kept| entry.file_name() == **kept);
                if is_kept && is_plain(&entry)? {
                    self.kept.clone_from(&kept);
                } else {
                    fs::remove_file(entry.path())?;
                }
            }
            Ok(true)
        })();
        let cleaned: io::Result<bool> = cleaned;
        cleaned.unwrap_or(false)
    }

    /// Reads a file that the guest left, at most `max_bytes` of it; `None` if there is none.
    ///
    /// # Errors
    /// [`TakeError::Guest`] for a link, a folder, a file with a second name, or too many bytes.
    pub fn take(&self, name: &str, max_bytes: u64) -> Result<Option<Vec<u8>>, TakeError> {
        let path = self.path.join(name);
        let opened = if WEAKENED { File::open(&path) } else { open_no_follow(OpenOptions::new().read(true), &path) };
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

/// Removes what is in the folder of scratch folders, whose guests have gone.
pub(super) fn remove_all_in(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() { remove_tree(&entry.path())? } else { fs::remove_file(entry.path())? }
    }
    Ok(())
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

/// A regular file that has no other name.
fn is_plain(entry: &fs::DirEntry) -> io::Result<bool> {
    let metadata = entry.metadata()?;
    Ok(metadata.is_file() && n_names(&metadata) == 1)
}

fn open_no_follow(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
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
    fn a_folder_is_clean_for_the_next_call() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("outside"), "kept").expect("written");
        let check = |leave: &dyn Fn(&Path), expected: bool| {
            let mut scratch = Scratch::create(folder.path().join("scratch")).expect("made");
            scratch.put("first.json", b"a longer text").expect("put");
            leave(scratch.path());
            assert_eq!(scratch.clean(), expected);
            if expected {
                scratch.put("second.json", b"short").expect("put");
                assert_eq!(fs::read(scratch.path().join("second.json")).expect("there"), b"short");
                assert_eq!(fs::read_dir(scratch.path()).expect("a folder").count(), 1);
            }
            drop(scratch);
            assert_eq!(fs::read(folder.path().join("outside")).expect("there"), b"kept");
        };
        check(&|_| {}, true);
        check(&|path| fs::write(path.join("metadiff.json"), "{}").expect("written"), true);
        check(&|path| fs::write(path.join("first.json"), "another text").expect("written"), true);
        check(&|path| fs::remove_file(path.join("first.json")).expect("removed"), true);
        check(&|path| fs::rename(path.join("first.json"), path.join("x")).expect("moved"), true);
        check(&|path| fs::hard_link(path.join("first.json"), path.join("x")).expect("made"), true);
        let replace = |path: &Path, with: &dyn Fn(&Path)| {
            fs::remove_file(path.join("first.json")).expect("removed");
            with(&path.join("first.json"));
        };
        check(&|path| replace(path, &|path| symlink("../outside", path).expect("made")), true);
        check(&|path| replace(path, &|path| fs::create_dir(path).expect("made")), false);
        check(&|path| fs::create_dir(path.join("x")).expect("made"), false);
        check(&|path| (0..99).for_each(|n| fs::write(path.join(n.to_string()), "x").expect("written")), false);
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
