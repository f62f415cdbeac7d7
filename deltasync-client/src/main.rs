//! The program `deltasync`.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use deltasync_client::{Args, ExitStatus, run};
use deltasync_io::hush_contained_panics;

fn main() -> ExitCode {
    hush_contained_panics();
    match Args::try_parse() {
        Ok(args) => run(args).into(),
        Err(error) if error.use_stderr() => {
            let text = error.render().to_string();
            // Where the standard error is gone, the exit status has to do.
            let _ = write!(std::io::stderr(), "deltasync: {}", text.strip_prefix("error: ").unwrap_or(&text));
            ExitStatus::Usage.into()
        }
        Err(help) => {
            let _ = help.print();
            ExitStatus::Done.into()
        }
    }
}
