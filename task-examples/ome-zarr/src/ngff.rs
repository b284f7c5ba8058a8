//! Metadata of OME-NGFF images, without the version, which [`crate::group::write`] adds.

use crate::pixel::PixelType;
use serde_json::{Value, json};

/// How a level of the pyramid is made of the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Downscaling {
    /// The mean of 2x2 pixels, as [`crate::pyramid::halve`] makes it: for intensities.
    Mean,
    /// Every second pixel of every second row, as [`crate::pyramid::take_every_second`] does: for
    /// labels.
    Nearest,
}

/// A channel as viewers show it.
#[derive(Debug, Clone, PartialEq)]
pub struct Channel {
    /// Its name for people.
    pub label: String,
    /// By which Fractal's tasks find it, if it has one.
    pub wavelength_id: Option<String>,
    /// Six hexadecimal digits: red, green, blue.
    pub color: String,
    /// The type of its pixels.
    pub pixel_type: PixelType,
    /// The smallest and the largest value of its pixels.
    pub window: [f64; 2],
}

/// A colour for the channel at `index`, for channels of which nothing is known.
pub fn color(index: usize) -> &'static str {
    const COLORS: [&str; 6] = ["00FFFF", "FF00FF", "FFFF00", "00FF00", "FF0000", "0000FF"];
    COLORS[index % COLORS.len()]
}

/// One entry of `multiscales`: levels `0`, `1`, ... of which each has half the width and height of
/// the one before.
///
/// * `axes`: the names of the axes in order, such as `czyx`; all but `c` are in micrometers.
/// * `scale`: for each axis the size of a pixel of level 0.
///
/// Source: OME-NGFF 0.4, "multiscales" metadata.
pub fn multiscales(
    name: &str,
    axes: &str,
    scale: &[f64],
    n_levels: usize,
    downscaling: Downscaling,
) -> Value {
    let datasets: Vec<Value> = (0..n_levels)
        .map(|level| {
            let scale: Vec<f64> = axes
                .chars()
                .zip(scale)
                .map(|(axis, size)| if "yx".contains(axis) { size * (1_u32 << level) as f64 } else { *size })
                .collect();
            json!({"path": level.to_string(), "coordinateTransformations": [{"type": "scale", "scale": scale}]})
        })
        .collect();
    let axes: Vec<Value> = axes
        .chars()
        .map(|axis| match axis {
            'c' => json!({"name": "c", "type": "channel"}),
            axis => json!({"name": axis, "type": "space", "unit": "micrometer"}),
        })
        .collect();
    let (kind, description) = match downscaling {
        Downscaling::Mean => (
            "mean",
            "each level is the mean of 2x2 pixels of the one before, rounded",
        ),
        Downscaling::Nearest => (
            "nearest",
            "each level has every second pixel of the one before",
        ),
    };
    json!({
        "name": name,
        "axes": axes,
        "datasets": datasets,
        "type": kind,
        "metadata": {"description": description},
    })
}

/// How viewers show the channels.
///
/// Source: OME-NGFF 0.4, "omero" metadata.
pub fn omero(name: &str, channels: &[Channel]) -> Value {
    let channels: Vec<Value> = channels
        .iter()
        .map(
            |Channel {
                 label,
                 wavelength_id,
                 color,
                 pixel_type,
                 window: [start, end],
             }| {
                // Viewers divide by the width of the window, which must not be 0.
                let end = if end > start { *end } else { start + 1.0 };
                let [min, max] = pixel_type.limits().unwrap_or([*start, end]);
                let mut channel = json!({
                    "label": label,
                    "color": color,
                    "active": true,
                    "coefficient": 1,
                    "family": "linear",
                    "inverted": false,
                    "window": {
                        "min": number(min),
                        "max": number(max),
                        "start": number(*start),
                        "end": number(end),
                    },
                });
                if let Some(wavelength_id) = wavelength_id {
                    channel["wavelength_id"] = json!(wavelength_id);
                }
                channel
            },
        )
        .collect();
    json!({"name": name, "channels": channels, "rdefs": {"model": "color"}})
}

/// A number of JSON: whole ones without a fraction. What JSON cannot have, such as an infinite
/// number, is 0.
pub fn number(value: f64) -> Value {
    const EXACT: f64 = (1_u64 << 53) as f64;
    if !value.is_finite() {
        json!(0)
    } else if value.trunc() == value && value.abs() < EXACT {
        json!(value as i64)
    } else {
        json!(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_width_and_height_are_halved() {
        let value = multiscales("a", "czyx", &[1.0, 2.0, 0.325, 0.325], 3, Downscaling::Mean);
        let scale = &value["datasets"][2]["coordinateTransformations"][0]["scale"];
        assert_eq!(scale, &json!([1.0, 2.0, 1.3, 1.3]));
        assert_eq!(
            value["axes"][1],
            json!({"name": "z", "type": "space", "unit": "micrometer"})
        );
    }

    #[test]
    fn a_constant_channel_has_a_window() {
        let channel = Channel {
            label: "C01".to_owned(),
            wavelength_id: Some("A01_C01".to_owned()),
            color: color(0).to_owned(),
            pixel_type: PixelType::U16,
            window: [7.0; 2],
        };
        let value = omero("a", &[channel]);
        assert_eq!(
            value["channels"][0]["window"],
            json!({"min": 0, "max": 65535, "start": 7, "end": 8})
        );
        assert_eq!(value["channels"][0]["wavelength_id"], "A01_C01");
    }
}
