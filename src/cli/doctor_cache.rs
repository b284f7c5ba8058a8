//! Checks of the caches for `mandelbox doctor`. Is that of compiled modules writable, does it have
//! room, and can its code be mapped? How large is that of unpacked wheels?

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use rustix::fs::{StatVfsMountFlags, statvfs};

use crate::text::bytes_text;

/// Free bytes below which the cache counts as full: enough for the code of a large module, such as
/// an interpreter.
const ROOM_BYTES: u64 = 256 << 20;
/// Bytes written as a trial, since a quota may refuse what the file system could take.
const TRIAL_BYTES: usize = 1 << 20;

/// Returns the state of a cache folder, and advice if it is not good.
///
/// * `folder`: an existing folder, private to this user.
pub(super) fn state(folder: &Path) -> (String, Option<&'static str>) {
    let shown = folder.display();
    if let Err(err) = try_to_write(folder) {
        let advice = "modules are compiled again for each run; free space there, or set \
            XDG_CACHE_HOME to a folder on another disk";
        return (format!("{shown}: {err}"), Some(advice));
    }
    let Ok(stat) = statvfs(folder) else {
        return (shown.to_string(), None);
    };
    let free_bytes = stat.f_bavail.saturating_mul(stat.f_frsize);
    if free_bytes < ROOM_BYTES {
        let advice = "large modules may be compiled again for each run; free space there, or set \
            XDG_CACHE_HOME to a folder on another disk";
        return (
            format!("{shown}: {} are free", bytes_text(free_bytes)),
            Some(advice),
        );
    }
    if stat.f_flag.contains(StatVfsMountFlags::NOEXEC) {
        let advice = "compiled modules are read, not mapped, so large ones start slower and need \
            more memory; set XDG_CACHE_HOME to a folder on another disk";
        return (
            format!("{shown}: its file system is mounted noexec"),
            Some(advice),
        );
    }
    (shown.to_string(), None)
}

/// Returns the number and the size of the unpacked wheels in a folder.
pub(super) fn wheels(folder: &Path) -> String {
    let n_wheels = fs::read_dir(folder).map_or(0, Iterator::count);
    let text = match n_wheels {
        0 => "empty".to_owned(),
        1 => format!("1 wheel, {}", bytes_text(size_of(folder))),
        n => format!("{n} wheels, {}", bytes_text(size_of(folder))),
    };
    format!("{}: {text}", folder.display())
}

/// Returns the size of all files in a folder, without following links.
fn size_of(folder: &Path) -> u64 {
    let mut n_bytes = 0;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => folders.push(entry.path()),
                Ok(metadata) => n_bytes += metadata.len(),
                // It was removed meanwhile.
                Err(_) => {}
            }
        }
    }
    n_bytes
}

fn try_to_write(folder: &Path) -> io::Result<()> {
    let mut file = tempfile::Builder::new()
        .prefix(".new-")
        .tempfile_in(folder)?;
    file.write_all(&vec![0; TRIAL_BYTES])
}
