//! Files that jobs of a cluster share with the run that has submitted them, on a shared file
//! system.
//!
//! A file of lines has one writer. A second copy of the writer, which a cluster can start while the
//! first one still runs, takes the file over: it writes a new file and renames it over the old one.
//! From then on readers see the new file only, and the first copy notices that its file has lost
//! its name. So lines of two copies never mix.
//!
//! Each line begins with its checksum. A line that is incomplete or damaged ends what a reader
//! takes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::folder::{Folder, open_plain_file, sync_contents, write_rebuildable};
use crate::model::HostError;

/// Bytes that a reader reads at a time.
const READ_BYTES: u64 = 4 << 20;
/// Longest line, in bytes. The output of a call has up to 16 MiB, and its JSON text may be longer.
const MAX_LINE_BYTES: usize = 256 << 20;
/// Characters of the checksum of a line.
const SUM_CHARS: usize = 8;

/// Folder with such files.
#[derive(Clone, Debug)]
pub(crate) struct JobFolder {
    path: PathBuf,
}

impl JobFolder {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Returns the path of the folder.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns a folder in this one.
    pub(crate) fn folder(&self, name: &str) -> Self {
        Self::new(self.path.join(name))
    }

    /// Creates the folder and its parents.
    ///
    /// # Errors
    /// [`HostError::File`].
    pub(crate) fn create(&self) -> Result<(), HostError> {
        fs::create_dir_all(&self.path).map_err(HostError::file("create the folder", &self.path))
    }

    /// Returns the names in the folder, sorted; none if it does not exist.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.path).into_iter().flatten();
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut names: Vec<_> = names.collect();
        names.sort_unstable();
        names
    }

    /// Writes a file, whole or not at all. It is not synced: after a power failure it may be
    /// missing.
    ///
    /// # Errors
    /// [`HostError::File`].
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), HostError> {
        write_rebuildable(&self.path.join(name), bytes)
    }

    /// Reads the end of a file; empty if it cannot be read.
    pub(crate) fn read_end(&self, name: &str, max_bytes: u64) -> String {
        let read = || -> io::Result<Vec<u8>> {
            let mut file = open_plain_file(&self.path.join(name))?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(max_bytes)))?;
            let mut bytes = Vec::new();
            file.take(max_bytes).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
    }

    /// Creates an empty file. Returns false if it existed.
    ///
    /// # Errors
    /// [`HostError::File`].
    pub(crate) fn mark(&self, name: &str) -> Result<bool, HostError> {
        let path = self.path.join(name);
        match File::create_new(&path) {
            Ok(_) => Ok(true),
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(err) => Err(HostError::file("create", &path)(err)),
        }
    }

    /// Removes a file that [`Self::mark`] has created, if it exists.
    ///
    /// # Errors
    /// [`HostError::File`].
    pub(crate) fn unmark(&self, name: &str) -> Result<(), HostError> {
        let path = self.path.join(name);
        match fs::remove_file(&path) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => {
                Err(HostError::file("remove", &path)(err))
            }
            _ => Ok(()),
        }
    }

    /// Returns true if there is a file of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.path.join(name).symlink_metadata().is_ok()
    }

    /// Removes the folder with all that it contains. What cannot be removed stays.
    pub(crate) fn remove(&self) {
        if let (Some(parent), Some(name)) = (self.path.parent(), self.path.file_name())
            && let Ok(parent) = Folder::open(parent)
        {
            let _ = parent.remove_tree(name);
        }
    }
}

/// Writer of a file of lines.
#[derive(Debug)]
pub(crate) struct LineWriter {
    file: File,
    path: PathBuf,
    /// Device and inode of the file.
    identity: (u64, u64),
    buffer: Vec<u8>,
    is_synced: bool,
}

impl LineWriter {
    /// Creates the file, in place of one of the same name.
    ///
    /// * `unique`: part of a name that no other writer uses.
    /// * `lines`: its first lines.
    ///
    /// # Errors
    /// [`HostError::File`].
    pub(crate) fn take_over(
        folder: &JobFolder,
        name: &str,
        unique: &str,
        lines: &[Vec<u8>],
    ) -> Result<Self, HostError> {
        let path = folder.path.join(name);
        let new_path = folder.path.join(format!("{name}.{unique}.new"));
        let failed = || HostError::file("write", &new_path);
        let mut options = OpenOptions::new();
        let file = options.append(true).create_new(true).open(&new_path);
        let file = file.map_err(failed())?;
        let metadata = file.metadata().map_err(failed())?;
        let mut writer = Self {
            file,
            path,
            identity: (metadata.dev(), metadata.ino()),
            buffer: Vec::new(),
            is_synced: true,
        };
        for line in lines {
            writer.add(line);
        }
        writer.flush()?;
        writer.sync()?;
        fs::rename(&new_path, &writer.path).map_err(failed())?;
        Ok(writer)
    }

    /// Opens the file to append lines to it, and creates it if it does not exist. For files with
    /// one writer only.
    ///
    /// # Errors
    /// [`HostError::File`].
    pub(crate) fn append(folder: &JobFolder, name: &str) -> Result<Self, HostError> {
        let path = folder.path.join(name);
        let failed = || HostError::file("open", &path);
        let mut options = OpenOptions::new();
        let file = options.append(true).create(true).open(&path);
        let file = file.map_err(failed())?;
        let metadata = file.metadata().map_err(failed())?;
        Ok(Self {
            file,
            identity: (metadata.dev(), metadata.ino()),
            path,
            // A line that was cut short must not swallow the next one.
            buffer: b"\n".to_vec(),
            is_synced: true,
        })
    }

    /// Adds a line, which [`Self::flush`] writes.
    ///
    /// * `line`: text without a line feed.
    pub(crate) fn add(&mut self, line: &[u8]) {
        let sum = crc32fast::hash(line);
        self.buffer.extend(format!("{sum:08x} ").bytes());
        self.buffer.extend_from_slice(line);
        self.buffer.push(b'\n');
    }

    /// Returns the number of bytes that were not written yet.
    pub(crate) fn n_buffered(&self) -> usize {
        self.buffer.len()
    }

    /// Writes what was added.
    ///
    /// # Errors
    /// [`HostError::File`].
    pub(crate) fn flush(&mut self) -> Result<(), HostError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.file
            .write_all(&self.buffer)
            .map_err(HostError::file("write", &self.path))?;
        self.buffer.clear();
        self.is_synced = false;
        Ok(())
    }

    /// Makes what was written visible on other machines.
    ///
    /// # Errors
    /// [`HostError::File`].
    pub(crate) fn sync(&mut self) -> Result<(), HostError> {
        if !self.is_synced {
            // A file system that cannot sync makes the results visible at some later time.
            let _ = sync_contents(&self.file).map_err(HostError::file("sync", &self.path))?;
            self.is_synced = true;
        }
        Ok(())
    }

    /// Returns true while the file has its name: no other writer has taken it over.
    pub(crate) fn is_current(&self) -> bool {
        // A network file system can remember the attributes of a name for a minute; it asks its
        // server when a file is opened.
        let named = open_plain_file(&self.path).and_then(|file| file.metadata());
        named.is_ok_and(|named| (named.dev(), named.ino()) == self.identity)
    }
}

/// Reader of a file of lines that may still be written, or be taken over.
#[derive(Debug, Default)]
pub(crate) struct LineReader {
    /// Device and inode of the file that was read.
    identity: Option<(u64, u64)>,
    /// Bytes of whole lines that were read.
    position: u64,
}

impl LineReader {
    /// Reads the whole lines that were added since the last call. A file that was taken over is
    /// read from its start.
    ///
    /// * `take`: gets each line, without its checksum and its line feed.
    ///
    /// Returns false if there is no file.
    ///
    /// # Errors
    /// The operating system's error. Lines before it were taken.
    pub(crate) fn read(&mut self, path: &Path, take: &mut dyn FnMut(&[u8])) -> io::Result<bool> {
        let mut file = match open_plain_file(path) {
            Ok(file) => file,
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(err) => return Err(err),
        };
        let metadata = file.metadata()?;
        let identity = Some((metadata.dev(), metadata.ino()));
        if identity != self.identity {
            (self.identity, self.position) = (identity, 0);
        }
        if metadata.len() <= self.position {
            return Ok(true);
        }
        file.seek(SeekFrom::Start(self.position))?;
        let mut bytes = Vec::new();
        loop {
            let n_read = (&file).take(READ_BYTES).read_to_end(&mut bytes)?;
            let end = bytes.iter().rposition(|byte| *byte == b'\n');
            let whole = end.map_or(0, |end| end + 1);
            for line in bytes[..whole].split(|byte| *byte == b'\n') {
                if let Some(line) = checked(line) {
                    take(line);
                }
            }
            self.position += whole as u64;
            bytes.drain(..whole);
            if n_read == 0 || bytes.len() > MAX_LINE_BYTES {
                return Ok(true);
            }
        }
    }
}

/// Returns the text of a line if its checksum is correct.
fn checked(line: &[u8]) -> Option<&[u8]> {
    let (sum, rest) = line.split_at_checked(SUM_CHARS)?;
    let sum = u32::from_str_radix(std::str::from_utf8(sum).ok()?, 16).ok()?;
    let text = rest.strip_prefix(b" ")?;
    (crc32fast::hash(text) == sum).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, JobFolder) {
        let folder = tempfile::tempdir().expect("a folder");
        let jobs = JobFolder::new(folder.path().join("jobs"));
        jobs.create().expect("created");
        (folder, jobs)
    }

    fn lines(reader: &mut LineReader, folder: &JobFolder) -> Vec<String> {
        let mut lines = Vec::new();
        let mut take = |line: &[u8]| lines.push(String::from_utf8_lossy(line).into_owned());
        let path = folder.path().join("r");
        reader.read(&path, &mut take).expect("read");
        lines
    }

    #[test]
    fn a_copy_takes_the_file_over() {
        let (_folder, jobs) = folder();
        let mut reader = LineReader::default();
        assert_eq!(lines(&mut reader, &jobs), [""; 0]);
        let mut first = LineWriter::take_over(&jobs, "r", "1", &[b"a".to_vec()]).expect("taken");
        assert_eq!(lines(&mut reader, &jobs), ["a"]);
        assert_eq!(lines(&mut reader, &jobs), [""; 0]);
        first.add(b"b");
        first.flush().expect("written");
        assert!(first.is_current());
        let second = LineWriter::take_over(&jobs, "r", "2", &[b"c".to_vec()]).expect("taken");
        assert!(!first.is_current());
        assert!(second.is_current());
        first.add(b"d");
        first.flush().expect("written");
        assert_eq!(lines(&mut reader, &jobs), ["c"]);
        assert_eq!(jobs.names(), ["r"]);
    }

    #[test]
    fn only_whole_lines_are_read() {
        let (_folder, jobs) = folder();
        let mut writer = LineWriter::append(&jobs, "r").expect("opened");
        writer.add(b"a");
        writer.flush().expect("written");
        let mut reader = LineReader::default();
        assert_eq!(lines(&mut reader, &jobs), ["a"]);
        writer.file.write_all(b"0123").expect("written");
        assert_eq!(lines(&mut reader, &jobs), [""; 0]);
        // The file is opened again after a crash.
        let mut writer = LineWriter::append(&jobs, "r").expect("opened");
        writer.add(b"b");
        writer.flush().expect("written");
        assert_eq!(lines(&mut reader, &jobs), ["b"]);
    }

    #[test]
    fn marks_and_folders() {
        let (_folder, jobs) = folder();
        assert!(jobs.mark("m").expect("marked"));
        assert!(!jobs.mark("m").expect("marked"));
        assert!(jobs.has("m") && !jobs.has("n"));
        jobs.write("n", b"0123456789").expect("written");
        assert_eq!(jobs.read_end("n", 3), "789");
        assert_eq!(jobs.read_end("none", 3), "");
        jobs.remove();
        assert!(!jobs.path().exists());
    }
}
