//! The examples run to their end. A test cannot name the program of an example, but `cargo test` builds it beside.

use std::path::PathBuf;
use std::process::Command;

/// Runs an example and returns what it printed.
fn run(name: &str, arguments: &[PathBuf]) -> String {
    let own = std::env::current_exe().expect("a test is a file");
    let built = own.ancestors().nth(2).expect("tests lie in deps/").join("examples").join(name);
    assert!(built.exists(), "{} is not there: cargo build -p deltasync-examples --examples", built.display());
    let output = Command::new(built).args(arguments).output().expect("it starts");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{name}: {}\n{printed}{}", output.status, String::from_utf8_lossy(&output.stderr));
    printed
}

#[test]
fn diff_two_files() {
    let directory = tempfile::tempdir().expect("a directory for two files");
    let files = ["old", "new"].map(|name| directory.path().join(name));
    for (file, content) in files.iter().zip(["some content", "some other content"]) {
        std::fs::write(file, content.repeat(100)).expect("a small file");
    }
    assert!(run("diff_two_files", &files).contains("rebuilt 1800 bytes"));
}

#[test]
fn blocking_socket() {
    let printed = run("blocking_socket", &[]);
    assert!(printed.contains("on the wire"), "{printed}");
}

#[test]
fn tokio_both_ends() {
    let printed = run("tokio_both_ends", &[]);
    assert_eq!(printed.matches("client: 2000001 bytes").count(), 2, "{printed}");
}

#[test]
fn custom_storage() {
    let printed = run("custom_storage", &[]);
    assert!(printed.contains("an inbox gives nothing away"), "{printed}");
}
