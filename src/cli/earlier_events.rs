//! File of `--events` when a run is resumed: it is continued so that it contains every event of the
//! run exactly once.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::Path;

use serde::Deserialize;

use crate::event::{EventLog, visit_events, visit_log};
use crate::text::time_text;
use crate::workdir::WorkDir;

/// Maximum length in bytes of the line of an event.
const MAX_LINE_BYTES: u64 = 256 << 20;

/// Events of the run that a file already contains.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct EarlierEvents {
    last_seq: u64,
    /// Length in bytes of the complete lines; a killed run may have left part of a line after them.
    whole_bytes: u64,
}

/// Contents of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FileContents {
    /// Nothing that a resumed run would have to keep: the file is missing or empty, or no run has
    /// begun yet.
    Nothing,
    /// Events of the run.
    Events(EarlierEvents),
    /// Anything else.
    Other,
}

/// Identity of an event, also among events of different runs.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Stamp {
    seq: u64,
    time: String,
}

impl EarlierEvents {
    /// Determines the contents of a file.
    ///
    /// * `work_dir`: work directory of the resumed run.
    ///
    /// # Errors
    /// Those of the operating system.
    pub(super) fn find(path: &Path, work_dir: &Path) -> io::Result<FileContents> {
        match path.metadata() {
            Ok(metadata) if metadata.is_file() && metadata.len() > 0 => {}
            _ => return Ok(FileContents::Nothing),
        }
        if !WorkDir::holds_a_run(work_dir) {
            return Ok(FileContents::Nothing);
        }
        let mut lines = BufReader::new(File::open(path)?);
        let (mut first, mut last, mut whole_bytes) = (None, None, 0);
        let mut line = Vec::new();
        loop {
            line.clear();
            (&mut lines)
                .take(MAX_LINE_BYTES)
                .read_until(b'\n', &mut line)?;
            if line.last() != Some(&b'\n') {
                break;
            }
            let Ok(stamp) = serde_json::from_slice::<Stamp>(&line) else {
                return Ok(FileContents::Other);
            };
            first.get_or_insert_with(|| stamp.clone());
            last = Some(stamp);
            whole_bytes += line.len() as u64;
        }
        let (Some(first), Some(last)) = (first, last) else {
            return Ok(FileContents::Other);
        };
        let mut n_found = 0;
        // Ignore a damaged log: the run reports it separately.
        let _ = visit_events(&work_dir.join(EventLog::NAME), |event| {
            for stamp in [&first, &last] {
                n_found +=
                    usize::from(stamp.seq == event.seq && stamp.time == time_text(event.time));
            }
        });
        let earlier = Self {
            last_seq: last.seq,
            whole_bytes,
        };
        Ok(if n_found == 2 {
            FileContents::Events(earlier)
        } else {
            FileContents::Other
        })
    }

    /// Opens the file at the end of its events, and appends the later events of the log, which a
    /// killed run may not have written here.
    ///
    /// * `work_dir`: work directory of the resumed run.
    ///
    /// # Errors
    /// Those of the operating system.
    pub(super) fn open(&self, path: &Path, work_dir: &Path) -> io::Result<File> {
        let file = OpenOptions::new().append(true).open(path)?;
        file.set_len(self.whole_bytes)?;
        let mut lines = BufWriter::new(file);
        let mut written = Ok(());
        let _ = visit_log(&work_dir.join(EventLog::NAME), |event, _, line| {
            if event.seq > self.last_seq && written.is_ok() {
                written = lines.write_all(line);
            }
        });
        written?;
        lines.into_inner().map_err(io::IntoInnerError::into_error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{EventKind, FORMAT_VERSION, Recorder, RunStarted};

    /// Creates a work directory whose log has three events. Returns it with the lines of the log.
    fn work_dir() -> (tempfile::TempDir, Vec<String>) {
        let folder = tempfile::tempdir().expect("a folder");
        let mut recorder =
            Recorder::new(EventLog::create(folder.path()).expect("made"), Vec::new());
        recorder.record(started(folder.path())).expect("recorded");
        for message in ["one", "two"] {
            recorder
                .record(EventKind::Note {
                    message: message.to_owned(),
                })
                .expect("recorded");
        }
        recorder.sync().expect("written");
        let log = std::fs::read_to_string(folder.path().join(EventLog::NAME)).expect("there");
        (
            folder,
            log.split_inclusive('\n').map(str::to_owned).collect(),
        )
    }

    fn started(work_dir: &Path) -> EventKind {
        EventKind::RunStarted(Box::new(RunStarted {
            format_version: FORMAT_VERSION,
            mandelbox_version: "0".into(),
            backend: "local".into(),
            workflow: "w".into(),
            logger_name: "w".into(),
            work_dir: work_dir.to_owned(),
            input_paths: Vec::new(),
            output_path: "out".into(),
            item_kind: "component".into(),
            only: Vec::new(),
            input_metadata_keys: Vec::new(),
            first_task_index: None,
            last_task_index: None,
            tasks: Vec::new(),
            output: None,
            inputs: Vec::new(),
        }))
    }

    #[test]
    fn a_file_continues_after_the_events_of_its_run() {
        let (work_dir, lines) = work_dir();
        let path = work_dir.path().join("events");
        let whole = lines.concat();
        let starts = [
            lines[0].clone(),
            lines[..2].concat(),
            whole.clone(),
            lines[..2].concat() + "{\"seq\":2,\"ti",
        ];
        for start in starts {
            std::fs::write(&path, &start).expect("written");
            let FileContents::Events(earlier) =
                EarlierEvents::find(&path, work_dir.path()).expect("read")
            else {
                panic!("not found: {start}");
            };
            let mut file = earlier.open(&path, work_dir.path()).expect("opened");
            file.write_all(b"next\n").expect("written");
            assert_eq!(
                std::fs::read_to_string(&path).expect("there"),
                whole.clone() + "next\n",
                "{start}"
            );
        }
    }

    #[test]
    fn other_contents_are_recognised() {
        let (work_dir, _) = work_dir();
        let (_other, lines_of_another) = self::work_dir();
        let path = work_dir.path().join("events");
        for other in [
            "hello",
            "hello\n",
            "{}\n",
            "{\"seq\":0}\n",
            &lines_of_another.concat(),
        ] {
            std::fs::write(&path, other).expect("written");
            assert_eq!(
                EarlierEvents::find(&path, work_dir.path()).expect("read"),
                FileContents::Other,
                "{other}"
            );
        }
        std::fs::write(&path, "").expect("written");
        assert_eq!(
            EarlierEvents::find(&path, work_dir.path()).expect("read"),
            FileContents::Nothing
        );
        let none = work_dir.path().join("none");
        assert_eq!(
            EarlierEvents::find(&none, work_dir.path()).expect("read"),
            FileContents::Nothing
        );
        std::fs::write(&path, "hello\n").expect("written");
        assert_eq!(
            EarlierEvents::find(&path, &none).expect("read"),
            FileContents::Nothing,
            "no run has begun"
        );
    }
}
