//! Descriptions of TIFF files by ImageJ, MetaMorph and tifffile.

use serde_json::Value;

/// What a description states about the planes of a file.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Description {
    /// Numbers of time points, Z planes and channels; channels are the fastest.
    pub(super) shape: Option<[usize; 3]>,
    /// Micrometers of one unit of the resolution in x and y.
    pub(super) um_per_unit: Option<[f64; 2]>,
    pub(super) pixel_size_um: Option<[f64; 2]>,
    pub(super) z_step_um: Option<f64>,
    pub(super) stage_um: Option<[f64; 2]>,
    /// True if the planes may lie behind the only page of the file.
    pub(super) may_be_raw: bool,
    /// True if it states which axis is what.
    pub(super) has_axes: bool,
    /// Order of the axes from the slowest, as positions in `shape`.
    pub(super) order: Option<[usize; 3]>,
}

/// Reads a description; one of another form states nothing.
pub(super) fn read(text: &str) -> Description {
    let text = text.trim_start();
    if text.starts_with("ImageJ=") {
        read_imagej(text)
    } else if text.starts_with("<MetaData>") || text.contains("spatial-calibration-x") {
        read_metamorph(text)
    } else if text.starts_with('{') {
        read_tifffile(text)
    } else {
        Description::default()
    }
}

/// Source: ImageJ, `ij.io.FileSaver.getDescriptionString`.
fn read_imagej(text: &str) -> Description {
    let value = |key: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
            .map(str::trim)
    };
    let number = |key: &str| {
        value(key)
            .and_then(|text| text.parse::<usize>().ok())
            .filter(|&n| n > 0)
    };
    let n_images = number("images").unwrap_or(1);
    let shape = ["frames", "slices", "channels"].map(|key| number(key).unwrap_or(1));
    let n = shape
        .iter()
        .try_fold(1_usize, |n, &size| n.checked_mul(size));
    // Without axes the images are a stack.
    let shape = if n == Some(n_images) {
        shape
    } else {
        [1, n_images, 1]
    };
    // The units of y and z are stated if they differ from that of x.
    let unit = |key: &str| value(key).or(value("unit")).and_then(super::um_per_unit);
    // ImageJ writes a negative distance for planes from the top down.
    let spacing = value("spacing")
        .and_then(|text| text.parse::<f64>().ok())
        .map(f64::abs)
        .filter(|n| n.is_finite() && *n > 0.0);
    Description {
        shape: Some(shape),
        um_per_unit: unit("unit").zip(unit("yunit")).map(|(x, y)| [x, y]),
        z_step_um: unit("zunit")
            .zip(spacing)
            .map(|(unit, spacing)| unit * spacing),
        may_be_raw: true,
        has_axes: true,
        ..Description::default()
    }
}

/// Source: files of MetaXpress: `<prop id="spatial-calibration-x" type="float" value="0.65"/>`. The
/// positions of the stage are in micrometers, as in the MetaXpress reader of faim-ipa; some versions
/// of MetaXpress write them under the name of the microscope only.
fn read_metamorph(text: &str) -> Description {
    let value = |id: &str| {
        let (_, rest) = text.split_once(&format!("id=\"{id}\""))?;
        let (tag, _) = rest.split_once('>')?;
        tag.split_once("value=\"")?
            .1
            .split_once('"')
            .map(|(value, _)| value)
    };
    let number = |id: &str| {
        value(id)?
            .parse::<f64>()
            .ok()
            .filter(|size| size.is_finite() && *size > 0.0)
    };
    let unit = value("spatial-calibration-units").and_then(super::um_per_unit);
    let is_on =
        value("spatial-calibration-state").is_none_or(|state| state.eq_ignore_ascii_case("on"));
    let sizes = number("spatial-calibration-x")
        .zip(number("spatial-calibration-y"))
        .zip(unit);
    let sizes = sizes
        .filter(|_| is_on)
        .map(|((x, y), unit)| [x * unit, y * unit]);
    let position = |id: &str| {
        let position = value(id)?.trim().parse::<f64>().ok();
        position.filter(|position| position.is_finite())
    };
    let stage = |names: [&str; 2]| position(names[0]).zip(position(names[1]));
    let stage = stage(["stage-position-x", "stage-position-y"])
        .or_else(|| stage(["ImageXpress Micro X", "ImageXpress Micro Y"]));
    Description {
        pixel_size_um: sizes,
        stage_um: stage.map(|(x, y)| [x, y]),
        ..Description::default()
    }
}

/// Source: tifffile, the keys `axes`, `shape` and `truncated` of its own descriptions.
fn read_tifffile(text: &str) -> Description {
    let Ok(value) = serde_json::from_str::<Value>(text) else {
        return Description::default();
    };
    let sizes = value["shape"].as_array().and_then(|sizes| {
        let size = |size: &Value| {
            size.as_u64()
                .filter(|size| (1..=1 << 20).contains(size))
                .map(|size| size as usize)
        };
        sizes.iter().map(size).collect::<Option<Vec<usize>>>()
    });
    let Some(sizes) = sizes else {
        return Description::default();
    };
    // The file has one page, and the pixels of all planes.
    let may_be_raw = value["truncated"] == true;
    let Some(axes) = value["axes"].as_str() else {
        let n = sizes[..sizes.len().saturating_sub(2)]
            .iter()
            .try_fold(1_usize, |n, &size| n.checked_mul(size));
        let shape = n.filter(|_| may_be_raw).map(|n| [1, n, 1]);
        return Description {
            shape,
            may_be_raw,
            ..Description::default()
        };
    };
    let (mut shape, mut order) = ([1; 3], Vec::new());
    for (axis, size) in axes.chars().zip(sizes) {
        let Some(index) = "TZC".find(axis) else {
            continue;
        };
        shape[index] = size;
        order.push(index);
    }
    order.extend(
        (0..3)
            .filter(|index| !order.contains(index))
            .collect::<Vec<_>>(),
    );
    Description {
        shape: Some(shape),
        order: order.try_into().ok(),
        may_be_raw,
        has_axes: true,
        ..Description::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imagej_states_axes_and_sizes() {
        let text = "ImageJ=1.54f\nimages=6\nchannels=2\nslices=3\nhyperstack=true\nunit=\\u00B5m\nspacing=2.5\n";
        let found = read(text);
        assert_eq!(
            (found.shape, found.um_per_unit, found.z_step_um),
            (Some([1, 3, 2]), Some([1.0; 2]), Some(2.5))
        );
        let text = "ImageJ=1.54f\nimages=2\nslices=2\nunit=nm\nyunit=mm\nzunit=um\nspacing=-2\n";
        let found = read(text);
        assert_eq!(
            (found.um_per_unit, found.z_step_um),
            (Some([1e-3, 1e3]), Some(2.0))
        );
        assert_eq!(read("ImageJ=1.11a\nimages=4\n").shape, Some([1, 4, 1]));
        assert_eq!(
            read("ImageJ=1.11a\nimages=2\nunit=pixel\nspacing=1.0\n").z_step_um,
            None
        );
    }

    #[test]
    fn metamorph_states_sizes() {
        let prop = |id: &str, value: &str| {
            format!("<prop id=\"{id}\" type=\"float\" value=\"{value}\"/>\n")
        };
        let text = ["x", "y"]
            .map(|axis| prop(&format!("spatial-calibration-{axis}"), "0.65"))
            .concat();
        let text = format!(
            "<MetaData>\n{text}{}",
            prop("spatial-calibration-units", "um")
        );
        assert_eq!(read(&text).pixel_size_um, Some([0.65; 2]));
        assert_eq!(read(&text).stage_um, None);
        let stage = ["x", "y"].map(|axis| prop(&format!("stage-position-{axis}"), "-1.5"));
        let off = format!(
            "{text}{}{}",
            prop("spatial-calibration-state", "off"),
            stage.concat()
        );
        assert_eq!(read(&off).stage_um, Some([-1.5; 2]));
        assert_eq!(read(&off).pixel_size_um, None);
    }

    #[test]
    fn tifffile_states_axes() {
        let found = read("{\"axes\": \"CZYX\", \"shape\": [2, 3, 24, 32]}");
        assert_eq!(
            (found.shape, found.order),
            (Some([1, 3, 2]), Some([2, 1, 0]))
        );
        assert_eq!(read("{\"shape\": [3, 24, 32]}"), Description::default());
        let found = read("{\"shape\": [3, 24, 32], \"truncated\": true}");
        assert_eq!(
            (found.shape, found.may_be_raw, found.has_axes),
            (Some([1, 3, 1]), true, false)
        );
        assert_eq!(read("anything"), Description::default());
    }
}
