//! `mandelbox new`: what it makes, that it runs as it is, and what it refuses. The packages
//! themselves are built and run by `tests/it/languages.rs` and `.ci/run`.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::languages::language_modules;
use crate::project::Project;

/// Arguments of `new`, and the example that it takes as its template.
const TEMPLATES: [(&[&str], &str); 6] = [
    (&["--lang", "rust"], "otsu-rust"),
    (&["--lang", "rust", "--kind", "typed"], "otsu-rust-typed"),
    (&["--lang", "c"], "otsu-c"),
    (&["--lang", "go"], "otsu-go"),
    (&["--lang", "python"], "otsu-python"),
    (&["--lang", "javascript"], "otsu-js"),
];

/// Options for each version of Fractal.
const VERSIONS: [&[&str]; 2] = [&[], &["--fractal", "1"]];

fn make(project: &Project, name: &str, more: &[&str]) {
    project
        .mandelbox(&[&["new", name], more].concat())
        .expect(0)
        .reports(&["./build", "mandelbox test ."]);
}

/// The files below a folder, but for those that a build makes.
fn files_in(folder: &Path, prefix: &str, files: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = format!(
            "{prefix}{}",
            path.file_name().unwrap_or_default().to_string_lossy()
        );
        if [
            "target",
            ".tools",
            "__pycache__",
            "mandelbox-runs",
            "results",
        ]
        .contains(&name.as_str())
        {
            continue;
        } else if path.is_dir() {
            files_in(&path, &format!("{name}/"), files);
        } else {
            files.push(name);
        }
    }
    files.sort();
}

#[test]
fn a_package_has_all_files_of_its_example_under_its_own_name() {
    let templates = TEMPLATES.iter();
    let templates = templates.flat_map(|template| VERSIONS.map(|version| (*template, version)));
    for ((arguments, example), version) in templates {
        let project = Project::new();
        make(&project, "count-cells", &[arguments, version].concat());
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("task-examples")
            .join(example);
        let (mut expected, mut made) = (Vec::new(), Vec::new());
        files_in(&folder, "", &mut expected);
        files_in(&project.path("count-cells"), "", &mut made);
        let is_v1 = version.contains(&"1");
        if is_v1 {
            // The files of the folder `v1` take the place of those of version 2.
            let is_of_version = |file: &String| {
                file == "README.md" || file == "workflow.json" || file.starts_with("tests/")
            };
            expected.retain(|file| !is_of_version(file) && file != "__FRACTAL_MANIFEST__.json");
            let v1 = expected.iter().filter_map(|file| file.strip_prefix("v1/"));
            let v1 = v1.filter(|file| !file.starts_with("images/"));
            let v1: Vec<_> = v1.map(str::to_owned).collect();
            expected.extend(v1);
        }
        expected.retain(|file| !file.starts_with("v1/"));
        let is_typed = ["otsu-rust-typed", "otsu-python", "otsu-js"].contains(&example);
        expected.extend(is_typed.then(|| "wit/task.wit".to_owned()));
        expected.sort();
        assert_eq!(made, expected, "{example} {version:?}");
        for file in made.iter().filter(|file| !file.ends_with(".pgm")) {
            let text = project.read(&format!("count-cells/{file}"));
            assert!(
                !text.contains("otsu-") && !text.contains("../"),
                "{example}: {file}: {text}"
            );
        }
        assert!(
            project
                .read("count-cells/build")
                .contains("count-cells.wasm")
        );
        let mode = project
            .path("count-cells/build")
            .metadata()
            .expect("there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o111, (mode & 0o444) >> 2, "{mode:o}");
    }
}

#[test]
fn a_package_runs_with_its_module_and_nothing_else() {
    for (name, module) in language_modules() {
        let Some((arguments, _)) = TEMPLATES.iter().find(|(_, example)| *example == name) else {
            continue;
        };
        let project = Project::new();
        make(&project, "my_task2", arguments);
        std::fs::copy(&module, project.path("my_task2/my_task2.wasm")).expect("copied");
        let in_package = |arguments: &[&str]| {
            let mut command = project.command(arguments);
            command.current_dir(project.path("my_task2"));
            crate::project::finish(command)
        };
        in_package(&["check", "."])
            .expect(0)
            .reports(&["no problem found"]);
        in_package(&["test", "."]).expect(0).reports(&["4 passed"]);
        let folder = format!("0.folder={}", project.path("my_task2/images").display());
        let run = [
            "run",
            "workflow.json",
            "--zarr-dir",
            "results",
            "--read",
            "images",
            "--set",
            &folder,
            "--work-dir",
            "work",
        ];
        let ended = in_package(&run).expect(0);
        assert!(
            !ended.stderr.contains("warning"),
            "{name}: {}",
            ended.stderr
        );
        let dataset = project.json("my_task2/work/dataset.json");
        assert_eq!(dataset["images"][0]["attributes"]["threshold"], 96);
        assert_eq!(dataset["images"][0]["types"]["masked"], true);
        assert!(project.path("my_task2/results/nuclei/mask.pgm").is_file());
    }
}

#[test]
fn a_package_of_version_1_runs_with_its_module_and_nothing_else() {
    for (name, module) in language_modules() {
        let Some((arguments, _)) = TEMPLATES.iter().find(|(_, example)| *example == name) else {
            continue;
        };
        let project = Project::new();
        make(
            &project,
            "my_task2",
            &[arguments, &["--fractal", "1"][..]].concat(),
        );
        std::fs::copy(&module, project.path("my_task2/my_task2.wasm")).expect("copied");
        let in_package = |arguments: &[&str]| {
            let mut command = project.command(arguments);
            command.current_dir(project.path("my_task2"));
            crate::project::finish(command)
        };
        in_package(&["check", "workflow.json"])
            .expect(0)
            .reports(&["\"Otsu threshold\"", "no problem found"]);
        let run = [
            "run",
            "workflow.json",
            "--input",
            "images",
            "--output",
            "results",
            "--work-dir",
            "work",
        ];
        let ended = in_package(&run).expect(0);
        assert!(
            !ended.stderr.contains("warning"),
            "{name}: {}",
            ended.stderr
        );
        let history = project.json("my_task2/work/history.json");
        assert_eq!(
            history[1]["workflowtask"]["task"]["source"],
            "my_task2:otsu_threshold"
        );
        assert_eq!(history[1]["workflowtask"]["args"]["write_mask"], true);
        assert!(project.path("my_task2/results/nuclei_mask.pgm").is_file());
    }
}

#[test]
fn a_name_must_suit_its_folder_and_its_language() {
    let project = Project::new();
    let before = project.tree();
    let long = "a".repeat(65);
    for name in [
        "a.b", "a b", "1a", "_a", "-", "é", ".", "..", "a/..", "a;b", "a$b", "a\nb", &long,
    ] {
        let ended = project
            .mandelbox(&["new", "--lang", "c", "--", name])
            .expect(2);
        ended.reports(&["not a valid package name"]);
    }
    for name in ["serde_json", "otsu-rust", "std", "fn", "test", "deps"] {
        project
            .mandelbox(&["new", name, "--lang", "rust"])
            .expect(2)
            .reports(&["it is reserved in the language of the package"]);
    }
    project
        .mandelbox(&["new", "wit-bindgen", "--lang", "rust", "--kind", "typed"])
        .expect(2);
    project
        .mandelbox(&["new", "std", "--lang", "go"])
        .expect(2)
        .reports(&["it is reserved in the language of the package"]);
    assert_eq!(project.tree(), before);
    for (name, language) in [
        ("serde_json", "c"),
        ("A-1_b", "go"),
        (&long[1..], "python"),
        ("in/deep", "js"),
    ] {
        make(&project, name, &["--lang", language]);
    }
    assert!(
        project
            .read("in/deep/workflow.json")
            .contains("\"pkg_name\": \"deep\"")
    );
}

#[test]
fn existing_files_stay_and_no_partial_file_is_left() {
    let project = Project::new();
    project.write("full/notes.txt", "mine");
    project.write("file", "mine");
    let before = project.tree();
    project
        .mandelbox(&["new", "full", "--lang", "c"])
        .expect(2)
        .reports(&["full: exists and is not empty"]);
    project
        .mandelbox(&["new", "file", "--lang", "c"])
        .expect(2)
        .reports(&["file: cannot be created"]);
    project
        .mandelbox(&["new", "none/a", "--lang", "c"])
        .expect(2)
        .reports(&["none/a: its parent folder does not exist"]);
    for (language, kind) in [
        ("c", "typed"),
        ("go", "typed"),
        ("python", "command"),
        ("js", "command"),
    ] {
        let ended = project
            .mandelbox(&["new", "a", "--lang", language, "--kind", kind])
            .expect(2);
        ended.reports(&["no template for this language and kind"]);
    }
    project
        .mandelbox(&["new", "a", "--lang", "cobol"])
        .expect(2)
        .reports(&["rust, c, go, python, js"]);
    assert_eq!(project.tree(), before);
    // An empty folder is as good as none.
    std::fs::create_dir(project.path("empty")).expect("made");
    make(&project, "empty", &["--lang", "c"]);
}
