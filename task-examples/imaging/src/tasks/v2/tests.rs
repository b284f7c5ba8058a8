use super::forms::resolve;
use super::image_url::{ImageUrl, Selection};
use super::*;
use crate::png_file;
use fractal_task::Version;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn manifest(text: &str) -> Vec<Value> {
    let manifest: Value = serde_json::from_str(text).unwrap();
    manifest["task_list"].as_array().unwrap().clone()
}

/// The kinds of calls, with the name that the task has on the command line and the schema of its
/// parameters.
fn sides() -> Vec<(Value, &'static str, String, Value)> {
    let mut sides = Vec::new();
    for task in manifest(include_str!(
        "../../../../imaging-v2/__FRACTAL_MANIFEST__.json"
    )) {
        for side in ["non_parallel", "parallel"] {
            if let Some(executable) = task[format!("executable_{side}")].as_str() {
                let command = executable
                    .strip_prefix("../modules/imaging.wasm ")
                    .unwrap()
                    .to_owned();
                sides.push((
                    task.clone(),
                    side,
                    command,
                    task[format!("args_schema_{side}")].clone(),
                ));
            }
        }
    }
    sides
}

/// Parameters that the host passes, as far as a schema requires them.
fn host_keys(task: &Value, side: &str) -> &'static [&'static str] {
    match (task["type"].as_str().unwrap(), side) {
        ("converter_compound", "non_parallel") => &["zarr_dir"],
        (_, "non_parallel") => &["zarr_dir", "zarr_urls"],
        ("parallel", _) => &["zarr_url"],
        _ => &["zarr_url", "init_args"],
    }
}

/// A folder for one test, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("imaging-v2-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn text(&self, below: &str) -> String {
        self.0.join(below).to_str().unwrap().to_owned()
    }

    /// Calls a task and returns its output.
    fn call(&self, version: Version, command: &str, parameters: &Value) -> Result<Value, String> {
        let (args_file, metadiff_file) = (self.0.join("args.json"), self.0.join("output.json"));
        fs::write(&args_file, parameters.to_string()).unwrap();
        let fixed_args = vec![command.into()];
        let call = Call {
            version,
            args_file,
            metadiff_file: metadiff_file.clone(),
            fixed_args,
        };
        crate::tasks::call(&call).map_err(|err| err.to_string())?;
        Ok(serde_json::from_slice(&fs::read(metadiff_file).unwrap()).unwrap())
    }

    fn call_v2(&self, command: &str, parameters: &Value) -> Result<Value, String> {
        self.call(Version::V2, command, parameters)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What stays is small, and a test that failed has its own message.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn the_manifest_has_all_tasks() {
    let sides = sides();
    assert_eq!(
        sides
            .iter()
            .map(|(_, _, command, _)| command.as_str())
            .collect::<Vec<_>>(),
        NAMES
    );
    for (task, side, command, schema) in &sides {
        let required: Vec<&str> = schema["required"]
            .as_array()
            .unwrap()
            .iter()
            .map(|key| key.as_str().unwrap())
            .collect();
        assert!(
            required.starts_with(host_keys(task, side)),
            "{command}: {required:?}"
        );
        assert!(
            required[host_keys(task, side).len()..]
                .iter()
                .all(|key| *key == "image_dir"),
            "{command}: {required:?}"
        );
        let properties = schema["properties"].as_object().unwrap();
        for (name, property) in properties {
            assert!(
                property["description"].is_string(),
                "{command}: {name} has no description"
            );
        }
    }
}

#[test]
fn arguments_are_those_of_version_1() {
    let own = |property: &Value| {
        let mut property = property.as_object().unwrap().clone();
        property.remove("description");
        property
    };
    let arguments = |schema: &Value, keys: &[&str]| {
        let properties = schema["properties"].as_object().unwrap().iter();
        let properties = properties.filter(|(name, _)| !keys.contains(&name.as_str()));
        properties
            .map(|(name, property)| (name.clone(), own(property)))
            .collect::<BTreeMap<_, _>>()
    };
    let mut v1: BTreeMap<String, BTreeMap<_, _>> = BTreeMap::new();
    for task in manifest(include_str!("../../../__FRACTAL_MANIFEST__.json")) {
        let command = task["executable"]
            .as_str()
            .unwrap()
            .rsplit(' ')
            .next()
            .unwrap()
            .to_owned();
        let keys = ["input_paths", "output_path", "metadata", "component"];
        v1.insert(command, arguments(&task["args_schema"], &keys));
    }
    let mut v2: BTreeMap<String, BTreeMap<_, _>> = BTreeMap::new();
    for (task, side, command, schema) in sides() {
        let keys = [host_keys(&task, side), &["image_dir"]].concat();
        // One task of version 1 has two kinds of calls here.
        let command = if command == "choose_images" {
            "estimate_illumination".to_owned()
        } else {
            command
        };
        v2.entry(command)
            .or_default()
            .extend(arguments(&schema, &keys));
    }
    assert_eq!(v1, v2);
}

/// Parameters with which each kind of call reads its arguments, and then fails or finds nothing to
/// do.
fn parameters(task: &Value, side: &str, command: &str) -> Value {
    let init_args = match command {
        "convert_images" => json!({
            "plate": "p", "well": "B03", "field": "F1", "pixel_size_um": 1.0, "z_step_um": 1.0, "channels": [], "files": [],
        }),
        "estimate_illumination" => json!({"channel": "C01", "images": []}),
        _ => json!({"origin_url": "none"}),
    };
    let all =
        json!({"zarr_dir": "/none", "zarr_urls": [], "zarr_url": "none", "init_args": init_args});
    let mut parameters: Map<String, Value> = host_keys(task, side)
        .iter()
        .map(|key| ((*key).to_owned(), all[key].clone()))
        .collect();
    if command == "create_plate" {
        parameters.insert("image_dir".to_owned(), json!("none"));
    }
    Value::Object(parameters)
}

#[test]
fn unknown_and_missing_parameters_are_refused() {
    let folder = Folder::new("unknown");
    for (task, side, command, _) in sides() {
        let good = parameters(&task, side, &command);
        let error = folder.call_v2(&command, &good).err().unwrap_or_default();
        assert!(
            !error.contains("cannot use the parameters"),
            "{command}: {error}"
        );
        let mut bad = good.clone();
        bad["colour"] = json!(1);
        let error = folder.call_v2(&command, &bad).unwrap_err();
        assert!(
            error.contains("unknown field `colour`"),
            "{command}: {error}"
        );
        // No task of these uses zarr_dir but the converter, which cannot do without.
        let key = host_keys(&task, side).last().unwrap();
        let mut bad = good.clone();
        bad.as_object_mut().unwrap().remove(*key);
        let error = folder.call_v2(&command, &bad).unwrap_err();
        assert!(
            error.contains(&format!("missing field `{key}`")),
            "{command}: {error}"
        );
    }
    let error = folder
        .call_v2("choose_images", &json!({"zarr_urls": [], "max_images": 0}))
        .unwrap_err();
    assert_eq!(error, "max_images is 0: it must be from 1 to 10000");
}

#[test]
fn an_unknown_task_is_named_with_those_there_are() {
    let error = Folder::new("name")
        .call_v2("segment", &json!({}))
        .unwrap_err();
    let expected = "\"segment\" is none of the tasks create_plate, convert_images, choose_images, ";
    assert!(
        error.starts_with(expected) && error.ends_with("put one of them before --args-json"),
        "{error}"
    );
}

#[test]
fn urls_are_taken_apart_and_put_together() {
    for (url, folder) in [
        ("/data/a b/plate1.zarr/B/03/0", "/data/a b"),
        ("/p.zarr/B/03/0/q.zarr/AA/103/12", "/p.zarr/B/03/0"),
        ("/plate1.zarr/B/03/0", ""),
    ] {
        let parsed = ImageUrl::parse(url).unwrap();
        assert_eq!(
            (parsed.folder.as_str(), parsed.url().as_str()),
            (folder, url)
        );
        assert_eq!(parsed.path(), Path::new(url));
        assert_eq!(ImageUrl::parse(&format!("{url}/")).unwrap(), parsed);
    }
    for url in [
        "",
        "plate1.zarr/B/03/0",
        "data/plate1.zarr/B/03/0",
        "s3://bucket/plate1.zarr/B/03/0",
        "/data/plate1.zarr/B/03",
        "/data/plate1.zarr/B/03/labels",
        "/data/image.zarr",
    ] {
        let error = ImageUrl::parse(url).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("zarr_url {url:?} is no image of a plate")),
            "{error}"
        );
    }
}

#[test]
fn relative_folders_start_next_to_the_dataset() {
    for (image_dir, expected) in [
        ("images", "/data/images"),
        ("./a/../images", "/data/images"),
        ("../images", "/images"),
        ("../../../images", "/images"),
        ("/raw/../images", "/images"),
    ] {
        assert_eq!(
            resolve(Path::new("/data/results"), Path::new(image_dir)),
            Path::new(expected),
            "{image_dir}"
        );
    }
}

const SIZE: usize = 48;

/// Two wells with one field and one with two, two channels, two planes: dots on uneven light.
fn write_images(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    for (image, name) in ["B03_F001", "B04_F001", "C03_F001", "C03_F002"]
        .iter()
        .enumerate()
    {
        for (z, channel) in [(1, 1), (2, 1), (1, 2), (2, 2)] {
            let pixel = |y: usize, x: usize| {
                let is_near = |center: usize| {
                    center.abs_diff(y).pow(2) + (center + 4 * z).abs_diff(x).pow(2) < 30
                };
                let dot = if is_near(8 + 4 * image) || is_near(26 + 4 * image) {
                    3000 * z
                } else {
                    0
                };
                (400 * channel + 2 * x + y + dot) as u16
            };
            let bytes: Vec<u8> = (0..SIZE * SIZE)
                .flat_map(|index| pixel(index / SIZE, index % SIZE).to_be_bytes())
                .collect();
            let path = folder.join(format!("p_{name}_Z00{z}_C0{channel}.png"));
            png_file::write(
                &path,
                (SIZE, SIZE),
                (png::ColorType::Grayscale, png::BitDepth::Sixteen),
                &bytes,
            )
            .unwrap();
        }
    }
}

/// All files below a folder with their contents.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.insert(
                    path.strip_prefix(folder).unwrap().to_owned(),
                    fs::read(&path).unwrap(),
                );
            }
        }
    }
    files
}

/// Arguments of the tasks in both versions.
fn arguments(command: &str) -> Value {
    match command {
        "create_plate" => json!({"complete": false}),
        "convert_images" => json!({"num_levels": 3}),
        "segment_nuclei" => json!({"min_area": 4}),
        _ => json!({}),
    }
}

fn with_arguments(mut parameters: Value, command: &str) -> Value {
    parameters
        .as_object_mut()
        .unwrap()
        .extend(arguments(command).as_object().unwrap().clone());
    parameters
}

fn run_v1(folder: &Folder, images: &str, output: &str) {
    let mut metadata = Map::new();
    for command in crate::tasks::NAMES {
        let parameters =
            json!({"input_paths": [images], "output_path": output, "metadata": metadata});
        let mut parameters = with_arguments(parameters, command);
        let level = match command {
            "convert_images" | "correct_illumination" | "project_maximum" | "segment_nuclei" => {
                "image"
            }
            "measure_regions" => "well",
            _ => {
                let metadiff = folder.call(Version::V1, command, &parameters).unwrap();
                metadata.extend(metadiff.as_object().unwrap().clone());
                continue;
            }
        };
        for component in metadata[level].as_array().unwrap() {
            parameters["component"] = component.clone();
            folder.call(Version::V1, command, &parameters).unwrap();
        }
    }
}

/// Calls a task for the items that its first call returned. The order of the calls does not matter.
fn call_for_items(folder: &Folder, command: &str, first: &Value) -> Vec<Value> {
    let items = first["parallelization_list"].as_array().unwrap();
    let call = |item: &Value| {
        folder
            .call_v2(command, &with_arguments(item.clone(), command))
            .unwrap()
    };
    let mut outputs: Vec<Value> = items.iter().rev().map(call).collect();
    outputs.reverse();
    outputs
}

fn updates(outputs: &[Value]) -> Vec<Value> {
    outputs
        .iter()
        .flat_map(|output| output["image_list_updates"].as_array().unwrap().clone())
        .collect()
}

fn urls(updates: &[Value]) -> Vec<&str> {
    updates
        .iter()
        .map(|update| update["zarr_url"].as_str().unwrap())
        .collect()
}

#[test]
fn both_versions_write_the_same_files() {
    let folder = Folder::new("same");
    let (images, v1, v2) = (folder.text("images"), folder.text("v1"), folder.text("v2"));
    write_images(Path::new(&images));
    fs::create_dir_all(&v2).unwrap();
    run_v1(&folder, &images, &v1);

    let parameters = json!({"zarr_dir": v2, "image_dir": "images"});
    let first = folder
        .call_v2("create_plate", &with_arguments(parameters, "create_plate"))
        .unwrap();
    let file = |z: usize, channel: usize| json!({"file": folder.text(&format!("images/p_C03_F002_Z00{z}_C0{channel}.png"))});
    assert_eq!(
        first["parallelization_list"][3]["init_args"]["files"],
        json!([[file(1, 1), file(2, 1)], [file(1, 2), file(2, 2)]])
    );
    let converted = updates(&call_for_items(&folder, "convert_images", &first));
    let image = |plate: &str, below: &str| format!("{v2}/{plate}.zarr/{below}");
    assert_eq!(
        urls(&converted),
        ["B/03/0", "B/04/0", "C/03/0", "C/03/1"].map(|below| image("p", below))
    );
    assert_eq!(
        converted[3],
        json!({
            "zarr_url": image("p", "C/03/1"),
            "attributes": {"plate": "p.zarr", "well": "C03", "field": "F002", "acquisition": 0},
            "types": {"is_3D": true},
        })
    );

    let selected = json!({"zarr_dir": v2, "zarr_urls": urls(&converted)});
    let first = folder.call_v2("choose_images", &selected).unwrap();
    let channel = |id: &str| json!({"zarr_url": urls(&converted)[0], "init_args": {"channel": id, "images": urls(&converted)}});
    assert_eq!(
        first,
        json!({"parallelization_list": [channel("C01"), channel("C02")]})
    );
    assert_eq!(
        updates(&call_for_items(&folder, "estimate_illumination", &first)),
        Vec::<Value>::new()
    );
    for url in urls(&converted) {
        let output = folder
            .call_v2("correct_illumination", &json!({"zarr_url": url}))
            .unwrap();
        let types = json!({"illumination_corrected": true});
        assert_eq!(
            output,
            json!({"image_list_updates": [{"zarr_url": url, "types": types}]})
        );
    }

    let first = folder.call_v2("copy_structure", &selected).unwrap();
    let projected = updates(&call_for_items(&folder, "project_maximum", &first));
    assert_eq!(
        projected[3],
        json!({
            "zarr_url": image("p_mip", "C/03/1"),
            "origin": image("p", "C/03/1"),
            "attributes": {"plate": "p_mip.zarr"},
            "types": {"is_3D": false},
        })
    );
    for command in ["segment_nuclei", "measure_regions"] {
        for url in urls(&projected) {
            let parameters = with_arguments(json!({"zarr_url": url}), command);
            assert_eq!(
                folder.call_v2(command, &parameters),
                Ok(json!({"image_list_updates": []}))
            );
        }
    }
    let selected = json!({"zarr_dir": v2, "zarr_urls": urls(&projected)});
    for command in ["merge_tables", "contact_sheet"] {
        assert_eq!(
            folder.call_v2(command, &selected),
            Ok(json!({"image_list_updates": []}))
        );
    }

    // Version 1 has a table for each well, version 2 one for each image.
    let (mut v1, mut v2) = (files(Path::new(&v1)), files(Path::new(&v2)));
    let is_merged = |path: &PathBuf, _: &mut Vec<u8>| !path.starts_with("p_mip.tables");
    let tables: BTreeSet<PathBuf> = v2
        .extract_if(.., |path, bytes| !is_merged(path, bytes))
        .map(|(path, _)| path)
        .collect();
    let names = ["B03_0", "B04_0", "C03_0", "C03_1"]
        .map(|name| PathBuf::from(format!("p_mip.tables/{name}.csv")));
    assert_eq!(tables, names.into());
    v1.retain(is_merged);
    assert_eq!(v1.keys().collect::<Vec<_>>(), v2.keys().collect::<Vec<_>>());
    for (path, bytes) in &v1 {
        assert!(bytes == &v2[path], "{} differs", path.display());
    }
    let table = String::from_utf8(v2[Path::new("p_mip.csv")].clone()).unwrap();
    assert!(
        table.lines().count() > 4 && table.contains("\np,C03,F002,1,"),
        "{table}"
    );
}

#[test]
fn a_selection_has_no_other_images() {
    let folder = Folder::new("selection");
    write_images(&folder.0.join("images"));
    let zarr_dir = folder.text("zarr");
    fs::create_dir_all(&zarr_dir).unwrap();
    let parameters =
        json!({"zarr_dir": zarr_dir, "image_dir": folder.text("images"), "complete": false});
    let first = folder.call_v2("create_plate", &parameters).unwrap();
    call_for_items(&folder, "convert_images", &first);
    let chosen = ["C/03/1", "B/04/0"].map(|below| format!("{zarr_dir}/p.zarr/{below}"));
    let selections = Selection::of(&chosen).unwrap();
    let images: Vec<String> = selections
        .iter()
        .flat_map(Selection::images)
        .map(|image| image.url())
        .collect();
    assert_eq!(images, [chosen[1].as_str(), &chosen[0]]);

    // The new plate has the selected images only, under their own names.
    let first = folder
        .call_v2("copy_structure", &json!({"zarr_urls": chosen}))
        .unwrap();
    let outputs = updates(&call_for_items(&folder, "project_maximum", &first));
    assert_eq!(
        urls(&outputs),
        ["B/04/0", "C/03/1"].map(|below| format!("{zarr_dir}/p_mip.zarr/{below}"))
    );
    let attributes = |below: &str| -> Value {
        serde_json::from_slice(
            &fs::read(folder.text(&format!("zarr/p_mip.zarr/{below}.zattrs"))).unwrap(),
        )
        .unwrap()
    };
    assert_eq!(
        attributes("")["plate"]["wells"].as_array().unwrap().len(),
        2
    );
    assert_eq!(
        attributes("C/03/")["well"]["images"],
        json!([{"path": "1", "acquisition": 0}])
    );

    let unlisted = format!("{zarr_dir}/p.zarr/C/03/7");
    let error = Selection::of(&[unlisted]).unwrap_err().to_string();
    assert!(
        error.contains("p.zarr does not list the image p.zarr/C/03/7; convert the images again"),
        "{error}"
    );
    let error = folder
        .call_v2("copy_structure", &json!({"zarr_urls": chosen}))
        .unwrap_err();
    assert!(
        error.contains("it exists; take it away or set the argument overwrite to true"),
        "{error}"
    );
}
