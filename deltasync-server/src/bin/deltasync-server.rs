//! Serves a directory to deltasync clients.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::io::{self, Write};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use clap::{Parser, Subcommand};
use deltasync_core::ByteLen;
use deltasync_io::{LocalOptions, LocalStorage, Threads, hush_contained_panics};
use deltasync_server::{
    DetachedListeners, Guard, Listeners, LogFormat, Sandbox, Scrubbed, Scrubbing, ServerConfig, ServerLimits, Shutdown,
    run, run_program, scrub_directory,
};
use tokio::runtime::Builder;

/// Serves a directory to deltasync clients, with a live dashboard beside it.
///
/// Prints `listening on ADDR` on standard output when it is ready, and `dashboard on http://ADDR/`. The log goes to
/// standard error; RUST_LOG filters it. There is no authentication yet: whoever can connect can read and write everything
/// in the directory.
#[derive(Debug, Parser)]
#[command(
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "\
Signals: SIGTERM and Ctrl-C stop it once running transfers have ended; a second one stops it at once.

Exit codes: 0 stopped as asked, 1 failed, 2 wrong usage."
)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// The directory to serve
    #[arg(long, value_name = "DIR", required = true)]
    root: Option<PathBuf>,
    /// Where clients connect; port 0 takes a free one
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7440")]
    listen: String,
    /// Where the dashboard is, or `off`
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7441")]
    dashboard: String,
    /// A name under which the dashboard may be reached besides its address and loopback; may be given several times
    #[arg(long, value_name = "NAME[:PORT]")]
    dashboard_host: Vec<String>,
    /// A file with a secret text that whoever wants to see the dashboard has to know, as the password in a browser or as
    /// `Authorization: Bearer TEXT`. Needed where the dashboard is not on loopback
    #[arg(long, value_name = "FILE", conflicts_with = "dashboard_open")]
    dashboard_token_file: Option<PathBuf>,
    /// Everybody who can reach the dashboard may see it, from other machines too
    #[arg(long)]
    dashboard_open: bool,
    /// How the lines of the log look
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    log_format: LogFormat,
    /// The most connections at a time; fewer are taken where the system's limit of open files is too low
    #[arg(long, value_name = "N", default_value_t = 8192, help_heading = "Limits",
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    max_connections: u32,
    /// The most connections from one address, or one /64 network of IPv6
    #[arg(long, value_name = "N", default_value_t = 64, help_heading = "Limits",
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    max_connections_per_address: u32,
    /// How many transfers a second may begin on one connection, and twice as many at once; more are read later
    #[arg(long, value_name = "N", default_value_t = 5000, help_heading = "Limits",
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    max_requests: u32,
    /// The same for all connections from one address, or one /64 network of IPv6
    #[arg(long, value_name = "N", default_value_t = 10_000, help_heading = "Limits",
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    max_requests_per_address: u32,
    /// Hold this machine's own addresses, such as 127.0.0.1, to the limits by address too
    #[arg(long, help_heading = "Limits")]
    limit_loopback: bool,
    /// The most transfers of one connection at a time; more are refused as busy
    #[arg(long, value_name = "N", default_value_t = 256, help_heading = "Limits",
        value_parser = clap::value_parser!(u32).range(1..=65_536))]
    max_transfers: u32,
    /// How many bytes the transfers of one connection may hold in memory; more of them wait, or are refused as busy
    #[arg(long, value_name = "BYTES", default_value_t = 128 << 20, help_heading = "Limits",
        value_parser = clap::value_parser!(u64).range(2 << 20..))]
    max_memory: u64,
    /// The longest file, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 16 << 40, help_heading = "Limits")]
    max_file: u64,
    /// How long a client may take to say what it is, from the moment it connected
    #[arg(long, value_name = "SECS", default_value_t = 10, help_heading = "Limits",
        value_parser = clap::value_parser!(u64).range(1..=3600))]
    handshake_timeout: u64,
    /// How long a client may be without a transfer; 0 for any time
    #[arg(long, value_name = "SECS", default_value_t = 600, help_heading = "Limits",
        value_parser = clap::value_parser!(u64).range(..=31_536_000))]
    idle_timeout: u64,
    /// How long a client may say nothing, take nothing, or let a message trickle
    #[arg(long, value_name = "SECS", default_value_t = 30, help_heading = "Limits",
        value_parser = clap::value_parser!(u64).range(3..=3600))]
    stall_timeout: u64,
    /// How many bytes of old versions are kept in the directory, so that clients that have one of them need one round trip;
    /// 0 keeps none
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 30)]
    history: u64,
    /// How many bytes may be staged in the directory at once; a file that is longer cannot be pushed. What cut transfers
    /// have left counts as well, gives way when there is no room, and goes after a week
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 40)]
    staging: u64,
    /// How long running transfers may take to end after SIGTERM or Ctrl-C
    #[arg(long, value_name = "SECS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(..=86_400))]
    shutdown_timeout: u64,
    /// Shut the server into a sandbox of the kernel's (landlock): nothing but the files below the directory is in its reach.
    /// `auto` does so where the kernel can, `on` does not start where it cannot
    #[arg(long, value_name = "WHEN", value_enum, default_value_t)]
    sandbox: Sandbox,
    /// How many days after a check of all stored files the next one begins, in the background, or `off`. What it finds is
    /// on the dashboard and in the log
    #[arg(long, value_name = "DAYS", default_value = "30", value_parser = interval)]
    scrub_interval: Interval,
    /// How many bytes a second a check in the background reads
    #[arg(long, value_name = "BYTES", default_value_t = 16 << 20, value_parser = clap::value_parser!(u64).range(1..))]
    scrub_rate: u64,
}

/// The time between two checks in the background, if there are any.
#[derive(Clone, Copy, Debug)]
struct Interval(Option<Duration>);

#[derive(Debug, Subcommand)]
enum Command {
    /// Checks all stored files against what was published, now.
    ///
    /// A server that runs on the directory is asked to do it; otherwise it is done here. What is damaged is marked, so that
    /// no client gets it and the next push of a client that has it mends it.
    #[command(after_help = "Exit codes: 0 all is well, 1 could not be done, 2 wrong usage, 5 damage was found.")]
    Scrub {
        /// The directory that is served
        #[arg(long, value_name = "DIR")]
        root: PathBuf,
        /// Prints one JSON object a line
        #[arg(long)]
        json: bool,
        /// The most bytes to read in a second
        #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
        rate: Option<u64>,
    },
}

/// The exit code of a scrub that found damage.
const DAMAGED: u8 = 5;

fn interval(text: &str) -> Result<Interval, String> {
    if text == "off" {
        return Ok(Interval(None));
    }
    let days: Option<f64> = text.parse().ok().filter(|days| *days > 0.0 && *days <= 36_500.0);
    let days = days.ok_or("expected a number of days above 0, or `off`")?;
    Ok(Interval(Some(Duration::from_secs_f64(days * 86_400.0))))
}

fn main() -> ExitCode {
    let mut args = Args::parse();
    args.log_format.install();
    hush_contained_panics();
    if let Some(command) = args.command {
        return run_command(command);
    }
    let root = args.root.take().expect("it is required without a subcommand");
    // Before the sandbox, as they look at what the system grants this process.
    let (cores, threads) = (thread::available_parallelism().map_or(1, NonZero::get), Threads::for_this_machine());
    let ready = listen(&args, &root).and_then(|(listeners, guard)| {
        // The first thread, and with it all others.
        let sandbox = args.sandbox.enter(&root).map_err(|error| cannot_serve(&root, io::Error::other(error)))?;
        tracing::info!("sandbox: {sandbox}");
        Ok((listeners, guard))
    });
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(cores);
    run_program(builder, async move { serve(args, &root, ready?, threads).await })
}

fn run_command(command: Command) -> ExitCode {
    let Command::Scrub { root, json, rate } = command;
    match scrub_directory(&root, rate, json) {
        Ok(Scrubbed::Well) => ExitCode::SUCCESS,
        Ok(Scrubbed::Damaged) => ExitCode::from(DAMAGED),
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Opens the sockets, if there is a directory to serve and the dashboard may be where it should.
fn listen(args: &Args, root: &Path) -> io::Result<(DetachedListeners, Guard)> {
    #[expect(clippy::disallowed_methods, reason = "the path that the operator named")]
    let there = std::fs::metadata(root);
    there.map_err(|error| cannot_serve(root, error))?;
    let dashboard = (args.dashboard != "off").then_some(args.dashboard.as_str());
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let guard = Guard::chosen(args.dashboard_token_file.as_deref(), args.dashboard_open)?;
    let listeners = runtime.block_on(async {
        let listeners = Listeners::bind(&args.listen, dashboard).await?;
        if let Some(address) = listeners.dashboard()? {
            guard.allows(address)?;
        }
        listeners.detach()
    });
    Ok((listeners?, guard))
}

async fn serve(args: Args, root: &Path, ready: (DetachedListeners, Guard), threads: usize) -> io::Result<()> {
    let (listeners, guard) = ready;
    let options = LocalOptions::default().history(ByteLen::new(args.history)).staging(ByteLen::new(args.staging));
    let storage = LocalStorage::serve(root, options).map_err(|error| cannot_serve(root, error))?;
    // What had to be put right, a line for each.
    storage.recovery().to_string().lines().for_each(|line| tracing::warn!("{line}"));
    let storage = Arc::new(storage);
    let listeners = listeners.attach()?;
    let shutdown = Shutdown::on_signals()?;
    announce(&listeners)?;
    let mut limits = ServerLimits::default();
    limits.connections = args.max_connections as usize;
    limits.connections_per_address = args.max_connections_per_address as usize;
    limits.requests = args.max_requests;
    limits.requests_per_address = args.max_requests_per_address;
    limits.loopback = args.limit_loopback;
    limits.transfers = args.max_transfers as usize;
    limits.memory = ByteLen::new(args.max_memory);
    limits.file = ByteLen::new(args.max_file);
    limits.handshake = Duration::from_secs(args.handshake_timeout);
    limits.idle = (args.idle_timeout > 0).then(|| Duration::from_secs(args.idle_timeout));
    limits.stall = Duration::from_secs(args.stall_timeout);
    let config = ServerConfig::default()
        .limits(limits)
        .shutdown(Duration::from_secs(args.shutdown_timeout))
        .dashboard_hosts(args.dashboard_host)
        .dashboard_guard(guard)
        .directory(storage.clone())
        .scrub(Scrubbing::new(storage.clone()).interval(args.scrub_interval.0).rate(args.scrub_rate));
    let storage = Threads::new(storage, threads);
    run(listeners, Arc::new(storage), config, shutdown).await
}

fn cannot_serve(root: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot serve {}: {error}", root.display()))
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
