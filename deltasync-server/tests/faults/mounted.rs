//! File systems of their own for a test: on a loop device, which can lose its power, or in memory. Unmounted and
//! given back when dropped, also by a panic. They want root.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

/// A file system that is mounted.
pub(crate) struct Mounted {
    device: Option<String>,
    options: String,
    at: TempDir,
    _image: TempDir,
}

impl Mounted {
    /// A file system in a file behind a loop device. `make` is the program that makes it, with its options.
    pub(crate) fn on_loop(make: &[&str], megabytes: u64, options: &str) -> Self {
        let image = TempDir::new().expect("a directory");
        let file = image.path().join("image");
        std::fs::File::create(&file).and_then(|file| file.set_len(megabytes << 20)).expect("space for an image");
        let file = file.to_str().expect("UTF-8");
        run(&[make, &[file]].concat());
        let device = run(&["losetup", "--find", "--show", file]).trim().to_owned();
        let mounted = Self {
            device: Some(device),
            options: options.to_owned(),
            at: TempDir::new().expect("a place"),
            _image: image,
        };
        mounted.mount();
        mounted
    }

    /// A file system in memory.
    pub(crate) fn in_memory(options: &str) -> Self {
        let (at, image) = (TempDir::new().expect("a place"), TempDir::new().expect("a directory"));
        let mounted = Self { device: None, options: options.to_owned(), at, _image: image };
        mounted.mount();
        mounted
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        self.at.path()
    }

    pub(crate) fn device(&self) -> &str {
        self.device.as_deref().expect("it is on a device")
    }

    /// Cuts the power: from here on nothing reaches the device, not even the log that is in memory.
    pub(crate) fn cut(&self) {
        run(&["xfs_io", "-x", "-c", "shutdown", self.at()]);
    }

    /// Takes it away and brings it back, as after a restart of the machine.
    pub(crate) fn remount(&self) {
        run(&["umount", self.at()]);
        self.mount();
    }

    fn mount(&self) {
        let (device, kind): (_, &[&str]) = match &self.device {
            Some(device) => (&**device, &[]),
            None => ("tmpfs", &["-t", "tmpfs"]),
        };
        run(&[&["mount"], kind, &["-o", &self.options, device, self.at()]].concat());
    }

    fn at(&self) -> &str {
        self.at.path().to_str().expect("UTF-8")
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // It may be gone already, or still held by a server that a panic is about to end.
        let quiet = |args: &[&str]| _ = Command::new(args[0]).args(&args[1..]).output();
        quiet(&["umount", "--lazy", self.at()]);
        if let Some(device) = &self.device {
            quiet(&["losetup", "--detach", device]);
        }
    }
}

/// Runs a program of the system; returns what it printed.
#[track_caller]
pub(crate) fn run(args: &[&str]) -> String {
    let output = Command::new(args[0]).args(&args[1..]).output().unwrap_or_else(|error| panic!("{}: {error}", args[0]));
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}
