//! A run with failed calls is resumed after a repair of its input.

use std::path::Path;

use serde_json::{Value, json};

use super::{begun, has_note, n_events, of_task};
use crate::project::{ISOLATIONS, Project, fractal_history, module, parallel_task, task};

const RESUME: [&str; 2] = ["--resume", "--keep-going"];

fn image(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("task-examples/otsu/images")
        .join(name);
    std::fs::read(path).expect("an image of the examples")
}

/// Value of a key of each task in the answer of `status`.
fn status_of_tasks(project: &Project, key: &str) -> Vec<Value> {
    let status = project
        .mandelbox(&["status", "work", "--format", "json"])
        .expect(0);
    let status: Value = serde_json::from_str(&status.stdout).expect("JSON");
    status["tasks"]
        .as_array()
        .expect("tasks")
        .iter()
        .map(|task| task[key].clone())
        .collect()
}

#[test]
fn after_a_repair_only_the_failed_components_run() {
    for isolation in ISOLATIONS {
        let project = Project::new();
        let images = ["a.pgm", "b.pgm", "c.pgm", "d.pgm"];
        images
            .iter()
            .for_each(|name| drop(project.write(&format!("in/{name}"), image("cells.pgm"))));
        project.write("in/b.pgm", "no image");
        project.write("metadata.json", json!({ "image": images }).to_string());
        let otsu = parallel_task(0, "otsu", &module("otsu-rust.wasm"), "image", json!({}));
        let last = task(
            1,
            "last",
            &module("swiss.wasm"),
            json!({ "echo": ["metadata"] }),
        );
        project.workflow(&[otsu, last]);
        let more = ["--metadata", "metadata.json", "--isolation", isolation];
        let run = |more_yet: &[&str]| project.run(&[&more[..], more_yet].concat());
        run(&["--keep-going"]).expect(3).reports(&[
            "b.pgm",
            "resume: the same command with `--work-dir ",
            "/work --resume`",
        ]);
        let stderr_file = project.path("work/0_otsu/0_par_b_pgm.err");
        let text = std::fs::read_to_string(&stderr_file).expect("there");
        assert!(text.contains("no binary PGM image"), "{text}");

        // Nothing was repaired: the same again.
        let before = n_events(&project);
        run(&RESUME).expect(3).reports(&["b.pgm"]);
        assert_eq!(begun(&project, before), of_task(0, &["b.pgm"]));
        assert_eq!(
            project.events_of("call_started").last().expect("a call")["attempt"],
            2
        );

        project.write("in/b.pgm", image("nuclei.pgm"));
        let before = n_events(&project);
        run(&RESUME)
            .expect(0)
            .reports(&["[1/2] otsu: 4 calls, 3 reused\n"]);
        assert_eq!(
            begun(&project, before),
            [of_task(0, &["b.pgm"]), vec![(1, Value::Null)]].concat()
        );
        assert_eq!(
            project
                .events_of("call_started")
                .iter()
                .rev()
                .nth(1)
                .expect("a call")["attempt"],
            3
        );
        assert!(has_note(
            &project,
            "3 of 4 calls had succeeded; their results are reused"
        ));
        assert_eq!(std::fs::read_to_string(&stderr_file).expect("there"), "");
        let log = project.read("work/workflow.log");
        assert_eq!(
            log.matches("Start execution of workflow").count(),
            1,
            "{log}"
        );
        assert_eq!(
            log.matches("Resume execution of workflow").count(),
            2,
            "{log}"
        );

        let resumed = project.json("work/result.json");
        assert_eq!(resumed["metadata"], project.json("work/metadata.json"));
        assert_eq!(resumed["history"], project.json("work/history.json"));
        let report = project.read("work/report.html");
        for text in ["a.pgm", "b.pgm", "d.pgm"] {
            assert!(report.contains(text), "the report has no {text}");
        }
        let counts = |key: &str| status_of_tasks(&project, key);
        assert_eq!(
            (counts("n_reused"), counts("n_done")),
            (vec![json!(3), json!(0)], vec![json!(4), json!(1)])
        );

        // Reused whole, a task keeps its times.
        let before = status_of_tasks(&project, "started");
        run(&RESUME).expect(0);
        assert_eq!(status_of_tasks(&project, "started"), before);

        // An undisturbed run gives the same.
        let undisturbed = ["--work-dir", "other", "--output", "out"];
        let arguments = [
            &["run", "workflow.json", "--input", "in"],
            &more[..],
            &undisturbed,
        ]
        .concat();
        project.mandelbox(&arguments).expect(0);
        let other = project.json("other/result.json");
        assert_eq!(resumed["metadata"], other["metadata"]);
        assert_eq!(
            fractal_history(&resumed["history"]),
            fractal_history(&other["history"])
        );

        // A run that succeeded can be resumed too, and has nothing to do.
        let before = n_events(&project);
        run(&RESUME).expect(0);
        assert_eq!(begun(&project, before), []);
        let again = project.json("work/result.json");
        assert_eq!(again["metadata"], resumed["metadata"]);
        assert_eq!(
            fractal_history(&again["history"]),
            fractal_history(&resumed["history"])
        );
    }
}
