//! Nothing outside of the root is read or written, whatever a path says and whatever stands or moves below the root.
//!
//! Outside lies a tree with a mark in every file. What comes back from the server is searched for the mark, and the
//! tree is compared with itself: its names, contents and times. Hostile bytes go over the wire in the place of an honest
//! path; paths that may be said are said to a root full of links, pipes and devices; and for half a minute a thread
//! flips a directory and a file into links to outside and back, while clients push and pull through them.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use deltasync_core::{Limits, Name, RelPath};
use deltasync_proto::{
    CloseCode, Command, Condition, Config, Destination, FrameDecoder, Message, Place, RefusalCode, RootId,
    TransferError,
};
use deltasync_testkit::{Raw, Rng};
use rustix::fs::{CWD, FileType, Mode, RenameFlags};
use tempfile::TempDir;

use crate::client::{Client, path};
use crate::ledger::names;
use crate::served::Served;

const MARK: &[u8] = b"this must never come back";

/// A root, and a tree outside of it that nobody touches.
struct Bench {
    root: TempDir,
    outside: TempDir,
    before: BTreeMap<PathBuf, (Vec<u8>, i64, i64)>,
}

impl Bench {
    fn new() -> Self {
        let (root, outside) = (TempDir::new().expect("a directory"), TempDir::new().expect("a directory"));
        fs::create_dir_all(outside.path().join("new/deep")).expect("made");
        for name in ["file", "secret", "new/file", "new/deep/file", "only-outside"] {
            fs::write(outside.path().join(name), [MARK, name.as_bytes()].concat()).expect("written");
        }
        let before = snapshot(outside.path());
        Self { root, outside, before }
    }

    fn root(&self) -> &Path {
        self.root.path()
    }

    #[track_caller]
    fn check_outside(&self) {
        let now = snapshot(self.outside.path());
        assert!(now == self.before, "outside was {:?} and is {now:?}", self.before);
    }
}

/// Names, contents and times of a tree.
fn snapshot(root: &Path) -> BTreeMap<PathBuf, (Vec<u8>, i64, i64)> {
    let mut found = BTreeMap::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).expect("it can be listed") {
            let entry = entry.expect("an entry");
            if entry.file_type().expect("it has one").is_dir() {
                directories.push(entry.path());
            }
        }
        for path in fs::read_dir(&directory).expect("it can be listed").map(|entry| entry.expect("an entry").path()) {
            let metadata = path.symlink_metadata().expect("it is there");
            let content = if metadata.is_file() { fs::read(&path).expect("ours") } else { Vec::new() };
            found.insert(path, (content, metadata.mtime(), metadata.mtime_nsec()));
        }
        let metadata = directory.metadata().expect("it is there");
        found.insert(directory, (Vec::new(), metadata.mtime(), metadata.mtime_nsec()));
    }
    found
}

#[track_caller]
fn check_unmarked(bytes: &[u8], at: &str) {
    assert!(!bytes.windows(MARK.len()).any(|piece| piece == MARK), "{at}: what lies outside came back");
}

/// Bytes that are no path below a root.
fn no_paths(outside: &Path) -> Vec<Vec<u8>> {
    let outside = outside.join("secret");
    let outside = outside.as_os_str().as_bytes();
    let mut paths: Vec<Vec<u8>> = [
        &b".."[..],
        b".",
        b"../secret",
        b"a/../../secret",
        b"a/..",
        b"./a",
        b"a/./b",
        b"/",
        b"//",
        b"/etc/passwd",
        b"//etc/passwd",
        b"a//b",
        b"a/",
        b"a\0",
        b"\0",
        b"a/\0/b",
        b"../../../../../../../../../../etc/passwd",
        outside,
    ]
    .map(<[u8]>::to_vec)
    .into();
    paths.push([b"../".repeat(12), outside[1..].to_vec()].concat());
    paths.push(vec![b'x'; 256]);
    paths.push([&b"a/"[..], &[b'x'; 300]].concat());
    paths.push(b"../".repeat(1366)[..4097].to_vec());
    paths.push(b"a/".repeat(2100)[..4097].to_vec());
    paths
}

/// What a client of ours transmits for a command on this path, its hello included.
fn transmitted(command: fn(RelPath) -> Command, path: &RelPath) -> Vec<u8> {
    let mut client = Raw::client(Config::default());
    client.storage.insert(RootId::new(1), RelPath::new(*b"source").expect("a path"), vec![7; 1000]);
    client = client.command(1, command(path.clone()));
    client.take()
}

fn place(root: u32, path: RelPath) -> Place {
    Place { root: RootId::new(root), path }
}

/// The commands that carry a path to the server.
const COMMANDS: [fn(RelPath) -> Command; 4] = [
    |path| Command::Push {
        source: place(1, RelPath::new(*b"source").expect("a path")),
        path,
        name: Name::new(*b"source").expect("a name"),
        directory: false,
        condition: Condition::Any,
    },
    |path| Command::Pull {
        path,
        destination: Destination {
            place: place(1, RelPath::new(*b"pulled").expect("a path")),
            name: Name::new(*b"pulled").expect("a name"),
            directory: false,
        },
        condition: Condition::Any,
    },
    |path| Command::List { path, after: None },
    |path| Command::Root { path },
];

/// Says so many bytes to a server; returns what it answers until it closes.
fn say(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout can be set");
    stream.write_all(bytes).expect("it reads");
    let mut answer = Vec::new();
    // It may cut off what it does not want to read.
    let _ = stream.read_to_end(&mut answer);
    answer
}

#[test]
fn bytes_that_are_no_path_end_the_connection() {
    let bench = Bench::new();
    let server = Served::start(bench.root());
    let mut count = 0;
    for hostile in no_paths(bench.outside.path()) {
        for command in COMMANDS {
            // An honest path of the same length, which is then replaced; what is too long to be honest has its length
            // replaced with it.
            let honest_len = hostile.len().min(RelPath::MAX - 1);
            let mut honest = b"honest/".repeat(honest_len / 7 + 1);
            honest.truncate(honest_len);
            if honest.ends_with(b"/") {
                honest[honest_len - 1] = b'x';
            }
            let bytes = transmitted(command, &RelPath::new(honest.clone()).expect("an honest path"));
            let at = bytes.windows(honest.len()).rposition(|piece| piece == honest).expect("it carries its path");
            let spoiled = if hostile.len() == honest.len() {
                [&bytes[..at], &hostile, &bytes[at + honest.len()..]].concat()
            } else {
                // Longer than any path: the frame grows with it, in its header and before the path.
                respell(&bytes, at, &honest, &hostile)
            };
            let answer = say(server.address, &spoiled);
            check_unmarked(&answer, &format!("{hostile:?}"));
            let mut decoder = FrameDecoder::new(1 << 20);
            decoder.push(&answer);
            let mut closed = None;
            while let Ok(Some(frame)) = decoder.next_frame() {
                if let Ok(Message::Close(close)) = Message::decode(&frame, &Limits::default()) {
                    closed = Some(close);
                }
            }
            let closed = closed.unwrap_or_else(|| panic!("{hostile:?}: no close in {answer:?}"));
            assert_eq!(closed.code, CloseCode::Invalid, "{closed:?}");
            count += 1;
        }
    }
    bench.check_outside();
    assert_eq!(names(bench.root()), [".deltasync"]);
    assert_eq!(names(&bench.root().join(".deltasync/staging")), Vec::<String>::new());
    println!("{count} hostile requests");
}

/// Puts a path of another length into a client's bytes: the frame that carries it is made anew.
fn respell(bytes: &[u8], at: usize, honest: &[u8], hostile: &[u8]) -> Vec<u8> {
    let mut decoder = FrameDecoder::new(1 << 20);
    decoder.push(bytes);
    let (mut out, mut passed) = (Vec::new(), 0);
    while let Some(frame) = decoder.next_frame().expect("ours are sound") {
        let mut payload = frame.payload.to_vec();
        let holds = payload.windows(honest.len()).position(|piece| piece == honest);
        if let Some(start) = holds.filter(|_| passed <= at) {
            // Both lengths take two bytes as varints.
            let mut len = Vec::new();
            deltasync_core::write_varint(&mut len, hostile.len() as u64);
            payload.splice(start - len.len()..start + honest.len(), [len, hostile.to_vec()].concat());
        }
        passed += frame.payload.len();
        deltasync_proto::encode_header(&mut out, frame.kind, frame.transfer, payload.len());
        out.extend_from_slice(&payload);
    }
    out
}

/// Fills a root with what a path may run into.
fn fill(bench: &Bench) -> Vec<(&'static str, RefusalCode)> {
    let (root, outside) = (bench.root(), bench.outside.path());
    fs::create_dir_all(root.join("dir")).expect("made");
    fs::write(root.join("dir/file"), b"inside").expect("written");
    let pid = std::process::id();
    let links: [(&str, PathBuf); 9] = [
        ("out", outside.to_owned()),
        ("out-file", outside.join("secret")),
        ("relative", ["..", outside.file_name().expect("it has one").to_str().expect("UTF-8")].iter().collect()),
        ("itself", "itself".into()),
        ("dangling", outside.join("not there")),
        ("slash", "/".into()),
        ("proc", "/proc/self/root".into()),
        ("cwd", format!("/proc/{pid}/cwd").into()),
        ("in", "dir".into()),
    ];
    for (name, target) in links {
        symlink(target, root.join(name)).expect("linked");
    }
    rustix::fs::mknodat(CWD, root.join("pipe"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("made");
    // The file stays when the listener goes.
    drop(UnixListener::bind(root.join("socket")).expect("bound"));
    let mut cases = vec![
        ("out", RefusalCode::Denied),
        ("out/secret", RefusalCode::Denied),
        ("out/new", RefusalCode::Denied),
        ("out/new/deep/file", RefusalCode::Denied),
        ("out/not/there", RefusalCode::Denied),
        ("out-file", RefusalCode::Denied),
        ("out-file/x", RefusalCode::Denied),
        ("relative/secret", RefusalCode::Denied),
        ("relative/not there", RefusalCode::Denied),
        ("itself", RefusalCode::Denied),
        ("itself/x", RefusalCode::Denied),
        ("dangling", RefusalCode::Denied),
        ("dangling/x", RefusalCode::Denied),
        ("slash/etc/passwd", RefusalCode::Denied),
        ("proc/etc/passwd", RefusalCode::Denied),
        ("cwd/Cargo.toml", RefusalCode::Denied),
        ("in/file", RefusalCode::Denied),
        ("dir/file/x", RefusalCode::WrongKind),
        ("dir/file/x/y", RefusalCode::WrongKind),
        ("pipe", RefusalCode::WrongKind),
        ("pipe/x", RefusalCode::WrongKind),
        ("socket", RefusalCode::WrongKind),
        (".deltasync", RefusalCode::NotFound),
        (".deltasync/index", RefusalCode::NotFound),
        (".deltasync/staging/x", RefusalCode::NotFound),
        (".deltasync/new", RefusalCode::NotFound),
        (".DELTASYNC/index", RefusalCode::NotFound),
        (".DeltaSync", RefusalCode::NotFound),
        (".file.deltasync-0123abcd", RefusalCode::NotFound),
        ("dir/.file.deltasync-0123ABCD", RefusalCode::NotFound),
        (".x.deltasync-00000000/file", RefusalCode::NotFound),
    ];
    let device = rustix::fs::makedev(1, 5);
    if rustix::fs::mknodat(CWD, root.join("zero"), FileType::CharacterDevice, Mode::RUSR | Mode::WUSR, device).is_ok() {
        cases.push(("zero", RefusalCode::WrongKind));
    } else {
        println!("devices were left out: they want root");
    }
    cases
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_into_links_pipes_and_what_is_ours_are_refused() {
    let bench = Bench::new();
    let cases = fill(&bench);
    let server = Served::start(bench.root());
    let own = snapshot(&bench.root().join(".deltasync"));
    let mut client = Client::connect(server.address).await.expect("it listens");
    for (name, code) in &cases {
        let begun = Instant::now();
        let refused = |what: &str, error: Option<TransferError>| match error {
            Some(TransferError::Refused(refusal)) => assert_eq!(refusal.code, *code, "{what} {name}: {refusal:?}"),
            other => panic!("{what} {name}: {other:?}"),
        };
        let pulled = client.pull(&path(name)).await;
        refused("pull", pulled.err());
        refused("root", client.root(&path(name)).await.err());
        refused("push", client.push(&path(name), vec![7; 1000]).await.err());
        match client.list(&path(name)).await {
            // What is no directory is listed as itself, a link as a link.
            Ok(entries) => {
                let [entry] = &entries[..] else { panic!("list {name}: {entries:?}") };
                assert_eq!(Some(entry.name.as_bytes()), name.rsplit('/').next().map(str::as_bytes), "list {name}");
            }
            error => refused("list", error.err()),
        }
        assert!(begun.elapsed() < Duration::from_secs(5), "{name}: it waited");
    }
    let listed = client.list(&RelPath::ROOT).await.expect("it is listed");
    assert!(listed.iter().all(|entry| !entry.name.as_bytes().starts_with(b".")), "{listed:?}");
    bench.check_outside();
    assert_eq!(fs::read(bench.root().join("dir/file")).expect("it is there"), b"inside");
    assert!(names(&bench.root().join(".deltasync")).len() <= own.len(), "nothing new is in what is ours");
    assert_eq!(names(&bench.root().join(".deltasync/staging")), Vec::<String>::new());
    println!("{} paths, four requests each", cases.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_that_only_look_odd_are_files_below_the_root() {
    let bench = Bench::new();
    let server = Served::start(bench.root());
    let mut client = Client::connect(server.address).await.expect("it listens");
    let long = vec![b'x'; 255];
    let deep = [&b"d/".repeat(1500)[..], b"file"].concat();
    let odd: [&[u8]; 22] = [
        b"...",
        b"..a",
        b"a..",
        b" ",
        b"trailing.",
        b"trailing /file. ",
        b"-rf",
        b"--help",
        b"~",
        b"~root/x",
        b"a\\..\\..\\secret",
        b"C:\\x",
        b"%2e%2e%2fsecret",
        b"\x01\n\r\t\x1b[31m",
        b"\xff\xfe/\x80",
        "\u{202e}gpj.exe".as_bytes(),
        b"$HOME/`id`;'\"",
        b"*?[a]",
        b"dir/.deltasync/index",
        b".deltasync-0123abcd.x",
        &long,
        &deep,
    ];
    for (number, bytes) in odd.iter().enumerate() {
        let at = RelPath::new(bytes.to_vec()).expect("a path");
        let content = Rng::new(number as u64).bytes(2000 + number);
        client.push(&at, content.clone()).await.unwrap_or_else(|error| panic!("{at}: {error}"));
        assert_eq!(client.pull(&at).await.expect("it is there"), content, "{at}");
        if bytes.len() < 3000 {
            let there = bench.root().join(std::ffi::OsStr::from_bytes(bytes));
            assert_eq!(fs::read(there).expect("it is there"), content, "{at}");
        }
    }
    // As long as a path may be, which the system refuses; no half of it is made.
    let longest = RelPath::new([&b"e/".repeat(2047)[..], b"ff"].concat()).expect("4096 bytes");
    let error = client.push(&longest, vec![7; 10]).await.expect_err("the system takes less");
    assert!(error.to_string().contains("File name too long"), "{error}");
    assert!(!bench.root().join("e").exists(), "nothing is made for it");
    bench.check_outside();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_with_a_second_name_outside_is_replaced_and_not_written() {
    let bench = Bench::new();
    let outside = bench.outside.path().join("file");
    fs::hard_link(&outside, bench.root().join("linked")).expect("on the same disk");
    let server = Served::start(bench.root());
    let mut client = Client::connect(server.address).await.expect("it listens");
    // It is a file of the root like any other, and a delta against it is fine.
    let mut bytes = client.pull(&path("linked")).await.expect("it is there").to_vec();
    bytes.extend_from_slice(b"and more");
    client.push(&path("linked"), bytes.clone()).await.expect("it is taken");
    client.push(&path("linked"), b"something else".to_vec()).await.expect("it is taken");
    assert_eq!(fs::read(bench.root().join("linked")).expect("it is there"), b"something else");
    bench.check_outside();
}

/// Exchanges names until it is told to stop; counts how often.
fn flip(pairs: &[(PathBuf, PathBuf)], stop: &AtomicBool, flips: &AtomicU64) {
    let mut rng = Rng::new(7);
    while !stop.load(Ordering::Relaxed) {
        for (one, other) in pairs {
            rustix::fs::renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).expect("both are there");
            flips.fetch_add(1, Ordering::SeqCst);
        }
        // Sometimes several in one request, sometimes long enough for one to come through.
        std::thread::sleep(Duration::from_micros([0, 10, 50, 300, 2000][rng.below(5)]));
    }
}

/// Stops the flips, also when the test fails.
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes half a minute"]
async fn a_directory_that_flips_into_a_link_and_back_leads_nowhere() {
    let bench = Bench::new();
    let root = bench.root();
    fs::create_dir_all(root.join("way/new")).expect("made");
    fs::write(root.join("way/file"), b"inside").expect("written");
    fs::write(root.join("file"), b"inside").expect("written");
    symlink(bench.outside.path(), root.join("swap")).expect("linked");
    symlink(bench.outside.path().join("secret"), root.join("swap-file")).expect("linked");
    let server = Served::start_with(root, &["--history", "1000000"]);

    let (stop, flips) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let guard = Stop(Arc::clone(&stop));
    let pairs = [("way", "swap"), ("file", "swap-file")].map(|(one, other)| (root.join(one), root.join(other)));
    let flipping = {
        let (stop, flips) = (Arc::clone(&stop), Arc::clone(&flips));
        std::thread::spawn(move || flip(&pairs, &stop, &flips))
    };
    let end = Instant::now() + Duration::from_secs(30);
    let mut clients = Vec::new();
    for number in 0..4 {
        let (address, flips) = (server.address, Arc::clone(&flips));
        clients.push(tokio::spawn(async move { push_and_pull(number, address, end, &flips).await }));
    }
    let mut sum = Passed::default();
    for client in clients {
        let Passed { done, refused, crossed } = client.await.expect("nothing went wrong");
        sum = Passed { done: sum.done + done, refused: sum.refused + refused, crossed: sum.crossed + crossed };
    }
    drop(guard);
    flipping.join().expect("both names were always there");
    let (flips, Passed { done, refused, crossed }) = (flips.load(Ordering::SeqCst), sum);
    println!("{flips} flips; {done} requests done, {refused} refused, {crossed} with a flip under way");
    assert!(crossed > 500 && done > 100 && refused > 100, "too few met: {done} {refused} {crossed}");
    bench.check_outside();
}

#[derive(Default)]
struct Passed {
    done: u64,
    refused: u64,
    /// Names flipped between its begin and its end.
    crossed: u64,
}

async fn push_and_pull(number: u64, address: SocketAddr, end: Instant, flips: &AtomicU64) -> Passed {
    let mut client = Client::connect(address).await.expect("it listens");
    let (mut rng, mut passed) = (Rng::new(number), Passed::default());
    while Instant::now() < end {
        let before = flips.load(Ordering::SeqCst);
        let pushed = |rng: &mut Rng| [&b"inside, pushed "[..], &rng.bytes(500)].concat();
        let result = match rng.below(8) {
            0 | 1 => client.pull(&path("way/file")).await.map(|bytes| assert_eq!(bytes, &b"inside"[..])),
            2 => client.pull(&path("file")).await.map(|bytes| assert_eq!(bytes, &b"inside"[..])),
            3 => client.list(&path("way")).await.map(|entries| {
                assert!(entries.iter().all(|entry| entry.name.as_bytes() != b"only-outside"), "{entries:?}");
            }),
            4 => client.push(&path(&format!("way/pushed {number}")), pushed(&mut rng)).await.map(|_| ()),
            5 => client.push(&path("way/new/file"), pushed(&mut rng)).await.map(|_| ()),
            6 => {
                // Directories are made on the way, through whatever is there.
                let made = format!("way/made {}/deep/file", rng.below(10_000));
                client.push(&path(&made), pushed(&mut rng)).await.map(|_| ())
            }
            _ => client.root(&path("way/file")).await.map(|root| {
                assert_eq!(root, deltasync_core::Algorithm::Blake3.digest(b"inside"));
            }),
        };
        match result {
            Ok(()) => passed.done += 1,
            Err(TransferError::Refused(_)) => passed.refused += 1,
            Err(error) => panic!("{error}"),
        }
        passed.crossed += u64::from(flips.load(Ordering::SeqCst) != before);
    }
    client.finish().await;
    passed
}
