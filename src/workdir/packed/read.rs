//! Reader of the file of packed calls. It holds one buffer of the file in memory at a time.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::format::{
    FILE_START_BYTES, Head, Key, RECORD_MARK, RECORD_START_BYTES, RecordLengths, SUM_BYTES,
    first_bytes, parse_file_start, parse_record_start,
};
use super::{AttemptKey, Pieces};
use crate::folder::open_plain_file;
use crate::workdir::layout::{PACKED_CALLS_FILE, is_packed_calls_file};

/// Records of one attempt of a call in the file.
#[derive(Debug)]
pub struct PackedRecord {
    file: File,
    /// True if the attempt has ended; otherwise only long streams have reached the file.
    pub has_ended: bool,
    /// True if stdout contains both streams.
    pub has_one_log: bool,
    args: Option<Range<u64>>,
    output: Option<Range<u64>>,
    streams: [Pieces; 2],
}

impl PackedRecord {
    /// Reads the args; `None` if the attempt has not ended.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn args(&self) -> io::Result<Option<Vec<u8>>> {
        self.args
            .clone()
            .map(|range| self.read([range]))
            .transpose()
    }

    /// Reads the output; `None` if the call left none.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn output(&self) -> io::Result<Option<Vec<u8>>> {
        self.output
            .clone()
            .map(|range| self.read([range]))
            .transpose()
    }

    /// Reads stdout, or the log of both streams.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn stdout(&self) -> io::Result<Vec<u8>> {
        self.read(self.streams[0].clone())
    }

    /// Reads stderr, or the log of both streams.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn stderr(&self) -> io::Result<Vec<u8>> {
        let stream = usize::from(!self.has_one_log);
        self.read(self.streams[stream].clone())
    }

    fn read(&self, ranges: impl IntoIterator<Item = Range<u64>>) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        for range in ranges {
            let start = bytes.len();
            let n_bytes =
                usize::try_from(range.end - range.start).map_err(|_| io::ErrorKind::InvalidData)?;
            bytes.resize(start + n_bytes, 0);
            self.file.read_exact_at(&mut bytes[start..], range.start)?;
        }
        Ok(bytes)
    }
}

/// Searches the file of a task for an attempt; `None` if it is not there.
///
/// # Errors
/// The operating system's error, [`io::ErrorKind::NotFound`] if there is no file, and
/// [`io::ErrorKind::InvalidData`] if the start of the file is damaged.
pub fn find_packed(path: &Path, key: AttemptKey) -> io::Result<Option<PackedRecord>> {
    find_matching(path, |call| call == key)
}

fn find_matching(
    path: &Path,
    is_meant: impl Fn(AttemptKey) -> bool,
) -> io::Result<Option<PackedRecord>> {
    let file = open_plain_file(path)?;
    let mut found: Option<PackedRecord> = None;
    let mut records = Records::new(file.try_clone()?)?;
    while let Some((head, start)) = records.next()? {
        if !is_meant(head.call) {
            continue;
        }
        if found.as_ref().is_none_or(|found| found.has_ended) {
            found = Some(PackedRecord {
                file: file.try_clone()?,
                has_ended: false,
                has_one_log: false,
                args: None,
                output: None,
                streams: Default::default(),
            });
        }
        let mut position = start;
        let mut range = |length: u64| {
            position += length;
            position - length..position
        };
        let [args, output, stdout, stderr] = head.lengths().map(|n| n.map(&mut range));
        if let Some(record) = &mut found {
            record.has_ended = head.is_end();
            record.has_one_log = head.is_end() && stderr.is_none();
            (record.args, record.output) = (args, output);
            record.streams[0].extend(stdout);
            record.streams[1].extend(stderr);
        }
    }
    Ok(found)
}

/// Finds the record of an attempt in the files of a task: that of this machine, or one of those
/// that jobs of a cluster have written. See [`find_packed`].
///
/// * `folder`: subfolder of the task.
///
/// # Errors
/// As for [`find_packed`], about the first file that cannot be read.
pub fn find_packed_in(folder: &Path, key: AttemptKey) -> io::Result<Option<PackedRecord>> {
    let found = find_packed(&folder.join(PACKED_CALLS_FILE), key);
    let is_missing = match &found {
        Ok(record) => record.is_none(),
        Err(err) => err.kind() == io::ErrorKind::NotFound,
    };
    if !is_missing {
        return found;
    }
    let mut names: Vec<_> = std::fs::read_dir(folder)?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name != PACKED_CALLS_FILE && is_packed_calls_file(name))
        .collect();
    names.sort_unstable();
    if names.is_empty() {
        return found;
    }
    for name in &names {
        if let Some(record) = find_packed(&folder.join(name), key)? {
            return Ok(Some(record));
        }
    }
    // A run that was resumed counts the attempts of jobs that it has taken over in its own way.
    let is_call =
        |other: AttemptKey| (other.batch, other.call_index) == (key.batch, key.call_index);
    for name in &names {
        if let Some(record) = find_matching(&folder.join(name), is_call)? {
            return Ok(Some(record));
        }
    }
    Ok(None)
}

/// The whole records of a file, in order.
struct Records {
    file: BufReader<File>,
    key: Key,
    /// End of the last record, or of what was searched.
    position: u64,
    /// Where to search for a mark if there is no whole record at the position.
    search_start: u64,
}

impl Records {
    fn new(mut file: File) -> io::Result<Self> {
        let mut start = Vec::new();
        file.seek(SeekFrom::Start(0))?;
        Read::by_ref(&mut file)
            .take(FILE_START_BYTES as u64)
            .read_to_end(&mut start)?;
        let Some(key) = parse_file_start(&start) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        Ok(Self {
            file: BufReader::with_capacity(64 << 10, file),
            key,
            position: FILE_START_BYTES as u64,
            search_start: FILE_START_BYTES as u64,
        })
    }

    /// Returns the head of the next whole record, and the position of its data; `None` at the end.
    fn next(&mut self) -> io::Result<Option<(Head, u64)>> {
        loop {
            match self.read_record() {
                Ok(Some(record)) => return Ok(Some(record)),
                Err(err) if err.kind() != io::ErrorKind::UnexpectedEof => return Err(err),
                // There is no whole record here. Search for the next one.
                Ok(None) | Err(_) => {
                    if !self.find_mark(self.search_start)? {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// Reads the record at the position; `None` if it is damaged, or there is none.
    fn read_record(&mut self) -> io::Result<Option<(Head, u64)>> {
        let mut start = [0; RECORD_START_BYTES];
        self.file.read_exact(&mut start)?;
        let Some(RecordLengths { head, data }) = parse_record_start(&self.key, &start) else {
            return Ok(None);
        };
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&start);
        let mut text = Vec::new();
        Read::by_ref(&mut self.file)
            .take(head.into())
            .read_to_end(&mut text)?;
        hasher.update(&text);
        let n_hashed = io::copy(&mut Read::by_ref(&mut self.file).take(data), &mut hasher)?;
        let mut sum = [0; SUM_BYTES];
        self.file.read_exact(&mut sum)?;
        if n_hashed < data || first_bytes(&hasher.finalize()) != sum {
            return Ok(None);
        }
        let Ok(head_of_call) = serde_json::from_slice::<Head>(&text) else {
            return Ok(None);
        };
        let lengths = head_of_call.lengths().into_iter().flatten();
        if lengths.fold(0, u64::saturating_add) != data {
            return Ok(None);
        }
        let data_start = self.position + (RECORD_START_BYTES + text.len()) as u64;
        self.position = data_start + data + SUM_BYTES as u64;
        // The sum of a torn record can end with bytes that the next record's mark begins with. The
        // record is whole then, but the next one starts before its end.
        self.search_start = self.position - (RECORD_MARK.len() as u64 - 1);
        Ok(Some((head_of_call, data_start)))
    }

    /// Moves to the next mark of a record. Returns false if there is none.
    fn find_mark(&mut self, from: u64) -> io::Result<bool> {
        self.file.seek(SeekFrom::Start(from))?;
        self.position = from;
        // Number of bytes of the mark that were found. The first byte of the mark does not occur in
        // it again.
        let mut n_found = 0;
        loop {
            let bytes = self.file.fill_buf()?;
            if bytes.is_empty() {
                return Ok(false);
            }
            let mut n_read = 0;
            for byte in bytes {
                n_read += 1;
                n_found = match RECORD_MARK {
                    mark if mark[n_found] == *byte => n_found + 1,
                    mark => usize::from(mark[0] == *byte),
                };
                if n_found == RECORD_MARK.len() {
                    break;
                }
            }
            self.file.consume(n_read);
            self.position += n_read as u64;
            if n_found == RECORD_MARK.len() {
                self.position -= RECORD_MARK.len() as u64;
                self.search_start = self.position + 1;
                self.file.seek(SeekFrom::Start(self.position))?;
                return Ok(true);
            }
        }
    }
}
