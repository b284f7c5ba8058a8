//! The form of each task for Fractal v2.

use super::image_url::{ImageUrl, Selection};
use super::{ForFolder, ForImage, ForImages, ForItem};
use crate::about;
use crate::image::{Acquisition, Image, read_acquisition};
use crate::name::Component;
use crate::plate::{Plate, plate_component};
use crate::replace::replace_folder;
use crate::tasks::estimate_illumination::{default_background, default_max_images, profile_folder};
use crate::tasks::segment_nuclei::check_label_name;
use crate::tasks::{
    NoArgs, contact_sheet, convert_images, copy_structure, correct_illumination, create_plate,
    estimate_illumination, measure_regions, merge_tables, project_maximum, segment_nuclei,
};
use fractal_task::TaskError;
use fractal_task::v2::{ImageUpdate, InitOutput, Item, TaskOutput};
use ome_zarr::group::Format;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Component as PathPart, Path, PathBuf};

/// Type of an image with several Z planes.
const IS_3D: &str = "is_3D";
/// Type of an image without the camera's background and the unevenness of the light.
const ILLUMINATION_CORRECTED: &str = "illumination_corrected";

/// The parameters of version 1 for the task that works on this image.
fn given_for(url: &ImageUrl) -> crate::tasks::Given {
    crate::tasks::Given {
        input_paths: Vec::new(),
        output_path: url.output(),
        metadata: crate::tasks::Metadata::default(),
        component: url.component.to_string(),
    }
}

/// Types with one entry.
fn types(name: &str, value: bool) -> BTreeMap<String, bool> {
    BTreeMap::from([(name.to_owned(), value)])
}

/// First call of "Convert images": creates the plates and their wells.
///
/// Returns an item for each image, with its files.
///
/// # Errors
/// As [`create_plate::create_plate`].
pub(super) fn create_plate(
    given: ForFolder,
    args: create_plate::Args,
) -> Result<InitOutput<Acquisition>, TaskError> {
    let zarr_dir = given.zarr_dir.trim_end_matches('/');
    let image_dir = resolve(Path::new(zarr_dir), Path::new(&given.image_dir));
    let mut items = Vec::new();
    create_plate::create(
        &[image_dir],
        Path::new(&given.zarr_dir),
        args,
        &mut |component, _, acquisition| {
            items.push(Item {
                zarr_url: format!("{zarr_dir}/{component}"),
                init_args: acquisition,
            });
            Ok(())
        },
    )?;
    Ok(InitOutput {
        parallelization_list: items,
    })
}

/// A relative path starts in the folder that contains `zarr_dir`. `.` and `..` are resolved here,
/// since a sandbox may lack the folders between.
pub(super) fn resolve(zarr_dir: &Path, path: &Path) -> PathBuf {
    let path = zarr_dir.parent().unwrap_or(zarr_dir).join(path);
    let mut resolved = PathBuf::new();
    for part in path.components() {
        match part {
            PathPart::CurDir => {}
            PathPart::ParentDir => drop(resolved.pop()),
            part => resolved.push(part),
        }
    }
    resolved
}

/// Call of "Convert images" for one image.
///
/// # Errors
/// As [`convert_images::convert_images`].
pub(super) fn convert_images(
    given: ForItem<Acquisition>,
    args: convert_images::Args,
) -> Result<TaskOutput, TaskError> {
    args.check()?;
    let ForItem {
        zarr_url,
        init_args: acquisition,
    } = given;
    let url = ImageUrl::parse(&zarr_url)?;
    let storage = args.storage(Format::of(
        &plate_component(&url.component.plate).folder(&url.output()),
    ));
    let [_, n_planes, ..] = convert_images::convert(&url.path(), &acquisition, storage)?.shape;
    let attributes = [
        ("plate".to_owned(), json!(url.plate())),
        ("well".to_owned(), json!(acquisition.well)),
        ("field".to_owned(), json!(acquisition.field)),
        // The acquisition that the metadata of the well name.
        ("acquisition".to_owned(), json!(acquisition.acquisition)),
    ];
    Ok(ImageUpdate {
        zarr_url,
        attributes: attributes.into_iter().collect(),
        types: types(IS_3D, n_planes > 1),
        ..ImageUpdate::default()
    }
    .into())
}

/// Arguments of the first call of "Estimate illumination".
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ChooseArgs {
    #[serde(default = "default_max_images")]
    max_images: usize,
}

/// Channel of a plate whose illumination is estimated.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Reference {
    /// Id of the channel.
    channel: String,
    /// URLs of the images that stand for the plate.
    images: Vec<String>,
}

/// First call of "Estimate illumination": chooses the reference images of each plate, and removes
/// old profiles.
///
/// Returns an item for each channel of each plate.
///
/// # Errors
/// If an argument is out of range, an image cannot be read, or a folder cannot be written.
pub(super) fn choose_images(
    given: ForImages,
    args: ChooseArgs,
) -> Result<InitOutput<Reference>, TaskError> {
    estimate_illumination::check_max_images(args.max_images)?;
    let mut items = Vec::new();
    for selection in Selection::of(&given.zarr_urls)? {
        let all = selection.images();
        let chosen = estimate_illumination::spread(&selection.plate, &all, args.max_images);
        let images: Vec<String> = chosen.iter().map(|image| image.url()).collect();
        let Some(first) = all.first() else { continue };
        let acquisitions: Vec<Acquisition> = chosen
            .iter()
            .map(|image| read_acquisition(&image.path()))
            .collect::<Result<_, _>>()?;
        let channels = estimate_illumination::channel_ids(acquisitions.iter());
        replace_folder(
            &profile_folder(&selection.output(), &selection.plate.name),
            |_| Ok(()),
        )?;
        items.extend(channels.into_iter().map(|channel| Item {
            zarr_url: first.url(),
            init_args: Reference {
                channel,
                images: images.clone(),
            },
        }));
    }
    Ok(InitOutput {
        parallelization_list: items,
    })
}

/// Arguments of a call of "Estimate illumination" for one channel.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EstimateArgs {
    #[serde(default = "default_background")]
    background: u16,
}

/// Call of "Estimate illumination" for one channel of one plate.
///
/// # Errors
/// As [`estimate_illumination::estimate_illumination`].
pub(super) fn estimate_illumination(
    given: ForItem<Reference>,
    args: EstimateArgs,
) -> Result<TaskOutput, TaskError> {
    let ForItem {
        zarr_url,
        init_args: Reference { channel, images },
    } = given;
    let url = ImageUrl::parse(&zarr_url)?;
    let plate = &url.component.plate;
    let paths: Vec<PathBuf> = images
        .iter()
        .map(|image| ImageUrl::parse(image).map(|url| url.path()))
        .collect::<Result<_, _>>()?;
    let images = estimate_illumination::open_images(paths.into_iter(), plate)?;
    if images.is_empty() {
        return Err(TaskError::new("init_args.images is empty"));
    }
    let folder = profile_folder(&url.output(), plate);
    fs::create_dir_all(&folder).map_err(about("cannot make the folder", &folder))?;
    estimate_illumination::write_profile(&folder, plate, &images, &channel, args.background)?;
    Ok(TaskOutput::default())
}

/// "Correct illumination" of one image.
///
/// # Errors
/// As [`correct_illumination::correct_illumination`].
pub(super) fn correct_illumination(
    given: ForImage,
    args: correct_illumination::Args,
) -> Result<TaskOutput, TaskError> {
    correct_illumination::correct_illumination(
        &given_for(&ImageUrl::parse(&given.zarr_url)?),
        args,
    )?;
    let types = types(ILLUMINATION_CORRECTED, true);
    Ok(ImageUpdate {
        zarr_url: given.zarr_url,
        types,
        ..ImageUpdate::default()
    }
    .into())
}

/// Image that is projected.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Origin {
    origin_url: String,
}

/// First call of "Project maximum intensity": creates plates for the projections of the selected
/// images.
///
/// Returns an item for each projection.
///
/// # Errors
/// As [`copy_structure::copy_structure`].
pub(super) fn copy_structure(
    given: ForImages,
    args: copy_structure::Args,
) -> Result<InitOutput<Origin>, TaskError> {
    args.check()?;
    let mut items = Vec::new();
    for selection in Selection::of(&given.zarr_urls)? {
        let name = format!("{}_{}", selection.plate.name, args.suffix);
        items.extend(selection.images().iter().map(|origin| {
            let target = ImageUrl {
                component: origin.component.in_plate(&name),
                ..origin.clone()
            };
            Item {
                zarr_url: target.url(),
                init_args: Origin {
                    origin_url: origin.url(),
                },
            }
        }));
        let output = selection.output();
        Plate {
            name,
            ..selection.plate
        }
        .write(&output, args.overwrite, &mut |_, _| Ok(()))?;
    }
    Ok(InitOutput {
        parallelization_list: items,
    })
}

/// Call of "Project maximum intensity" for one image.
///
/// # Errors
/// If the image cannot be read, or a file cannot be written.
pub(super) fn project_maximum(given: ForItem<Origin>, _: NoArgs) -> Result<TaskOutput, TaskError> {
    let ForItem {
        zarr_url,
        init_args: Origin { origin_url },
    } = given;
    let url = ImageUrl::parse(&zarr_url)?;
    project_maximum::project(&ImageUrl::parse(&origin_url)?.path(), &url.path())?;
    Ok(ImageUpdate {
        zarr_url,
        origin: Some(origin_url),
        attributes: [("plate".to_owned(), json!(url.plate()))]
            .into_iter()
            .collect(),
        types: types(IS_3D, false),
    }
    .into())
}

/// "Segment nuclei" of one image. The number of nuclei goes to the log, since outputs of version 2
/// have no place for it.
///
/// # Errors
/// As [`segment_nuclei::segment_nuclei`].
pub(super) fn segment_nuclei(
    given: ForImage,
    args: segment_nuclei::Args,
) -> Result<TaskOutput, TaskError> {
    let segmented =
        segment_nuclei::segment_nuclei(&given_for(&ImageUrl::parse(&given.zarr_url)?), args)?;
    println!(
        "{} nuclei, brighter than {}",
        segmented.n_objects, segmented.threshold
    );
    Ok(TaskOutput::default())
}

/// "Measure regions" of one image, whose table is `B03_0.csv`.
///
/// # Errors
/// As [`measure_regions::measure_regions`].
pub(super) fn measure_regions(
    given: ForImage,
    args: measure_regions::Args,
) -> Result<TaskOutput, TaskError> {
    let label_name = args.label_name;
    check_label_name(&label_name)?;
    let url = ImageUrl::parse(&given.zarr_url)?;
    let image = Image::open(&url.path())?;
    let rows = measure_regions::measure_image(&url.path(), &image, &label_name)?;
    println!("{} regions", rows.len());
    let (header, tables) = (
        measure_regions::columns(&image),
        measure_regions::table_folder(&url.output(), &url.component.plate),
    );
    measure_regions::store(&url.path(), &image, &label_name, &header, &rows)?;
    measure_regions::write_table(&tables, &table_name(&url.component), &header, rows)?;
    Ok(TaskOutput::default())
}

/// Name of the table of an image: `B03_0`.
pub(super) fn table_name(image: &Component) -> String {
    let well = image
        .well
        .as_ref()
        .map(ToString::to_string)
        .unwrap_or_default();
    format!("{well}_{}", image.image.as_deref().unwrap_or_default())
}

/// "Merge tables" of the selected images, plate by plate.
///
/// # Errors
/// As [`merge_tables::merge_tables`].
pub(super) fn merge_tables(given: ForImages, _: NoArgs) -> Result<TaskOutput, TaskError> {
    for selection in Selection::of(&given.zarr_urls)? {
        let (output, plate) = (selection.output(), &selection.plate);
        let folder = measure_regions::table_folder(&output, &plate.name);
        let tables = plate
            .image_components()
            .map(|image| measure_regions::table_file(&folder, &table_name(&image)));
        merge_tables::merge(&output, &plate.name, tables)?;
    }
    Ok(TaskOutput::default())
}

/// "Contact sheet" of the selected images, plate by plate.
///
/// # Errors
/// As [`contact_sheet::contact_sheet`].
pub(super) fn contact_sheet(
    given: ForImages,
    args: contact_sheet::Args,
) -> Result<TaskOutput, TaskError> {
    args.check()?;
    for selection in Selection::of(&given.zarr_urls)? {
        args.draw(&selection.output(), &selection.plate)?;
    }
    Ok(TaskOutput::default())
}
