//! A contact sheet: all wells of a plate as small pictures, at their places on the plate, with the
//! outlines of the regions.

use crate::name::Well;
use font8x8::legacy::BASIC_LEGACY;
use ome_zarr::plane::Plane;
use std::collections::BTreeMap;

/// Edge of a letter in pixels.
const LETTER: usize = 16;
/// Space between things.
const GAP: usize = 8;
/// Colours as red, green, blue.
const PAPER: [u8; 3] = [18, 18, 22];
const TEXT: [u8; 3] = [225, 225, 225];
const OUTLINE: [u8; 3] = [255, 214, 0];
const EMPTY: [u8; 3] = [36, 36, 42];
/// Shares of all pixels of a channel that are black and that are of full colour.
const BLACK_SHARE: f64 = 0.05;
const FULL_SHARE: f64 = 0.003;

/// A channel as it is drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Channel {
    /// For the legend.
    pub label: String,
    /// Red, green, blue.
    pub color: [u8; 3],
}

/// A small version of an image.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture {
    /// One plane a channel, all of one size.
    pub channels: Vec<Plane<f32>>,
    /// Its regions, of the same size.
    pub labels: Option<Plane<u32>>,
    /// The number of its regions.
    pub n_regions: usize,
}

/// What is drawn.
#[derive(Debug, Clone, PartialEq)]
pub struct Sheet {
    /// Above everything.
    pub title: String,
    /// In the order of the pictures' planes.
    pub channels: Vec<Channel>,
    /// The pictures of each well.
    pub wells: BTreeMap<Well, Vec<Picture>>,
    /// Width and height of a pixel of the pictures in micrometers.
    pub pixel_size_um: f64,
}

/// A picture of red, green and blue bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct Canvas {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `3 * width * height` values, row after row.
    pub rgb: Vec<u8>,
}

/// Width and height of a sheet, in pixels, whose pictures have a certain size.
///
/// * `n_rows`, `n_columns`: of the plate.
/// * `n_fields`: the most pictures that a well has.
pub fn size(
    n_rows: usize,
    n_columns: usize,
    n_fields: usize,
    picture: (usize, usize),
) -> (usize, usize) {
    let well = well_size(n_fields, picture);
    let (left, top) = grid_start();
    (
        left + n_columns * (well.0 + GAP) + GAP,
        top + n_rows * (well.1 + GAP) + LETTER + 3 * GAP,
    )
}

/// Draws a sheet.
pub fn draw(sheet: &Sheet) -> Canvas {
    let mut rows: Vec<&str> = sheet.wells.keys().map(|well| well.row.as_str()).collect();
    rows.dedup();
    let mut columns: Vec<&str> = sheet
        .wells
        .keys()
        .map(|well| well.column.as_str())
        .collect();
    columns.sort_by_key(|column| (column.parse().unwrap_or(0_u32), *column));
    columns.dedup();
    let n_fields = sheet.wells.values().map(Vec::len).max().unwrap_or(0);
    let picture = sheet
        .wells
        .values()
        .flatten()
        .find_map(|picture| picture.channels.first());
    let picture = picture.map_or((1, 1), |plane| (plane.width, plane.height));
    let (width, height) = size(rows.len(), columns.len(), n_fields, picture);
    // The title and the legend may be wider than the pictures.
    let width = width
        .max(GAP * 2 + LETTER * sheet.title.len())
        .max(legend_width(sheet) + 2 * GAP);
    let mut canvas = Canvas {
        width,
        height,
        rgb: PAPER.repeat(width * height),
    };

    let well = well_size(n_fields, picture);
    let (left, top) = grid_start();
    canvas.write((GAP, GAP), &sheet.title, TEXT);
    for (index, column) in columns.iter().enumerate() {
        canvas.write(
            (left + index * (well.0 + GAP), top - LETTER - GAP / 2),
            column,
            TEXT,
        );
    }
    let ranges: Vec<(f64, f64)> = (0..sheet.channels.len())
        .map(|channel| range(sheet, channel))
        .collect();
    for (row_index, row) in rows.iter().enumerate() {
        let y = top + row_index * (well.1 + GAP);
        canvas.write((GAP, y + (well.1 - LETTER) / 2), row, TEXT);
        for (column_index, column) in columns.iter().enumerate() {
            let place = (left + column_index * (well.0 + GAP), y);
            let well = Well {
                row: (*row).to_owned(),
                column: (*column).to_owned(),
            };
            if let Some(pictures) = sheet.wells.get(&well) {
                draw_well(
                    &mut canvas,
                    place,
                    pictures,
                    &sheet.channels,
                    &ranges,
                    n_fields,
                    picture,
                );
            }
        }
    }
    draw_legend(&mut canvas, sheet, height - LETTER - GAP, picture.0);
    canvas
}

fn grid_start() -> (usize, usize) {
    (2 * LETTER + 2 * GAP, 2 * LETTER + 3 * GAP)
}

/// The pictures of a well lie beside each other, in as many columns as rows or one more, above the
/// number of regions.
fn fields_across(n_fields: usize) -> usize {
    (1..=n_fields).find(|n| n * n >= n_fields).unwrap_or(1)
}

fn well_size(n_fields: usize, (width, height): (usize, usize)) -> (usize, usize) {
    let across = fields_across(n_fields);
    let down = n_fields.div_ceil(across).max(1);
    (
        across * width + (across - 1) * 2,
        down * height + (down - 1) * 2 + GAP / 2 + LETTER,
    )
}

fn draw_well(
    canvas: &mut Canvas,
    (x, y): (usize, usize),
    pictures: &[Picture],
    channels: &[Channel],
    ranges: &[(f64, f64)],
    n_fields: usize,
    (width, height): (usize, usize),
) {
    let across = fields_across(n_fields);
    for index in 0..n_fields {
        let place = (
            x + index % across * (width + 2),
            y + index / across * (height + 2),
        );
        match pictures.get(index) {
            Some(picture) => {
                draw_picture(canvas, place, picture, channels, ranges, (width, height))
            }
            None => canvas.fill(place, (width, height), EMPTY),
        }
    }
    let well = well_size(n_fields, (width, height));
    if pictures.iter().any(|picture| picture.labels.is_some()) {
        let n_regions: usize = pictures.iter().map(|picture| picture.n_regions).sum();
        canvas.write((x, y + well.1 - LETTER), &n_regions.to_string(), OUTLINE);
    }
}

fn draw_picture(
    canvas: &mut Canvas,
    (left, top): (usize, usize),
    picture: &Picture,
    channels: &[Channel],
    ranges: &[(f64, f64)],
    (width, height): (usize, usize),
) {
    canvas.fill((left, top), (width, height), EMPTY);
    let Some(first) = picture.channels.first() else {
        return;
    };
    for y in 0..height.min(first.height) {
        for x in 0..width.min(first.width) {
            let mut color = [0.0; 3];
            for ((plane, channel), (black, full)) in
                picture.channels.iter().zip(channels).zip(ranges)
            {
                let light = ((f64::from(plane.values[y * plane.width + x]) - black)
                    / (full - black))
                    .clamp(0.0, 1.0);
                color
                    .iter_mut()
                    .zip(channel.color)
                    .for_each(|(sum, part)| *sum += light * f64::from(part));
            }
            let is_outline = picture
                .labels
                .as_ref()
                .is_some_and(|labels| is_outline(labels, x, y));
            let color = if is_outline {
                OUTLINE
            } else {
                // Modules convert numbers to signed integers of 32 bits fastest.
                color.map(|sum| (sum as i32).min(255) as u8)
            };
            canvas.set((left + x, top + y), color);
        }
    }
}

/// Whether a pixel lies around a region, or, of two regions that touch, on the border of the first
/// one: so that even small regions can be seen.
fn is_outline(labels: &Plane<u32>, x: usize, y: usize) -> bool {
    let at = |x: usize, y: usize| labels.values[y * labels.width + x];
    let label = at(x, y);
    let right = (x + 1 < labels.width).then(|| at(x + 1, y));
    let below = (y + 1 < labels.height).then(|| at(x, y + 1));
    if label != 0 {
        return [right, below]
            .into_iter()
            .flatten()
            .any(|other| other != 0 && other != label);
    }
    let left = x.checked_sub(1).map(|x| at(x, y));
    let above = y.checked_sub(1).map(|y| at(x, y));
    [left, above, right, below]
        .into_iter()
        .flatten()
        .any(|other| other != 0)
}

/// The values that are drawn black and in full colour, the same in all pictures, so that they can
/// be compared.
fn range(sheet: &Sheet, channel: usize) -> (f64, f64) {
    let pictures = sheet
        .wells
        .values()
        .flatten()
        .filter_map(|picture| picture.channels.get(channel));
    let mut values: Vec<f32> = Vec::new();
    for plane in pictures {
        values.extend(plane.values.iter().filter(|value| value.is_finite()));
    }
    let mut at = |share: f64| {
        let index = (share * values.len() as f64) as usize;
        if index >= values.len() {
            return 0.0;
        }
        let (_, value, _) = values.select_nth_unstable_by(index, f32::total_cmp);
        f64::from(*value)
    };
    let black = at(BLACK_SHARE);
    let full = at(1.0 - FULL_SHARE);
    // Whole values that do not differ are black. Fractions may be smaller than 1.
    let is_whole = values.iter().all(|value| value.fract() == 0.0);
    (
        black,
        if is_whole || full <= black {
            full.max(black + 1.0)
        } else {
            full
        },
    )
}

fn legend_width(sheet: &Sheet) -> usize {
    let letters: usize = sheet
        .channels
        .iter()
        .map(|channel| channel.label.chars().count() + 1)
        .sum();
    letters * LETTER + 20 * LETTER
}

/// The names of the channels in their colours, and a bar of a round length.
fn draw_legend(canvas: &mut Canvas, sheet: &Sheet, y: usize, picture_width: usize) {
    let mut x = GAP;
    for channel in &sheet.channels {
        canvas.write((x, y), &channel.label, channel.color);
        x += (channel.label.chars().count() + 1) * LETTER;
    }
    // The longest of these that is no longer than half a picture.
    let lengths = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000];
    let pixels = |length: usize| (length as f64 / sheet.pixel_size_um) as usize;
    if let Some(length) = lengths
        .into_iter()
        .rev()
        .find(|&length| (1..=picture_width / 2).contains(&pixels(length)))
    {
        canvas.fill((x, y + LETTER / 2), (pixels(length), 3), TEXT);
        canvas.write((x + pixels(length) + GAP, y), &format!("{length} um"), TEXT);
    }
}

impl Canvas {
    fn set(&mut self, (x, y): (usize, usize), color: [u8; 3]) {
        if x < self.width && y < self.height {
            let start = 3 * (y * self.width + x);
            self.rgb[start..start + 3].copy_from_slice(&color);
        }
    }

    fn fill(
        &mut self,
        (left, top): (usize, usize),
        (width, height): (usize, usize),
        color: [u8; 3],
    ) {
        for y in top..top + height {
            (left..left + width).for_each(|x| self.set((x, y), color));
        }
    }

    /// Letters outside ASCII are question marks.
    fn write(&mut self, (left, top): (usize, usize), text: &str, color: [u8; 3]) {
        let scale = LETTER / 8;
        for (index, letter) in text.chars().enumerate() {
            let glyph = BASIC_LEGACY
                .get(letter as usize)
                .unwrap_or(&BASIC_LEGACY['?' as usize]);
            for (y, row) in glyph.iter().enumerate() {
                for x in (0..8).filter(|x| row >> x & 1 == 1) {
                    self.fill(
                        (left + index * LETTER + x * scale, top + y * scale),
                        (scale, scale),
                        color,
                    );
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture() -> Picture {
        let nuclei = Plane {
            width: 40,
            height: 30,
            values: (0..1200)
                .map(|i| if i % 40 < 20 { 1000.0 } else { 10.0 })
                .collect(),
        };
        let dark = Plane {
            width: 40,
            height: 30,
            values: vec![10.0; 1200],
        };
        let labels = Plane {
            width: 40,
            height: 30,
            values: (0..1200).map(|i| u32::from(i % 40 < 20)).collect(),
        };
        Picture {
            channels: vec![nuclei, dark],
            labels: Some(labels),
            n_regions: 1,
        }
    }

    fn sheet() -> Sheet {
        let channel = |label: &str, color| Channel {
            label: label.to_owned(),
            color,
        };
        let wells =
            ["B03", "C10"].map(|well| (Well::parse(well).unwrap(), vec![picture(), picture()]));
        Sheet {
            title: "p".to_owned(),
            channels: vec![channel("a", [0, 255, 255]), channel("b", [255, 0, 0])],
            wells: wells.into(),
            pixel_size_um: 1.0,
        }
    }

    fn at(canvas: &Canvas, x: usize, y: usize) -> [u8; 3] {
        let start = 3 * (y * canvas.width + x);
        [
            canvas.rgb[start],
            canvas.rgb[start + 1],
            canvas.rgb[start + 2],
        ]
    }

    #[test]
    fn wells_are_at_their_places_with_outlines() {
        let canvas = draw(&sheet());
        assert_eq!(canvas.rgb.len(), 3 * canvas.width * canvas.height);
        let (left, top) = grid_start();
        assert_eq!(
            at(&canvas, left + 10, top + 10),
            [0, 255, 255],
            "in the region"
        );
        assert_eq!(
            at(&canvas, left + 19, top + 10),
            [0, 255, 255],
            "its last pixel"
        );
        assert_eq!(at(&canvas, left + 20, top + 10), OUTLINE);
        assert_eq!(
            at(&canvas, left + 30, top + 10),
            [0, 0, 0],
            "outside the region"
        );
        let (width, height) = well_size(2, (40, 30));
        assert_eq!(
            at(&canvas, left + width + GAP + 10, top + 10),
            PAPER,
            "B10 is not on the plate"
        );
        assert_eq!(
            at(&canvas, left + width + GAP + 10, top + height + GAP + 10),
            [0, 255, 255]
        );
    }

    #[test]
    fn regions_that_touch_have_a_border() {
        let labels = Plane {
            width: 5,
            height: 2,
            values: vec![0, 1, 1, 2, 2, 0, 0, 0, 0, 2],
        };
        let outline: Vec<bool> = (0..10).map(|i| is_outline(&labels, i % 5, i / 5)).collect();
        let expected = [
            true, false, true, false, false, false, true, true, true, false,
        ];
        assert_eq!(outline, expected);
    }

    #[test]
    fn a_plate_of_96_wells_has_the_printed_size() {
        assert_eq!(
            size(8, 12, 1, (128, 128)),
            (48 + 12 * 136 + 8, 56 + 8 * (128 + 20 + 8) + 40)
        );
    }
}
