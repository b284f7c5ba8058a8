//! Writer of the file of packed calls.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::format::{
    FILE_START_BYTES, Head, Key, file_start, first_bytes, parse_file_start, record_start,
};
use super::{AttemptKey, MAX_BUFFERED_BYTES, Pieces};
use crate::folder::{FILE_FLAGS, check_plain};
use crate::json::Value;
use crate::model::HostError;
use crate::workdir::layout::{PACKED_CALLS_FILE, damaged_packed_calls_file};

/// Writer that appends records to the file of a task. The file is opened, and created if it does
/// not exist, when the first record is written.
#[derive(Debug)]
pub struct PackedCalls {
    folder: PathBuf,
    name: String,
    file: Mutex<Option<OpenFile>>,
}

#[derive(Debug)]
struct OpenFile {
    file: File,
    key: Key,
}

impl PackedCalls {
    /// Creates the writer for a task.
    ///
    /// * `folder`: subfolder of the task.
    pub fn new(folder: &Path) -> Self {
        Self::named(folder, PACKED_CALLS_FILE.to_owned())
    }

    /// Creates the writer for some calls of a task.
    ///
    /// * `name`: name of the file.
    pub fn named(folder: &Path, name: String) -> Self {
        Self {
            folder: folder.to_owned(),
            name,
            file: Mutex::new(None),
        }
    }

    /// Returns the path of the file.
    pub fn path(&self) -> PathBuf {
        self.folder.join(&self.name)
    }

    /// Appends a record. Returns the range of its data in the file.
    ///
    /// The lengths in `head` are those of `data`.
    fn append(&self, head: &Head, data: &[&[u8]]) -> io::Result<Range<u64>> {
        let data_bytes = data.iter().map(|part| part.len() as u64).sum();
        // The lock is held during the write, in case the system writes a part only.
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let OpenFile { file, key } = match &mut *file {
            Some(file) => file,
            closed => closed.insert(OpenFile::open(&self.folder, &self.name)?),
        };
        let (start, mut hasher) = record_start(key, head, data_bytes)?;
        for part in data {
            hasher.update(part);
        }
        let sum = first_bytes(&hasher.finalize());
        let mut parts = vec![IoSlice::new(&start)];
        parts.extend(data.iter().map(|part| IoSlice::new(part)));
        parts.push(IoSlice::new(&sum));
        write_all(file, &mut parts)?;
        // An append moves the position to the end of what was written.
        let end = file.stream_position()? - sum.len() as u64;
        Ok(end - data_bytes..end)
    }

    /// Copies ranges of the file to another one.
    fn copy(&self, pieces: &[Range<u64>], to: &mut File) -> io::Result<()> {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(OpenFile { file, .. }) = &*file else {
            return Ok(());
        };
        let mut buffer = Vec::new();
        for piece in pieces {
            let n_bytes = piece.end - piece.start;
            buffer.resize(
                usize::try_from(n_bytes).map_err(|_| io::ErrorKind::InvalidData)?,
                0,
            );
            file.read_exact_at(&mut buffer, piece.start)?;
            to.write_all(&buffer)?;
        }
        Ok(())
    }
}

fn write_all(file: &mut File, mut parts: &mut [IoSlice<'_>]) -> io::Result<()> {
    while !parts.is_empty() {
        match file.write_vectored(parts) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => IoSlice::advance_slices(&mut parts, n),
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
    }
    Ok(())
}

impl OpenFile {
    fn open(folder: &Path, name: &str) -> io::Result<Self> {
        let path = folder.join(name);
        loop {
            // Check the type before opening: opening a device can have any effect.
            match fs::symlink_metadata(&path) {
                Ok(metadata) => check_plain(metadata.file_type())?,
                Err(err) if err.kind() == io::ErrorKind::NotFound => {}
                Err(err) => return Err(err),
            }
            let mut options = OpenOptions::new();
            options
                .read(true)
                .append(true)
                .create(true)
                .custom_flags(FILE_FLAGS.bits() as i32);
            let mut file = options.open(&path)?;
            check_plain(file.metadata()?.file_type())?;
            // Another process may create the file at the same time.
            file.lock()?;
            if let Some(key) = read_or_write_start(&mut file)? {
                file.unlock()?;
                return Ok(Self { file, key });
            }
            keep_damaged(folder, &path)?;
        }
    }
}

/// Returns the key of a file, which is begun if a process was killed before it could begin it;
/// `None` if the start of the file is damaged.
fn read_or_write_start(file: &mut File) -> io::Result<Option<Key>> {
    let mut start = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    Read::by_ref(file)
        .take(FILE_START_BYTES as u64)
        .read_to_end(&mut start)?;
    if start.len() == FILE_START_BYTES {
        return Ok(parse_file_start(&start));
    }
    file.set_len(0)?;
    let mut key = Key::default();
    getrandom::fill(&mut key).map_err(io::Error::other)?;
    file.write_all(&file_start(&key))?;
    Ok(Some(key))
}

/// Renames a damaged file, so that the user can inspect it.
fn keep_damaged(folder: &Path, path: &Path) -> io::Result<()> {
    for number in 1_u32.. {
        let kept = folder.join(damaged_packed_calls_file(number));
        if fs::symlink_metadata(&kept).is_err() {
            return fs::rename(path, kept);
        }
    }
    Ok(())
}

/// Record of a call while it runs.
#[derive(Debug)]
pub struct PackedCall {
    calls: Arc<PackedCalls>,
    key: AttemptKey,
    item: Option<Value>,
    streams: [Arc<Mutex<StreamState>>; 2],
}

/// Part of a stream that is in memory, and where the earlier pieces are in the file.
#[derive(Debug, Default)]
struct StreamState {
    buffered: Vec<u8>,
    written: Pieces,
}

impl PackedCall {
    /// Creates the record of an attempt. It has no effect before a stream is long or the call ends.
    pub fn new(calls: &Arc<PackedCalls>, key: AttemptKey, item: Option<Value>) -> Self {
        Self {
            calls: Arc::clone(calls),
            key,
            item,
            streams: Default::default(),
        }
    }

    /// Returns the writer of stdout (0) or stderr (1). Stdout is also the log of both.
    pub(in crate::workdir) fn writer(&self, stream: usize) -> Box<dyn Write + Send> {
        Box::new(StreamWriter {
            calls: Arc::clone(&self.calls),
            key: self.key,
            stream,
            state: Arc::clone(&self.streams[stream]),
        })
    }

    /// Appends the record of a call that has ended.
    ///
    /// * `stem`: common start of the names that its files would have.
    /// * `has_one_log`: true if stdout is the log of both streams.
    ///
    /// # Errors
    /// [`HostError::File`].
    pub(in crate::workdir) fn finish(
        &self,
        stem: &str,
        has_one_log: bool,
        args: &[u8],
        output: Option<&[u8]>,
    ) -> Result<(), HostError> {
        let [stdout, stderr] = &self.streams;
        let (stdout, stderr) = (lock(stdout), lock(stderr));
        let length = |bytes: &[u8]| Some(bytes.len() as u64);
        let head = Head {
            item: self.item.clone(),
            files: Some(stem.to_owned()),
            args: length(args),
            output: output.and_then(length),
            stdout: length(&stdout.buffered),
            stderr: (!has_one_log).then_some(stderr.buffered.len() as u64),
            ..Head::piece(self.key)
        };
        let output = output.unwrap_or_default();
        let data = [args, output, &stdout.buffered, &stderr.buffered];
        self.calls
            .append(&head, &data)
            .map(drop)
            .map_err(HostError::file("write to", &self.calls.path()))
    }

    /// Writes a whole stream to a file that must not exist yet.
    ///
    /// # Errors
    /// [`HostError::File`].
    pub(in crate::workdir) fn write_stream(
        &self,
        stream: usize,
        path: &Path,
    ) -> Result<(), HostError> {
        let state = lock(&self.streams[stream]);
        let written = File::create_new(path).and_then(|mut file| {
            self.calls.copy(&state.written, &mut file)?;
            file.write_all(&state.buffered)
        });
        written.map_err(HostError::file("write", path))
    }
}

/// Writer of a stream: long streams go to the file in pieces.
struct StreamWriter {
    calls: Arc<PackedCalls>,
    key: AttemptKey,
    stream: usize,
    state: Arc<Mutex<StreamState>>,
}

impl Write for StreamWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = lock(&self.state);
        let room = MAX_BUFFERED_BYTES - state.buffered.len();
        let n = bytes.len().min(room);
        state.buffered.extend_from_slice(&bytes[..n]);
        if state.buffered.len() == MAX_BUFFERED_BYTES {
            let n_bytes = Some(MAX_BUFFERED_BYTES as u64);
            let mut head = Head::piece(self.key);
            match self.stream {
                0 => head.stdout = n_bytes,
                _ => head.stderr = n_bytes,
            }
            let range = self.calls.append(&head, &[&state.buffered])?;
            state.written.push(range);
            state.buffered.clear();
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn lock(state: &Mutex<StreamState>) -> MutexGuard<'_, StreamState> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
