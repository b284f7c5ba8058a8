//! The state of a run's folders on disk: what its log records at each start, and a resumed run
//! compares.
//!
//! Inputs are scanned by one walk without opening a file or following a link. The walk is bounded,
//! since a Zarr tree can have millions of files. It goes from the top down, each folder in the
//! order of its names, so two walks that end after the same number of entries have seen the same
//! ones unless something has changed.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::event::{FolderId, InputState};

/// Entries that the scan of all inputs of a run looks at.
const MAX_ENTRIES: u64 = 100_000;
/// Time that it may take. A walk that compares has three times as much, to come as far as the one
/// before.
const MAX_TIME: Duration = Duration::from_secs(1);

/// The identity of a folder; `None` if there is none at the path.
pub(super) fn folder_id(path: &Path) -> Option<FolderId> {
    let metadata = path.metadata().ok().filter(Metadata::is_dir)?;
    let created = metadata
        .created()
        .ok()
        .and_then(|time| Timestamp::try_from(time).ok());
    Some(FolderId {
        device: metadata.dev(),
        inode: metadata.ino(),
        created: created.map(|time| time.to_string()),
    })
}

/// Returns true if a folder is the one that it was, on a file system that may have been mounted
/// again since.
pub(super) fn is_same_folder(before: &FolderId, now: &FolderId, path: &Path) -> bool {
    if before.inode != now.inode {
        return has_changing_inodes(path) && is_empty(path) == Some(false);
    }
    match (&before.created, &now.created) {
        (Some(before), Some(now)) => before == now,
        // A network file system, which has another device number each time that it is mounted.
        (None, None) => before.device == now.device || is_empty(path) == Some(false),
        _ => before.device == now.device,
    }
}

/// Returns true if a folder has no entry; `None` if that cannot be known.
pub(super) fn is_empty(path: &Path) -> Option<bool> {
    fs::read_dir(path)
        .ok()
        .map(|mut entries| entries.next().is_none())
}

/// True for file systems that make up inode numbers each time that they are mounted: FUSE, SMB and
/// 9P (as of WSL).
fn has_changing_inodes(path: &Path) -> bool {
    is_on(path, &[0x6573_5546, 0xff53_4d42, 0xfe53_4d42, 0x0102_1997])
}

/// Gives the output folder the identity that it will keep. On an overlay file system (as in a
/// container) a folder of a lower layer becomes another one with the first change; setting its mode
/// to what it is makes that happen now.
pub(super) fn force_copy_up(output: &Path) {
    if is_on(output, &[0x794c_7630])
        && let Ok(metadata) = output.metadata()
    {
        // A folder of somebody else can be written to all the same; its identity then changes with
        // the first file.
        let _ = fs::set_permissions(output, metadata.permissions());
    }
}

/// Returns true if a file system has one of these magic numbers.
#[cfg(target_os = "linux")]
fn is_on(path: &Path, magic_numbers: &[rustix::fs::FsWord]) -> bool {
    rustix::fs::statfs(path).is_ok_and(|found| magic_numbers.contains(&found.f_type))
}

#[cfg(not(target_os = "linux"))]
fn is_on(_: &Path, _: &[i64]) -> bool {
    false
}

/// Scans the inputs of a run.
///
/// * `folders`: input folders and mounts.
/// * `not_below`: folders that the run itself writes to.
pub(super) fn scan_inputs(folders: &[&Path], not_below: &[&Path]) -> Vec<InputState> {
    let not_below = ids(not_below);
    let (mut n_left, started) = (MAX_ENTRIES, Instant::now());
    let mut states: Vec<InputState> = Vec::new();
    for (folder, n_folders) in folders.iter().zip((1..=folders.len()).rev()) {
        // What one folder does not need is for those that follow.
        let share = MAX_TIME.saturating_sub(started.elapsed())
            / u32::try_from(n_folders).unwrap_or(u32::MAX);
        let walk = walk(
            folder,
            &not_below,
            n_left / n_folders as u64,
            Instant::now() + share,
        );
        n_left -= walk.n_entries;
        states.push(walk.state(folder));
    }
    states
}

/// Result of comparing an input with its earlier state.
pub(super) enum Change {
    None,
    /// A text that names one entry.
    Changed(String),
    /// There are more entries than can be compared in time.
    Unknown,
}

/// Compares an input with what was there before.
pub(super) fn compare(before: &InputState, not_below: &[&Path]) -> Change {
    compare_until(before, not_below, Instant::now() + 3 * MAX_TIME)
}

fn compare_until(before: &InputState, not_below: &[&Path], deadline: Instant) -> Change {
    let n_before = before.n_entries.unwrap_or(0);
    let max_entries = if before.is_whole {
        MAX_ENTRIES
    } else {
        n_before
    };
    let walk = walk(&before.path, &ids(not_below), max_entries, deadline);
    let now = walk.state(&before.path);
    match (before.n_entries, now.n_entries) {
        (Some(_), Some(_)) => {}
        (None, None) => return Change::None,
        (Some(_), None) => return Change::Changed("it is missing or cannot be read".to_owned()),
        (None, Some(_)) => {
            return Change::Changed("it was missing, or could not be read".to_owned());
        }
    }
    if walk.is_late {
        return Change::Unknown;
    }
    if (now.n_entries, &now.digest) == (before.n_entries, &before.digest) {
        return Change::None;
    }
    Change::Changed(walk.name_change(before))
}

/// State of a folder, as far as a walk has seen it.
struct Walk {
    digest: blake3::Hasher,
    n_entries: u64,
    is_readable: bool,
    is_whole: bool,
    /// True if the time was over before the entries were.
    is_late: bool,
    started: Timestamp,
    /// Latest time of modification of a file.
    newest: Option<Timestamp>,
    /// The file, and the folder, that was changed last in any way, with the time.
    last_file: Option<(Timestamp, PathBuf)>,
    last_folder: Option<(Timestamp, PathBuf)>,
}

fn ids(folders: &[&Path]) -> Vec<(u64, u64)> {
    folders
        .iter()
        .filter_map(|folder| folder.metadata().ok())
        .map(|metadata| (metadata.dev(), metadata.ino()))
        .collect()
}

fn walk(root: &Path, not_below: &[(u64, u64)], max_entries: u64, deadline: Instant) -> Walk {
    let mut walk = Walk {
        digest: blake3::Hasher::new(),
        n_entries: 0,
        is_readable: true,
        is_whole: true,
        is_late: false,
        started: Timestamp::now(),
        newest: None,
        last_file: None,
        last_folder: None,
    };
    let mut folders = VecDeque::from([PathBuf::new()]);
    while let Some(folder) = folders.pop_front() {
        let names = match sorted_names(&root.join(&folder), deadline) {
            Names::Sorted(names) => names,
            Names::Late => {
                (walk.is_whole, walk.is_late) = (false, true);
                return walk;
            }
            Names::TooMany(modified) => {
                // That changes at least when entries are added or removed.
                walk.digest.update(&modified.as_nanosecond().to_le_bytes());
                walk.is_whole = false;
                continue;
            }
            Names::Unreadable => {
                walk.is_readable &= !folder.as_os_str().is_empty();
                walk.is_whole = false;
                continue;
            }
        };
        for name in names {
            if walk.n_entries == max_entries {
                walk.is_whole = false;
                return walk;
            }
            if Instant::now() >= deadline {
                (walk.is_whole, walk.is_late) = (false, true);
                return walk;
            }
            let path = folder.join(name);
            let Ok(metadata) = root.join(&path).symlink_metadata() else {
                continue;
            };
            if metadata.is_dir() {
                if not_below.contains(&(metadata.dev(), metadata.ino())) {
                    continue;
                }
                folders.push_back(path.clone());
            }
            walk.add(path, &metadata);
        }
    }
    walk
}

/// The names in a folder.
enum Names {
    Sorted(Vec<OsString>),
    /// More than can be put into order; when the folder was modified.
    TooMany(Timestamp),
    Unreadable,
    /// The time is over.
    Late,
}

fn sorted_names(folder: &Path, deadline: Instant) -> Names {
    let Ok(entries) = fs::read_dir(folder) else {
        return Names::Unreadable;
    };
    let mut names = Vec::new();
    for entry in entries {
        let Ok(entry) = entry else {
            return Names::Unreadable;
        };
        if names.len() as u64 == MAX_ENTRIES {
            let Ok(metadata) = folder.metadata() else {
                return Names::Unreadable;
            };
            return Names::TooMany(timestamp(metadata.mtime(), metadata.mtime_nsec()));
        }
        if Instant::now() >= deadline {
            return Names::Late;
        }
        names.push(entry.file_name());
    }
    names.sort_unstable();
    Names::Sorted(names)
}

impl Walk {
    fn add(&mut self, path: PathBuf, metadata: &Metadata) {
        self.n_entries += 1;
        let modified = timestamp(metadata.mtime(), metadata.mtime_nsec());
        let changed = modified.max(timestamp(metadata.ctime(), metadata.ctime_nsec()));
        let name = path.as_os_str().as_bytes();
        self.digest.update(&(name.len() as u64).to_le_bytes());
        self.digest.update(name);
        self.digest
            .update(&(metadata.mode() & 0o170_000).to_le_bytes());
        let last = if metadata.is_dir() {
            &mut self.last_folder
        } else {
            self.digest.update(&metadata.size().to_le_bytes());
            self.digest.update(&modified.as_nanosecond().to_le_bytes());
            self.newest = self.newest.max(Some(modified));
            &mut self.last_file
        };
        if last.as_ref().is_none_or(|(time, _)| *time < changed) {
            *last = Some((changed, path));
        }
    }

    fn state(&self, folder: &Path) -> InputState {
        InputState {
            path: folder.to_owned(),
            scanned: self.started.to_string(),
            n_entries: self.is_readable.then_some(self.n_entries),
            newest: self.newest.map(|time| time.to_string()),
            digest: self.digest.finalize().to_hex().to_string(),
            is_whole: self.is_whole,
        }
    }

    /// An entry that has changed since a walk before, as far as its times show.
    fn name_change(&self, before: &InputState) -> String {
        let scanned = before.scanned.parse::<Timestamp>().unwrap_or_default();
        let is_later = |(time, _): &&(Timestamp, PathBuf)| *time >= scanned;
        let file = self.last_file.as_ref().filter(is_later);
        match (file, self.last_folder.as_ref().filter(is_later)) {
            (Some((_, path)), _) => format!("`{}` was added or changed", path.display()),
            (None, Some((_, path))) => {
                format!("entries of `{}` were added or removed", path.display())
            }
            (None, None) => "names, sizes or times of entries are not as they were".to_owned(),
        }
    }
}

fn timestamp(second: i64, nanosecond: i64) -> Timestamp {
    Timestamp::new(second, i32::try_from(nanosecond).unwrap_or_default()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn an_input_that_is_seen_in_part_is_compared_as_far_as_it_was_seen() {
        let folder = tempfile::tempdir().expect("a folder");
        let far = Instant::now() + Duration::from_secs(3600);
        for name in ["a", "b", "c", "d"] {
            fs::write(folder.path().join(name), name).expect("written");
        }
        let before = walk(folder.path(), &[], 3, far).state(folder.path());
        assert_eq!((before.n_entries, before.is_whole), (Some(3), false));
        assert!(matches!(compare_until(&before, &[], far), Change::None));
        // No entry is compared when the time is over before the first.
        assert!(matches!(
            compare_until(&before, &[], Instant::now()),
            Change::Unknown
        ));
        // `d` was not seen then, either.
        fs::write(folder.path().join("d"), "other").expect("written");
        assert!(matches!(compare_until(&before, &[], far), Change::None));
        fs::write(folder.path().join("aa"), "new").expect("written");
        let modify = |name: &str, time: SystemTime| {
            let file = File::options().write(true).open(folder.path().join(name));
            file.and_then(|file| file.set_modified(time)).expect("set");
        };
        // The clock of a file system can be some milliseconds behind the one of the walk.
        modify("aa", SystemTime::now() + Duration::from_secs(1));
        let Change::Changed(text) = compare_until(&before, &[], far) else {
            panic!("not noticed")
        };
        assert_eq!(text, "`aa` was added or changed");
    }
}
