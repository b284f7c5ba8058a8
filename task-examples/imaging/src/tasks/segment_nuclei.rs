//! The task "Segment nuclei": the nuclei of one projected image, as OME-NGFF labels.

use super::Given;
use crate::image::{Image, labels};
use crate::name::Component;
use crate::replace::replace_folder;
use crate::segmentation::{Segmentation, Settings, segment};
use crate::{region, stored};
use fractal_task::TaskError;
use ome_zarr::ngff;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::json;

/// The arguments.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Args {
    #[serde(default)]
    channel: Option<String>,
    #[serde(default = "default_label_name")]
    label_name: String,
    #[serde(default = "default_smoothing_sigma")]
    smoothing_sigma: f64,
    #[serde(default)]
    threshold: Option<f64>,
    #[serde(default = "default_split_sigma")]
    split_sigma: f64,
    #[serde(default = "default_min_distance")]
    min_distance: usize,
    #[serde(default = "default_min_area")]
    min_area: usize,
}

/// The name of the labels, also for the tasks that read them.
pub(super) fn default_label_name() -> String {
    "nuclei".to_owned()
}

pub(super) fn default_smoothing_sigma() -> f64 {
    1.0
}

pub(super) fn default_split_sigma() -> f64 {
    1.0
}

pub(super) fn default_min_distance() -> usize {
    7
}

pub(super) fn default_min_area() -> usize {
    50
}

/// The metadiff.
#[derive(Debug, Serialize)]
pub struct Segmented {
    pub(super) n_objects: usize,
    /// Objects are brighter than this.
    #[serde(serialize_with = "serialize_number")]
    pub(super) threshold: f64,
}

/// Writes a number without a fraction, if it has none.
fn serialize_number<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    ngff::number(*value).serialize(serializer)
}

/// Refuses a name of labels that is no name of a folder.
pub(super) fn check_label_name(name: &str) -> Result<(), TaskError> {
    if !crate::name::is_plate(name) {
        let cause = "cannot be the name of a folder; choose one such as \"nuclei\"";
        return Err(TaskError::new(format!("label_name {name:?} {cause}")));
    }
    // The tables of the labels have their name, too.
    if ["FOV", "well"].contains(&name) || name.ends_with("_ROI_table") {
        let cause =
            "would give its tables the names of other tables; choose one such as \"nuclei\"";
        return Err(TaskError::new(format!("label_name {name:?} {cause}")));
    }
    Ok(())
}

/// Segments one image.
///
/// # Errors
/// If an argument is out of range, the image cannot be read, has no such channel or several planes,
/// or a file cannot be written. Labels that were there before stay then.
pub fn segment_nuclei(given: &Given, args: Args) -> Result<Segmented, TaskError> {
    let Args {
        smoothing_sigma,
        threshold,
        split_sigma,
        min_distance,
        min_area,
        ..
    } = args;
    let settings = Settings {
        smoothing_sigma,
        threshold,
        split_sigma,
        min_distance,
        min_area,
    };
    settings.check()?;
    let name = args.label_name;
    check_label_name(&name)?;
    let folder = Component::parse_image(&given.component)?.folder(&given.output_path);
    let image = Image::open(&folder)?;
    let channel = args
        .channel
        .map_or(Ok(0), |channel| image.acquisition.find_channel(&channel))?;
    let Segmentation {
        labels: plane,
        n_objects,
        threshold,
    } = segment(&image.read_projection(channel)?, &settings)
        .map_err(|err| TaskError::about("cannot segment", &folder, err))?;
    let about = json!({
        "channel": image.acquisition.channels[channel].id,
        "settings": settings,
        "threshold": ngff::number(threshold),
        "n_objects": n_objects,
    });
    let boxes = region::bounding_boxes(&plane);
    let format = image.storage().format;
    replace_folder(&labels::folder(&folder, &name), |part| {
        labels::write(
            part,
            &name,
            plane,
            &image.acquisition,
            image.storage(),
            &about,
        )
    })?;
    labels::add_to_list(&folder, format, &name)?;
    stored::write_bounding_boxes(
        &folder,
        format,
        &name,
        &image.acquisition,
        &boxes,
        image.n_planes(),
    )?;
    Ok(Segmented {
        n_objects,
        threshold,
    })
}
