//! `report.html` and `mandelbox report`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mandelbox::backend::Local;
use mandelbox::event::seal_lines;
use mandelbox::fractal::v1::WorkflowDocument;
use mandelbox::problem::Problems;
use mandelbox::process_workflow;
use mandelbox::report::HtmlReport;
use mandelbox::run::{ProcessWorkflow, RunOptions};
use serde_json::{Value, json};

use crate::project::{Project, finish_within, module, parallel_task, task};

const HOSTILE: &str = "</script><img src=x onerror=alert(1)>&\"'\u{202e}{{title}}";

/// The log of a run with one task of `n_calls` calls on eight workers, each hundredth of which
/// fails.
pub fn synthetic_log(n_calls: usize) -> Vec<u8> {
    let mut lines = Vec::new();
    let started: jiff::Timestamp = "2027-01-02T03:04:05Z".parse().expect("a time");
    let mut add = |us: u64, mut event: Value| {
        let time = started + Duration::from_micros(us);
        (event["seq"], event["time"]) = (lines.len().into(), format!("{time:.6}").into());
        lines.push(event.to_string());
    };
    add(
        0,
        json!({ "event": "run_started", "format_version": 3, "mandelbox_version": "0.1.0", "backend": "local",
        "workflow": "synthetic", "logger_name": "synthetic", "work_dir": "/nowhere", "input_paths": ["/in"],
        "output_path": "/out", "input_metadata_keys": ["c"], "first_task_index": 0, "last_task_index": 1 }),
    );
    add(
        1,
        json!({ "event": "task_started", "task": 0, "name": "segment", "n_calls": n_calls,
        "items": "c", "module_sha256": "ab".repeat(32) }),
    );
    let call = |index: usize, event: &str| {
        json!({ "event": event, "task": 0, "call_index": index,
        "item": format!("plate.zarr/B/{:02}/{index}", index % 12), "attempt": 1 })
    };
    let took = |index: usize| 5_000 + (index as u64 * 7919) % 20_000;
    let mut running = std::collections::VecDeque::new();
    let mut now = 1;
    let end = |now: &mut u64, index: usize, add: &mut dyn FnMut(u64, Value)| {
        *now += took(index) / 8;
        let mut event = call(index, "call_finished");
        let ended = match index % 100 {
            99 => json!({ "outcome": "exited", "code": 3 }),
            _ => json!({ "outcome": "succeeded", "output": null }),
        };
        let usage = json!({ "wall_time_s": took(index) as f64 / 1e6, "peak_memory_bytes": 65536 * (20 + index % 40),
            "stdout_bytes": 0, "stderr_bytes": 0 });
        for fields in [ended, usage] {
            event
                .as_object_mut()
                .expect("an object")
                .extend(fields.as_object().expect("an object").clone());
        }
        add(*now, event);
    };
    for index in 0..n_calls {
        if running.len() == 8 {
            end(&mut now, running.pop_front().expect("eight"), &mut add);
        }
        add(now, call(index, "call_started"));
        running.push_back(index);
    }
    running
        .drain(..)
        .for_each(|index| end(&mut now, index, &mut add));
    add(
        now,
        json!({ "event": "task_finished", "task": 0, "name": "segment", "status": "failed", "n_failed": n_calls / 100 }),
    );
    add(
        now,
        json!({ "event": "run_finished", "status": "failed", "error": "TaskExecutionError" }),
    );
    let text = lines.iter().fold(String::new(), |mut text, line| {
        let _ = writeln!(text, "{line}");
        text
    });
    seal_lines(text.as_bytes())
}

/// What the page's script gets.
fn timeline(page: &str) -> Value {
    let data = page
        .split("id=\"timeline-data\">")
        .nth(1)
        .expect("data")
        .split("</script>")
        .next()
        .expect("an end");
    serde_json::from_str(data).expect("JSON")
}

fn hostile_run() -> Project {
    let project = Project::new();
    let list = task(
        0,
        "list",
        &module("swiss.wasm"),
        json!({ "metadiff": { "c": ["A", HOSTILE] } }),
    );
    let fails = json!({ "per_component": { HOSTILE: { "stderr": format!("why {HOSTILE}\n"), "exit": 3 } } });
    project.workflow(&[
        list,
        parallel_task(1, HOSTILE, &module("swiss.wasm"), "c", fails),
    ]);
    project
        .run(&["--keep-going"])
        .expect(3)
        .reports(&["report.html"]);
    project
}

#[test]
fn a_run_leaves_a_page_that_answers() {
    let project = hostile_run();
    let page = project.read("work/report.html");
    for text in [
        "failed: TaskExecutionError",
        "<h2>Failed calls (1)</h2>",
        "exited with code 3",
        "slowest call: ",
        "<h2>Timeline</h2>",
        "class=\"axis\"",
        "one call for each c",
        env!("CARGO_PKG_VERSION"),
        "href=\"./workflow.log\"",
    ] {
        assert!(page.contains(text), "{text} is not in: {page}");
    }
    let events = project.read("work/events.jsonl");
    let digest = events
        .split("\"module_sha256\":\"")
        .nth(1)
        .expect("a task")
        .split('"')
        .next()
        .expect("a digest");
    assert!(page.contains(digest));
    assert_eq!(timeline(&page)["state"].as_str().map(str::len), Some(3));
    for loading in ["http:", "https:", "<link", "<img", "@import", "url("] {
        assert!(!page.contains(loading), "{loading}: it loads nothing");
    }
}

#[test]
fn no_text_of_a_guest_is_markup() {
    let page = hostile_run().read("work/report.html");
    assert!(
        !page.contains("<img") && !page.contains('\u{202e}'),
        "{page}"
    );
    let shown =
        "&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;&amp;&quot;&#39;\\u{202e}{{title}}";
    assert!(page.contains(&format!("why {shown}")), "{page}");
    assert!(
        page.matches(shown).count() >= 4,
        "the task, the component and its stderr: {page}"
    );
    assert_eq!(page.matches("</script>").count(), 2);
    let names = timeline(&page)["names"].as_array().cloned().expect("names");
    assert!(
        names.contains(&json!(HOSTILE.replace('\u{202e}', "\\u{202e}"))),
        "{names:?}"
    );
}

#[test]
fn parameters_of_each_task_are_folded() {
    let project = Project::new();
    let args = json!({ "metadiff": { "c": ["A"] }, HOSTILE: [12345678901234567890_u64, 1.50], "long": "x".repeat(30_000) });
    let plain = task(0, "list", &module("swiss.wasm"), args);
    let fails = parallel_task(
        1,
        "segment",
        &module("swiss.wasm"),
        "c",
        json!({ "exit": 3 }),
    );
    let without = task(2, "later", &module("swiss.wasm"), json!({}));
    project.workflow(&[plain, fails, without]);
    project.run(&[]).expect(3);
    let page = project.read("work/report.html");
    for text in [
        "<h2>Parameters</h2>",
        "<summary><strong>0 list</strong>: metadiff, ",
        "<summary><strong>1 segment</strong>: exit</summary>",
        "    12345678901234567890,\n    1.5\n  ]",
        "&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;",
        "x\n... the rest is in result.json",
        "  &quot;exit&quot;: 3\n}",
    ] {
        assert!(page.contains(text), "{text} is not in: {page}");
    }
    assert!(
        !page.contains("<img") && !page.contains("2 later"),
        "{page}"
    );
    // Without the records that have them the page is there all the same.
    for name in ["result.json", "history.json"] {
        std::fs::remove_file(project.path("work").join(name)).expect("removed");
    }
    project.mandelbox(&["report", "work"]).expect(0);
    assert!(
        !project
            .read("work/report.html")
            .contains("<h2>Parameters</h2>")
    );
}

/// A run of 20 tasks is killed in its last one, and resumed later.
#[test]
fn gaps_and_many_tasks_are_distinguishable() {
    let project = Project::new();
    let tasks: Vec<_> = (0..20)
        .map(|order| {
            task(
                order,
                &format!("t{order}"),
                &module("swiss.wasm"),
                json!({ "sleep_ms": 3 }),
            )
        })
        .collect();
    project.workflow(&tasks);
    project.run(&[]).expect(0);
    let log = project.read("work/events.jsonl");
    let last_end = log.rfind("call_finished").expect("a call");
    let end = log[..last_end].rfind('\n').expect("a line") + 1;
    project.write("work/events.jsonl", &log[..end]);
    std::thread::sleep(std::time::Duration::from_millis(300));
    project.run(&["--resume"]).expect(0);
    let page = project.read("work/report.html");
    let data = timeline(&page);
    let seconds = |value: &Value| {
        let units = value.as_f64().expect("a number") * data["unit_us"].as_f64().expect("a number");
        units / 1e6
    };
    let gaps = data["gaps"].as_array().expect("a list");
    let [gap] = &gaps[..] else {
        panic!("{gaps:?}");
    };
    assert!(seconds(&gap[1]) - seconds(&gap[0]) >= 0.3, "{gap}");
    // The call that was killed ends with its run.
    let (mut at, mut killed) = (0.0, Vec::new());
    let lists = [&data["start"], &data["length"]].map(|list| list.as_array().expect("a list"));
    for (index, state) in data["state"].as_str().expect("text").chars().enumerate() {
        at += seconds(&lists[0][index]);
        if state == '2' {
            killed.push(at + seconds(&lists[1][index]));
        }
    }
    assert_eq!(killed.len(), 1);
    assert!(killed[0] <= seconds(&gap[0]) + 0.01, "{killed:?}, {gap}");
    let colors: std::collections::BTreeSet<_> = data["color"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(Value::as_u64)
        .collect();
    assert_eq!(colors.len(), 20);
    for color in colors {
        let (variable, class) = (format!("--c{color}: "), format!(".c{color} {{ fill: "));
        assert!(page.contains(&variable) && page.contains(&class), "{color}");
    }
    for text in [
        "CPU time of calls of 1 ms or more",
        "<th class=\"n\">CPU time</th>",
    ] {
        assert!(page.contains(text), "{text}");
    }
}

#[test]
fn the_page_is_recreated_from_the_log() {
    let project = hostile_run();
    let page = project.read("work/report.html");
    std::fs::remove_file(project.path("work/report.html")).expect("removed");
    project
        .mandelbox(&["report", "work"])
        .expect(0)
        .reports(&["work/report.html"]);
    assert_eq!(project.read("work/report.html"), page);
    let log = project.read("work/events.jsonl");
    project.write(
        "work/events.jsonl",
        &log[..log.rfind("task_finished").expect("there")],
    );
    project.mandelbox(&["report", "work"]).expect(0);
    assert!(
        project
            .read("work/report.html")
            .contains("unfinished: still running, or killed")
    );
    project
        .mandelbox(&["report", "in"])
        .expect(2)
        .reports(&["in: not the work directory of a run"]);
    project.write("work/events.jsonl", "");
    project
        .mandelbox(&["report", "work"])
        .expect(2)
        .reports(&["contains no event yet"]);
}

#[test]
fn a_report_that_cannot_be_written_fails_no_run() {
    let project = Project::new();
    project.workflow(&[task(0, "list", &module("swiss.wasm"), json!({}))]);
    std::fs::create_dir_all(project.path("work/report.html/x")).expect("made");
    let mut problems = Problems::default();
    let workflow = WorkflowDocument::read_into(&project.path("workflow.json"), &mut problems)
        .expect("a workflow");
    let arguments = ProcessWorkflow::new(workflow, &project.path("out"), &project.path("work"));
    let options = RunOptions::new(Arc::new(Local::new(1).expect("a backend")));
    let reporter = HtmlReport::new(&project.path("work"));
    process_workflow(&arguments, options, vec![Box::new(reporter)]).expect("the run ends well");
    assert!(project.path("work/report.html/x").is_dir());
    let events = project.read("work/events.jsonl");
    assert!(
        events
            .lines()
            .last()
            .expect("events")
            .contains("run_finished"),
        "{events}"
    );
}

#[test]
fn ten_thousand_calls_are_a_small_page() {
    let project = Project::new();
    project.write("in/events.jsonl", synthetic_log(10_000));
    project.mandelbox(&["report", "in"]).expect(0);
    let page = project.read("in/report.html");
    assert!(page.len() < 1_500_000, "{} bytes", page.len());
    let data = timeline(&page);
    assert_eq!(
        (data["start"].as_array().map(Vec::len), &data["n_lanes"]),
        (Some(10_000), &json!(8))
    );
    assert_eq!(data["names"].as_array().map(Vec::len), Some(10_000));
    assert!(page.contains("<h2>Failed calls (100)</h2>") && page.contains("plate.zarr/B/03/99"));
}

/// The first browser of this kind on the PATH.
fn chromium() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let places: Vec<_> = std::env::split_paths(&path).collect();
    let names = ["chromium", "chromium-browser", "google-chrome"];
    names.iter().find_map(|name| {
        places
            .iter()
            .map(|location| location.join(name))
            .find(|path| path.is_file())
    })
}

fn rendered(browser: &Path, page: &Path, profile: &Path) -> String {
    let mut command = Command::new(browser);
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]);
    command
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("file://{}", page.display()));
    finish_within(command, Duration::from_secs(60))
        .expect(0)
        .stdout
}

#[test]
fn a_browser_draws_the_page_and_runs_nothing_of_a_guest() {
    let Some(browser) = chromium() else { return };
    let project = Project::new();
    project.write("in/events.jsonl", synthetic_log(10_000));
    project.mandelbox(&["report", "in"]).expect(0);
    let started = Instant::now();
    let dom = rendered(
        &browser,
        &project.path("in/report.html"),
        &project.path("profile"),
    );
    assert!(
        dom.contains("data-drawn=\"10000\""),
        "the script has not come to its end"
    );
    // With the start of the browser, on a machine with other work.
    assert!(
        started.elapsed() < Duration::from_secs(20),
        "{:?}",
        started.elapsed()
    );
    let hostile = hostile_run();
    let dom = rendered(
        &browser,
        &hostile.path("work/report.html"),
        &project.path("profile"),
    );
    assert!(
        dom.contains("data-drawn=\"3\"") && !dom.contains("<img"),
        "{dom}"
    );
}
