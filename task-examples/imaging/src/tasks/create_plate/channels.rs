//! The channels of the plates: those of the argument, or all of the files.

use crate::files::Found;
use crate::image::Channel;
use crate::name::Number;
use fractal_task::TaskError;
use ome_zarr::ngff;
use serde::Deserialize;
use std::collections::BTreeSet;

/// A channel that is used, and how it is shown.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ChannelChoice {
    id: String,
    #[serde(default)]
    label: Option<String>,
    #[serde(default)]
    color: Option<String>,
    #[serde(default)]
    wavelength_id: Option<String>,
}

pub(super) fn choose_channels(
    files: &Found,
    choices: &[ChannelChoice],
) -> Result<Vec<Channel>, TaskError> {
    let found: BTreeSet<&Number> = files.planes.keys().map(|id| &id.channel).collect();
    let all: Vec<ChannelChoice>;
    let choices = if choices.is_empty() {
        all = found
            .iter()
            .map(|id| ChannelChoice {
                id: id.to_string(),
                label: None,
                color: None,
                wavelength_id: None,
            })
            .collect();
        &all
    } else {
        choices
    };
    let mut channels: Vec<Channel> = Vec::new();
    for (
        index,
        ChannelChoice {
            id,
            label,
            color,
            wavelength_id,
        },
    ) in choices.iter().enumerate()
    {
        if !found.iter().any(|known| known.0 == *id) {
            let found: Vec<&str> = found.iter().map(|id| id.0.as_str()).collect();
            return Err(TaskError::new(format!(
                "channels: no file has the channel {id:?}; there are {}",
                found.join(", ")
            )));
        }
        if !id
            .chars()
            .all(|c| c.is_alphanumeric() || c == '-' || c == '_')
        {
            return Err(TaskError::new(format!(
                "channels: {id:?} has other characters than letters, digits, - and _; change it in the table, and give it a label"
            )));
        }
        if channels.iter().any(|channel| channel.id == *id) {
            return Err(TaskError::new(format!(
                "channels: {id:?} is there twice; take one of them away"
            )));
        }
        if let (None, Some([one, other])) = (label, files.label_conflicts.get(id)) {
            return Err(TaskError::new(format!(
                "channels: {id:?} is {one} in one plate and {other} in another; convert the plates one by one, state the \
                 channels in a table, or give it a label in the argument channels"
            )));
        }
        let label = label
            .as_ref()
            .or_else(|| files.labels.get(id))
            .unwrap_or(id);
        let default_color = match label.as_str() {
            "R" => "FF0000",
            "G" => "00FF00",
            "B" => "0000FF",
            _ => ngff::color(index),
        };
        let color = color.as_deref().unwrap_or(default_color).to_owned();
        if color.len() != 6 || !color.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(TaskError::new(format!(
                "channels: color {color:?} of {id} is not six hexadecimal digits"
            )));
        }
        let wavelength_id = wavelength_id.clone();
        channels.push(Channel {
            id: id.clone(),
            label: label.clone(),
            color,
            wavelength_id,
        });
    }
    Ok(channels)
}
