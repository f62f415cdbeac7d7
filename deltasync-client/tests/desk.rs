//! The desktop client without its window, against the real server over real TCP.

mod common;

use std::fs;
use std::time::{Duration, Instant};

use common::{Scratch, Server, noise};
use deltasync_client::{
    Desk, DeskAction, DeskExecutor, DeskFiles, HistoryEnd, Job, JobState, Listing, Options, Report, Retries, RootState,
};
use deltasync_core::Name;
use deltasync_io::Bandwidth;

/// A desk, what carries out its effects, and where it keeps things.
struct Client {
    desk: Desk,
    executor: DeskExecutor,
}

impl Client {
    fn start(dir: &Scratch) -> Self {
        Self::start_with(dir, Options::default())
    }

    fn start_with(dir: &Scratch, options: Options) -> Self {
        let options = options.retries(Retries::NONE);
        let files = DeskFiles::new(dir.join("state"));
        let executor = DeskExecutor::start(Some(files), options, || {}).expect("a thread");
        Self { desk: Desk::default(), executor }
    }

    fn act(&mut self, action: DeskAction) {
        self.desk.act(action).into_iter().for_each(|effect| self.executor.run(effect));
    }

    /// Takes in what is told until something holds.
    #[track_caller]
    fn until(&mut self, what: &str, holds: impl Fn(&Desk) -> bool) {
        let begun = Instant::now();
        while !holds(&self.desk) {
            assert!(begun.elapsed() < Duration::from_secs(60), "{what}: {:?}", self.desk);
            for told in self.executor.take() {
                self.desk.told(1, told).into_iter().for_each(|effect| self.executor.run(effect));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[track_caller]
    fn connect(&mut self, server: &Server) {
        self.act(DeskAction::Connect(server.url("")));
        self.listed();
    }

    #[track_caller]
    fn listed(&mut self) {
        self.until("listed", |desk| desk.browser().is_some_and(|browser| browser.listing == Listing::Ready));
    }

    fn names(&self) -> Vec<String> {
        let rows = self.desk.browser().expect("connected").rows();
        rows.iter().map(|entry| String::from_utf8_lossy(entry.name.as_bytes()).into_owned()).collect()
    }

    /// The last entry of the queue, once it has ended.
    #[track_caller]
    fn last(&mut self) -> Job {
        self.until("the last to end", |desk| desk.jobs().last().is_some_and(|job| job.state.has_ended()));
        self.desk.jobs().last().expect("there is one").clone()
    }

    fn select(&mut self, text: &str) {
        self.act(DeskAction::Select { name: name(text), add: false });
    }
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

#[track_caller]
fn report(job: Job) -> Report {
    match job.state {
        JobState::Done(report) => report,
        state => panic!("{state:?}"),
    }
}

#[test]
fn a_file_is_pushed_edited_pushed_again_verified_and_pulled() {
    let (server, dir) = (Server::start(), Scratch::new());
    let mut file = noise(1, 10 << 20);
    dir.write("file", &file);
    let mut client = Client::start(&dir);
    client.connect(&server);
    client.act(DeskAction::Push(vec![dir.join("file")]));
    report(client.last());
    client.listed();
    assert_eq!(client.names(), ["file"], "what was pushed is listed");

    file[5_000_000..5_001_000].copy_from_slice(&noise(2, 1000));
    dir.write("file", &file);
    client.act(DeskAction::Push(vec![dir.join("file")]));
    let job = client.last();
    let (_, len, runs) = job.live.strip().expect("a block map");
    assert_eq!((len.get(), runs.iter().map(|run| run.len.get()).sum::<u64>()), (10 << 20, 10 << 20));
    let Report::Moved(moved) = report(job) else { panic!("a push moves") };
    assert!(moved.line().contains("for a file of 10.0 MiB, 99."), "{}", moved.line());
    assert_eq!(server.dir.read("file"), file);

    client.listed();
    client.select("file");
    client.act(DeskAction::AskRoot(name("file")));
    client.until("the root", |desk| {
        matches!(desk.browser().and_then(|browser| browser.root(&name("file"))), Some(RootState::Known(..)))
    });
    client.act(DeskAction::Verify(dir.join("file")));
    assert!(matches!(report(client.last()), Report::Same(..)));
    dir.write("file", b"another");
    client.act(DeskAction::Verify(dir.join("file")));
    assert!(matches!(report(client.last()), Report::Differ(..)));

    dir.mkdir("into");
    client.act(DeskAction::Pull(dir.join("into")));
    report(client.last());
    assert_eq!(dir.read("into/file"), file);
    let history = client.desk.history().entries();
    let ends: Vec<HistoryEnd> = history.iter().rev().map(|entry| entry.ended).collect();
    assert_eq!(ends, [HistoryEnd::Done, HistoryEnd::Done, HistoryEnd::Done, HistoryEnd::Failed, HistoryEnd::Done]);

    // The next run finds the server and the history.
    let before = (client.desk.book().clone(), client.desk.history().clone());
    drop(client);
    let mut again = Client::start(&dir);
    again.until("what was kept", |desk| (desk.book(), desk.history()) == (&before.0, &before.1));
}

#[test]
fn folders_go_both_ways_and_are_looked_into() {
    let (server, dir) = (Server::start(), Scratch::new());
    dir.mkdir("tree/below");
    dir.write("tree/a", b"a");
    dir.write("tree/below/b", &noise(3, 300_000));
    let mut client = Client::start(&dir);
    client.connect(&server);
    client.act(DeskAction::Push(vec![dir.join("tree")]));
    report(client.last());
    client.listed();
    client.act(DeskAction::Open(name("tree")));
    client.listed();
    assert_eq!(client.names(), ["below", "a"]);
    client.act(DeskAction::Up);
    client.listed();
    client.select("tree");
    dir.mkdir("into");
    client.act(DeskAction::Pull(dir.join("into")));
    report(client.last());
    assert_eq!(dir.read("into/tree/below/b"), noise(3, 300_000));
}

#[test]
fn folders_are_made_renamed_and_removed() {
    let (server, dir) = (Server::start(), Scratch::new());
    server.dir.mkdir("old/full");
    let mut client = Client::start(&dir);
    client.connect(&server);
    let shows = |names: &'static [&'static str]| {
        move |desk: &Desk| {
            let rows = desk.browser().map(|browser| browser.rows()).unwrap_or_default();
            rows.iter().map(|entry| entry.name.as_bytes()).eq(names.iter().map(|name| name.as_bytes()))
        }
    };
    client.act(DeskAction::MakeDirectory("new".into()));
    client.until("made", shows(&["new", "old"]));
    client.act(DeskAction::MakeDirectory("new".into()));
    client.until("told that it is there", |desk| desk.trouble().is_some());
    client.act(DeskAction::DismissTrouble);
    client.listed();
    client.act(DeskAction::Rename { name: name("new"), to: "newer".into() });
    client.until("renamed", shows(&["newer", "old"]));
    client.select("old");
    client.act(DeskAction::Remove);
    client.until("removed", shows(&["newer"]));
    assert_eq!(client.desk.trouble(), None);
}

#[test]
fn what_is_paused_keeps_what_has_arrived() {
    let (server, dir) = (Server::start(), Scratch::new());
    let file = noise(4, 16 << 20);
    dir.write("file", &file);
    // Slow enough to be paused long before its end.
    let slow = Bandwidth::new(4 << 20).expect("enough");
    let mut client = Client::start_with(&dir, Options::default().bandwidth(slow));
    client.connect(&server);
    client.act(DeskAction::Push(vec![dir.join("file")]));
    client.until("a part", |desk| desk.jobs()[0].live.share().is_some_and(|share| share > 0.3));
    let id = client.desk.jobs()[0].id;
    client.act(DeskAction::Pause(id));
    client.until("paused", |desk| desk.jobs()[0].state == JobState::Paused);
    assert!(!server.dir.join("file").exists(), "nothing is published");
    client.act(DeskAction::Resume(id));
    let job = client.last();
    let sent = job.live.carried().wire_sent;
    assert!(sent < 14 << 20, "{sent} bytes are sent again");
    report(job);
    assert_eq!(server.dir.read("file"), file);
}

#[test]
fn a_watched_folder_is_pushed_until_it_is_switched_off() {
    let (server, dir) = (Server::start(), Scratch::new());
    dir.mkdir("tree");
    dir.write("tree/a", b"one");
    let mut client = Client::start(&dir);
    client.connect(&server);
    client.act(DeskAction::Watch(dir.join("tree")));
    client.until("the first push", |desk| desk.jobs()[0].pushes.0 == 1);
    dir.write("tree/a", b"two");
    client.until("the second push", |desk| desk.jobs()[0].pushes.0 == 2);
    assert_eq!(server.dir.read("tree/a"), b"two");
    let id = client.desk.jobs()[0].id;
    client.act(DeskAction::Pause(id));
    client.until("switched off", |desk| desk.jobs()[0].state == JobState::Paused);
}

#[test]
fn what_goes_wrong_is_told_in_words() {
    let (server, dir) = (Server::start(), Scratch::new());
    let mut client = Client::start(&dir);
    client.act(DeskAction::Connect("127.0.0.1:1".into()));
    client.until("no server", |desk| {
        matches!(desk.browser().map(|browser| &browser.listing), Some(Listing::Failed(trouble)) if trouble.todo.contains("server runs"))
    });
    assert!(client.desk.book().places().is_empty());
    client.connect(&server);
    client.act(DeskAction::Push(vec![dir.join("nothing")]));
    let JobState::Failed(trouble) = client.last().state else { panic!("it is not there") };
    assert_eq!(trouble.todo, "Check that it is still there under this name", "{trouble:?}");
    fs::create_dir(server.dir.join("file")).expect("made");
    fs::write(server.dir.join("file/x"), b"x").expect("written");
    dir.write("file", b"1");
    client.act(DeskAction::Push(vec![dir.join("file")]));
    let JobState::Failed(trouble) = client.last().state else { panic!("a directory is in its place") };
    assert!(!trouble.todo.is_empty(), "{trouble:?}");
}
