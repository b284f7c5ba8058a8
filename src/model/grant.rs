//! Folders that a guest can access.

use std::path::PathBuf;

/// What a guest may do below a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rights {
    /// Read and list.
    ReadOnly,
    /// Read, list, write, create and remove.
    ReadWrite,
}

/// A folder that a guest sees.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Grant {
    /// The folder on the host.
    pub host_path: PathBuf,
    /// Its path for the guest.
    pub guest_path: String,
    /// What the guest may do there.
    pub rights: Rights,
    /// Device and inode of the folder: another one that has its path by the time of a call is not
    /// opened. `None`: not looked at, as for a folder that nobody else can replace.
    #[serde(default)]
    pub identity: Option<(u64, u64)>,
}

impl Grant {
    /// A grant of whatever folder is at a path.
    pub fn new(host_path: PathBuf, guest_path: impl Into<String>, rights: Rights) -> Self {
        Self {
            host_path,
            guest_path: guest_path.into(),
            rights,
            identity: None,
        }
    }
}
