//! The program `deltasync`.

use std::process::ExitCode;

use deltasync_client::{Args, InvalidCall, run};
use deltasync_io::hush_contained_panics;

fn main() -> ExitCode {
    hush_contained_panics();
    Args::of_process().map_or_else(InvalidCall::report, run).into()
}
