//! Check that a disk has room for a call.

use std::io;
use std::path::Path;

use crate::model::HostError;
use crate::text::bytes_text;

/// Checks that the file system of a folder has at least `floor_bytes` free for this user.
///
/// # Errors
/// [`HostError::File`] with [`io::ErrorKind::StorageFull`] if it has less, or with the operating
/// system's error if the free space is unknown.
pub fn check_free_space(folder: &Path, floor_bytes: u64) -> Result<(), HostError> {
    let failed = HostError::file("find enough free space for a call in", folder);
    let free_bytes = match rustix::fs::statvfs(folder) {
        Ok(stat) => stat.f_bavail.saturating_mul(stat.f_frsize),
        Err(err) => return Err(failed(err.into())),
    };
    if free_bytes >= floor_bytes {
        return Ok(());
    }
    let (free, floor) = (bytes_text(free_bytes), bytes_text(floor_bytes));
    let text = format!("{free} are free, and the policy's host.free_space is {floor}");
    Err(failed(io::Error::new(io::ErrorKind::StorageFull, text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_floor_above_the_ceiling_is_not_met() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(check_free_space(folder.path(), 0).is_ok());
        assert!(check_free_space(folder.path(), 1).is_ok());
        let text = check_free_space(folder.path(), 1 << 62)
            .expect_err("too little")
            .chain();
        assert!(text.contains("host.free_space is "), "{text}");
    }
}
