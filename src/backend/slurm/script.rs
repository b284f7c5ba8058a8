//! The job script, and the arguments of `sbatch`. All functions are pure.
//!
//! Nothing that a guest or a document writes reaches the script unquoted: the script contains the
//! path of the program, the path of the batch, options of the configuration, and numbers.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use super::config::JobSettings;

/// Seconds before the time limit at which a job gets SIGTERM, to save the results of its calls.
const WARNING_S: u64 = 30;
/// SLURM sends that signal up to this many seconds earlier.
const EARLY_S: u64 = 60;
/// Smallest time limit, in seconds, for which a job is warned before its end.
const MIN_WARNED_S: u64 = 120;

/// Data that the jobs of an array have in common.
#[derive(Clone, Debug)]
pub(super) struct ScriptContents<'a> {
    /// Settings of the jobs.
    pub(super) settings: &'a JobSettings,
    /// Path of this program.
    pub(super) program: &'a Path,
    /// Path of the file with the batch.
    pub(super) batch_file: &'a Path,
    /// Calls of a job that run at the same time.
    pub(super) parallel: u64,
    /// Calls of a job that run one after the other.
    pub(super) rounds: u64,
    /// Slice of the first element.
    pub(super) first_slice: usize,
    /// Number of elements; 1: a job without an array.
    pub(super) n_slices: usize,
}

/// Renders the script.
pub(super) fn build_script(contents: &ScriptContents<'_>) -> String {
    let settings = contents.settings;
    let mut lines = vec![settings.shebang_line.clone()];
    for option in options(contents) {
        lines.push(format!("#SBATCH {}", quote_option(&option)));
    }
    // Lines of the operator: directives first, since SLURM reads none after the first command.
    let (directives, commands): (Vec<_>, Vec<_>) = settings
        .extra_lines
        .iter()
        .partition(|line| line.starts_with("#SBATCH"));
    lines.extend(directives.into_iter().cloned());
    lines.extend(commands.into_iter().cloned());
    lines.push(worker_line(contents));
    lines.push(String::new());
    lines.join("\n")
}

/// The last line: the worker replaces the shell, so signals reach it.
fn worker_line(contents: &ScriptContents<'_>) -> String {
    let program = quote_word(&contents.program.to_string_lossy());
    let batch = quote_word(&contents.batch_file.to_string_lossy());
    let slice = match (contents.n_slices, contents.first_slice) {
        (1, first) => first.to_string(),
        (_, 0) => "\"$SLURM_ARRAY_TASK_ID\"".to_owned(),
        (_, first) => format!("\"$(({first} + SLURM_ARRAY_TASK_ID))\""),
    };
    format!("exec {program} worker --batch {batch} --slice {slice}")
}

/// Renders the script of a job that checks a shared folder: it prints a file in it, and the version
/// of this program.
pub(super) fn build_check_script(settings: &JobSettings, program: &Path, file: &Path) -> String {
    let contents = ScriptContents {
        settings,
        program,
        batch_file: file,
        parallel: 1,
        rounds: 1,
        first_slice: 0,
        n_slices: 1,
    };
    let script = build_script(&contents);
    let end = script.trim_end().rfind('\n').map_or(0, |end| end + 1);
    let program = quote_word(&program.to_string_lossy());
    let file = quote_word(&file.to_string_lossy());
    format!("{}cat {file}\nexec {program} --version\n", &script[..end])
}

/// Options of the job, each one word.
fn options(contents: &ScriptContents<'_>) -> Vec<String> {
    let settings = contents.settings;
    let cpus = contents.parallel * settings.cpus();
    let mut options = vec![
        "--nodes=1".to_owned(),
        "--ntasks=1".to_owned(),
        format!("--cpus-per-task={cpus}"),
        "--no-requeue".to_owned(),
        "--kill-on-invalid-dep=yes".to_owned(),
    ];
    if let Some(mem_mb) = settings.mem_mb {
        let mem_mb = mem_mb * contents.parallel;
        options.push(if settings.use_mem_per_cpu {
            format!("--mem-per-cpu={}M", mem_mb.div_ceil(cpus))
        } else {
            format!("--mem={mem_mb}M")
        });
    }
    for (name, value) in [
        ("partition", &settings.partition),
        ("account", &settings.account),
        ("constraint", &settings.constraint),
        ("gres", &settings.gres),
        ("gpus", &settings.gpus),
        ("exclude", &settings.exclude),
        ("nodelist", &settings.nodelist),
    ] {
        options.extend(value.iter().map(|value| format!("--{name}={value}")));
    }
    if let Some(time_s) = job_time_s(settings, contents.rounds) {
        options.push(format!("--time={}", build_time(time_s)));
        if time_s >= MIN_WARNED_S {
            options.push(format!("--signal=B:TERM@{WARNING_S}"));
        }
    }
    if contents.n_slices > 1 {
        options.push(format!("--array=0-{}", contents.n_slices - 1));
    }
    options
}

/// Time limit of a job in seconds; `None`: that of the partition.
///
/// * `rounds`: calls of the job that run one after the other.
pub(super) fn job_time_s(settings: &JobSettings, rounds: u64) -> Option<u64> {
    let time_s = settings.time_s?;
    Some(time_s.saturating_mul(rounds.max(1)))
}

/// Returns true if a job that was stopped after `ran_s` seconds was warned of its time limit.
pub(super) fn was_warned(time_s: u64, ran_s: f64) -> bool {
    let earliest_s = time_s.saturating_sub(WARNING_S + EARLY_S);
    time_s >= MIN_WARNED_S && ran_s >= std::time::Duration::from_secs(earliest_s).as_secs_f64()
}

/// Arguments of `sbatch` that differ from job to job or contain paths, which need no quotes here.
///
/// * `name`: unique name of the job.
/// * `folder`: folder of the round; the logs of the jobs go there.
/// * `excluded`: nodes that failed.
pub(super) fn build_arguments(
    name: &str,
    folder: &Path,
    settings: &JobSettings,
    excluded: &[String],
    script: &Path,
) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["--parsable".into()];
    arguments.push(format!("--job-name={name}").into());
    let mut chdir = OsString::from("--chdir=");
    chdir.push(folder);
    arguments.push(chdir);
    arguments.push(build_output(name, folder));
    arguments.push("--open-mode=append".into());
    if !excluded.is_empty() {
        let nodes = settings.exclude.iter().chain(excluded).cloned();
        let nodes: Vec<String> = nodes.collect();
        arguments.push(format!("--exclude={}", nodes.join(",")).into());
    }
    arguments.push(script.into());
    arguments
}

/// The option for the log of a job. A `%` of the path is doubled, since it begins a placeholder; a
/// backslash would switch placeholders off, so there is no log then.
fn build_output(name: &str, folder: &Path) -> OsString {
    let path = folder.as_os_str().as_bytes();
    if path.contains(&b'\\') {
        return "--output=/dev/null".into();
    }
    let mut output = b"--output=".to_vec();
    for byte in path {
        output.push(*byte);
        output.extend((*byte == b'%').then_some(b'%'));
    }
    output.extend_from_slice(format!("/{name}.%a.log").as_bytes());
    OsString::from_vec(output)
}

/// Name of the log of a job, as [`build_arguments`] sets it.
///
/// * `element`: index in the array; `None` for a job without an array.
pub(super) fn log_name(name: &str, element: Option<u64>) -> String {
    match element {
        Some(element) => format!("{name}.{element}.log"),
        // SLURM's value of `%a` for a job without an array.
        None => format!("{name}.4294967294.log"),
    }
}

/// Quotes a word for a shell.
fn quote_word(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@%:,=".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// Quotes an option for a `#SBATCH` line, where double quotes and backslashes work as in a shell.
fn quote_option(option: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@%:,=[]&|()*".contains(c);
    if option.chars().all(is_plain) {
        return option.to_owned();
    }
    let escaped = option.replace('\\', "\\\\").replace('"', "\\\"");
    match escaped.split_once('=') {
        Some((name, value)) => format!("{name}=\"{value}\""),
        None => format!("\"{escaped}\""),
    }
}

/// Formats a time limit as `D-HH:MM:SS`.
pub(super) fn build_time(seconds: u64) -> String {
    let (minutes, s) = (seconds / 60, seconds % 60);
    let (hours, min) = (minutes / 60, minutes % 60);
    let (days, h) = (hours / 24, hours % 24);
    format!("{days}-{h:02}:{min:02}:{s:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents<'a>(settings: &'a JobSettings, batch_file: &'a str) -> ScriptContents<'a> {
        ScriptContents {
            settings,
            program: Path::new("/opt/my tools/mandelbox"),
            batch_file: Path::new(batch_file),
            parallel: 4,
            rounds: 3,
            first_slice: 0,
            n_slices: 8,
        }
    }

    #[test]
    fn a_script_has_all_settings() {
        let settings = JobSettings {
            partition: Some("main".to_owned()),
            cpus_per_task: Some(2),
            mem_mb: Some(1000),
            constraint: Some("a&b".to_owned()),
            time_s: Some(3600),
            account: Some("my lab".to_owned()),
            extra_lines: vec!["module load x".to_owned(), "#SBATCH --exclusive".to_owned()],
            ..JobSettings::default()
        };
        let script = build_script(&contents(&settings, "/work/it's/batch.json"));
        insta::assert_snapshot!(script, @r#"
        #!/bin/sh
        #SBATCH --nodes=1
        #SBATCH --ntasks=1
        #SBATCH --cpus-per-task=8
        #SBATCH --no-requeue
        #SBATCH --kill-on-invalid-dep=yes
        #SBATCH --mem=4000M
        #SBATCH --partition=main
        #SBATCH --account="my lab"
        #SBATCH --constraint=a&b
        #SBATCH --time=0-03:00:00
        #SBATCH --signal=B:TERM@30
        #SBATCH --array=0-7
        #SBATCH --exclusive
        module load x
        exec '/opt/my tools/mandelbox' worker --batch '/work/it'\''s/batch.json' --slice "$SLURM_ARRAY_TASK_ID"
        "#);
    }

    #[test]
    fn later_arrays_and_single_jobs_name_their_slices() {
        let settings = JobSettings {
            mem_mb: Some(1001),
            use_mem_per_cpu: true,
            ..JobSettings::default()
        };
        let last_line = |first_slice, n_slices| {
            let contents = ScriptContents {
                first_slice,
                n_slices,
                ..contents(&settings, "/b.json")
            };
            let script = build_script(&contents);
            assert!(script.contains("#SBATCH --mem-per-cpu=1001M\n"));
            assert_eq!(script.contains("--array"), n_slices > 1);
            script.lines().last().expect("a line").to_owned()
        };
        assert!(last_line(0, 1).ends_with("--slice 0"));
        assert!(last_line(7, 1).ends_with("--slice 7"));
        assert!(last_line(1000, 2).ends_with(r#"--slice "$((1000 + SLURM_ARRAY_TASK_ID))""#));
    }

    #[test]
    fn a_job_is_warned_before_its_time_limit() {
        let settings = JobSettings {
            time_s: Some(100),
            ..JobSettings::default()
        };
        assert_eq!(job_time_s(&settings, 3), Some(300));
        assert_eq!(job_time_s(&JobSettings::default(), 3), None);
        assert!(was_warned(300, 271.0) && was_warned(300, 210.0));
        assert!(!was_warned(300, 209.0));
        // A short job is not warned.
        assert!(!was_warned(119, 119.0));
    }

    #[test]
    fn a_shell_takes_quoted_words_for_one() {
        for word in [
            "a",
            "a b",
            "it's",
            "$(touch x)",
            "`x`",
            "a\nb",
            "\\",
            "",
            "ä\"&;",
        ] {
            let words = shlex::split(&quote_word(word)).expect("words");
            assert_eq!(words, [word]);
        }
    }

    #[test]
    fn paths_are_arguments_without_quotes() {
        let settings = JobSettings {
            exclude: Some("n9".to_owned()),
            ..JobSettings::default()
        };
        let folder = Path::new("/work/a 'b' %j");
        let arguments = build_arguments(
            "mandelbox-1",
            folder,
            &settings,
            &["n2".to_owned()],
            Path::new("/work/a 'b' %j/script.sh"),
        );
        let texts: Vec<_> = arguments
            .iter()
            .map(|text| text.to_string_lossy())
            .collect();
        assert_eq!(
            texts,
            [
                "--parsable",
                "--job-name=mandelbox-1",
                "--chdir=/work/a 'b' %j",
                "--output=/work/a 'b' %%j/mandelbox-1.%a.log",
                "--open-mode=append",
                "--exclude=n9,n2",
                "/work/a 'b' %j/script.sh",
            ]
        );
    }
}
