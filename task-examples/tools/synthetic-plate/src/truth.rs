//! `truth.json`: what is in the images.

use crate::camera;
use crate::plate::{Field, Plate};
use serde::Serialize;

/// Sizes that a reader may want; nothing here depends on them.
const PIXEL_SIZE_UM: f64 = 0.65;
const Z_STEP_UM: f64 = 2.0;

#[derive(Debug, Serialize)]
struct TrueField {
    well: String,
    field: String,
    nuclei: Vec<TrueNucleus>,
}

/// Lengths are in pixels from the centre of the first one, the angle goes from x towards y.
#[derive(Debug, Serialize)]
struct TrueNucleus {
    y: f64,
    x: f64,
    area_px: u32,
    axes_px: [f64; 2],
    angle: f64,
}

/// The text of `truth.json`, a line for each field.
pub(crate) fn build_json(plate: &Plate, fields: &[Field]) -> serde_json::Result<String> {
    let size = usize::from(plate.size);
    let background = camera::OFFSET as u32;
    let mut json = format!(
        r#"{{"plate": "plate1", "kind": "{}", "seed": {}, "size": {size}, "pixel_size_um": {PIXEL_SIZE_UM:?}, "z_step_um": {Z_STEP_UM:?}, "background": {background},
 "fields": ["#,
        plate.kind.name(),
        plate.seed,
    );
    for (index, field) in fields.iter().enumerate() {
        json.push_str(if index == 0 { "\n  " } else { ",\n  " });
        json.push_str(&serde_json::to_string(&describe(field, size))?);
    }
    json.push_str("]}\n");
    Ok(json)
}

fn describe(field: &Field, size: usize) -> TrueField {
    let nuclei = field.cells.iter().map(|cell| {
        let nucleus = &cell.nucleus;
        TrueNucleus {
            y: nucleus.y,
            x: nucleus.x,
            area_px: nucleus.area_px(size),
            axes_px: nucleus.axes,
            angle: nucleus.angle,
        }
    });
    TrueField {
        well: field.well.to_string(),
        field: format!("F{:03}", field.number),
        nuclei: nuclei.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cells::place_cells;
    use crate::kind::Kind;
    use crate::wells::Wells;
    use serde_json::{Value, json};
    use synthetic_images::random::Random;

    fn truth() -> Value {
        let wells = Wells::parse("B03,C05").unwrap();
        let plate = Plate {
            wells,
            n_fields: 1,
            n_planes: 3,
            size: 128,
            kind: Kind::Easy,
            seed: 9,
        };
        let mut random = Random::new(9);
        let field = |well| {
            let cells = place_cells(&plate.kind.settings(), 128, 3, 0.5, &mut random);
            Field {
                well,
                number: 1,
                cells,
            }
        };
        let fields: Vec<_> = plate.wells.iter().map(field).collect();
        serde_json::from_str(&build_json(&plate, &fields).unwrap()).unwrap()
    }

    #[test]
    fn the_truth_describes_the_plate() {
        let mut truth = truth();
        let fields = truth["fields"].take();
        let plate = json!({
            "plate": "plate1", "kind": "easy", "seed": 9, "size": 128, "pixel_size_um": 0.65, "z_step_um": 2.0,
            "background": 110, "fields": null,
        });
        assert_eq!(truth, plate);
        assert_eq!(
            (&fields[0]["well"], &fields[0]["field"], &fields[1]["well"]),
            (&json!("B03"), &json!("F001"), &json!("C05"))
        );
    }

    #[test]
    fn a_reader_counts_the_same_pixels() {
        let truth = truth();
        let nuclei = truth["fields"][0]["nuclei"].as_array().unwrap();
        assert!(nuclei.len() >= 4);
        for nucleus in nuclei {
            let number = |name: &str| nucleus[name].as_f64().unwrap();
            let axis = |index: usize| nucleus["axes_px"][index].as_f64().unwrap();
            let (sin, cos) = (libm::sin(number("angle")), libm::cos(number("angle")));
            let is_inside = |row: i32, column: i32| {
                let (dx, dy) = (
                    f64::from(column) - number("x"),
                    f64::from(row) - number("y"),
                );
                ((dx * cos + dy * sin) / axis(0)).powi(2)
                    + ((dy * cos - dx * sin) / axis(1)).powi(2)
                    <= 1.0
            };
            let pixels = (0..128).flat_map(|row| (0..128).map(move |column| (row, column)));
            let area = pixels
                .filter(|(row, column)| is_inside(*row, *column))
                .count();
            assert_eq!(nucleus["area_px"], json!(area));
        }
    }
}
