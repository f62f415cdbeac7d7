//! The real server program, which can be killed and started again.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// The server program on a directory; killed with the test.
pub struct Program {
    pub child: Child,
    pub address: String,
}

impl Program {
    pub fn start(root: &Path) -> Self {
        Self::start_at("127.0.0.1:0", root)
    }

    /// At an address, such as that of an earlier one.
    pub fn start_at(address: &str, root: &Path) -> Self {
        Self::start_as(server(), address, root)
    }

    /// As one whom permissions bind, also where it is root.
    pub fn start_bound(root: &Path) -> Self {
        Self::start_as(bound_by_permissions(server()), "127.0.0.1:0", root)
    }

    fn start_as(mut command: Command, address: &str, root: &Path) -> Self {
        let mut child = command
            .arg("--root")
            .arg(root)
            .args(["--dashboard=off", "--listen", address])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the server starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let line = lines.next().expect("a ready line").expect("text");
        let address = line.strip_prefix("listening on ").expect("the ready line").to_owned();
        Self { child, address }
    }

    pub fn url(&self, path: &str) -> String {
        format!("deltasync://{}/{path}", self.address)
    }

    /// Asks it to end (SIGTERM), and returns when it has ended what it was at.
    pub fn stop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
        self.child.wait().expect("it ends");
    }

    /// Kills it (SIGKILL).
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn server() -> Command {
    let program = Path::new(env!("CARGO_BIN_EXE_deltasync")).with_file_name("deltasync-server");
    assert!(program.exists(), "build the whole workspace first: cargo test --workspace");
    Command::new(program)
}

/// The same command, for one whom permissions bind, also where it is root.
pub fn bound_by_permissions(command: Command) -> Command {
    if !rustix::process::geteuid().is_root() {
        return command;
    }
    let mut bound = Command::new("setpriv");
    bound.args(["--bounding-set", "-dac_override,-dac_read_search", "--"]);
    bound.arg(command.get_program()).args(command.get_args());
    if let Some(directory) = command.get_current_dir() {
        bound.current_dir(directory);
    }
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => bound.env(name, value),
            None => bound.env_remove(name),
        };
    }
    bound
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}
