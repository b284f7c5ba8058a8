//! Check of the cache of compiled modules for `mandelbox doctor`: is it writable, does it have
//! room, and can its code be mapped?

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

fn try_to_write(folder: &Path) -> io::Result<()> {
    let mut file = tempfile::Builder::new()
        .prefix(".new-")
        .tempfile_in(folder)?;
    file.write_all(&vec![0; TRIAL_BYTES])
}
