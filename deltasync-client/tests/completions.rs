//! `deltasync completions` and `deltasync man`, by the programs that read what they print.

mod common;

use std::fs;
use std::process::{Command, Stdio};

use common::{Ran, Scratch, deltasync};

/// The lines that a real bash completes a command line to.
fn completed(script: &str, words: &[&str]) -> Vec<String> {
    let list = words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ");
    let last = words.len() - 1;
    let (word, before) = (words[last], words[last - 1]);
    let ask = format!(
        "{script}\nCOMP_WORDS=({list})\nCOMP_CWORD={last}\nspec=$(complete -p deltasync)\n\
         function=$(sed -n 's/.*-F \\([^ ]*\\).*/\\1/p' <<<\"$spec\")\n\
         \"$function\" deltasync '{word}' '{before}'\nprintf '%s\\n' \"${{COMPREPLY[@]}}\""
    );
    let output = Command::new("bash").args(["--norc", "--noprofile", "-c", &ask]).output().expect("bash");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines().map(|line| line.trim_end().to_owned()).collect()
}

#[test]
fn a_real_bash_completes_verbs_options_and_values() {
    let dir = Scratch::new();
    let script = deltasync(dir.path(), &["completions", "bash"]).fine().stdout;
    dir.write("script", script.as_bytes());
    let checked = Command::new("bash").arg("-n").arg(dir.join("script")).output().expect("bash");
    assert!(checked.status.success() && checked.stderr.is_empty(), "{checked:?}");
    assert_eq!(completed(&script, &["deltasync", "pu"]), ["push", "pull"]);
    assert_eq!(completed(&script, &["deltasync", "push", "--bw"]), ["--bwlimit"]);
    assert_eq!(completed(&script, &["deltasync", "push", "--keep", "s"]), ["sums"]);
    assert_eq!(completed(&script, &["deltasync", "watch", "--se"]), ["--settle"]);
    assert_eq!(completed(&script, &["deltasync", "completions", "po"]), ["powershell"]);
}

#[test]
fn each_shell_has_a_script() {
    let dir = Scratch::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = deltasync(dir.path(), &["completions", shell]).fine().stdout;
        assert!(script.contains("bwlimit") && script.contains("verify"), "{shell}");
    }
    deltasync(dir.path(), &["completions", "sh"]).failed(2, "[possible values: bash, elvish, fish, powershell, zsh]");
}

/// The options that the help of a verb names.
fn options(dir: &Scratch, verb: &str) -> Vec<String> {
    let help = deltasync(dir.path(), &[verb, "--help"]).fine().stdout;
    let of_line = |line: &str| {
        let word = line.trim_start().trim_start_matches(|c: char| c != '-').split([' ', '=', '[', ',']);
        line.trim_start()
            .starts_with('-')
            .then(|| word.into_iter().find(|word| word.starts_with("--")).map(str::to_owned))?
    };
    help.lines().filter_map(of_line).collect()
}

#[test]
fn a_page_for_each_verb_names_each_of_its_options() {
    let dir = Scratch::new();
    let page = deltasync(dir.path(), &["man"]).fine().stdout;
    assert!(page.contains(".TH deltasync 1") && page.contains("config.toml"), "{page}");
    assert_eq!(deltasync(dir.path(), &["man", "--dir", "man/1"]).fine().stdout, "");
    assert!(dir.names("man/1").contains(&"deltasync.1".to_owned()));
    assert_eq!(page, String::from_utf8(dir.read("man/1/deltasync.1")).expect("text"));
    for verb in [
        "push",
        "pull",
        "watch",
        "ls",
        "verify",
        "signature",
        "delta",
        "patch",
        "explain",
        "demo",
        "completions",
        "man",
    ] {
        let page = String::from_utf8(dir.read(&format!("man/1/deltasync-{verb}.1"))).expect("text");
        let page = page.replace("\\-", "-");
        let options = options(&dir, verb);
        assert!(options.len() > 2, "{verb}: {options:?}");
        for option in options {
            assert!(page.contains(&option), "{verb} {option}: {page}");
        }
    }
    dir.write("file", b"x");
    deltasync(dir.path(), &["man", "--dir", "file"]).failed(1, "cannot make file: ");
}

#[test]
#[ignore = "needs the programs man and groff"]
fn pages_are_rendered_without_warnings() {
    let dir = Scratch::new();
    deltasync(dir.path(), &["man", "--dir", "man"]).fine();
    for entry in fs::read_dir(dir.join("man")).expect("made") {
        let path = entry.expect("readable").path();
        let mut man = Command::new("man");
        man.args(["--warnings", "-l"]).arg(&path).env("MANWIDTH", "80").env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
        let ran = Ran::new(man.output().expect("man")).fine();
        assert!(ran.stdout.contains("SYNOPSIS") && ran.stdout.contains("deltasync"), "{}", path.display());
    }
}
