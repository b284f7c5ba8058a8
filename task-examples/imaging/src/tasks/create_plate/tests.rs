use super::*;
use crate::image::PlaneFile;
use crate::mosaic::Location;
use serde_json::{Value, json};
use std::fs;

/// Calls the task on a folder with these files, of which only a table has contents, and gives
/// the metadiff with what each image of `plate1.zarr` says of itself.
fn check(
    name: &str,
    files: &[&str],
    table: Option<&str>,
    args: Value,
) -> Result<(Value, Vec<Acquisition>), String> {
    let folder = std::env::temp_dir().join(format!("imaging-create-{}-{name}", std::process::id()));
    let (input, output) = (folder.join("in"), folder.join("out"));
    fs::create_dir_all(&input).unwrap();
    for file in files {
        let path = input.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }
    table
        .iter()
        .for_each(|text| fs::write(input.join("files.csv"), text).unwrap());
    let mut parameters = json!({"input_paths": [input], "output_path": output, "metadata": {}});
    parameters
        .as_object_mut()
        .unwrap()
        .extend(args.as_object().unwrap().clone());
    let (given, args) = crate::tasks::split(parameters.as_object().unwrap().clone()).unwrap();
    let result = create_plate(&given, args)
        .map_err(|err| err.to_string())
        .map(|created| {
            let read =
                |image: &String| crate::image::read_acquisition(&output.join(image)).unwrap();
            let images = created.image.iter().map(read).collect();
            (serde_json::to_value(created).unwrap(), images)
        });
    fs::remove_dir_all(&folder).unwrap();
    result.map_err(|message| message.replace(&input.display().to_string(), "IN"))
}

fn names(image: &Acquisition) -> Vec<Vec<String>> {
    let name = |plane: &PlaneFile| plane.file.file_name().unwrap().to_str().unwrap().to_owned();
    image
        .files
        .iter()
        .map(|files| files.iter().map(name).collect())
        .collect()
}

const FILES: [&str; 5] = [
    "p_C10_F1_Z1_C01.tif",
    "p_C2_F1_Z1_C01.tif",
    "p_C2_F1_Z2_C01.TIF",
    "p_C2_F2_Z1_C01.tif",
    "p_C2_F2_Z2_C01.tif",
];

#[test]
fn missing_files_have_the_names_that_they_should_have() {
    let (created, images) = check("complete", &FILES, None, json!({})).unwrap();
    assert_eq!(created["well"], json!(["p.zarr/C/2", "p.zarr/C/10"]));
    assert_eq!(
        created["image"],
        json!([
            "p.zarr/C/2/0",
            "p.zarr/C/2/1",
            "p.zarr/C/10/0",
            "p.zarr/C/10/1"
        ])
    );
    assert_eq!(
        names(&images[0]),
        [["p_C2_F1_Z1_C01.tif", "p_C2_F1_Z2_C01.TIF"]]
    );
    assert_eq!(
        names(&images[3]),
        [["p_C10_F2_Z1_C01.tif", "p_C10_F2_Z2_C01.tif"]]
    );
    let (created, images) = check("incomplete", &FILES, None, json!({"complete": false})).unwrap();
    assert_eq!(
        created["image"],
        json!(["p.zarr/C/2/0", "p.zarr/C/2/1", "p.zarr/C/10/0"])
    );
    assert_eq!(
        names(&images[2]),
        [["p_C10_F1_Z1_C01.tif", "p_C10_F1_Z2_C01.tif"]]
    );
}

#[test]
fn a_table_adds_what_names_lack() {
    let table = "file,plate,well,field,channel\nx.tif,q,A01,1,DAPI\ny.tif,q,A01,1,GFP\n";
    let args = json!({"table": "files.csv", "channels": [{"id": "GFP", "label": "actin, green"}, {"id": "DAPI"}]});
    let (created, images) = check("table", &["x.tif"], Some(table), args.clone()).unwrap();
    assert_eq!(
        (&created["image"], &created["channels"]),
        (&json!(["q.zarr/A/01/0"]), &json!(["GFP", "DAPI"]))
    );
    assert_eq!(
        (names(&images[0]), images[0].channels[0].label.as_str()),
        (
            vec![vec!["y.tif".to_owned()], vec!["x.tif".to_owned()]],
            "actin, green"
        )
    );
    let error = check(
        "row",
        &[],
        Some(&format!("{table}z.tif,q,A02,1,GFP\n")),
        args,
    )
    .unwrap_err();
    assert!(
        error.starts_with(
            "the table has no row for plate q, well A02, field 1, channel DAPI, which"
        ),
        "{error}"
    );
    let error = check(
        "twice",
        &[],
        Some(&format!("{table}z.tif,q,A01,1,GFP\n")),
        json!({"table": "files.csv"}),
    )
    .unwrap_err();
    assert_eq!(
        error,
        "cannot use IN/files.csv: IN/y.tif and IN/z.tif are the same plane; correct one of the two rows"
    );
}

#[test]
fn wells_are_numbered_and_written_in_one_way() {
    let files = [1, 25, 300].map(|index| format!("W{index:04}F0001T0001Z001C1.tif"));
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    let (created, _) = check("numbers", &files, None, json!({})).unwrap();
    assert_eq!(
        created["well"],
        json!(["in.zarr/A/01", "in.zarr/B/01", "in.zarr/M/12"])
    );
    // A missing file has the number of its own well.
    let files = [
        "W0001F0001T0001Z001C1.tif",
        "W0001F0002T0001Z001C1.tif",
        "W0025F0001T0001Z001C1.tif",
    ];
    let (_, images) = check("missing", &files, None, json!({})).unwrap();
    assert_eq!(names(&images[3]), [["W0025F0002T0001Z001C1.tif"]]);
    // Plates whose names are those of their folders have their own numbers.
    let files = [
        "small/W0025F0001T0001Z001C1.tif",
        "large/W0025F0001T0001Z001C1.tif",
        "large/W0384F0001T0001Z001C1.tif",
    ];
    let (created, _) = check("plates", &files, None, json!({})).unwrap();
    assert_eq!(
        created["well"],
        json!(["large.zarr/B/01", "large.zarr/P/24", "small.zarr/C/01"])
    );
    let files = ["p_B03_F1_C01.tif", "p_B3_F2_C01.tif"];
    let (created, _) = check("zeros", &files, None, json!({})).unwrap();
    assert_eq!(created["image"], json!(["p.zarr/B/03/0", "p.zarr/B/03/1"]));
}

#[test]
fn pictures_next_to_the_folder_of_a_plate_do_not_hide_it() {
    let files = ["overview.tif", "images/p_B03_F1_C01.tif"];
    let (created, _) = check("overview", &files, None, json!({})).unwrap();
    assert_eq!(created["image"], json!(["p.zarr/B/03/0"]));
    let files = ["p_B03_F1_C01.tif", "more/p_B04_F1_C01.tif"];
    let (created, _) = check("projection", &files, None, json!({})).unwrap();
    assert_eq!(created["image"], json!(["p.zarr/B/03/0"]));
}

#[test]
fn time_points_are_chosen() {
    let files = [
        "p_B03_T0001F001L01A01Z01C01.png",
        "p_B03_T0002F001L01A01Z01C01.png",
    ];
    let error = check("times", &files, None, json!({})).unwrap_err();
    assert!(
        error
            .starts_with("the files have 2 time points, T0001 to T0002, but an image has one: set"),
        "{error}"
    );
    let (_, images) = check("time", &files, None, json!({"time_point": 2})).unwrap();
    assert_eq!(names(&images[0]), [["p_B03_T0002F001L01A01Z01C01.png"]]);
    let error = check("no-time", &files, None, json!({"time_point": 3})).unwrap_err();
    assert_eq!(
        error,
        "time_point is 3, but the files have the time points T0001 to T0002; choose one of them"
    );
}

#[test]
fn channels_of_microscopes_have_ids_and_labels() {
    let files = [
        "A - 1(fld 1 wv UV - DAPI z 1).tif",
        "A - 1(fld 1 wv UV - DAPI z 2).tif",
    ];
    let (created, images) = check("incell", &files, None, json!({})).unwrap();
    assert_eq!(created["channels"], json!(["UV-DAPI"]));
    assert_eq!(
        (
            images[0].channels[0].label.as_str(),
            images[0].files[0].len()
        ),
        ("UV - DAPI", 2)
    );
}

#[test]
fn a_layout_gives_wells_their_conditions() {
    let table = "file,plate,well,field,channel\nx.tif,q,A01,1,C01\n";
    let args = json!({"table": "files.csv", "layout": "files.csv"});
    let (_, images) = check("layout", &["x.tif"], Some(table), args).unwrap();
    assert_eq!(
        images[0].conditions[1],
        ("field".to_owned(), "1".to_owned())
    );
}

#[test]
fn fields_of_a_well_become_one_image() {
    let args = json!({"stitch": true, "field_columns": 2, "complete": false});
    let (created, images) = check("stitch", &FILES, None, args).unwrap();
    assert_eq!(created["image"], json!(["p.zarr/C/2/0", "p.zarr/C/10/0"]));
    let cells: Vec<Location> = images[0].mosaic.iter().map(|part| part.location).collect();
    assert_eq!(cells, [Location::Cell([0, 0]), Location::Cell([1, 0])]);
    assert_eq!(
        (images[0].mosaic[1].files[0].len(), images[0].files.len()),
        (2, 0)
    );
    let error = check("no-position", &FILES, None, json!({"stitch": true})).unwrap_err();
    assert!(
        error.starts_with(
            "field F1 of well C2 has no position, because none of its files can be read: name a table"
        ),
        "{error}"
    );

    let table = "field,x,y\nF1,0,0\nF2,100,-5\n";
    let args = json!({"stitch": true, "positions": "files.csv"});
    let (_, images) = check("positions", &FILES, Some(table), args).unwrap();
    assert_eq!(
        images[0].mosaic[1].location,
        Location::StageUm([100.0, -5.0])
    );
    let (_, images) = check(
        "apart",
        &FILES,
        Some(table),
        json!({"positions": "files.csv"}),
    )
    .unwrap();
    assert_eq!((images[1].stage_um, images.len()), (Some([100.0, -5.0]), 4));
}

/// A TIFF file of 4 x 4 pixels whose description states a position of the stage, as MetaXpress
/// writes it.
fn tiff_at(position: Option<[f64; 2]>) -> Vec<u8> {
    let prop =
        |id: &str, value: f64| format!("<prop id=\"{id}\" type=\"float\" value=\"{value}\"/>");
    let stage = position.map_or(String::new(), |[x, y]| {
        prop("stage-position-x", x) + &prop("stage-position-y", y)
    });
    let text = format!("<MetaData>{stage}</MetaData>\0");
    let mut bytes = b"II*\0".to_vec();
    bytes.extend((24 + text.len() as u32).next_multiple_of(2).to_le_bytes());
    bytes.extend([7; 16]);
    bytes.extend(text.as_bytes());
    bytes.resize(bytes.len().next_multiple_of(2), 0);
    let tags: [(u16, u16, u32, u32); 7] = [
        (256, 4, 1, 4),
        (257, 4, 1, 4),
        (258, 3, 1, 8),
        (262, 3, 1, 1),
        (270, 2, text.len() as u32, 24),
        (273, 4, 1, 8),
        (279, 4, 1, 16),
    ];
    bytes.extend((tags.len() as u16).to_le_bytes());
    for (tag, kind, count, value) in tags {
        bytes.extend([tag.to_le_bytes(), kind.to_le_bytes()].concat());
        bytes.extend([count.to_le_bytes(), value.to_le_bytes()].concat());
    }
    bytes.extend([0; 4]);
    bytes
}

/// Creates a plate, stitched, from one well with these files of fields.
fn stitched(name: &str, fields: &[Vec<u8>], args: Value) -> Result<Acquisition, String> {
    let folder = std::env::temp_dir().join(format!("imaging-stages-{}-{name}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let mut files = Vec::new();
    for (index, bytes) in fields.iter().enumerate() {
        files.push(format!("p_B03_F{}_C01.tif", index + 1));
        fs::write(folder.join(&files[index]), bytes).unwrap();
    }
    let mut args = args;
    args["stitch"] = json!(true);
    args["pixel_size_um"] = json!(0.5);
    let args: Args = serde_json::from_value(args).unwrap();
    let mut images = Vec::new();
    let created = create(
        std::slice::from_ref(&folder),
        &folder.join("out"),
        args,
        &mut |_, _, acquisition| {
            images.push(acquisition);
            Ok(())
        },
    );
    let result =
        created.map_err(|err| err.to_string().replace(&folder.display().to_string(), "IN"));
    // The conversion reads the files again.
    let result = result.map(|_| images.remove(0));
    if let Ok(image) = &result
        && image
            .mosaic
            .iter()
            .any(|part| part.location == Location::InFile)
    {
        check_repaired(&folder, image);
    }
    fs::remove_dir_all(&folder).unwrap();
    result
}

/// Converts an image before and after its damaged second field is repaired.
fn check_repaired(folder: &Path, image: &Acquisition) {
    let storage = crate::image::Storage {
        format: Format::default(),
        n_levels: 1,
        chunk_size: 16,
        compression_level: Some(1),
    };
    let target = folder.join("image");
    let convert = || crate::tasks::convert_images::convert(&target, image, storage);
    let error = convert().unwrap_err().to_string();
    assert!(error.contains("p_B03_F2_C01.tif"), "{error}");
    let second = folder.join("p_B03_F2_C01.tif");
    fs::write(&second, tiff_at(None)).unwrap();
    let error = convert().unwrap_err().to_string();
    assert!(
        error.contains("it states no position of the stage"),
        "{error}"
    );
    fs::write(&second, tiff_at(Some([2.0, -1.0]))).unwrap();
    let converted = serde_json::to_value(convert().unwrap()).unwrap();
    assert_eq!(converted["shape"], json!([1, 1, 6, 8]));
}

#[test]
fn files_state_the_positions_of_fields() {
    let locations = |image: &Acquisition| -> Vec<Location> {
        image.mosaic.iter().map(|part| part.location).collect()
    };
    let first = tiff_at(Some([0.0, 0.0]));
    let fields = [first.clone(), tiff_at(Some([2.0, -1.0]))];
    let stated = [
        Location::StageUm([0.0, 0.0]),
        Location::StageUm([2.0, -1.0]),
    ];
    let image = stitched("stated", &fields, json!({})).unwrap();
    assert_eq!(locations(&image), stated);
    let image = stitched("wins", &fields, json!({"field_columns": 1})).unwrap();
    assert_eq!(locations(&image), stated);

    let damaged = [first.clone(), b"II*".to_vec()];
    let image = stitched("damaged", &damaged, json!({})).unwrap();
    assert_eq!(locations(&image), [stated[0], Location::InFile]);

    let cells = [Location::Cell([0, 0]), Location::Cell([0, 1])];
    for (name, second, cause) in [
        (
            "equal",
            first.clone(),
            "the files of the fields F1 and F2 state the same position",
        ),
        (
            "none",
            tiff_at(None),
            "IN/p_B03_F2_C01.tif states no position",
        ),
    ] {
        let fields = [first.clone(), second];
        let error = stitched(name, &fields, json!({})).unwrap_err();
        let expected =
            format!("field F1 of well B03 has no position, because {cause}: name a table");
        assert!(error.starts_with(&expected), "{error}");
        let image = stitched(name, &fields, json!({"field_columns": 1})).unwrap();
        assert_eq!(locations(&image), cells);
    }
}

#[test]
fn cycles_are_acquisitions_of_one_plate() {
    let files = [
        "a_B03_F1_C01.tif",
        "a_B03_F2_C01.tif",
        "b_B03_F1_C02.tif",
        "c_B03_F1_C01.tif",
    ];
    let args = json!({"acquisitions": ["a", "b"], "plate_name": "p"});
    let (created, images) = check("cycles", &files, None, args).unwrap();
    assert_eq!(created["plate"], json!(["p.zarr", "c.zarr"]));
    let expected = [
        "p.zarr/B/03/0",
        "p.zarr/B/03/1",
        "p.zarr/B/03/2",
        "c.zarr/B/03/0",
    ];
    assert_eq!(created["image"], json!(expected));
    let about = |image: &Acquisition| {
        (
            image.acquisition,
            image.plate.clone(),
            image.channels[0].id.clone(),
        )
    };
    assert_eq!(about(&images[1]), (0, "p".to_owned(), "C01".to_owned()));
    assert_eq!(about(&images[2]), (1, "p".to_owned(), "C02".to_owned()));
    let error = check(
        "unknown-cycle",
        &files,
        None,
        json!({"acquisitions": ["a", "x"]}),
    )
    .unwrap_err();
    assert_eq!(
        error,
        "acquisitions: no file belongs to a plate \"x\"; there are a, b, c"
    );
    let error = check(
        "cycle-name",
        &files,
        None,
        json!({"acquisitions": ["a"], "plate_name": "c"}),
    )
    .unwrap_err();
    assert!(error.contains("c would be written twice"), "{error}");
}

#[test]
fn wrong_channels_and_folders_are_refused() {
    for (name, args, expected) in [
        (
            "unknown",
            json!({"channels": [{"id": "C07"}]}),
            "no file has the channel \"C07\"; there are C01",
        ),
        (
            "again",
            json!({"channels": [{"id": "C01"}, {"id": "C01"}]}),
            "\"C01\" is there twice; take one of them away",
        ),
        (
            "color",
            json!({"channels": [{"id": "C01", "color": "blue"}]}),
            "is not six hexadecimal digits",
        ),
        (
            "png",
            json!({"extensions": ["png"]}),
            "no file with one of the endings png in IN, but 5 with the ending tif: add it to the argument extensions if",
        ),
        (
            "pattern",
            json!({"pattern": "(?P<well>x)"}),
            "IN: 5 files, such as p_C10_F1_Z1_C01.tif; none fits the pattern \"(?P<well>x)\"; set the argument pattern",
        ),
        (
            "size",
            json!({"pixel_size_um": 0.0}),
            "pixel_size_um is 0: it must be from 0.000001 to 1000000",
        ),
    ] {
        let error = check(name, &FILES, None, args).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}
