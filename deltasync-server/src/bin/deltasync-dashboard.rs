//! Shows one or several deltasync servers on one page.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use deltasync_server::{
    DashboardConfig, Guard, LogFormat, Shutdown, Token, bind_dashboard, run_dashboard, run_program,
};

/// Shows one or several deltasync servers on one live page.
///
/// Prints `dashboard on http://ADDR/` on standard output when it is ready. The log goes to standard error; RUST_LOG
/// filters it.
#[derive(Debug, Parser)]
#[command(version, after_help = "Exit codes: 0 stopped as asked, 1 failed, 2 wrong usage.")]
struct Args {
    /// The dashboard addresses of the servers
    #[arg(long, value_name = "HOST:PORT", required = true, num_args = 1.., value_parser = address)]
    server: Vec<String>,
    /// Where this dashboard is; port 0 takes a free one
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7442")]
    listen: String,
    /// A name under which this dashboard may be reached besides its address and loopback; may be given several times
    #[arg(long, value_name = "NAME[:PORT]")]
    dashboard_host: Vec<String>,
    /// A file with the secret text that the servers want of who sees their dashboards, the same for all of them; each of
    /// them learns it
    #[arg(long, value_name = "FILE")]
    server_token_file: Option<PathBuf>,
    /// A file with a secret text that whoever wants to see this dashboard has to know, as the password in a browser or as
    /// `Authorization: Bearer TEXT`. Needed where it is not on loopback
    #[arg(long, value_name = "FILE", conflicts_with = "dashboard_open")]
    dashboard_token_file: Option<PathBuf>,
    /// Everybody who can reach this dashboard may see it, from other machines too
    #[arg(long)]
    dashboard_open: bool,
    /// How the lines of the log look
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    log_format: LogFormat,
}

/// `HOST:PORT`, also when it was copied as `http://HOST:PORT/`.
fn address(text: &str) -> Result<String, String> {
    let bare = text.strip_prefix("http://").unwrap_or(text);
    let bare = bare.strip_suffix('/').unwrap_or(bare);
    match bare.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(bare.to_owned()),
        _ => Err("expected HOST:PORT, such as 127.0.0.1:7441".to_owned()),
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    args.log_format.install();
    run_program(tokio::runtime::Builder::new_current_thread(), show(args))
}

async fn show(args: Args) -> io::Result<()> {
    let listener = bind_dashboard(&args.listen).await?;
    let shutdown = Shutdown::on_signals()?;
    let address = listener.local_addr()?;
    let guard = Guard::chosen(args.dashboard_token_file.as_deref(), args.dashboard_open)?;
    guard.allows(address)?;
    let token = args.server_token_file.as_deref().map(Token::read).transpose()?;
    {
        let mut out = io::stdout().lock();
        writeln!(out, "dashboard on http://{address}/")?;
        out.flush()?;
    }
    let config = DashboardConfig::new(args.server).hosts(args.dashboard_host).guard(guard).token(token);
    run_dashboard(listener, config, shutdown).await
}
