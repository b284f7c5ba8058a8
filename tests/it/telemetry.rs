//! The program built with the feature `otel`: its spans arrive at a collector, which is a small
//! HTTP server here.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::project::{Ended, Project, finish, module, parallel_task, task};

/// A request that came: its path, its headers with small names, its body.
type Request = (String, HashMap<String, String>, Vec<u8>);

/// A collector that answers every request in the same way.
struct Collector {
    address: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Collector {
    /// * `status`: such as `200 OK`; `None`: requests are read and get no answer.
    fn start(status: Option<&'static str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("its address"));
        let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
        let kept = Arc::clone(&requests);
        // It ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let kept = Arc::clone(&kept);
                std::thread::spawn(move || {
                    let mut stream = BufReader::new(stream.expect("a connection"));
                    while let Some(request) = read_request(&mut stream) {
                        kept.lock().expect("not poisoned").push(request);
                        let Some(status) = status else {
                            std::thread::sleep(Duration::from_secs(600));
                            return;
                        };
                        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
                        if stream.get_mut().write_all(answer.as_bytes()).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { address, requests }
    }

    fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("not poisoned").clone()
    }

    /// All spans that came, as OTLP has them in JSON, with the attributes of their program.
    fn spans(&self) -> Vec<(Value, Value)> {
        let mut spans = Vec::new();
        for (_, _, body) in self.requests() {
            let body: Value = serde_json::from_slice(&body).expect("JSON");
            for resource in body["resourceSpans"].as_array().expect("an array") {
                let of_program = attributes(&resource["resource"]);
                let scopes = resource["scopeSpans"].as_array().expect("an array");
                let all = scopes
                    .iter()
                    .flat_map(|scope| scope["spans"].as_array().expect("an array"));
                spans.extend(all.map(|span| (span.clone(), of_program.clone())));
            }
        }
        spans
    }
}

fn read_request(stream: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    stream.read_line(&mut line).ok()?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut headers = HashMap::new();
    loop {
        line.clear();
        stream.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length = headers
        .get("content-length")
        .and_then(|length| length.parse().ok())
        .unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some((path, headers, body))
}

/// The attributes of a span, an event or a program as one object.
fn attributes(of: &Value) -> Value {
    let pairs = of["attributes"]
        .as_array()
        .expect("an array")
        .iter()
        .map(|pair| {
            let value = pair["value"]
                .as_object()
                .and_then(|value| value.values().next())
                .cloned();
            (
                pair["key"].as_str().expect("a text").to_owned(),
                value.unwrap_or_default(),
            )
        });
    Value::Object(pairs.collect())
}

/// A run of 1 + 3 calls, of which the last fails.
fn project() -> Project {
    let project = Project::new();
    let list = task(
        0,
        "list",
        &module("swiss.wasm"),
        json!({ "metadiff": { "well": ["A", "B", "C"] } }),
    );
    let steps = json!([
        { "do": "for", "component": "A", "steps": [{ "do": "log", "level": "warn", "message": "one plane is empty" }] },
        { "do": "for", "component": "C", "steps": [{ "do": "error", "message": "no image" }] }
    ]);
    project.workflow(&[
        list,
        parallel_task(
            1,
            "measure",
            &module("typed.wasm"),
            "well",
            json!({ "steps": steps }),
        ),
    ]);
    project
}

fn command(project: &Project, more: &[&str], variables: &[(&str, &str)]) -> Command {
    let arguments = [
        "run",
        "workflow.json",
        "--input",
        "in",
        "--output",
        "out",
        "--work-dir",
        "work",
        "--keep-going",
    ];
    let mut command = project.command(&[&arguments, more].concat());
    command.envs(variables.iter().copied());
    command
}

#[test]
fn the_spans_of_a_run_arrive_as_one_tree() {
    for isolation in ["thread", "process"] {
        let (project, collector) = (project(), Collector::start(Some("200 OK")));
        let variables = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.address.as_str()),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=secret"),
            ("OTEL_RESOURCE_ATTRIBUTES", "deployment=test"),
            (
                "TRACEPARENT",
                "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            ),
        ];
        let ended = finish(command(&project, &["--isolation", isolation], &variables)).expect(3);
        assert!(!ended.stderr.contains("\nwarning"), "{}", ended.stderr);

        let requests = collector.requests();
        let (path, headers, _) = requests.first().expect("a request");
        assert_eq!(
            (path.as_str(), headers["api-key"].as_str()),
            ("/v1/traces", "secret")
        );
        let spans = collector.spans();
        let of_program = &spans[0].1;
        let facts =
            ["service.name", "service.version", "deployment"].map(|key| of_program[key].clone());
        assert_eq!(
            facts,
            [
                json!("mandelbox"),
                json!(env!("CARGO_PKG_VERSION")),
                json!("test")
            ]
        );

        let named = |name: &str| {
            spans
                .iter()
                .map(|(span, _)| span)
                .filter(|span| span["name"] == name)
                .collect::<Vec<_>>()
        };
        let one = |name: &str| {
            let found = named(name);
            assert_eq!(found.len(), 1, "{name}");
            found[0].clone()
        };
        let (whole, run) = (one("command"), one("run"));
        assert!(
            spans
                .iter()
                .all(|(span, _)| span["traceId"] == "0af7651916cd43dd8448eb211c80319c")
        );
        assert_eq!(
            (&whole["parentSpanId"], &attributes(&whole)["name"]),
            (&json!("b7ad6b7169203331"), &json!("run"))
        );
        assert_eq!(
            (&one("prepare")["parentSpanId"], &run["parentSpanId"]),
            (&whole["spanId"], &whole["spanId"])
        );
        let tasks = named("task");
        assert!(
            tasks.len() == 2
                && tasks
                    .iter()
                    .all(|task| task["parentSpanId"] == run["spanId"]),
            "{tasks:?}"
        );
        let calls = named("call");
        assert_eq!(calls.len(), 4);
        for call in calls {
            let of_call = attributes(call);
            let order = |task: &&&Value| attributes(task)["order"] == of_call["task"];
            let task = tasks.iter().find(order).expect("its task");
            assert_eq!(call["parentSpanId"], task["spanId"]);
            // Where it ran, for a timeline by worker.
            assert!(
                of_call["thread.name"]
                    .as_str()
                    .is_some_and(|name| name.starts_with("mandelbox-")),
                "{of_call}"
            );
            let outcome = if of_call["item"] == "C" {
                "failed"
            } else {
                "succeeded"
            };
            assert_eq!(of_call["outcome"], outcome);
            assert_eq!(
                call["status"]["code"],
                if outcome == "failed" {
                    json!(2)
                } else {
                    json!(0)
                },
                "{call}"
            );
            let events = call["events"].as_array().map_or(0, Vec::len);
            assert_eq!(
                events,
                usize::from(of_call["item"] == "A" || of_call["item"] == "C"),
                "{call}"
            );
        }
    }
}

#[test]
fn spans_are_protobuf_unless_json_is_asked_for_and_the_environment_names_the_service() {
    let (project, collector) = (project(), Collector::start(Some("200 OK")));
    let endpoint = format!("{}/own/path", collector.address);
    let variables = [
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", endpoint.as_str()),
        ("OTEL_SERVICE_NAME", "plate-7"),
    ];
    finish(command(&project, &[], &variables)).expect(3);
    let requests = collector.requests();
    let (path, headers, body) = requests.first().expect("a request");
    assert_eq!(
        (path.as_str(), headers["content-type"].as_str()),
        ("/own/path", "application/x-protobuf")
    );
    let text = String::from_utf8_lossy(body);
    assert!(
        ["plate-7", "measure", "one plane is empty"]
            .iter()
            .all(|part| text.contains(part)),
        "{text}"
    );
}

#[test]
fn nothing_is_sent_that_was_not_asked_for() {
    let (project, collector) = (project(), Collector::start(Some("200 OK")));
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.address.as_str());
    for (index, off) in [
        ("OTEL_SDK_DISABLED", "true"),
        ("OTEL_TRACES_EXPORTER", "none"),
    ]
    .into_iter()
    .enumerate()
    {
        let work_dir = format!("work{index}");
        let arguments = [
            "run",
            "workflow.json",
            "--output",
            "out",
            "--work-dir",
            &work_dir,
        ];
        let mut command = project.command(&arguments);
        command.envs([endpoint, off]);
        finish(command).expect(3);
    }
    assert!(collector.requests().is_empty());
}

/// Runs with a collector that takes nothing; returns how the run ended, and what is said of its
/// spans.
fn without_collector(endpoint: &str, more: &[&str]) -> (Ended, Vec<String>) {
    let project = project();
    let started = Instant::now();
    let ended = finish(command(
        &project,
        more,
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)],
    ))
    .expect(3);
    let took = started.elapsed();
    assert!(took < Duration::from_secs(20), "it took {took:?}");
    let warnings = ended
        .stderr
        .lines()
        .filter(|line| line.starts_with("warning:"))
        .map(str::to_owned)
        .collect();
    (ended, warnings)
}

#[test]
fn a_collector_that_takes_nothing_costs_a_warning_and_little_time() {
    let warning = |endpoint: &str, why: &str| {
        let (_, warnings) = without_collector(endpoint, &[]);
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        let text = &warnings[0];
        assert!(
            text.contains(" spans did not reach the OpenTelemetry collector: ")
                && text.contains(why),
            "{text}"
        );
    };
    // A port that nobody listens on any more.
    let closed = TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a port");
    warning(
        &format!("http://user:word@{closed}"),
        &format!("collector: {closed}: "),
    );
    warning(&Collector::start(None).address, "within 2 s");
    warning(
        &Collector::start(Some("401 Unauthorized")).address,
        " returned 401 Unauthorized",
    );
    let (_, warnings) = without_collector("no address", &[]);
    assert!(
        warnings.len() == 1 && warnings[0].contains("spans are not exported: "),
        "{warnings:?}"
    );
    let (ended, warnings) = without_collector(&format!("http://{closed}"), &["--quiet"]);
    assert!(warnings.is_empty(), "{}", ended.stderr);
}
