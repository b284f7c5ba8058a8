//! Parts of messages: the nearest name to a misspelt one, shortened values, and text that can be
//! pasted into a shell.

use std::fmt::{self, Display, Write};

/// Returns the one of `names` that `word` most likely means; `None` if no name is near.
///
/// Case and the choice between `-`, `_` and spaces are ignored. Apart from that, about one
/// character in three may be wrong.
pub(crate) fn nearest<'n>(word: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    /// Longer words are not compared: the cost of a comparison is the product of both lengths.
    const MAX_BYTES: usize = 100;
    /// Maximum number of names that are compared. A malicious document can contain millions.
    const MAX_NAMES: usize = 10_000;
    if word.len() > MAX_BYTES {
        return None;
    }
    let folded = |text: &str| text.to_lowercase().replace(['-', ' '], "_");
    let meant = folded(word);
    let names = names
        .into_iter()
        .filter(|name| name.len() <= MAX_BYTES && *name != word)
        .take(MAX_NAMES);
    let distance = |name: &str| strsim::damerau_levenshtein(&meant, &folded(name));
    let (distance, name) = names
        .map(|name| (distance(name), name))
        .min_by_key(|(distance, _)| *distance)?;
    let allowed = (meant.chars().count() / 3).max(1);
    (distance <= allowed && distance < meant.chars().count()).then_some(name)
}

/// Returns a question with the nearest name, such as ``; did you mean `args`?``, or an empty text
/// if no name is near.
pub(crate) fn did_you_mean<'n>(word: &str, names: impl IntoIterator<Item = &'n str>) -> String {
    nearest(word, names).map_or_else(String::new, |name| format!("; did you mean `{name}`?"))
}

/// Returns the first `max_chars` characters of a text, and `...` if it has more. The rest is never
/// held in memory.
pub(crate) fn shortened(text: impl Display, max_chars: usize) -> String {
    let mut start = Start {
        text: String::new(),
        n_left: max_chars,
    };
    match write!(start, "{text}") {
        Ok(()) => start.text,
        Err(fmt::Error) => start.text + "...",
    }
}

/// Writer that accepts a limited number of characters and fails at the next one.
struct Start {
    text: String,
    n_left: usize,
}

impl Write for Start {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            self.n_left = self.n_left.checked_sub(1).ok_or(fmt::Error)?;
            self.text.push(c);
        }
        Ok(())
    }
}

/// Quotes a path or another text as one word of a POSIX shell, for commands that a message
/// suggests.
pub(crate) fn shell_word(text: impl Display) -> String {
    let text = text.to_string();
    // A text with NUL cannot be an argument at all.
    shlex::try_quote(&text).map_or_else(|_| text.clone(), |quoted| quoted.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found() {
        let names = ["task_list", "name", "args", "parallelization_level"];
        for (word, expected) in [
            ("task_lists", Some("task_list")),
            ("Task_List", Some("task_list")),
            ("task list", Some("task_list")),
            ("tasklist", Some("task_list")),
            ("arg", Some("args")),
            ("parallelisation_level", Some("parallelization_level")),
            ("nmae", Some("name")),
            ("executor", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, names), expected, "{word}");
        }
        assert_eq!(
            nearest("args", ["args"]),
            None,
            "the name itself is no other name"
        );
        assert_eq!(did_you_mean("arg", names), "; did you mean `args`?");
        assert_eq!(did_you_mean("executor", names), "");
    }

    #[test]
    fn texts_are_cut_at_the_limit() {
        assert_eq!(shortened("äöü", 3), "äöü");
        assert_eq!(shortened("äöüx", 3), "äöü...");
        assert_eq!(shortened(serde_json::json!([1, 2, 3]), 4), "[1,2...");
    }

    #[test]
    fn what_is_pasted_is_one_word() {
        assert_eq!(shell_word("/data/plate"), "/data/plate");
        assert_eq!(shell_word("/my data/it's"), "\"/my data/it's\"");
        assert_eq!(shell_word("$HOME/a b"), "'$HOME/a b'");
    }
}
