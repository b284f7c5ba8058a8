//! OME-XML, the description of OME-TIFF files: which page is which plane, channels, and sizes of
//! pixels.

use super::Stage;
use roxmltree::{Document, Node, ParsingOptions};
use std::collections::{BTreeMap, BTreeSet};

/// The most elements and attributes of a document.
const MAX_NODES: u32 = 4_000_000;
/// The most attributes of an element: the parser compares each with all others.
const MAX_ATTRIBUTES: usize = 1000;
/// The most planes of an image.
const MAX_PLANES: usize = 1 << 20;

/// An image of the document.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct OmeImage {
    pub(super) name: String,
    /// Names of the channels; empty texts for channels without one.
    pub(super) channels: Vec<String>,
    pub(super) pixel_size_um: Option<[f64; 2]>,
    pub(super) z_step_um: Option<f64>,
    /// Position of the first plane that has one.
    pub(super) stage: Option<Stage>,
    /// Number of planes that are in no file.
    pub(super) n_missing: usize,
    /// Number of Z planes in all files.
    pub(super) n_z: usize,
    /// True if other files have planes of the image.
    pub(super) has_others: bool,
    /// Pages in this file, by time point, Z plane and channel.
    pub(super) pages: BTreeMap<[usize; 3], usize>,
}

/// Reads the images of a document that have pages in this file.
///
/// * `file_name`: name of this file. A document may describe the planes of several files.
/// * `n_pages`: number of its pages.
///
/// Returns `None` if the text is no OME-XML, or only refers to another file.
///
/// # Errors
/// If the document is damaged.
///
/// Source: OME-TIFF specification, "The TiffData element".
pub(super) fn read(
    text: &str,
    file_name: &str,
    n_pages: usize,
) -> Result<Option<Vec<OmeImage>>, String> {
    let start = text.trim_start_matches('\u{feff}').trim_start();
    if !start.starts_with('<') || !start.contains("<OME") && !start.contains(":OME") {
        return Ok(None);
    }
    let tags = start
        .split('<')
        .map(|tag| tag.split_once('>').map_or(tag, |(tag, _)| tag));
    if tags.map(|tag| tag.matches('=').count()).max().unwrap_or(0) > MAX_ATTRIBUTES {
        return Err(format!(
            "an element of its OME-XML has more than {MAX_ATTRIBUTES} attributes"
        ));
    }
    let options = ParsingOptions {
        nodes_limit: MAX_NODES,
        ..ParsingOptions::default()
    };
    let document = Document::parse_with_options(start, options)
        .map_err(|err| format!("its OME-XML cannot be read ({err})"))?;
    let root = document.root_element();
    if root.tag_name().name() != "OME" {
        return Ok(None);
    }
    let is_ours = own_file(root, file_name);
    let mut images = Vec::new();
    for image in children(root, "Image") {
        for pixels in children(image, "Pixels") {
            let name = image.attribute("Name").unwrap_or_default();
            images.push(OmeImage {
                name: name.to_owned(),
                stage: stage(image, pixels),
                ..read_pixels(pixels, n_pages, &is_ours)?
            });
        }
    }
    if images.is_empty() {
        return Ok(None);
    }
    images.retain(|image| !image.pages.is_empty());
    Ok(Some(images))
}

/// The name of the file that has the OME-XML, if the document only refers to it.
///
/// Source: OME-TIFF specification, "Multi-file OME-TIFF filesets": the element BinaryOnly.
pub(super) fn metadata_file(text: &str) -> Option<String> {
    // Long documents are not parsed twice.
    if text.len() > 1 << 16 || !text.contains("BinaryOnly") {
        return None;
    }
    let document = Document::parse(text.trim_start_matches('\u{feff}').trim_start()).ok()?;
    let binary_only = children(document.root_element(), "BinaryOnly").next();
    let name = binary_only?.attribute("MetadataFile")?;
    // It is next to the file that refers to it.
    let is_name = !name.is_empty() && name != ".." && !name.contains(['/', '\\']);
    is_name.then(|| name.to_owned())
}

/// Returns a function that is true for the name of this file in the document. A document that names
/// one file is about this file even if it was renamed.
fn own_file(root: Node<'_, '_>, file_name: &str) -> impl Fn(&str) -> bool {
    let names: BTreeSet<&str> = root
        .descendants()
        .filter_map(|node| node.attribute("FileName"))
        .collect();
    let only = names.len() == 1;
    let file_name = file_name.to_owned();
    move |name| only || name == file_name
}

fn children<'a, 'i>(node: Node<'a, 'i>, name: &'static str) -> impl Iterator<Item = Node<'a, 'i>> {
    node.children()
        .filter(move |child| child.is_element() && child.tag_name().name() == name)
}

fn read_pixels(
    pixels: Node<'_, '_>,
    n_pages: usize,
    is_ours: &dyn Fn(&str) -> bool,
) -> Result<OmeImage, String> {
    let size = |name: &str| -> Result<usize, String> {
        let text = pixels.attribute(name).unwrap_or("1").trim();
        let size = text
            .parse()
            .ok()
            .filter(|size| (1..=MAX_PLANES).contains(size));
        size.ok_or_else(|| format!("{name} is {text:?} in its OME-XML"))
    };
    let (n_z, n_t, n_c) = (size("SizeZ")?, size("SizeT")?, size("SizeC")?);
    if n_z
        .checked_mul(n_t)
        .and_then(|n| n.checked_mul(n_c))
        .is_none_or(|n| n > MAX_PLANES)
    {
        return Err("its OME-XML has more than 1,000,000 planes".to_owned());
    }
    // The red, green and blue of a page are one channel with three samples.
    let channels: Vec<Node<'_, '_>> = children(pixels, "Channel").collect();
    let n_samples = channels
        .first()
        .and_then(|channel| channel.attribute("SamplesPerPixel")?.parse().ok());
    let n_channels = n_c.div_ceil(n_samples.unwrap_or(1).max(1));
    let name = |index: usize| {
        channels
            .get(index)
            .and_then(|channel| channel.attribute("Name"))
            .unwrap_or_default()
    };
    let sizes = [
        ("PhysicalSizeX", "PhysicalSizeXUnit"),
        ("PhysicalSizeY", "PhysicalSizeYUnit"),
    ];
    let [x, y] = sizes.map(|(size, unit)| length_um(pixels, size, unit));
    let mut order: Vec<usize> = pixels
        .attribute("DimensionOrder")
        .unwrap_or("XYCZT")
        .chars()
        .filter_map(|axis| "TZC".find(axis))
        .collect();
    order.extend(
        [2, 1, 0]
            .into_iter()
            .filter(|axis| !order.contains(axis))
            .collect::<Vec<_>>(),
    );
    let mut image = OmeImage {
        channels: (0..n_channels)
            .map(|index| name(index).to_owned())
            .collect(),
        pixel_size_um: x.or(y).zip(y.or(x)).map(|(x, y)| [x, y]),
        z_step_um: length_um(pixels, "PhysicalSizeZ", "PhysicalSizeZUnit"),
        ..OmeImage::default()
    };
    let shape = [n_t, n_z, n_channels];
    let n_planes: usize = shape.iter().product();
    let (mut has_data, mut has_others) = (false, false);
    for data in children(pixels, "TiffData") {
        has_data = true;
        let number = |name: &str| {
            data.attribute(name)
                .and_then(|text| text.trim().parse::<usize>().ok())
        };
        let file = children(data, "UUID").find_map(|uuid| uuid.attribute("FileName"));
        if file.is_some_and(|name| !is_ours(name)) {
            has_others = true;
            continue;
        }
        let first = ["FirstT", "FirstZ", "FirstC"].map(|name| number(name).unwrap_or(0));
        let default = if number("IFD").is_some() { 1 } else { n_planes };
        let n = number("PlaneCount").unwrap_or(default).min(n_planes);
        add_pages(
            &mut image.pages,
            (shape, &order),
            first,
            (number("IFD").unwrap_or(0), n),
            n_pages,
        );
    }
    if !has_data {
        add_pages(
            &mut image.pages,
            (shape, &order),
            [0; 3],
            (0, n_planes),
            n_pages,
        );
    }
    (image.n_z, image.has_others) = (n_z, has_others);
    if !has_others {
        image.n_missing = n_planes - image.pages.len();
    }
    Ok(image)
}

/// Numbers the planes in the order of their axes from a first one on.
///
/// * `order`: axes, as positions in the index of a plane, from the fastest.
fn add_pages(
    pages: &mut BTreeMap<[usize; 3], usize>,
    (shape, order): ([usize; 3], &[usize]),
    first: [usize; 3],
    (first_page, n): (usize, usize),
    n_pages: usize,
) {
    let mut index = first;
    for page in (first_page..).take(n) {
        if page >= n_pages || index.iter().zip(shape).any(|(index, size)| *index >= size) {
            return;
        }
        pages.insert(index, page);
        for &axis in order {
            index[axis] += 1;
            if index[axis] < shape[axis] || Some(&axis) == order.last() {
                break;
            }
            index[axis] = 0;
        }
    }
}

/// Position of the stage: that of the first plane with a position, or of the label of the stage.
///
/// Source: OME schema 2016-06. The default unit of both is "reference frame", which is no length.
fn stage(image: Node<'_, '_>, pixels: Node<'_, '_>) -> Option<Stage> {
    let position = |node: Node<'_, '_>, [x, y]: [(&str, &str); 2]| {
        let number = |name: &str| {
            let number: f64 = node.attribute(name)?.trim().parse().ok()?;
            number.is_finite().then_some(number)
        };
        let (x_value, y_value) = (number(x.0)?, number(y.0)?);
        let unit = |name: &str| node.attribute(name).and_then(super::um_per_unit);
        Some(match (unit(x.1), unit(y.1)) {
            (Some(x_unit), Some(y_unit)) => Stage::Um([x_value * x_unit, y_value * y_unit]),
            _ => Stage::OtherUnit,
        })
    };
    let names = [
        ("PositionX", "PositionXUnit"),
        ("PositionY", "PositionYUnit"),
    ];
    let label = [("X", "XUnit"), ("Y", "YUnit")];
    let of_planes = children(pixels, "Plane").find_map(|plane| position(plane, names));
    let of_label = || children(image, "StageLabel").find_map(|stage| position(stage, label));
    match of_planes {
        Some(Stage::Um(stage)) => Some(Stage::Um(stage)),
        other => of_label().or(other),
    }
}

fn length_um(pixels: Node<'_, '_>, size: &str, unit: &str) -> Option<f64> {
    let value: f64 = pixels.attribute(size)?.trim().parse().ok()?;
    let length = value * super::um_per_unit(pixels.attribute(unit).unwrap_or("µm"))?;
    (length.is_finite() && length > 0.0).then_some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(pixels: &str, data: &str) -> String {
        format!(
            "<?xml version=\"1.0\"?><OME xmlns=\"http://www.openmicroscopy.org/Schemas/OME/2016-06\"><Image ID=\"Image:0\" \
             Name=\"a\"><Pixels {pixels}><Channel Name=\"DAPI\"/><Channel/>{data}</Pixels></Image></OME>"
        )
    }

    fn pages(image: &OmeImage) -> Vec<([usize; 3], usize)> {
        image
            .pages
            .iter()
            .map(|(index, page)| (*index, *page))
            .collect()
    }

    #[test]
    fn the_order_of_the_axes_numbers_the_pages() {
        let pixels = "DimensionOrder=\"XYZCT\" SizeX=\"4\" SizeY=\"4\" SizeZ=\"2\" SizeC=\"2\" SizeT=\"1\" \
                      PhysicalSizeX=\"325\" PhysicalSizeXUnit=\"nm\" PhysicalSizeZ=\"1.5\"";
        let images = read(&document(pixels, "<TiffData/>"), "a.ome.tif", 4)
            .unwrap()
            .unwrap();
        assert_eq!(images[0].channels, ["DAPI", ""]);
        assert_eq!(
            (images[0].pixel_size_um, images[0].z_step_um),
            (Some([0.325; 2]), Some(1.5))
        );
        assert_eq!(
            pages(&images[0]),
            [
                ([0, 0, 0], 0),
                ([0, 0, 1], 2),
                ([0, 1, 0], 1),
                ([0, 1, 1], 3)
            ]
        );
    }

    #[test]
    fn planes_of_other_files_are_left_out() {
        let pixels = "DimensionOrder=\"XYCZT\" SizeZ=\"2\" SizeC=\"1\" SizeT=\"1\"";
        let data = "<TiffData FirstZ=\"0\" IFD=\"0\"><UUID FileName=\"a.tif\">1</UUID></TiffData>\
                    <TiffData FirstZ=\"1\" IFD=\"0\"><UUID FileName=\"b.tif\">2</UUID></TiffData>";
        let images = read(&document(pixels, data), "b.tif", 1).unwrap().unwrap();
        assert_eq!(pages(&images[0]), [([0, 1, 0], 0)]);
        assert_eq!(
            read(&document(pixels, data), "c.tif", 1).unwrap().unwrap(),
            []
        );
        let only = "<TiffData><UUID FileName=\"old.tif\">1</UUID></TiffData>";
        assert_eq!(
            read(&document(pixels, only), "new.tif", 2)
                .unwrap()
                .unwrap()[0]
                .pages
                .len(),
            2
        );
    }

    #[test]
    fn positions_of_the_stage_need_a_unit() {
        let pixels = "SizeZ=\"1\" SizeC=\"1\" SizeT=\"1\"";
        let stage = |plane: &str| {
            let text = document(pixels, &format!("<Plane TheZ=\"0\"/><Plane {plane}/>"));
            read(&text, "a", 1).unwrap().unwrap()[0].stage
        };
        let mm = "PositionX=\"-1.5\" PositionXUnit=\"mm\" PositionY=\"0\" PositionYUnit=\"µm\"";
        assert_eq!(stage(mm), Some(Stage::Um([-1500.0, 0.0])));
        let frame = "PositionX=\"1\" PositionY=\"2\"";
        assert_eq!(stage(frame), Some(Stage::OtherUnit));
        assert_eq!(stage("PositionX=\"1\""), None);
        let label = "<Image ID=\"Image:0\"><StageLabel Name=\"a\" X=\"3\" XUnit=\"nm\" Y=\"4\" YUnit=\"nm\"/>";
        let text = document(pixels, "").replacen("<Image ID=\"Image:0\" Name=\"a\">", label, 1);
        let image = &read(&text, "a", 1).unwrap().unwrap()[0];
        assert_eq!(image.stage, Some(Stage::Um([0.003, 0.004])));
    }

    #[test]
    fn other_texts_and_bombs_are_refused() {
        assert_eq!(read("{\"shape\": [3]}", "a", 1), Ok(None));
        assert_eq!(read("<MetaData/>", "a", 1), Ok(None));
        assert!(read("<OME><Image></OME>", "a", 1).is_err());
        let bomb = "<!DOCTYPE OME [<!ENTITY a \"aaaa\"><!ENTITY b \"&a;&a;&a;\">]><OME>&b;</OME>";
        assert!(read(bomb, "a", 1).is_err());
        let many: String = (0..2000).map(|index| format!(" a{index}=\"\"")).collect();
        assert!(
            read(&format!("<OME{many}/>"), "a", 1)
                .unwrap_err()
                .contains("more than 1000 attributes")
        );
        assert!(
            read(&document("SizeZ=\"0\"", ""), "a", 1)
                .unwrap_err()
                .contains("SizeZ is \"0\"")
        );
        let huge = "SizeZ=\"1000000\" SizeC=\"1000000\"";
        assert!(
            read(&document(huge, ""), "a", 1)
                .unwrap_err()
                .contains("more than 1,000,000 planes")
        );
    }
}
