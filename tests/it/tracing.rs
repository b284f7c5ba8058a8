//! The library's spans, as a subscriber of its caller sees them.

use std::collections::BTreeMap;
use std::fmt::{Debug, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mandelbox::backend::{Backend, Isolation, Local, Scripted};
use mandelbox::fractal::v1::WorkflowDocument;
use mandelbox::model::{Limits, ModuleFile, Modules, Outcome};
use mandelbox::problem::Problems;
use mandelbox::process_workflow;
use mandelbox::run::{ProcessWorkflow, RunOptions};
use mandelbox::sandbox::SandboxOptions;
use serde_json::{Value, json};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

use crate::project::{Project, module, parallel_task, task};

/// What was seen of a span.
#[derive(Default)]
struct Seen {
    id: u64,
    parent: Option<u64>,
    name: &'static str,
    fields: Fields,
    events: Vec<String>,
    is_closed: bool,
}

#[derive(Clone, Default)]
struct Fields(BTreeMap<&'static str, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

/// Collects the spans of this library.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Seen>>>);

impl Collector {
    fn change(&self, id: &Id, change: impl FnOnce(&mut Seen)) {
        let mut spans = self.0.lock().expect("not poisoned");
        // A number is used again after its span has closed.
        spans
            .iter_mut()
            .rev()
            .find(|span| span.id == id.into_u64())
            .map(change);
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Collector {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let span = context.span(id).expect("a span");
        if !span.metadata().target().starts_with("mandelbox") {
            return;
        }
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let parent = span.parent().map(|parent| parent.id().into_u64());
        let seen = Seen {
            id: id.into_u64(),
            parent,
            name: span.name(),
            fields,
            ..Seen::default()
        };
        self.0.lock().expect("not poisoned").push(seen);
    }

    fn on_record(&self, id: &Id, record: &Record<'_>, _: Context<'_, S>) {
        self.change(id, |seen| record.record(&mut seen.fields));
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let target = event.metadata().target();
        if !target.starts_with("mandelbox") {
            return;
        }
        let mut fields = Fields::default();
        event.record(&mut fields);
        let guest = if target == "mandelbox::guest" {
            " (guest)"
        } else {
            ""
        };
        let text = format!(
            "{}{guest} {}",
            event.metadata().level(),
            fields.0["message"]
        );
        let span = context.event_span(event);
        self.change(&span.expect("each event is in a span").id(), |seen| {
            seen.events.push(text)
        });
    }

    fn on_close(&self, id: Id, _: Context<'_, S>) {
        self.change(&id, |seen| {
            seen.is_closed = true;
            // So that a later span with this number is another one, and children still find this
            // one.
            seen.id |= 1 << 63;
        });
    }
}

/// The spans that `work` makes, as text: a span a line with its fields, its events below it, then
/// the spans in it. Calls stand in the order of their text, since threads make them.
fn spans_of(work: impl FnOnce()) -> String {
    let collector = Collector::default();
    tracing::subscriber::with_default(tracing_subscriber::registry().with(collector.clone()), work);
    let spans = collector.0.lock().expect("not poisoned");
    let mut texts: Vec<(usize, String)> = Vec::new();
    for (index, span) in spans.iter().enumerate() {
        assert!(span.is_closed, "{} is still open", span.name);
        // The latest one of this number that was there before: the parent was open then.
        let parent = span.parent.map(|id| {
            spans[..index]
                .iter()
                .rposition(|other| other.id & !(1 << 63) == id)
                .expect("a parent")
        });
        let depth = parent.map_or(0, |parent| texts[parent].0 + 1);
        texts.push((depth, line(span, depth)));
    }
    let children = |parent: Option<usize>| -> Vec<usize> {
        let of = |index: usize| {
            let id = spans[index].parent?;
            spans[..index]
                .iter()
                .rposition(|other| other.id & !(1 << 63) == id)
        };
        let mut children: Vec<_> = (0..spans.len())
            .filter(|index| of(*index) == parent)
            .collect();
        if children.iter().all(|index| spans[*index].name == "call") {
            children.sort_by_key(|index| &texts[*index].1);
        }
        children
    };
    fn write(
        index: usize,
        texts: &[(usize, String)],
        children: &dyn Fn(Option<usize>) -> Vec<usize>,
        all: &mut String,
    ) {
        all.push_str(&texts[index].1);
        children(Some(index))
            .into_iter()
            .for_each(|child| write(child, texts, children, all));
    }
    let mut all = String::new();
    children(None)
        .into_iter()
        .for_each(|root| write(root, &texts, &children, &mut all));
    all
}

/// A span without what differs from run to run; such a field must be there all the same.
fn line(span: &Seen, depth: usize) -> String {
    let indent = "  ".repeat(depth);
    let mut text = format!("{indent}{}", span.name);
    for (name, value) in &span.fields.0 {
        let value = match *name {
            "digest" if value.len() == 64 => "DIGEST",
            "module" => Path::new(value)
                .file_name()
                .expect("a name")
                .to_str()
                .expect("UTF-8"),
            "work_dir" if value.starts_with('/') => "WORK_DIR",
            "wall_time_s" if value.parse::<f64>().is_ok_and(|seconds| seconds < 60.0) => "S",
            "peak_memory_bytes" if value.parse::<u64>().is_ok_and(|bytes| bytes > 1000) => "N",
            _ => value,
        };
        let _ = write!(text, " {name}={value}");
    }
    text.push('\n');
    for event in &span.events {
        let _ = writeln!(text, "{indent}  - {event}");
    }
    text
}

fn run(project: &Project, task_list: &Value, options: RunOptions) {
    let text = json!({ "name": "w", "task_list": task_list }).to_string();
    let mut problems = Problems::default();
    let document =
        WorkflowDocument::parse("in memory", Path::new(""), text.as_bytes(), &mut problems);
    let arguments = ProcessWorkflow::new(
        document.expect("a workflow"),
        &project.path("out"),
        &project.path("work"),
    );
    // How it ended is in the spans.
    let _ = process_workflow(&arguments, options, Vec::new());
}

#[test]
fn a_run_is_a_tree_of_spans_over_all_its_threads() {
    let project = Project::new();
    let list = json!({ "metadiff": { "well": ["A/1", "B\u{1b}[2J", { "field": 3 }] } });
    let steps = json!([
        { "do": "for", "component": "A/1", "steps": [
            { "do": "log", "level": "warn", "message": "one plane\nis empty" }, { "do": "print", "stream": "stderr", "text": "12345" }
        ] },
        { "do": "for", "component": "B\u{1b}[2J", "steps": [{ "do": "error", "message": "no image" }] }
    ]);
    let task_list = json!([
        task(3, "list", &module("swiss.wasm"), list),
        parallel_task(
            4,
            "measure",
            &module("typed.wasm"),
            "well",
            json!({ "steps": steps })
        ),
    ]);
    let backend: Arc<dyn Backend> = Arc::new(Local::new(2).expect("a backend"));
    let spans = spans_of(|| {
        run(
            &project,
            &task_list,
            RunOptions {
                keep_going: true,
                ..RunOptions::new(backend)
            },
        )
    });
    let expected = "\
process_workflow workflow=w
  prepare workflow=w
    compile digest=DIGEST from_cache=false module=swiss.wasm
    compile digest=DIGEST from_cache=false module=typed.wasm
  run status=failed work_dir=WORK_DIR workflow=w
    - ERROR TaskExecutionError
    task n_calls=1 n_failed=0 name=list order=3 status=done
      call attempt=1 call_index=0 outcome=succeeded peak_memory_bytes=N stderr_bytes=0 stdout_bytes=0 task=3 wall_time_s=S
    task n_calls=3 n_failed=1 name=measure order=4 status=failed
      - ERROR 1 calls failed
      call attempt=1 call_index=0 item=A/1 outcome=succeeded peak_memory_bytes=N stderr_bytes=5 stdout_bytes=0 task=4 wall_time_s=S
        - WARN (guest) one plane\\nis empty
      call attempt=1 call_index=1 item=B\\u{1b}[2J outcome=failed peak_memory_bytes=N stderr_bytes=0 stdout_bytes=0 task=4 wall_time_s=S
        - ERROR failed: no image
      call attempt=1 call_index=2 item={\"field\":3} outcome=succeeded peak_memory_bytes=N stderr_bytes=0 stdout_bytes=0 task=4 wall_time_s=S
";
    assert_eq!(spans, expected);
}

#[test]
fn any_backend_has_the_spans_of_calls() {
    let project = Project::new();
    let backend: Arc<dyn Backend> = Arc::new(Scripted::new(|_| Outcome::Exited { code: 9 }));
    let task_list = json!([task(0, "t", &module("swiss.wasm"), json!({}))]);
    let spans = spans_of(|| run(&project, &task_list, RunOptions::new(backend)));
    assert!(spans.contains(" outcome=exited "), "{spans}");
    assert!(
        spans.contains("\n        - ERROR exited with code 9\n"),
        "{spans}"
    );
}

#[test]
fn spans_show_whether_a_module_was_compiled_and_that_it_describes_itself() {
    let project = Project::new();
    let cache = project.path("cache");
    let options = SandboxOptions {
        cache_folder: Some(cache),
        ..SandboxOptions::default()
    };
    let limits = Limits::default();
    let prepare = |file: &str| {
        spans_of(|| {
            let backend = Local::with_options(1, &options, Isolation::Thread).expect("a backend");
            let module = ModuleFile::read(Path::new(file), u64::MAX).expect("a module");
            // The second time it is known.
            for _ in 0..2 {
                if backend
                    .prepare(&module, &limits, Duration::from_secs(60))
                    .is_ok()
                {
                    backend.write_cache();
                    backend.describe(&module, &limits).expect("its description");
                }
            }
        })
    };
    let described = "describe digest=DIGEST module=trivial_typed.wasm\n".repeat(2);
    for from_cache in [false, true] {
        let expected = format!(
            "compile digest=DIGEST from_cache={from_cache} module=trivial_typed.wasm\n{described}"
        );
        assert_eq!(prepare(&module("trivial_typed.wasm")), expected);
    }
    let broken = project.write("broken.wasm", b"\0asm\x01\0\0\0\xff");
    let spans = prepare(broken.to_str().expect("UTF-8"));
    assert!(
        spans.contains(
            "from_cache=false module=broken.wasm\n  - ERROR is not a valid WebAssembly module"
        ),
        "{spans}"
    );
}
