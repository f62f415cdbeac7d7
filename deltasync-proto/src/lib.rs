//! The pure protocol of deltasync: frames, messages and the [`Session`] state machine.
//!
//! The story of one push: the client's first flight is its hello and an [`Offer`] (root, length, tags of the chunks);
//! the server opens its basis, answers `Same` or a [`Want`] that says which chunks it lacks and where the others lie in
//! its basis; the client sends [`Delta`] pieces of copies and literals; the server applies them to a staged file,
//! compares the root, commits and answers `Done`. A pull is one request that makes the client the receiver.
//!
//! [`Session`] knows nothing of sockets, files or clocks: bytes, answers and time come in as [`Input`], requests come out
//! as [`Output`]. `WIRE.md` beside this crate draws every byte.
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

mod id;
pub use id::{JobId, RequestId, RootId, Timestamp, TransferId};

mod config;
pub use config::Config;

mod error;
pub use error::{
    ApiMisuse, CloseCode, InvalidMessage, PeerMisbehaved, Refusal, RefusalCode, SessionError, TransferError,
};

mod frame;
pub use frame::{Frame, FrameDecoder, encode_header};

mod hello;
pub use hello::{Capabilities, Hello, Unsupported, VERSION, algorithm_bit, our_algorithms};

mod bulk;
pub use bulk::{Delta, Edges, Literals, Order, Prefix, Repair, SetPart, Want};

mod message;
pub use message::{
    AskRoot, CONTROL_MAX, Close, Confirm, Content, Encoded, List, Listing, MakeDirectory, Message, MessageKind, More,
    Offer, Pull, Remove, Rename, RootIs, TEXT_MAX, TransferMessage, Wish,
};

mod filter;
pub use filter::{Filter, InvalidFilter};

mod omitted;
pub use omitted::{Omits, Omitted, Why};

mod scope;
pub use scope::{Extra, Scope, TreeOptions};

mod storage;
pub use storage::{
    Adorned, Answer, Ask, Cutting, Destination, Entry, EntryKind, FaultKind, FileHandle, Kept, Known, OpenedFile,
    Place, Remembered, Replaces, Request, StageHandle, StorageFault, Version,
};

mod job;
pub use job::{Computed, Job};

mod event;
pub use event::{Command, Condition, Event, EventKind, Outcome, Phase, Progress, Verb};

mod pace;
pub use pace::{Pace, Rate};

mod memory;

mod watch;
pub use watch::NOTHING_TO_DO;

mod context;
mod flow;

mod ranges;

mod exact;

mod search;

mod delivery;

mod delivering;

mod searching;

mod recalling;

mod rehearsing;

mod offering;

mod mending;

mod sending;

mod assembly;

mod committing;
mod comparing;

mod surveying;

mod patching;

mod repairing;

mod receiving;

mod asking;

mod transfer;

mod driving;
pub use driving::{Input, Output, Stats};

mod session;
pub use session::Session;
