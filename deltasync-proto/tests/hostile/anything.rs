//! Random messages in any order.

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Send(Box<Message>),
    Wait(Duration),
    Release,
}

fn any_path() -> impl Strategy<Value = RelPath> {
    prop::sample::select(vec!["", "new", "dir", "dir/new", "file/below"])
        .prop_map(|path| RelPath::new(path.as_bytes()).expect("a plain path"))
}

fn any_root() -> impl Strategy<Value = Digest> {
    let known = [b"".to_vec(), b"abc".to_vec(), basis()].map(|bytes| Algorithm::Blake3.digest(&bytes));
    prop_oneof![prop::sample::select(known.to_vec()), any::<[u8; 32]>().prop_map(Digest::from_bytes)]
}

fn any_ops() -> impl Strategy<Value = Ops> {
    let op = prop_oneof![
        (1u64..5).prop_map(literal),
        (0u64..12_000, 1u64..5000).prop_map(|(from, len)| copy(from, len)),
        (any::<u64>(), 1u64..=u64::MAX).prop_map(|(from, len)| copy(from, len)),
    ];
    prop::collection::vec(op, 0..4).prop_map(|ops| ops.into_iter().collect())
}

fn any_delta() -> impl Strategy<Value = TransferMessage> {
    let fitting = (any::<bool>(), any_ops()).prop_map(|(last, ops)| {
        let literals = Literals::Raw(vec![b'a'; ops.literal_len().get() as usize].into());
        Delta { last, ops, literals }
    });
    let other = (any::<bool>(), any_ops(), prop::collection::vec(any::<u8>(), 0..100), any::<bool>(), 0usize..200);
    let other = other.prop_map(|(last, ops, bytes, packed, raw_len)| {
        let bytes = Bytes::from(bytes);
        let prefix = [Prefix::None, Prefix::Neighbours, Prefix::Replaced, Prefix::Around][raw_len % 4];
        let literals = if packed { Literals::Packed { prefix, bytes, raw_len } } else { Literals::Raw(bytes) };
        Delta { last, ops, literals }
    });
    prop_oneof![3 => fitting, 1 => other].prop_map(TransferMessage::Delta)
}

fn any_offer(pushed: bool) -> impl Strategy<Value = TransferMessage> {
    let content = prop_oneof![
        1 => Just(Content::Known),
        3 => Just(Content::Whole),
        3 => (0u32..8).prop_map(|elements| Content::Set { elements }),
        1 => Just(Content::Set { elements: 4 << 20 }),
        2 => (any_root(), 0u64..20_000, any::<bool>())
            .prop_map(|(basis, len, follows)| Content::Delta { basis, len: ByteLen::new(len), generation: Generation::ZERO, follows }),
    ];
    let cutter = prop::sample::select(vec![Cutter::FIXED_4096, Cutter::MinCdc { average: 2048 }]);
    let algorithm = prop::sample::select(Algorithm::ALL.to_vec());
    (any_path(), any::<bool>(), 0u64..20_000, any_root(), algorithm, cutter, 0u8..3, content).prop_map(
        move |(path, directory, len, root, algorithm, cutter, attempt, content)| {
            let to = pushed.then(|| {
                let name = Name::new(*b"new").expect("a plain name");
                Wish { name, directory, ..Wish::exactly(path) }
            });
            TransferMessage::Offer(Offer { to, len: ByteLen::new(len), root, algorithm, cutter, attempt, content })
        },
    )
}

/// A part of a set, most often one that is what it says.
fn any_part() -> impl Strategy<Value = SetPart> {
    let elements = elements_of(&target());
    let whole = tags(&elements, 0..elements.len());
    let sketch = cells(SketchKey::new(&NONCE, 1), &elements, 0..32);
    let edges = cells(SketchKey::of_edges(&NONCE, 1), &elements, 0..32);
    prop_oneof![
        3 => prop::sample::select(vec![whole, sketch, edges]),
        1 => (0u32..40, 0u32..40, prop::collection::vec(any::<u8>(), 0..400))
            .prop_map(|(start, count, bytes)| part(start, count, &bytes)),
    ]
}

fn any_repair() -> impl Strategy<Value = TransferMessage> {
    (0u64..20_000, 0u32..24).prop_map(|(made, log)| {
        let range = 1u64 << log;
        let sums = vec![7; made.div_ceil(range).min(1000) as usize];
        TransferMessage::Repair(Repair { made: made.min(range * 1000), range, sums })
    })
}

fn any_message(from_client: bool) -> impl Strategy<Value = TransferMessage> {
    let survey = prop_oneof![
        2 => Just(surveys(&survey())),
        1 => (0u32..8, 0u32..8, 1u64..12_000).prop_map(|(missing, before, len)| {
            let content = OldContent::Bytes(ByteLen::new(len));
            surveys(&Survey { missing: vec![missing], pieces: vec![OldPiece { before, content }], ..survey() })
        }),
        1 => (any::<bool>(), prop::collection::vec(any::<u8>(), 0..40))
            .prop_map(|(last, bytes)| TransferMessage::Want(Want::Survey { last, bytes: bytes.into() })),
    ];
    let breaks = (prop::option::of(0u32..8), prop::option::of(0u32..8)).prop_map(|(left, right)| Break { left, right });
    let algorithm = prop::sample::select(Algorithm::ALL.to_vec());
    let questions = prop_oneof![
        (any_path(), algorithm.clone(), prop::option::of((any_root(), (0u64..20_000).prop_map(ByteLen::new))))
            .prop_map(|(path, algorithm, have)| TransferMessage::Pull(Pull {
                path,
                algorithm,
                have,
                scope: Scope::default()
            })),
        Just(pulls(None)),
        Just(pulls(other())),
        any_path().prop_map(|path| TransferMessage::List(List { path, after: None })),
        (any_path(), algorithm).prop_map(|(path, algorithm)| TransferMessage::AskRoot(AskRoot { path, algorithm })),
        any_path().prop_map(|path| TransferMessage::MakeDirectory(MakeDirectory { path })),
        (any_path(), any_path()).prop_map(|(from, to)| TransferMessage::Rename(Rename { from, to })),
        (any_path(), any::<bool>()).prop_map(|(path, recursive)| TransferMessage::Remove(Remove { path, recursive })),
    ];
    let plain = prop::sample::select(vec![
        TransferMessage::Same(Generation::ZERO),
        TransferMessage::Repair(Repair::ALL),
        TransferMessage::Altered,
        TransferMessage::Complete,
        TransferMessage::Omits(Omits { entries: vec![Omitted { path: RelPath::ROOT, why: Why::Changed }], more: 1 }),
        TransferMessage::Current,
        TransferMessage::Stale,
        want_all(),
        TransferMessage::Changed,
        TransferMessage::Cancel,
        TransferMessage::Working,
        TransferMessage::Done(Generation::new(1)),
        TransferMessage::Refused(refusal("no")),
        TransferMessage::Listing(Listing { entries: Vec::new(), more: true }),
        TransferMessage::RootIs(RootIs { len: ByteLen::ZERO, root: Digest::default() }),
    ]);
    prop_oneof![
        4 => any_offer(from_client),
        2 => any_part().prop_map(TransferMessage::Tags),
        2 => any_part().prop_map(TransferMessage::Cells),
        2 => (0u32..8, any_part()).prop_map(|(elements, cells)| TransferMessage::Edges(Edges { elements, cells })),
        2 => prop::collection::vec(breaks, 0..4).prop_map(|breaks| TransferMessage::Order(Order { breaks })),
        2 => (0usize..3, 0u32..70)
            .prop_map(|(kind, end)| TransferMessage::More([More::Cells, More::Tags, More::Edges][kind](end))),
        1 => any_repair(),
        3 => survey,
        6 => any_delta(),
        2 => any::<u64>().prop_map(TransferMessage::Credit),
        4 => questions,
        3 => plain,
    ]
}

/// Transfers as an honest peer carries them out, but for what one of them needs to know of the other's answers.
fn scripts(from_client: bool) -> Vec<Vec<TransferMessage>> {
    let target = target();
    let set = tags_of(&target);
    let old = RelPath::new(*b"old").expect("a plain name");
    let wish = Wish { name: name(), ..Wish::exactly(old) };
    let offer =
        |content| TransferMessage::Offer(Offer { to: from_client.then(|| wish.clone()), ..offer_of(&target, content) });
    let again = Offer { to: from_client.then(|| wish.clone()), attempt: 1, ..offer_of(&target, Content::Whole) };
    let done = TransferMessage::Done(Generation::new(5));
    let mut scripts = vec![
        vec![offer(Content::Whole), whole(&target)],
        vec![offer(Content::Whole), raw_delta(false, &[], b""), whole(&target), whole(&target)],
        vec![offer(Content::Whole), whole(&[1; 12_000]), whole(&target)],
        vec![offer(in_set(&target)), set.clone(), raw_delta(true, &[copy(0, 5000), literal(7000)], &target[5000..])],
        vec![offer(in_set(&target)), set, TransferMessage::Changed, TransferMessage::Offer(again), whole(&target)],
    ];
    let moved = TransferMessage::Order(Order { breaks: vec![Break { left: None, right: Some(1) }] });
    let answers = [
        vec![surveys(&survey()), done.clone()],
        vec![surveys(&Survey { order: Tag::from_bytes([1; 6]), ..survey() }), moved, done.clone()],
        vec![
            want_all(),
            TransferMessage::Repair(Repair { made: 5000, range: 4096, sums: vec![1, 2] }),
            TransferMessage::Credit(1 << 20),
            done.clone(),
        ],
        vec![TransferMessage::Stale, TransferMessage::More(More::Cells(32)), want_all(), done.clone()],
        vec![TransferMessage::Current, done.clone()],
        vec![TransferMessage::Same(Generation::ZERO)],
        vec![done],
    ];
    if from_client {
        let asks = [pulls(other()), pulls(None)];
        let asked = asks.iter().flat_map(|ask| answers.iter().map(|answer| [&[ask.clone()][..], answer].concat()));
        scripts.extend(asked);
    } else {
        scripts.extend(answers);
    }
    scripts
}

/// Three scripts in step with each other, and a few other messages in between.
fn any_scripted(from_client: bool) -> impl Strategy<Value = Vec<Step>> {
    let script = prop::sample::select(scripts(from_client));
    let order = prop::collection::vec(0usize..3, 0..20);
    let others = prop::collection::vec((any::<prop::sample::Index>(), any_step(from_client)), 0..3);
    (prop::collection::vec(script, 3), order, others).prop_map(|(scripts, order, others)| {
        let mut scripts: Vec<_> = scripts.into_iter().map(Vec::into_iter).collect();
        let next = order.into_iter().filter_map(|index| {
            let message = scripts[index].next()?;
            Some(Step::Send(Box::new(Message::Transfer(TransferId::new(index as u32 + 1), message))))
        });
        let mut steps: Vec<_> = next.collect();
        for (index, step) in others {
            steps.insert(index.index(steps.len() + 1), step);
        }
        steps
    })
}

fn any_step(from_client: bool) -> impl Strategy<Value = Step> {
    let message =
        (1u32..4, any_message(from_client)).prop_map(|(id, message)| Message::Transfer(TransferId::new(id), message));
    prop_oneof![
        20 => message.prop_map(|message| Step::Send(Box::new(message))),
        1 => prop::sample::select(vec![Message::Ping, Message::Pong]).prop_map(|message| Step::Send(Box::new(message))),
        1 => (0u64..12).prop_map(|seconds| Step::Wait(Duration::from_secs(seconds))),
        1 => Just(Step::Release),
    ]
}

fn any_steps(from_client: bool) -> impl Strategy<Value = Vec<Step>> {
    prop_oneof![prop::collection::vec(any_step(from_client), 0..60), any_scripted(from_client),]
}

/// Whatever comes, the session goes on or ends with a reason that the peer is told; it holds little and changes nothing.
#[track_caller]
fn check_any_order(mut raw: Raw, steps: Vec<Step>) {
    raw.take();
    for step in steps {
        match step {
            Step::Send(message) if raw.wants_bytes() => raw.send(&message),
            Step::Send(_) => &mut raw,
            Step::Wait(time) => raw.advance(time),
            Step::Release => raw.release(),
        };
        assert!(raw.unwritten() < 4 << 20, "{} bytes wait to leave", raw.unwritten());
        assert!(raw.due().count() < 64, "{} requests", raw.due().count());
        assert_eq!(raw.content("file"), Some(basis().into()));
        if let Some(result) = raw.finished().cloned() {
            let error = result.expect_err("nobody has told it to end");
            assert_eq!(raw.closing().map(|(code, _)| code), error.close_code());
            return;
        }
    }
    raw.close();
    let result = raw.finished().expect("the stream has ended").clone();
    assert!(matches!(result, Ok(_) | Err(SessionError::ConnectionLost { .. })), "{result:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_server_takes_any_messages_in_any_order(
        steps in any_steps(true), hold in prop::sample::select(vec!["", "Basis", "Describe", "Job", "Apply", "Seal"]),
        writes: bool,
    ) {
        let raw = server().file("old", basis()).hold(match hold {
            "Basis" => |due| named(due, "Basis"),
            "Describe" => |due| named(due, "Describe"),
            "Job" => |due| named(due, "Job"),
            "Apply" => |due| named(due, "Apply"),
            "Seal" => |due| named(due, "Seal"),
            _ => |_| false,
        });
        check_any_order(if writes { raw } else { raw.without_writing() }, steps);
    }

    #[test]
    fn a_client_takes_any_messages_in_any_order(steps in any_steps(false), writes: bool, shuffle in 0usize..3) {
        let new = RelPath::new(*b"new").expect("a plain name");
        let mut commands = [push(file(), file()), pull(file(), new), Command::List { path: RelPath::ROOT, after: None }];
        commands.rotate_left(shuffle);
        let mut raw = client();
        if !writes {
            raw = raw.without_writing();
        }
        for (id, command) in (1..).zip(commands) {
            raw = raw.command(id, command);
        }
        check_any_order(raw, steps);
    }
}
