//! Landlock layers: files, TCP, and scopes (signals and abstract unix sockets).

use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, LandlockStatus, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, path_beneath_rules,
};

use super::super::layers::{Confinement, Layer, LayerState};
use crate::model::{Grant, Rights};

/// Newest Landlock ABI requested; an older kernel enforces what it supports.
const NEWEST: ABI = ABI::V10;
/// Layers with the ABI that introduced them and the ABI from which they are complete.
const LAYERS: [(Layer, ABI, ABI); 3] = [
    (Layer::Files, ABI::V1, ABI::V5),
    (Layer::Network, ABI::V4, ABI::V4),
    (Layer::Scopes, ABI::V6, ABI::V6),
];

/// Enforces the requested layers and reports their state.
pub(super) fn restrict(
    folders: &[Grant],
    has: &dyn Fn(Layer) -> bool,
    confinement: &mut Confinement,
) {
    let asked: Vec<_> = LAYERS
        .into_iter()
        .filter(|(layer, ..)| has(*layer))
        .collect();
    if asked.is_empty() {
        return;
    }
    let enforced = enforce(folders, has);
    for (layer, first, whole) in asked {
        let (state, detail) = match &enforced {
            Ok((RulesetStatus::NotEnforced, _)) => (
                LayerState::Missing,
                "this kernel has no Landlock".to_owned(),
            ),
            Ok((_, abi)) => {
                let state = match *abi {
                    abi if abi >= whole => LayerState::InForce,
                    abi if abi >= first => LayerState::Partly,
                    _ => LayerState::Missing,
                };
                (state, format!("Landlock ABI {}", *abi as u32))
            }
            Err(err) => (
                LayerState::Missing,
                format!("failed to set up Landlock: {err}"),
            ),
        };
        confinement.add(layer, state, detail);
    }
}

fn enforce(
    folders: &[Grant],
    has: &dyn Fn(Layer) -> bool,
) -> Result<(RulesetStatus, ABI), RulesetError> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    // All rights except executing programs and creating or controlling special files.
    let write = read
        | AccessFs::WriteFile
        | AccessFs::RemoveDir
        | AccessFs::RemoveFile
        | AccessFs::MakeDir
        | AccessFs::MakeReg
        | AccessFs::MakeSym
        | AccessFs::Refer
        | AccessFs::Truncate;
    let of = |rights: Rights| {
        let granted = folders
            .iter()
            .filter(move |grant| has(Layer::Files) && grant.rights == rights);
        granted
            .map(|grant| grant.host_path.as_path())
            .filter(|path| Path::exists(path))
    };
    let mut rules = Ruleset::default().set_compatibility(CompatLevel::BestEffort);
    if has(Layer::Files) {
        rules = rules.handle_access(AccessFs::from_all(NEWEST))?;
    }
    if has(Layer::Network) {
        rules = rules.handle_access(AccessNet::from_all(NEWEST))?;
    }
    if has(Layer::Scopes) {
        rules = rules.scope(Scope::from_all(NEWEST))?;
    }
    let status = rules
        .create()?
        .add_rules(path_beneath_rules(of(Rights::ReadOnly), read))?
        .add_rules(path_beneath_rules(of(Rights::ReadWrite), write))?
        .restrict_self()?;
    let abi = match status.landlock {
        LandlockStatus::Available { effective_abi, .. } => effective_abi,
        LandlockStatus::NotEnabled | LandlockStatus::NotImplemented => ABI::Unsupported,
    };
    Ok((status.ruleset, abi))
}
