//! Folders that a guest can access.

use std::path::PathBuf;

/// Access rights of a guest below a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rights {
    /// Read and list.
    ReadOnly,
    /// Read, list, write, create and remove.
    ReadWrite,
}

/// A folder that a guest can access.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Grant {
    /// The folder on the host.
    pub host_path: PathBuf,
    /// Path of the folder in the guest.
    pub guest_path: String,
    /// Access rights of the guest.
    pub rights: Rights,
    /// Device and inode of the folder. If another folder has the path by the time of a call, that
    /// folder is not opened. `None`: not checked, for a folder that nobody else can replace.
    #[serde(default)]
    pub identity: Option<(u64, u64)>,
}

impl Grant {
    /// Creates a grant for whichever folder is at the path at the time of a call.
    pub fn new(host_path: PathBuf, guest_path: impl Into<String>, rights: Rights) -> Self {
        Self {
            host_path,
            guest_path: guest_path.into(),
            rights,
            identity: None,
        }
    }
}
