//! The desktop client: see `docs/GUI.md`.

use std::process::ExitCode;

use clap::Parser as _;
use deltasync_client::{WindowArgs, run_window};

fn main() -> ExitCode {
    match run_window(WindowArgs::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("deltasync-gui: {error}");
            ExitCode::FAILURE
        }
    }
}
