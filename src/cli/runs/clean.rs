//! Removal of runs: what is removed is listed, then confirmed, then removed.

use std::fmt::Write as _;
use std::io::{BufRead, IsTerminal, Read};
use std::path::Path;

use jiff::Timestamp;

use super::entry::{RunEntry, RunState};
use super::{Answer, json_text, table};
use crate::cli::arguments::RunsArguments;
use crate::cli::shared_arguments::FormatArgument;
use crate::report::print_text;
use crate::run::exit_code;
use crate::text::escaped;
use crate::workdir::{RemoveError, remove, remove_rest};

/// Maximum number of bytes of an answer of the user.
const MAX_ANSWER_BYTES: u64 = 100;

/// Removes runs, if the user confirms it.
///
/// * `entries`: runs that the options select.
pub(super) fn clean(
    entries: Vec<RunEntry>,
    folder: &Path,
    arguments: &RunsArguments,
    now: Timestamp,
) -> Answer {
    let (kept, chosen): (Vec<_>, Vec<_>) = entries
        .into_iter()
        .partition(|entry| entry.obstacle().is_some());
    print_text(&plan_text(&chosen, &kept, folder, now));
    let mut removal = Removal::default();
    let is_confirmed = match chosen.len() {
        0 => Ok(false),
        _ if arguments.yes => Ok(true),
        _ => ask(&chosen),
    };
    match is_confirmed {
        Ok(true) => removal.remove_all(&chosen, folder),
        Ok(false) => removal.text.push_str("nothing was removed\n"),
        Err(text) => {
            (removal.text, removal.exit_code) = (text, exit_code::WRONG_INPUT);
        }
    }
    let stdout = match arguments.format {
        FormatArgument::Text => Vec::new(),
        FormatArgument::Json => {
            let mut facts = Vec::new();
            for (position, entry) in chosen.iter().enumerate() {
                facts.push(facts_of(entry, now, removal.removed.contains(&position)));
            }
            facts.extend(kept.iter().map(|entry| facts_of(entry, now, false)));
            json_text(facts)
        }
    };
    Answer {
        stdout,
        stderr: removal.text,
        exit_code: removal.exit_code,
    }
}

fn facts_of(entry: &RunEntry, now: Timestamp, is_removed: bool) -> serde_json::Value {
    let mut facts = table::facts(entry, now);
    facts["removed"] = is_removed.into();
    facts
}

/// Lists what is removed, and what is kept and why.
fn plan_text(chosen: &[RunEntry], kept: &[RunEntry], folder: &Path, now: Timestamp) -> String {
    let mut text = String::new();
    if !chosen.is_empty() {
        text.push_str("to remove: ");
        text.push_str(&table::text(chosen, folder, now));
    }
    for entry in kept {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "kept: {}: {}",
            table::shown_path(entry, folder),
            entry.obstacle().unwrap_or_default()
        );
    }
    text
}

/// Asks the user.
///
/// # Errors
/// A text for the user if there is no terminal.
fn ask(chosen: &[RunEntry]) -> Result<bool, String> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() || !std::io::stderr().is_terminal() {
        return Err(
            "error: --clean asks before it removes anything, and there is no terminal; add --yes \
             to remove these runs. Nothing was removed\n"
                .to_owned(),
        );
    }
    print_text(&format!(
        "Remove {} and free {}? Type `yes` to remove:\n",
        count_text(chosen.len()),
        table::size_text(chosen)
    ));
    let mut answer = Vec::new();
    // An error is no confirmation.
    let _ = stdin
        .lock()
        .take(MAX_ANSWER_BYTES)
        .read_until(b'\n', &mut answer);
    let answer = answer.trim_ascii().to_ascii_lowercase();
    Ok(answer == b"y" || answer == b"yes")
}

fn count_text(n_runs: usize) -> String {
    format!("{n_runs} run{}", if n_runs == 1 { "" } else { "s" })
}

/// Course of a removal.
#[derive(Default)]
struct Removal {
    /// Positions of the runs that were removed.
    removed: std::collections::HashSet<usize>,
    text: String,
    exit_code: u8,
}

impl Removal {
    fn remove_all(&mut self, chosen: &[RunEntry], folder: &Path) {
        for (position, entry) in chosen.iter().enumerate() {
            let removed = match (entry.state, entry.id) {
                (RunState::PartlyRemoved, _) => remove_rest(&entry.path),
                (_, Some(id)) => remove(&entry.path, id),
                (_, None) => Err(RemoveError::Kept("it has changed".to_owned())),
            };
            let path = table::shown_path(entry, folder);
            // Writing to a string cannot fail.
            let _ = match removed {
                Ok(()) => {
                    self.removed.insert(position);
                    Ok(())
                }
                Err(RemoveError::Kept(text)) => writeln!(self.text, "kept: {path}: {text}"),
                Err(RemoveError::Failed(err)) => {
                    self.exit_code = exit_code::HOST_FAILED;
                    let err = escaped(&err.chain());
                    writeln!(
                        self.text,
                        "error: {err}; `runs --clean` continues the removal"
                    )
                }
            };
        }
        let removed = chosen.iter().enumerate();
        let removed = removed.filter(|(position, _)| self.removed.contains(position));
        let size = table::size_text(removed.map(|(_, entry)| entry));
        let _ = writeln!(
            self.text,
            "removed {}, freed {size}",
            count_text(self.removed.len())
        );
    }
}
