//! Shell completions and man pages, made from the one definition of the command line.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use crate::{Args, ClientError};

const COMPLETIONS_HELP: &str = "\
To use it, write it where the shell looks for it, for example:
  deltasync completions bash > ~/.local/share/bash-completion/completions/deltasync
  deltasync completions zsh > ~/.zfunc/_deltasync        # with fpath+=~/.zfunc before compinit in .zshrc
  deltasync completions fish > ~/.config/fish/completions/deltasync.fish";

#[derive(Clone, Debug, clap::Args)]
#[command(after_help = COMPLETIONS_HELP)]
pub(crate) struct CompletionsArgs {
    /// Which shell
    #[arg(value_name = "SHELL", value_enum)]
    shell: Shell,
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ManArgs {
    /// Write a page for each verb into this directory, which is made if need be
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// The script that makes a shell complete the command line.
pub(crate) fn completions(args: &CompletionsArgs) -> String {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Args::command(), "deltasync", &mut script);
    String::from_utf8(script).expect("the help is text")
}

/// The main page, or nothing where pages were written into a directory.
pub(crate) fn man(args: &ManArgs) -> Result<String, ClientError> {
    let mut command = Args::command().disable_help_subcommand(true);
    command.build();
    let Some(dir) = &args.dir else { return Ok(page(&page_of(&command))) };
    fs::create_dir_all(dir).map_err(ClientError::file("make", dir))?;
    let write = |command: &Command| {
        let man = page_of(command);
        let path: &Path = &dir.join(man.get_filename());
        fs::write(path, page(&man)).map_err(ClientError::file("write", path))
    };
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        write(verb)?;
    }
    write(&command)?;
    Ok(String::new())
}

/// The page of a program or verb.
fn page_of(command: &Command) -> Man {
    let notes = command.get_after_help().map(|notes| unwrapped(&notes.to_string()));
    let command = command.clone();
    Man::new(match notes {
        Some(notes) => command.after_help(notes),
        None => command,
    })
}

/// A text with each paragraph in one line, for a program that fills lines itself. A line belongs to the one before when that
/// is full, unless it is a row of a table.
fn unwrapped(text: &str) -> String {
    /// No line that ends a paragraph by chance is so long, and those that were wrapped are.
    const FULL: usize = 100;
    let (mut unwrapped, mut is_full) = (String::new(), false);
    for line in text.lines() {
        let is_row = line.trim_start().contains("  ");
        match is_full && !is_row && !line.is_empty() {
            true => unwrapped = unwrapped + " " + line.trim_start(),
            false => unwrapped = unwrapped + "\n" + line,
        }
        is_full = line.len() >= FULL;
    }
    unwrapped.trim_start_matches('\n').to_owned()
}

fn page(man: &Man) -> String {
    let mut text = Vec::new();
    man.render(&mut text).expect("memory takes what is written to it");
    String::from_utf8(text).expect("the help is text")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_are_unwrapped_and_rows_stay() {
        let full = "x".repeat(100);
        let text = format!("Heading:\n  {full}\n  goes on\n  NAME  {full}\n  NEXT  {full}\n\n{full}\nend");
        let expected = format!("Heading:\n  {full} goes on\n  NAME  {full}\n  NEXT  {full}\n\n{full} end");
        assert_eq!(unwrapped(&text), expected);
    }
}
