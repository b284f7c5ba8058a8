//! The layers of confinement of a worker process, and the state of each.
//!
//! `mandelbox doctor` and a run's log report them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A layer of confinement. The layers are independent: one may stop what another lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layer {
    /// Landlock: opens, creates and removes files only below the granted folders.
    Files,
    /// Landlock: binds and connects to no TCP port.
    Network,
    /// Landlock: no signal to another process, no connection to its abstract unix socket.
    Scopes,
    /// seccomp: allows only the system calls that guests need. Sockets, processes and file modes
    /// are not among them.
    SystemCalls,
    /// No Linux capabilities, or only those for other users' files in the granted folders.
    Capabilities,
    /// `no_new_privs`: executing a program grants no privileges.
    NoNewPrivileges,
    /// Not dumpable: other processes of the same user cannot read its memory, and it writes no
    /// core file.
    Memory,
}

impl Layer {
    /// All layers.
    pub const ALL: [Self; 7] = [
        Self::Files,
        Self::Network,
        Self::Scopes,
        Self::SystemCalls,
        Self::Capabilities,
        Self::NoNewPrivileges,
        Self::Memory,
    ];

    /// Name in JSON and in the log.
    pub fn name(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::Network => "network",
            Self::Scopes => "scopes",
            Self::SystemCalls => "system_calls",
            Self::Capabilities => "capabilities",
            Self::NoNewPrivileges => "no_new_privileges",
            Self::Memory => "memory",
        }
    }
}

/// State of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LayerState {
    /// In force.
    InForce,
    /// In force as far as this kernel supports it.
    Partly,
    /// Not in force: the kernel or an outer sandbox lacks or refuses it.
    Missing,
}

impl LayerState {
    /// Name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::InForce => "in_force",
            Self::Partly => "partly",
            Self::Missing => "missing",
        }
    }
}

/// Report of one layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerReport {
    /// The layer.
    pub layer: Layer,
    /// Its state.
    pub state: LayerState,
    /// The mechanism, or why it is not in force.
    pub detail: String,
}

/// Confinement of a worker process: one report per layer, in the order of [`Layer::ALL`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement(pub Vec<LayerReport>);

impl Confinement {
    /// Returns the state of a layer; [`LayerState::Missing`] if there is no report.
    pub fn state(&self, layer: Layer) -> LayerState {
        let report = self.0.iter().find(|report| report.layer == layer);
        report.map_or(LayerState::Missing, |report| report.state)
    }

    /// Returns true if every layer is in force.
    pub fn is_whole(&self) -> bool {
        Layer::ALL
            .into_iter()
            .all(|layer| self.state(layer) == LayerState::InForce)
    }

    pub(super) fn add(&mut self, layer: Layer, state: LayerState, detail: impl Into<String>) {
        self.0.push(LayerReport {
            layer,
            state,
            detail: detail.into(),
        });
    }
}

impl fmt::Display for Confinement {
    /// One line: `files: in force (Landlock 7); network: missing (...)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (
            index,
            LayerReport {
                layer,
                state,
                detail,
            },
        ) in self.0.iter().enumerate()
        {
            let separator = if index == 0 { "" } else { "; " };
            let words = state.name().replace('_', " ");
            write!(f, "{separator}{}: {words} ({detail})", layer.name())?;
        }
        Ok(())
    }
}
