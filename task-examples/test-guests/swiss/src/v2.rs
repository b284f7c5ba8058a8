//! The command line of Fractal version 2: `--args-json ARGS --out-json OUT`.
//!
//! In this order:
//! 1. The keys of these objects replace those of the parameters, one object after the other:
//!    `init_args.act`; `per_url[zarr_url]`, or `per_url[NAME]` with the last part of the URL;
//!    `first_time`, if its `marker` (a path) is no file yet, which is then created.
//! 2. `touch`: paths; each gets a line.
//! 3. `stdout`, `stderr`, `stderr_hex` as in version 1; `stderr_fill`: number of letters `x` to
//!    print.
//! 4. `sleep_ms`: waits.
//! 5. The output file, by the first of these that is there: `out_raw` (text), `out` (a value, which
//!    is expanded; `"__null__"` is null and `"__missing__"` no file).
//! 6. `signal`: any name is a trap. Else `exit`: the exit code, by default 0.
//!
//! [`Scope::expand`] describes how `out` is expanded. Paths have the same placeholders.

use crate::{end, parse_parameters, pause, print, print_streams};
use fractal_task::TaskError;
use serde_json::{Map, Value};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// The files that a command line of version 2 names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Files {
    args: PathBuf,
    out: PathBuf,
}

impl Files {
    /// Reads the arguments of this process. `None`: they are not those of version 2.
    pub(crate) fn from_command_line() -> Result<Option<Self>, TaskError> {
        Self::parse(std::env::args_os().skip(1))
    }

    fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Option<Self>, TaskError> {
        let (mut args_file, mut out_file) = (None, None);
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            match arg.to_str() {
                Some("--args-json") => args_file = Some(args.next()),
                Some("--out-json") => out_file = Some(args.next()),
                _ => {}
            }
        }
        match (args_file, out_file) {
            (None, None) => Ok(None),
            (Some(Some(args)), Some(Some(out))) => Ok(Some(Self {
                args: args.into(),
                out: out.into(),
            })),
            _ => Err(TaskError::new(
                "usage: MODULE --args-json ARGS.json --out-json OUT.json",
            )),
        }
    }
}

pub(crate) fn act(files: &Files) -> Result<(), TaskError> {
    let text = fs::read_to_string(&files.args)
        .map_err(|err| TaskError::about("cannot read", &files.args, err))?;
    let args = parse_parameters(&text)
        .map_err(|err| TaskError::about("cannot use the parameters in", &files.args, err))?;
    let scope = Scope::new(&args);
    let mut orders = orders_for_call(&args);
    if let Some(Value::Object(mut first)) = orders.get("first_time").cloned()
        && let Some(Value::String(marker)) = first.remove("marker")
        && create_marker(Path::new(&scope.fill(&marker)))?
    {
        orders.extend(first);
    }
    for path in orders
        .get("touch")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
    {
        touch(Path::new(&scope.fill(path)))?;
    }
    print_streams(&orders)?;
    let fill = orders
        .get("stderr_fill")
        .and_then(Value::as_u64)
        .unwrap_or(0);
    print(io::stderr(), &vec![b'x'; fill as usize])?;
    pause(&orders)?;
    if let Some(text) = build_output(&scope, &orders) {
        fs::write(&files.out, text)
            .map_err(|err| TaskError::about("cannot write", &files.out, err))?;
    }
    end(&orders)
}

/// The parameters with the changes for this call, but for those of `first_time`.
fn orders_for_call(args: &Map<String, Value>) -> Map<String, Value> {
    let mut orders = args.clone();
    if let Some(act) = args
        .get("init_args")
        .and_then(|init| init.get("act"))
        .and_then(Value::as_object)
    {
        orders.extend(act.clone());
    }
    if let Some(Value::String(url)) = args.get("zarr_url")
        && let Some(per_url) = orders.get("per_url").and_then(Value::as_object)
    {
        let own = [url.as_str(), last_part(url)]
            .into_iter()
            .find_map(|key| per_url.get(key)?.as_object());
        orders.extend(own.cloned().unwrap_or_default());
    }
    orders
}

fn last_part(url: &str) -> &str {
    let url = url.trim_end_matches('/');
    url.rsplit_once('/').map_or(url, |(_, name)| name)
}

/// Creates an empty file. Returns false if it exists.
fn create_marker(path: &Path) -> Result<bool, TaskError> {
    create_parent(path)?;
    match File::create_new(path) {
        Ok(_) => Ok(true),
        Err(err) if err.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(err) => Err(TaskError::about("cannot create", path, err)),
    }
}

fn touch(path: &Path) -> Result<(), TaskError> {
    create_parent(path)?;
    let file = OpenOptions::new().append(true).create(true).open(path);
    file.and_then(|mut file| file.write_all(b"touched\n"))
        .map_err(|err| TaskError::about("cannot append to", path, err))
}

fn create_parent(path: &Path) -> Result<(), TaskError> {
    match path.parent() {
        Some(folder) if !folder.is_dir() => {
            fs::create_dir_all(folder).map_err(|err| TaskError::about("cannot create", folder, err))
        }
        _ => Ok(()),
    }
}

fn build_output(scope: &Scope<'_>, orders: &Map<String, Value>) -> Option<String> {
    if let Some(Value::String(text)) = orders.get("out_raw") {
        return Some(text.clone());
    }
    match orders.get("out")? {
        Value::String(text) if text == "__missing__" => None,
        Value::String(text) if text == "__null__" => Some("null".to_owned()),
        value => Some(scope.expand(value).to_string()),
    }
}

/// Values of the placeholders.
#[derive(Clone, Copy)]
struct Scope<'a> {
    args: &'a Map<String, Value>,
    zarr_dir: Option<&'a str>,
    zarr_url: Option<&'a str>,
    index: Option<u64>,
}

impl<'a> Scope<'a> {
    fn new(args: &'a Map<String, Value>) -> Self {
        let text = |key| args.get(key).and_then(Value::as_str);
        Self {
            args,
            zarr_dir: text("zarr_dir"),
            zarr_url: text("zarr_url"),
            index: None,
        }
    }

    /// Replaces `{zarr_dir}`, `{zarr_url}`, `{name}` (the last part of the URL) and `{index}`.
    /// Those without a value stay.
    fn fill(&self, text: &str) -> String {
        let mut filled = text.to_owned();
        let index = self.index.map(|index| index.to_string());
        for (placeholder, value) in [
            ("{zarr_dir}", self.zarr_dir),
            ("{zarr_url}", self.zarr_url),
            ("{name}", self.zarr_url.map(last_part)),
            ("{index}", index.as_deref()),
        ] {
            if let Some(value) = value {
                filled = filled.replace(placeholder, value);
            }
        }
        filled
    }

    /// Fills the placeholders in all texts but keys, and replaces the objects whose only key is one
    /// of
    /// * `$each`: a list of its value, expanded for each of `zarr_urls`, with `index` counting;
    /// * `$range`, a number and a value: a list of the value, expanded as often, with `index`
    ///   counting;
    /// * `$arg`: the parameter at this path of keys, or null;
    /// * `$env`: the environment variable with this name, or null.
    fn expand(&self, template: &Value) -> Value {
        match template {
            Value::String(text) => Value::String(self.fill(text)),
            Value::Array(items) => items.iter().map(|item| self.expand(item)).collect(),
            Value::Object(map) => {
                let special = map.iter().next().filter(|_| map.len() == 1);
                special
                    .and_then(|(key, value)| self.expand_special(key, value))
                    .unwrap_or_else(|| {
                        let entries = map
                            .iter()
                            .map(|(key, value)| (key.clone(), self.expand(value)));
                        Value::Object(entries.collect())
                    })
            }
            other => other.clone(),
        }
    }

    fn expand_special(&self, key: &str, value: &Value) -> Option<Value> {
        match key {
            "$each" => {
                let urls = self
                    .args
                    .get("zarr_urls")
                    .and_then(Value::as_array)
                    .into_iter()
                    .flatten();
                let each = urls.filter_map(Value::as_str).zip(0..).map(|(url, index)| {
                    Self {
                        zarr_url: Some(url),
                        index: Some(index),
                        ..*self
                    }
                    .expand(value)
                });
                Some(each.collect())
            }
            "$range" => {
                let each = (0..value.get(0)?.as_u64()?).map(|index| {
                    Some(
                        Self {
                            index: Some(index),
                            ..*self
                        }
                        .expand(value.get(1)?),
                    )
                });
                each.collect::<Option<Vec<_>>>().map(Value::Array)
            }
            "$arg" => {
                let (first, rest) = value.as_array()?.split_first()?;
                let first = first.as_str().and_then(|key| self.args.get(key));
                let found = first.and_then(|first| {
                    rest.iter()
                        .try_fold(first, |value, key| value.get(key.as_str()?))
                });
                Some(found.cloned().unwrap_or_default())
            }
            "$env" => Some(std::env::var(value.as_str()?).map_or(Value::Null, Value::String)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(args: &str, expected: Option<&str>) {
        let args = parse_parameters(args).unwrap();
        let output = build_output(&Scope::new(&args), &orders_for_call(&args));
        assert_eq!(output.as_deref(), expected);
    }

    #[test]
    fn the_first_rule_that_applies_gives_the_output() {
        check(
            r#"{"out": {"a": 1}, "out_raw": "{not json {zarr_url}", "zarr_url": "/z"}"#,
            Some("{not json {zarr_url}"),
        );
        check(r#"{"out": "__null__"}"#, Some("null"));
        check(r#"{"out": "__missing__"}"#, None);
        check("{}", None);
        check(r#"{"out": null}"#, Some("null"));
    }

    #[test]
    fn placeholders_without_a_value_stay() {
        let out = r#""out": ["{zarr_dir}/{name}", "{zarr_url}", "{index}", {"{name}": 1}]"#;
        check(
            &format!(r#"{{"zarr_url": "/z/a/", {out}}}"#),
            Some(r#"["{zarr_dir}/a","/z/a/","{index}",{"{name}":1}]"#),
        );
        check(
            &format!(r#"{{"zarr_dir": "/z", "zarr_url": 1, {out}}}"#),
            Some(r#"["/z/{name}","{zarr_url}","{index}",{"{name}":1}]"#),
        );
    }

    #[test]
    fn lists_are_created_from_templates() {
        check(
            r#"{"zarr_urls": ["/z/a", "/z/b"], "out": {"x": {"$each": {"u": "{zarr_url}", "n": "{name}{index}"}}}}"#,
            Some(r#"{"x":[{"u":"/z/a","n":"a0"},{"u":"/z/b","n":"b1"}]}"#),
        );
        check(r#"{"out": {"$each": 1}}"#, Some("[]"));
        check(
            r#"{"out": {"$range": [2, ["{index}"]]}}"#,
            Some(r#"[["0"],["1"]]"#),
        );
        check(
            r#"{"out": {"$range": [1, 1], "other": 1}}"#,
            Some(r#"{"$range":[1,1],"other":1}"#),
        );
    }

    #[test]
    fn parameters_and_variables_are_values() {
        let n = "123456789012345678901234567890";
        check(
            &format!(r#"{{"a": {{"b": [{n}, 1.0]}}, "out": {{"$arg": ["a", "b"]}}}}"#),
            Some(&format!("[{n},1.0]")),
        );
        check(
            r#"{"a": 1, "out": [{"$arg": ["a", "b"]}, {"$arg": ["c"]}]}"#,
            Some("[null,null]"),
        );
        check(
            r#"{"out": {"$env": "A_VARIABLE_THAT_IS_NOT_SET"}}"#,
            Some("null"),
        );
    }

    #[test]
    fn calls_have_orders_of_their_own() {
        let per_url = r#""per_url": {"/z/a": {"out": 1}, "b": {"out": 2}}, "out": 0"#;
        for (url, out) in [("/z/a", "1"), ("/z/b", "2"), ("/y/b/", "2"), ("/y/a", "0")] {
            check(&format!(r#"{{"zarr_url": "{url}", {per_url}}}"#), Some(out));
        }
        let init = r#""init_args": {"act": {"out": 3, "per_url": {"c": {"out": 4}}}}"#;
        check(
            &format!(r#"{{{init}, "zarr_url": "/z/b", {per_url}}}"#),
            Some("3"),
        );
        check(
            &format!(r#"{{{init}, "zarr_url": "/z/c", {per_url}}}"#),
            Some("4"),
        );
    }

    #[test]
    fn the_version_is_seen_in_the_command_line() {
        let parse = |line: &str| Files::parse(line.split_whitespace().map(OsString::from));
        let files = Files {
            args: "a".into(),
            out: "o".into(),
        };
        assert_eq!(parse("x --out-json o --args-json a").unwrap(), Some(files));
        assert_eq!(parse("-j a --metadata-out o").unwrap(), None);
        assert!(parse("--args-json a").is_err() && parse("--args-json a --out-json").is_err());
    }
}
