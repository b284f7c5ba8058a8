//! Kinds of modules.

use serde::{Deserialize, Serialize};

/// Kind of a module, determined from its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ModuleKind {
    /// A core module of WASI preview 1 with `_start`, or with `_initialize` and an export with the
    /// empty name.
    CommandP1,
    /// A component of WASI 0.2 that exports `wasi:cli/run`.
    CommandP2,
    /// A component of the world in `wit/task.wit`.
    Typed,
}

impl std::fmt::Display for ModuleKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::CommandP1 => "command (WASI preview 1 core module)",
            Self::CommandP2 => "command (WASI 0.2 component)",
            Self::Typed => "typed task (component of the world mandelbox:task)",
        })
    }
}
