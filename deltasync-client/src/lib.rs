//! The verbs of deltasync as a library, and the program `deltasync` around them.

mod shown;
pub use shown::Shown;

mod place;
pub use place::{InvalidPlace, Place, RemotePlace, Server};

mod options;
pub use options::Options;

mod connect;
pub use connect::ConnectError;

mod error;
pub use error::{ChangedFile, ClientError, UsageError};

mod exit;
pub use exit::ExitStatus;

mod staged;

mod classic;
pub use classic::{delta, patch, signature};
