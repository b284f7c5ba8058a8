//! Format of a module: core module or WASM component.

use super::not_wasm::why_not_wasm;

/// Format of a module, from its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ModuleFormat {
    /// Core module.
    Core,
    /// WASM component.
    Component,
}

impl ModuleFormat {
    /// Detects the format of a module. The error is a sentence for the user.
    pub(super) fn of(bytes: &[u8]) -> Result<Self, String> {
        match bytes {
            [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => Ok(Self::Core),
            [0, b'a', b's', b'm', _, _, 1, 0, ..] => Ok(Self::Component),
            _ => Err(why_not_wasm(bytes)),
        }
    }
}

impl std::fmt::Display for ModuleFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Core => "core module",
            Self::Component => "WASM component",
        })
    }
}
