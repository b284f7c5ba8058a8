//! The scratch folder of one call: the only folder of the work directory that a guest sees.
//!
//! A guest may leave anything in the folder, and in process mode so may code that has taken over
//! the process of the guest. The contents may also change while the host reads them. So the host
//! never resolves a path through the folder. It uses the descriptors of the folder and of its
//! parent, and follows no link. The type of a file is checked after it is opened, and its identity
//! is checked again after it is moved to the records.
//!
//! Creating and removing files is expensive on many file systems, compared with a short call. So a
//! scratch folder is used for several calls: [`Scratch::clean`] empties it after a call, and
//! [`Scratch::put`] overwrites the file of the previous call.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, fstat, openat, renameat, statat, unlinkat,
};
use rustix::io::{Errno, retry_on_intr};

use crate::folder::{FILE_FLAGS, Folder, identity, is_dots};
use crate::model::WEAKENED;
use crate::text::bytes_text;

/// Folder for one call, or for several calls one after the other. It is removed when this value is
/// dropped.
#[derive(Debug)]
pub struct Scratch {
    /// Path of the folder, for the grants of the guest and for messages.
    path: PathBuf,
    /// Parent folder, and name of the folder in it.
    parent: Arc<Folder>,
    name: String,
    folder: Dir,
    /// Name of the file from [`Self::put`], which the next call overwrites.
    kept: Option<String>,
}

/// Maximum number of entries that [`Scratch::clean`] removes. For a folder with more, creating a
/// new one is cheaper.
const MAX_CLEANED: usize = 16;

/// Reason why the file that a guest left cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// The guest left a file that is not plain or is too large; a sentence for the user.
    #[error("{0}")]
    Guest(String),
    /// The host could not read the file.
    #[error("failed to read it: {0}")]
    Host(#[from] io::Error),
}

/// File that a guest left.
#[derive(Debug)]
pub struct TakenFile {
    /// Contents of the file.
    pub bytes: Vec<u8>,
    name: String,
    /// Device and inode.
    identity: (u64, u64),
}

impl Scratch {
    /// Creates a scratch folder in `parent`.
    ///
    /// * `parent_path`: path of `parent`.
    pub(super) fn create(
        parent: &Arc<Folder>,
        parent_path: &Path,
        name: String,
    ) -> io::Result<Self> {
        rustix::fs::mkdirat(parent, &name, Mode::from_raw_mode(0o777))?;
        let folder = Dir::new(OwnedFd::from(parent.open_folder(&name)?))?;
        Ok(Self {
            path: parent_path.join(&name),
            parent: Arc::clone(parent),
            name,
            folder,
            kept: None,
        })
    }

    /// Returns the path of the folder on the host.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file into the folder before the guest runs. The file of the previous call is
    /// overwritten: creating a file is the most expensive operation here, especially after others
    /// were removed.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn put(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let folder = self.folder.fd()?;
        let how = match self.kept.take() {
            Some(kept) => {
                renameat(folder, kept, folder, name)?;
                OFlags::TRUNC
            }
            None => OFlags::CREATE | OFlags::EXCL,
        };
        let flags = FILE_FLAGS | OFlags::WRONLY | how;
        let file = retry_on_intr(|| openat(folder, name, flags, Mode::from_raw_mode(0o666)))?;
        File::from(file).write_all(bytes)?;
        self.kept = Some(name.to_owned());
        Ok(())
    }

    /// Removes everything that the guest has left, after it has ended. Returns true if the folder
    /// can be used again.
    pub fn clean(&mut self) -> bool {
        self.try_clean().unwrap_or(false)
    }

    fn try_clean(&mut self) -> io::Result<bool> {
        let kept = self.kept.take();
        self.folder.rewind();
        let mut n_seen = 0;
        while let Some(entry) = self.folder.read().transpose()? {
            if is_dots(entry.file_name()) {
                continue;
            }
            n_seen += 1;
            if n_seen > MAX_CLEANED {
                return Ok(false);
            }
            let folder = self.folder.fd()?;
            if kept
                .as_ref()
                .is_some_and(|kept| entry.file_name().to_bytes() == kept.as_bytes())
                && is_plain(&statat(
                    folder,
                    entry.file_name(),
                    AtFlags::SYMLINK_NOFOLLOW,
                )?)
            {
                self.kept.clone_from(&kept);
            } else {
                // This fails for a folder, and the scratch folder is then not used again.
                unlinkat(folder, entry.file_name(), AtFlags::empty())?;
            }
        }
        Ok(true)
    }

    /// Reads a file that the guest left, at most `max_bytes` of it; `None` if it does not exist.
    ///
    /// # Errors
    /// [`TakeError::Guest`] for a link, a folder, a file with a second name, or a file that is too
    /// large.
    pub fn take(&self, name: &str, max_bytes: u64) -> Result<Option<TakenFile>, TakeError> {
        let mut flags = FILE_FLAGS;
        flags.set(OFlags::NOFOLLOW, !WEAKENED);
        let file = match retry_on_intr(|| openat(self.folder.fd()?, name, flags, Mode::empty())) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(None),
            // Some systems other than Linux return MLINK.
            Err(Errno::LOOP | Errno::MLINK) => {
                return Err(TakeError::Guest(
                    "the file is a symbolic link; write a plain file".to_owned(),
                ));
            }
            // The file is a socket.
            Err(Errno::NXIO) => return Err(not_plain()),
            Err(err) => return Err(io::Error::from(err).into()),
        };
        let stat = fstat(&file).map_err(io::Error::from)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(not_plain());
        }
        if stat.st_nlink > 1 {
            return Err(TakeError::Guest(
                "the file has a second name (a hard link); write a separate file".to_owned(),
            ));
        }
        let too_large =
            || TakeError::Guest(format!("the file is larger than {}", bytes_text(max_bytes)));
        let n_bytes = u64::try_from(stat.st_size).unwrap_or(0);
        if n_bytes > max_bytes {
            return Err(too_large());
        }
        // The file may still grow, so the limit also applies to reading.
        let mut bytes = Vec::with_capacity(usize::try_from(n_bytes).unwrap_or(0));
        File::from(file)
            .take(max_bytes.saturating_add(1))
            .read_to_end(&mut bytes)?;
        if bytes.len() as u64 > max_bytes {
            return Err(too_large());
        }
        Ok(Some(TakenFile {
            bytes,
            name: name.to_owned(),
            identity: identity(&stat),
        }))
    }

    /// Moves a file that was taken to a path in the host's own folders. Returns true if the file
    /// there is the one that was taken. Returns false, and leaves nothing there, if another file
    /// had its name by then, or if the path is on another file system, as in a job of a cluster.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn move_taken(&self, taken: &TakenFile, to: &Path) -> io::Result<bool> {
        match renameat(self.folder.fd()?, &taken.name, CWD, to) {
            Err(Errno::NOENT | Errno::XDEV) => return Ok(false),
            moved => moved?,
        }
        // `to` is in a folder of the host, where the guest cannot replace the file any more.
        let stat = statat(CWD, to, AtFlags::SYMLINK_NOFOLLOW)?;
        if is_plain(&stat) && identity(&stat) == taken.identity {
            return Ok(true);
        }
        Folder::open(to.parent().unwrap_or(Path::new(".")))?
            .remove_tree(to.file_name().unwrap_or_default())?;
        Ok(false)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A folder that cannot be removed stays in the work directory, where a user can see it.
        let _ = self.parent.remove_tree(&self.name);
    }
}

fn not_plain() -> TakeError {
    TakeError::Guest("it is not a plain file".to_owned())
}

/// Returns true for a regular file that has no other name.
fn is_plain(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_nlink == 1
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// Creates a scratch folder in a folder.
    fn scratch_in(folder: &Path) -> Scratch {
        let parent = Arc::new(Folder::open(folder).expect("opened"));
        Scratch::create(&parent, folder, "scratch".to_owned()).expect("made")
    }

    fn check(make: impl FnOnce(&Path, &Path), expected: Result<Option<&[u8]>, &str>) {
        let folder = tempfile::tempdir().expect("a folder");
        let secret = folder.path().join("secret");
        fs::write(&secret, "SECRET").expect("written");
        let scratch = scratch_in(folder.path());
        make(&scratch.path().join("m"), &secret);
        let taken = scratch.take("m", 10);
        match expected {
            Ok(expected) => assert_eq!(
                taken.expect("taken").as_ref().map(|taken| &*taken.bytes),
                expected
            ),
            Err(text) => assert!(taken.expect_err(text).to_string().contains(text)),
        }
        drop(scratch);
        assert!(!folder.path().join("scratch").exists());
        assert_eq!(fs::read(&secret).expect("untouched"), b"SECRET");
    }

    #[test]
    fn a_folder_is_clean_for_the_next_call() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("outside"), "kept").expect("written");
        let check = |leave: &dyn Fn(&Path), expected: bool| {
            let mut scratch = scratch_in(folder.path());
            scratch.put("first.json", b"a longer text").expect("put");
            leave(scratch.path());
            assert_eq!(scratch.clean(), expected);
            if expected {
                scratch.put("second.json", b"short").expect("put");
                assert_eq!(
                    fs::read(scratch.path().join("second.json")).expect("there"),
                    b"short"
                );
                assert_eq!(fs::read_dir(scratch.path()).expect("a folder").count(), 1);
            }
            drop(scratch);
            assert_eq!(
                fs::read(folder.path().join("outside")).expect("there"),
                b"kept"
            );
        };
        check(&|_| {}, true);
        check(
            &|path| fs::write(path.join("output.json"), "{}").expect("written"),
            true,
        );
        check(
            &|path| fs::write(path.join("first.json"), "another text").expect("written"),
            true,
        );
        check(
            &|path| fs::remove_file(path.join("first.json")).expect("removed"),
            true,
        );
        check(
            &|path| fs::rename(path.join("first.json"), path.join("x")).expect("moved"),
            true,
        );
        check(
            &|path| fs::hard_link(path.join("first.json"), path.join("x")).expect("made"),
            true,
        );
        let replace = |path: &Path, with: &dyn Fn(&Path)| {
            fs::remove_file(path.join("first.json")).expect("removed");
            with(&path.join("first.json"));
        };
        check(
            &|path| replace(path, &|path| symlink("../outside", path).expect("made")),
            true,
        );
        check(
            &|path| replace(path, &|path| fs::create_dir(path).expect("made")),
            false,
        );
        check(&|path| fs::create_dir(path.join("x")).expect("made"), false);
        check(
            &|path| {
                (0..99).for_each(|n| fs::write(path.join(n.to_string()), "x").expect("written"))
            },
            false,
        );
    }

    #[test]
    fn only_plain_files_are_taken() {
        check(|_, _| {}, Ok(None));
        check(
            |path, _| fs::write(path, "0123456789").expect("written"),
            Ok(Some(b"0123456789")),
        );
        check(
            |path, _| fs::write(path, "0123456789x").expect("written"),
            Err("larger than 10 bytes"),
        );
        check(
            |path, secret| symlink(secret, path).expect("made"),
            Err("symbolic link"),
        );
        check(
            |path, _| symlink("nowhere", path).expect("made"),
            Err("symbolic link"),
        );
        check(
            |path, secret| fs::hard_link(secret, path).expect("made"),
            Err("second name"),
        );
        check(
            |path, _| fs::create_dir(path).expect("made"),
            Err("not a plain file"),
        );
        let fifo = |path: &Path, _: &Path| {
            let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
            rustix::fs::mknodat(CWD, path, FileType::Fifo, mode, 0).expect("made");
        };
        check(fifo, Err("not a plain file"));
        let socket = |path: &Path, _: &Path| {
            drop(std::os::unix::net::UnixListener::bind(path).expect("made"))
        };
        check(socket, Err("not a plain file"));
    }

    /// Simulates a process that has escaped its sandbox and puts a link in place of its scratch
    /// folder.
    #[test]
    fn a_link_in_place_of_the_folder_leads_nowhere() {
        let folder = tempfile::tempdir().expect("a folder");
        let outside = folder.path().join("outside");
        fs::create_dir_all(outside.join("folder")).expect("made");
        for name in ["kept", "m", "first.json"] {
            fs::write(outside.join(name), "SECRET").expect("written");
        }
        let mut scratch = scratch_in(folder.path());
        scratch.put("first.json", b"{}").expect("put");
        fs::rename(scratch.path(), folder.path().join("moved")).expect("moved");
        symlink(&outside, scratch.path()).expect("made");
        assert!(scratch.take("m", 10).expect("nothing").is_none());
        assert!(scratch.clean());
        scratch.put("second.json", b"{}").expect("put");
        assert!(folder.path().join("moved/second.json").exists());
        drop(scratch);
        assert!(
            !folder.path().join("scratch").exists(),
            "the link itself is removed"
        );
        for name in ["kept", "m", "first.json"] {
            assert_eq!(fs::read(outside.join(name)).expect("there"), b"SECRET");
        }
        assert!(outside.join("folder").is_dir());
    }

    #[test]
    fn what_is_moved_is_what_was_taken() {
        let folder = tempfile::tempdir().expect("a folder");
        let (secret, to) = (folder.path().join("secret"), folder.path().join("record"));
        fs::write(&secret, "SECRET").expect("written");
        let check = |swap: &dyn Fn(&Path), expected: bool| {
            let scratch = scratch_in(folder.path());
            let path = scratch.path().join("m");
            fs::write(&path, "{}").expect("written");
            let taken = scratch.take("m", 10).expect("taken").expect("there");
            swap(&path);
            assert_eq!(scratch.move_taken(&taken, &to).expect("moved"), expected);
            assert_eq!(
                to.symlink_metadata().is_ok(),
                expected,
                "nothing else is left there"
            );
            let _ = fs::remove_file(&to);
        };
        let replace = |path: &Path, with: &dyn Fn(&Path)| {
            fs::remove_file(path).expect("removed");
            with(path);
        };
        check(&|_| {}, true);
        check(&|path| fs::remove_file(path).expect("removed"), false);
        check(
            &|path| replace(path, &|path| symlink(&secret, path).expect("made")),
            false,
        );
        check(
            &|path| {
                replace(path, &|path| {
                    fs::create_dir_all(path.join("x")).expect("made")
                })
            },
            false,
        );
        check(
            &|path| fs::hard_link(path, path.with_file_name("other")).expect("made"),
            false,
        );
        assert_eq!(fs::read(&secret).expect("there"), b"SECRET");
    }

    /// In a job of a cluster, scratch folders are on the node and the records on a shared file
    /// system.
    #[test]
    #[expect(clippy::print_stdout, reason = "prints what was skipped")]
    fn a_file_is_not_moved_to_another_file_system() {
        let here = tempfile::tempdir().expect("a folder");
        let Ok(elsewhere) = tempfile::tempdir_in("/dev/shm") else {
            println!("skipped: there is no second file system");
            return;
        };
        let device = |folder: &Path| rustix::fs::stat(folder).expect("there").st_dev;
        if device(here.path()) == device(elsewhere.path()) {
            println!("skipped: there is no second file system");
            return;
        }
        let scratch = scratch_in(here.path());
        fs::write(scratch.path().join("m"), "{}").expect("written");
        let taken = scratch.take("m", 10).expect("taken").expect("there");
        let to = elsewhere.path().join("record");
        assert!(!scratch.move_taken(&taken, &to).expect("not an error"));
        assert!(!to.exists());
        assert_eq!(taken.bytes, b"{}");
    }
}
