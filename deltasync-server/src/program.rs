//! What the two programs share: a runtime, one future on it, and an exit code.

use std::future::Future;
use std::io;
use std::process::ExitCode;

use tokio::runtime::Builder;

/// Runs `main` on a runtime of `builder` until it ends, and turns its outcome into an exit code; an error is logged.
pub fn run_program(mut builder: Builder, main: impl Future<Output = io::Result<()>>) -> ExitCode {
    let outcome = builder.enable_all().build().and_then(|runtime| {
        let outcome = runtime.block_on(main);
        // A blocking thread in the middle of a disk or a name service must not hold up the end.
        runtime.shutdown_background();
        outcome
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}
