//! Task packages of version 2, as they are published: a folder with a manifest and modules.

use std::path::Path;

use serde_json::{Value, json};

use crate::project::{Project, module};

/// Name of the package of the recorded cases.
pub const NAME: &str = "mandelbox-swiss";

/// A package in a project.
pub struct Package<'a> {
    pub name: &'a str,
    pub version: &'a str,
    /// The manifest, as the package's author wrote it.
    pub manifest: Value,
    /// Module that replaces `swiss.py`.
    pub module: &'a str,
    /// True if the name and the version are in `*.dist-info/METADATA`, next to the package; else
    /// they are keys of the manifest.
    pub has_dist_info: bool,
}

impl<'a> Package<'a> {
    /// Version 1.0.0 of the package of the recorded cases.
    pub fn new(manifest: Value) -> Self {
        Self {
            name: NAME,
            version: "1.0.0",
            manifest,
            module: "swiss.wasm",
            has_dist_info: true,
        }
    }

    /// Writes the package and its modules. Returns its folder, relative to the project.
    pub fn write(mut self, project: &Project) -> String {
        let site = format!("site-{}-{}", self.name, self.version);
        let import_name = self.name.replace('-', "_");
        let folder = format!("{site}/{import_name}");
        if self.has_dist_info {
            let info = format!("{site}/{import_name}-{}.dist-info", self.version);
            project.write(
                &format!("{info}/METADATA"),
                format!(
                    "Metadata-Version: 2.1\nName: {}\nVersion: {}\nSummary: tasks\n\n# Tasks\n\n\
                     Name: not a header\n",
                    self.name, self.version
                ),
            );
            project.write(
                &format!("{info}/RECORD"),
                format!("{import_name}/__FRACTAL_MANIFEST__.json,,\n"),
            );
        } else if let Value::Object(manifest) = &mut self.manifest {
            manifest.insert("pkg_name".to_owned(), json!(self.name));
            manifest.insert("version".to_owned(), json!(self.version));
        }
        for program in programs(&self.manifest) {
            write_module(&project.path(&folder), &program, self.module);
        }
        project.write(
            &format!("{folder}/__FRACTAL_MANIFEST__.json"),
            self.manifest.to_string(),
        );
        folder
    }
}

/// The executables of a manifest that have a module, without `.py`.
fn programs(manifest: &Value) -> Vec<String> {
    let tasks = manifest["task_list"].as_array().into_iter().flatten();
    let names = tasks.flat_map(|task| {
        let sides = ["executable_non_parallel", "executable_parallel"];
        sides.map(|side| task[side].as_str())
    });
    let names = names.flatten().filter_map(|name| name.strip_suffix(".py"));
    let names = names.filter(|name| *name != "missing");
    names.map(str::to_owned).collect()
}

fn write_module(folder: &Path, program: &str, swiss: &str) {
    let path = folder.join(format!("{program}.wasm"));
    std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
    if program == "true" {
        std::fs::write(path, empty_module()).expect("written");
    } else {
        std::fs::copy(module(swiss), path).expect("copied");
    }
}

/// A module that does nothing.
pub fn empty_module() -> Vec<u8> {
    wat::parse_str("(module (func (export \"_start\")))").expect("WAT")
}

/// A path in a project, as text.
pub fn text_of(path: &Path) -> String {
    path.to_str().expect("UTF-8").to_owned()
}

/// A manifest with these tasks.
pub fn manifest(tasks: &[Value]) -> Value {
    json!({ "manifest_version": "2", "task_list": tasks })
}

/// A task of a manifest, each of whose calls is one of the module `swiss.wasm`.
pub fn swiss(name: &str, task_type: &str) -> Value {
    let mut task = json!({ "name": name, "type": task_type });
    if task_type != "parallel" {
        task["executable_non_parallel"] = json!("swiss.py");
    }
    if !task_type.ends_with("non_parallel") {
        task["executable_parallel"] = json!("swiss.py");
    }
    task
}

/// An entry of an exported workflow, for a task of version 1.0.0 of [`NAME`].
pub fn entry(name: &str, mut more: Value) -> Value {
    more["task"] = json!({ "pkg_name": NAME, "version": "1.0.0", "name": name });
    more
}

/// Writes workflow.json.
pub fn write_workflow(project: &Project, task_list: &[Value]) {
    let workflow = json!({ "name": "test", "description": null, "task_list": task_list });
    project.write("workflow.json", workflow.to_string());
}

/// Writes dataset.json: a dataset in the folder `zarr`, which is created, with these images.
pub fn write_dataset(project: &Project, names: &[&str]) {
    let zarr_dir = text_of(&project.path("zarr"));
    std::fs::create_dir_all(&zarr_dir).expect("made");
    let images = names.iter().map(
        |name| json!({ "zarr_url": format!("{zarr_dir}/{name}"), "attributes": {}, "types": {} }),
    );
    let images: Vec<_> = images.collect();
    let dataset = json!({ "name": "test", "zarr_dir": zarr_dir, "images": images });
    project.write("dataset.json", dataset.to_string());
}
