//! The verbs of deltasync as a library, and the program `deltasync` around them.

mod shown;
pub use shown::Shown;

mod place;
pub use place::{InvalidPlace, Place, RemotePlace, Server};
