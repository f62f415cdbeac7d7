//! The config file and the environment, by the program itself: what outweighs what, and what is said of what is wrong.

mod common;

use std::path::Path;

use common::{Ran, Scratch, command, noise};

/// A directory with a tree to push and a place for a config file.
fn scene(config: &str) -> Scratch {
    let dir = Scratch::new();
    for name in ["tree", "xdg/deltasync", "copy"] {
        dir.mkdir(name);
    }
    dir.write("tree/a", b"a");
    dir.write("tree/b.o", b"b");
    dir.write("copy/extra", b"extra");
    dir.write("xdg/deltasync/config.toml", config.as_bytes());
    dir
}

fn run(dir: &Scratch, variables: &[(&str, &str)], args: &[&str]) -> Ran {
    let mut command = command(dir.path());
    command.env("XDG_CONFIG_HOME", dir.join("xdg")).envs(variables.iter().copied()).args(args);
    Ran::new(command.output().expect("the program starts"))
}

const PUSH: [&str; 3] = ["push", "tree", "copy"];

#[test]
fn a_table_outweighs_the_top_the_environment_the_file_and_the_command_line_all() {
    let shape = |ran: &Ran| (ran.stdout.starts_with('{'), ran.stdout.is_empty());
    let (json, nothing, text) = ((true, false), (false, true), (false, false));
    for (config, variables, args, expected) in [
        ("", &[][..], &[][..], text),
        ("json = true", &[], &[], json),
        ("json = false\n[push]\njson = true", &[], &[], json),
        ("json = true\n[push]\njson = false", &[], &[], text),
        ("[pull]\njson = true", &[], &[], text),
        ("quiet = true", &[], &[], nothing),
        ("json = true", &[("DELTASYNC_JSON", "false")], &[], text),
        ("", &[("DELTASYNC_JSON", "1")], &[], json),
        ("", &[("DELTASYNC_JSON", "")], &[], text),
        ("json = true", &[], &["--json=false"], text),
        ("", &[("DELTASYNC_JSON", "true")], &["--json=false"], text),
        ("json = true", &[], &["--no-config"], text),
        ("json = true", &[("DELTASYNC_NO_CONFIG", "1")], &[], text),
        // What cannot stand beside what outweighs it is left out.
        ("quiet = true", &[], &["--verbose"], text),
        ("verbose = true", &[("DELTASYNC_QUIET", "true")], &[], nothing),
        ("quiet = true\n[push]\nverbose = true", &[], &[], text),
        ("quiet = true", &[("DELTASYNC_QUIET", "off")], &["-v"], text),
    ] {
        let dir = scene(config);
        let ran = run(&dir, variables, &[&PUSH[..], args].concat()).fine();
        assert_eq!(shape(&ran), expected, "{config:?} {variables:?} {args:?}: {ran:?}");
    }
}

#[test]
fn values_lists_and_what_needs_another_option() {
    let dir = scene("max-delete = 7\n[push]\nexclude = ['*.o']\nretries = 3\n[ls]\nretries = 900\n");
    run(&dir, &[], &PUSH).fine();
    assert_eq!(dir.names("copy"), ["a", "extra"], "a bound alone deletes nothing");
    // Lists add up, and the last one counts: the command line.
    run(&dir, &[("DELTASYNC_EXCLUDE", "a\nx")], &["push", "tree", "two", "--include", "b.o"]).fine();
    assert_eq!(dir.names("two"), ["b.o"]);
    run(&dir, &[], &[&PUSH[..], &["--delete"]].concat()).fine();
    assert_eq!(dir.names("copy"), ["a"]);

    let dir = scene("delete = true\n");
    run(&dir, &[], &[&PUSH[..], &["--max-delete=0"]].concat());
    assert_eq!(dir.names("copy"), ["a", "b.o", "extra"], "the file says --delete, the command line its bound");
    run(&dir, &[], &[&PUSH[..], &["--delete=false"]].concat()).fine();
    assert_eq!(dir.names("copy"), ["a", "b.o", "extra"]);
    run(&dir, &[], &PUSH).fine();
    assert_eq!(dir.names("copy"), ["a", "b.o"]);
}

#[test]
fn an_option_of_the_command_line_puts_away_what_it_cannot_stand_beside() {
    let dir = scene("no-state = true\n");
    let all = |more: &[&str]| run(&dir, &[], &[&PUSH[..], more].concat());
    all(&["--state", "remembered"]).fine();
    all(&["--keep=sums"]).fine();
    let dir = scene("state = 'remembered'\nkeep = 'copy'\n");
    run(&dir, &[("DELTASYNC_STATE", "elsewhere")], &[&PUSH[..], &["--no-state"]].concat()).fine();
    assert!(!dir.join("remembered").exists() && !dir.join("elsewhere").exists());
}

#[test]
fn what_is_wrong_is_named_with_file_line_and_key() {
    for (config, line, key, what) in [
        ("retrys = 5", 1, "retrys", "no option of any verb is called so; did you mean retries?"),
        ("\n[push]\nxyzzy = 5", 3, "[push] xyzzy", "no option of `push` is called so"),
        ("[ls]\ndelete = true", 2, "[ls] delete", "no option of `ls` is called so"),
        ("[posh]\n", 1, "[posh]", "no verb is called so; a table is one of push, pull, "),
        ("[man]\ndir = 'x'", 2, "[man] dir", "no verb is called so"),
        ("\njson = 'yes'", 2, "json", "expected true or false, not a single value"),
        ("[pull]\nretries = true", 2, "[pull] retries", "expected a string or a number, not true or false"),
        ("exclude = [1979-05-27]", 1, "exclude", "expected a string or a list of strings, not a list of something"),
        ("exclude = { a = 1 }", 1, "[exclude] a", "no verb is called so"),
        ("retries = 5000", 1, "retries", "invalid value '5000' for '--retries <N>': 5000 is not in 0..=1000"),
        ("keep = 'all'", 1, "keep", "invalid value 'all' for '--keep <FORM>' [possible values: auto, copy, sums]"),
        ("exclude = ['a', '!b']", 1, "exclude", "invalid value '!b' for '--exclude <PATTERN>'"),
        ("bwlimit = 1", 1, "bwlimit", "invalid value '1' for '--bwlimit <RATE>'"),
        ("config = 'x'", 1, "config", "can be set by the command line and the environment only"),
        ("tag-bits = 8", 1, "tag-bits", "no option of any verb is called so"),
        ("[push]\nquiet = true\nverbose = true", 3, "[push] verbose", "cannot stand beside quiet"),
    ] {
        let dir = scene(config);
        let ran = run(&dir, &[], &PUSH);
        let file = dir.join("xdg/deltasync/config.toml");
        let ran = ran.failed(2, &format!("deltasync: {}:{line}: {key}: {what}", file.display()));
        assert!(ran.stderr.contains("\nhint: ") && ran.stderr.contains("--no-config"), "{ran:?}");
        assert_eq!(ran.stderr.lines().count(), 2, "{ran:?}");
        assert!(!dir.join("copy/a").exists());
        // Shells call these when they start.
        run(&dir, &[], &["completions", "bash"]).fine();
        assert!(run(&dir, &[], &["--help"]).fine().stdout.contains("Usage"));
    }
    let ran = run(&scene(""), &[("DELTASYNC_RETRIES", "many")], &PUSH);
    let ran = ran.failed(2, "deltasync: DELTASYNC_RETRIES: invalid value 'many' for '--retries <N>'");
    assert!(ran.stderr.contains("unset DELTASYNC_RETRIES"), "{ran:?}");
    run(&scene(""), &[("DELTASYNC_JSON", "maybe")], &PUSH).failed(2, "DELTASYNC_JSON: expected true or false");
    let ran = run(&scene("a = [1,"), &[], &PUSH).failed(2, "config.toml:1: ");
    assert!(ran.stderr.contains("a config file is TOML"), "{ran:?}");
}

#[test]
fn a_file_that_is_named_must_be_there_and_none_is_read_where_one_stands() {
    let dir = scene("json = true");
    dir.write("other.toml", b"quiet = true");
    for name in ["config.toml", "deltasync.toml", ".deltasync.toml", "tree/config.toml"] {
        dir.write(name, b"no TOML");
    }
    let all = |variables: &[(&str, &str)], more: &[&str]| run(&dir, variables, &[more, &PUSH[..]].concat());
    assert!(all(&[], &["--config", "other.toml"]).fine().stdout.is_empty());
    assert!(all(&[("DELTASYNC_CONFIG", "other.toml")], &[]).fine().stdout.is_empty());
    let both = all(&[("DELTASYNC_CONFIG", "other.toml")], &["--config=xdg/deltasync/config.toml"]);
    assert!(both.fine().stdout.starts_with('{'));
    all(&[], &["--config", "none.toml"]).failed(2, "deltasync: none.toml: cannot read the config file: ");
    all(&[("DELTASYNC_CONFIG", "none.toml")], &["--no-config"]).fine();
    assert!(all(&[], &[]).fine().stdout.starts_with('{'));
    // Behind the verb too, and a file that is called like a verb.
    dir.write("push", b"quiet = true");
    assert!(run(&dir, &[], &["--config", "push", "push", "tree", "copy"]).fine().stdout.is_empty());
    assert!(run(&dir, &[], &["push", "tree", "copy", "--config", "push"]).fine().stdout.is_empty());

    let home = Scratch::new();
    home.mkdir(".config/deltasync");
    home.write(".config/deltasync/config.toml", b"quiet = true");
    let of_home = |path: &Path| {
        let mut command = command(dir.path());
        Ran::new(command.env("HOME", path).args(PUSH).output().expect("the program starts"))
    };
    assert!(of_home(home.path()).fine().stdout.is_empty());
    assert!(!of_home(dir.path()).fine().stdout.is_empty(), "no file there");
}

#[test]
fn a_command_line_that_is_wrong_is_told_as_ever() {
    let dir = scene("delete = true\n");
    dir.write("file", &noise(1, 10));
    for (args, message) in [
        (&["push", "tree"][..], "required"),
        (&["push", "tree", "copy", "--retrys=4"], "unexpected argument '--retrys'"),
        (&["push", "tree", "copy", "--quiet", "--verbose"], "'--quiet' cannot be used with '--verbose'"),
        (&["posh", "tree", "copy"], "unrecognized subcommand 'posh'"),
        (&["push", "tree", "copy", "--config"], "value is required"),
        (&["push", "tree", "copy", "--delete=perhaps"], "invalid value 'perhaps'"),
        (&["push", "tree", "copy", "--force", "--delete=false", "--max-delete=1"], "cannot be used with"),
    ] {
        run(&dir, &[], args).failed(2, message);
    }
    let nothing = run(&dir, &[], &[]);
    assert_eq!((nothing.code, nothing.stdout.as_str()), (Some(2), ""), "{nothing:?}");
    assert!(nothing.stderr.starts_with("Bring a file or directory"), "{nothing:?}");
    let help = run(&dir, &[], &["push", "-h"]).fine().stdout;
    assert!(help.contains("--delete ") && !help.contains("--delete[="), "{help}");
    assert!(run(&dir, &[], &["--version"]).fine().stdout.starts_with("deltasync "));
}
