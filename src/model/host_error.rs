//! Failures of the host itself.

use std::io;
use std::path::{Path, PathBuf};

/// A failed operation of the host. `Display` names only the operation; `Debug` and [`Self::chain`]
/// add the causes.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// A file or folder operation.
    #[error("failed to {action} {}", path.display())]
    File {
        /// The operation, as a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Error of the operating system.
        source: io::Error,
    },
    /// The WebAssembly runtime or its threads could not be set up.
    #[error("failed to {action}")]
    Setup {
        /// The operation, as a verb with its object.
        action: &'static str,
        /// Cause of the failure.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An operation that this backend does not support, in Fractal's words.
    #[error("{0}")]
    NotImplemented(String),
}

impl std::fmt::Debug for HostError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.chain())
    }
}

impl HostError {
    /// Returns a function for `map_err` on an operation with a file or folder.
    pub fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::File {
            action,
            path,
            source,
        }
    }

    /// Returns a function for `map_err` on setting up the runtime or its threads.
    pub fn setup<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
        action: &'static str,
    ) -> impl FnOnce(E) -> Self {
        move |source| Self::Setup {
            action,
            source: source.into(),
        }
    }

    /// Returns the error, its causes and the action to take, in one line.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(err) = cause {
            text.push_str(": ");
            text.push_str(&err.to_string());
            cause = err.source();
        }
        if let Self::File { source, .. } = self {
            text.push_str(match source.kind() {
                io::ErrorKind::PermissionDenied => {
                    "; give this user permission to access it, or choose another location"
                }
                io::ErrorKind::ReadOnlyFilesystem => "; choose a writable location",
                io::ErrorKind::StorageFull => "; free some space there",
                io::ErrorKind::FileTooLarge => "; raise the limit on file sizes (`ulimit -f`)",
                _ => "",
            });
        }
        text
    }
}
