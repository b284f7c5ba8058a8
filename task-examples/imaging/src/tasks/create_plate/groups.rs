//! The plates that are created: one for each plate of the files, or one for several cycles.

use super::Args;
use crate::files::Found;
use crate::name::is_plate;
use fractal_task::TaskError;
use std::collections::BTreeSet;

/// A plate that is created, with the plates of the files that are its acquisitions.
pub(super) struct Group {
    pub(super) name: String,
    pub(super) sources: Vec<String>,
}

pub(super) fn group_plates(found: &Found, args: &Args) -> Result<Vec<Group>, TaskError> {
    let found: BTreeSet<&str> = found.planes.keys().map(|id| id.plate.as_str()).collect();
    let mut groups: Vec<Group> = Vec::new();
    if let Some(first) = args.acquisitions.first() {
        if let Some(unknown) = args
            .acquisitions
            .iter()
            .find(|name| !found.contains(name.as_str()))
        {
            let found: Vec<&str> = found.into_iter().collect();
            return Err(TaskError::new(format!(
                "acquisitions: no file belongs to a plate {unknown:?}; there are {}",
                found.join(", ")
            )));
        }
        let name = args.plate_name.as_ref().unwrap_or(first).clone();
        if !is_plate(&name) {
            return Err(TaskError::new(format!(
                "plate_name {name:?} cannot be the name of a folder"
            )));
        }
        groups.push(Group {
            name,
            sources: args.acquisitions.clone(),
        });
    }
    let others = found
        .into_iter()
        .filter(|name| !args.acquisitions.iter().any(|known| known == name));
    groups.extend(others.map(|name| Group {
        name: name.to_owned(),
        sources: vec![name.to_owned()],
    }));
    for (index, group) in groups.iter().enumerate() {
        let mut sources = group.sources.clone();
        sources.sort();
        sources.dedup();
        if sources.len() < group.sources.len()
            || groups[..index].iter().any(|other| other.name == group.name)
        {
            return Err(TaskError::new(format!(
                "acquisitions: {} would be written twice; correct acquisitions and plate_name",
                group.name
            )));
        }
    }
    Ok(groups)
}
