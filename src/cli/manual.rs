//! `mandelbox completions` and `mandelbox man`, generated from clap's definition of the command
//! line.

use clap::CommandFactory;

use super::Answer;
use super::arguments::{Cli, CompletionsArguments, ManArguments};
use crate::run::exit_code;

pub(super) fn completions(arguments: &CompletionsArguments) -> Answer {
    let mut stdout = Vec::new();
    clap_complete::generate(
        arguments.shell,
        &mut Cli::command(),
        "mandelbox",
        &mut stdout,
    );
    Answer {
        stdout,
        ..Answer::default()
    }
}

pub(super) fn man(arguments: &ManArguments) -> Answer {
    let mut program = Cli::command();
    // Subcommands receive their full names and inherited options only now.
    program.build();
    let shown = match &arguments.subcommand {
        None => Some(&program),
        Some(name) => program
            .get_subcommands()
            .find(|command| command.get_name() == name && !command.is_hide_set()),
    };
    let Some(shown) = shown else {
        let names = program
            .get_subcommands()
            .filter(|command| !command.is_hide_set())
            .map(|command| command.get_name());
        let text = format!(
            "error: no such subcommand; choose one of {}\n",
            names.collect::<Vec<_>>().join(", ")
        );
        return Answer::text(text, exit_code::WRONG_INPUT);
    };
    let mut stdout = Vec::new();
    match clap_mangen::Man::new(shown.clone()).render(&mut stdout) {
        Ok(()) => Answer {
            stdout,
            ..Answer::default()
        },
        Err(err) => Answer::text(format!("error: {err}\n"), exit_code::HOST_FAILED),
    }
}
