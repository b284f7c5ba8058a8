//! Every recorded case of version 2 of Fractal, through the real program: in the exported form, and
//! in the full form where that was recorded.
//!
//! All that was recorded is compared. [`own`] has the cases in which mandelbox differs on purpose.

mod case;
mod compare;
mod own;
pub mod package;

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

use case::{Case, Form, cases, parse};
use compare::compare;

/// Cases that are run at the same time.
const N_THREADS: usize = 3;
/// Cases with 20,001 images, which are run if `MANDELBOX_TEST_WHOLE` is set.
const LARGE: [&str; 2] = ["h01-parallel-20001", "h04-non-parallel-many"];

/// Lines of the index.
fn index() -> Vec<Value> {
    let text = std::fs::read_to_string(cases().join("index.json")).expect("the index");
    parse(&text).as_array().expect("a list").clone()
}

/// A case in one of its forms.
struct Variant {
    name: String,
    form: Form,
    is_defect: bool,
    is_odd: bool,
}

fn variants(group: &str) -> Vec<Variant> {
    let is_whole = std::env::var_os("MANDELBOX_TEST_WHOLE").is_some();
    let mut variants = Vec::new();
    for (number, line) in index().iter().enumerate() {
        let name = line["case"].as_str().expect("a name");
        if line["group"] != group || (LARGE.contains(&name) && !is_whole) {
            continue;
        }
        let has_full = cases()
            .join("cases")
            .join(name)
            .join("workflow-full.json")
            .exists();
        let forms = [(Form::Exported, true), (Form::Full, has_full)];
        for (form, _) in forms.into_iter().filter(|(_, is_there)| *is_there) {
            variants.push(Variant {
                name: name.to_owned(),
                form,
                is_defect: line["conform"] == "defect",
                is_odd: number % 2 == 1,
            });
        }
    }
    variants
}

fn check_variant(variant: &Variant) -> Vec<String> {
    check_variant_on(variant, &|_| {})
}

/// Differences of the cases of a group with another backend, each with the name of its case.
///
/// * `is_meant`: selects cases by their names.
/// * `change`: changes the commands that run a case.
pub fn differences_on(
    group: &str,
    is_meant: &dyn Fn(&str) -> bool,
    change: &dyn Fn(&mut Command),
) -> Vec<String> {
    let variants = variants(group).into_iter();
    let meant = variants.filter(|variant| is_meant(&variant.name));
    let check = |variant: Variant| {
        let differences = check_variant_on(&variant, change).into_iter();
        let name = variant.name;
        differences.map(move |difference| format!("{name}: {difference}"))
    };
    meant.flat_map(check).collect()
}

fn check_variant_on(variant: &Variant, change: &dyn Fn(&mut Command)) -> Vec<String> {
    let Variant {
        name,
        form,
        is_defect,
        is_odd,
    } = variant;
    let checked = catch_unwind(AssertUnwindSafe(|| {
        let mut case = Case::read(name, *form, *is_defect, *is_odd);
        let ends = case.run(change);
        compare(&case, &ends).0
    }));
    checked.unwrap_or_else(|panic| vec![message_of(panic.as_ref())])
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic").to_owned()
}

/// Runs all cases of a group, and fails with all differences of all cases.
fn check_group(group: &str) {
    let variants = variants(group);
    let next = AtomicUsize::new(0);
    let different = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..N_THREADS {
            scope.spawn(|| {
                while let Some(variant) = variants.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let texts = check_variant(variant);
                    if !texts.is_empty() {
                        let name = format!("{} ({:?})", variant.name, variant.form);
                        different.lock().expect("a lock").insert(name, texts);
                    }
                }
            });
        }
    });
    let different = different.into_inner().expect("a lock");
    let texts = different
        .iter()
        .map(|(name, texts)| format!("{name}\n    {}", texts.join("\n    ")));
    let texts: Vec<_> = texts.collect();
    assert!(
        texts.is_empty(),
        "{} of {} differ:\n{}",
        texts.len(),
        variants.len(),
        texts.join("\n")
    );
}

macro_rules! groups {
    ($($test:ident $group:literal),+ $(,)?) => {
        /// Groups with a test.
        const GROUPS: [&str; 10] = [$($group),+];

        $(#[test]
        fn $test() {
            check_group($group);
        })+
    };
}

groups! {
    documents_are_as_recorded "a",
    types_and_args_are_as_recorded "b",
    selections_are_as_recorded "c",
    files_are_as_recorded "d",
    outputs_are_as_recorded "e",
    merges_are_as_recorded "f",
    failures_are_as_recorded "g",
    limits_are_as_recorded "h",
    statuses_are_as_recorded "i",
    jobs_are_as_recorded "j",
}

#[test]
fn every_recorded_case_is_in_a_group() {
    let index = index();
    assert_eq!(index.len(), 196);
    for line in &index {
        assert!(GROUPS.iter().any(|group| line["group"] == *group), "{line}");
    }
    let n_full = GROUPS.iter().flat_map(|group| variants(group));
    let n_full = n_full.filter(|variant| variant.form == Form::Full).count();
    assert!(n_full > 90, "{n_full} full workflows");
}
