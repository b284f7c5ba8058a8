//! Failures of the host itself.

use std::io;
use std::path::{Path, PathBuf};

/// An operation of the host that failed. Its text names the operation, its sources and its `Debug`
/// form the causes too.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// A file or folder operation.
    #[error("failed to {action} {}", path.display())]
    File {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// The WebAssembly runtime or its threads could not be set up.
    #[error("failed to {action}")]
    Setup {
        /// What was tried, as a verb with its object.
        action: &'static str,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What this backend cannot do, in Fractal's words.
    #[error("{0}")]
    NotImplemented(String),
}

impl std::fmt::Debug for HostError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.chain())
    }
}

impl HostError {
    /// For `map_err` on an operation with a file or folder.
    pub fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::File {
            action,
            path,
            source,
        }
    }

    /// For `map_err` on setting up the runtime or its threads.
    pub fn setup<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
        action: &'static str,
    ) -> impl FnOnce(E) -> Self {
        move |source| Self::Setup {
            action,
            source: source.into(),
        }
    }

    /// The error, its causes and what to do, in one line.
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
                    "; give this user the right to it, or choose another place"
                }
                io::ErrorKind::ReadOnlyFilesystem => "; choose a place that can be written",
                io::ErrorKind::StorageFull => "; make room there",
                io::ErrorKind::FileTooLarge => "; raise the limit on file sizes (`ulimit -f`)",
                _ => "",
            });
        }
        text
    }
}
