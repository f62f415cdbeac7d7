//! The bodies of the fuzz targets: each takes any bytes and panics when what it checks does not hold.
//!
//! `fuzz/` wraps each in a libFuzzer program, and a test of this crate replays the committed corpora through them, so that
//! what a fuzzer found once is checked in every run of the tests. Decoders take the bytes as they are. Laws and sessions
//! cut them into parameters, files and operations with [`Take`](take::Take), for which all bytes mean something.
//!
//! | target | what must hold |
//! |---|---|
//! | `frame`, `message`, `hello`, `bulk` | what decodes is the same after encoding and decoding it again, in any split |
//! | `signature`, `delta`, `ops`, `names` | the same for the formats in files, for operations, paths, names and digests |
//! | `sign_diff_patch` | patch(basis, diff(sign(basis), target)) == target, in any split |
//! | `chunker` | any split cuts alike; an alignment covers the target and pairs equal tags |
//! | `sketch` | any split makes and reads alike; ours and the differences make theirs; any cells end |
//! | `fine` | any sums: the target's length, copies within stretches; sums of the old bytes: the target |
//! | `stream` | a stream makes what was said or an error; what was packed in any pieces unpacks |
//! | `survey` | any survey and breaks: a script within the basis; a receiver's own: the target |
//! | `tree` | any bytes: a tree whose list tells the same, or an error, in any split |
//! | `patcher` | a hostile delta makes what a naive reading of it makes, or an error |
//! | `server`, `client` | a peer that says anything ends in no panic, and no file has another root than was reported |
//! | `index` | any damage to what a server remembers: it starts, serves, knows nothing wrong and counts on |
//! | `pair` | two sessions, several in a row, over a link with faults end in the right file or in a named error |

mod decoders;
mod files;
mod fine;
mod indexes;
mod laws;
mod pairs;
mod peer;
mod sketches;
mod solo;
mod streams;
mod surveys;
mod take;
mod trees;
pub use take::Seed;

macro_rules! targets {
    ($($(#[$doc:meta])* $variant:ident = $name:literal: $body:path, $seeds:path;)*) => {
        /// One thing that is fuzzed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum FuzzTarget {
            $($(#[$doc])* $variant,)*
        }

        impl FuzzTarget {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The name of its wrapper, and of the directory of its corpus.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// Checks one input.
            ///
            /// # Panics
            ///
            /// When what the target checks does not hold: a finding.
            pub fn run(self, bytes: &[u8]) {
                match self {
                    $(Self::$variant => $body(bytes),)*
                }
            }

            /// Inputs worth starting from, made by the real encoders.
            pub fn seeds(self) -> Vec<Seed> {
                match self {
                    $(Self::$variant => $seeds(),)*
                }
            }
        }
    };
}

targets! {
    /// The frame decoder.
    Frame = "frame": decoders::frame, decoders::frame_seeds;
    /// Whole messages behind their frame headers.
    Message = "message": decoders::message, decoders::message_seeds;
    /// The two payloads that every version must read.
    Hello = "hello": decoders::hello, decoders::hello_seeds;
    /// The payloads with fixed layouts.
    Bulk = "bulk": decoders::bulk, decoders::bulk_seeds;
    /// The signature file, and a diff against whatever it says.
    Signature = "signature": files::signature, files::signature_seeds;
    /// The delta file.
    Delta = "delta": files::delta, files::delta_seeds;
    /// The columns of operations, and the plan made of them.
    Ops = "ops": files::ops, files::ops_seeds;
    /// Paths, names and digests.
    Names = "names": files::names, files::names_seeds;
    /// The classic three verbs.
    SignDiffPatch = "sign_diff_patch": laws::sign_diff_patch, laws::sign_diff_patch_seeds;
    /// Chunk lists and their alignment.
    Chunker = "chunker": laws::chunker, laws::chunker_seeds;
    /// Cells of a sketch, and the differences they tell.
    Sketch = "sketch": sketches::sketch, sketches::sketch_seeds;
    /// The matcher of fine sums.
    Fine = "fine": fine::fine, fine::fine_seeds;
    /// Packed literals.
    Stream = "stream": streams::stream, streams::stream_seeds;
    /// What a receiver says of its basis, laid out.
    Survey = "survey": surveys::survey, surveys::survey_seeds;
    /// The archive of a tree.
    Tree = "tree": trees::tree, trees::tree_seeds;
    /// The patcher and a hostile delta.
    Patcher = "patcher": files::patcher, files::patcher_seeds;
    /// A server and a client that says anything.
    Server = "server": peer::server, peer::server_seeds;
    /// A client and a server that says anything.
    Client = "client": peer::client, peer::client_seeds;
    /// The index of a served directory, damaged.
    Index = "index": indexes::index, indexes::index_seeds;
    /// Two sessions and a link with faults.
    Pair = "pair": pairs::pair, pairs::pair_seeds;
}
