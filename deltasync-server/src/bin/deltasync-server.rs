//! Serves a directory to deltasync clients.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use deltasync_core::ByteLen;
use deltasync_io::{LocalOptions, LocalStorage, Threads};
use deltasync_server::{Listeners, LogFormat, ServerConfig, Shutdown, run, run_program};

/// Serves a directory to deltasync clients, with a live dashboard beside it.
///
/// Prints `listening on ADDR` on standard output when it is ready, and `dashboard on http://ADDR/`. The log goes to
/// standard error; RUST_LOG filters it. There is no authentication yet: whoever can connect can read and write everything
/// in the directory.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "\
Signals: SIGTERM and Ctrl-C stop it once running transfers have ended; a second one stops it at once.

Exit codes: 0 stopped as asked, 1 failed, 2 wrong usage."
)]
struct Args {
    /// The directory to serve
    #[arg(long, value_name = "DIR")]
    root: PathBuf,
    /// Where clients connect; port 0 takes a free one
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7440")]
    listen: String,
    /// Where the dashboard is, or `off`
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7441")]
    dashboard: String,
    /// A name under which the dashboard may be reached besides its address and loopback; may be given several times
    #[arg(long, value_name = "NAME[:PORT]")]
    dashboard_host: Vec<String>,
    /// How the lines of the log look
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    log_format: LogFormat,
    /// The most clients at a time
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    max_connections: u32,
    /// How many bytes of old versions are kept in the directory, so that clients that have one of them need one round trip;
    /// 0 keeps none
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 30)]
    history: u64,
    /// How long running transfers may take to end after SIGTERM or Ctrl-C
    #[arg(long, value_name = "SECS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(..=86_400))]
    shutdown_timeout: u64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    args.log_format.install();
    run_program(tokio::runtime::Builder::new_multi_thread(), serve(args))
}

async fn serve(args: Args) -> io::Result<()> {
    let root = args.root.display();
    let storage = LocalStorage::serve(&args.root, LocalOptions::default().history(ByteLen::new(args.history)))
        .map_err(|error| io::Error::new(error.kind(), format!("cannot serve {root}: {error}")))?;
    let dashboard = (args.dashboard != "off").then_some(args.dashboard.as_str());
    let listeners = Listeners::bind(&args.listen, dashboard).await?;
    let shutdown = Shutdown::on_signals()?;
    announce(&listeners)?;
    let config = ServerConfig::default()
        .connections(args.max_connections as usize)
        .shutdown(Duration::from_secs(args.shutdown_timeout))
        .dashboard_hosts(args.dashboard_host);
    let storage = Threads::new(Arc::new(storage), Threads::for_this_machine());
    run(listeners, Arc::new(storage), config, shutdown).await
}

fn announce(listeners: &Listeners) -> io::Result<()> {
    let mut lines = format!("listening on {}\n", listeners.clients()?);
    if let Some(address) = listeners.dashboard()? {
        lines += &format!("dashboard on http://{address}/\n");
    }
    let mut out = io::stdout().lock();
    out.write_all(lines.as_bytes())?;
    out.flush()
}
