//! Programs beside the library.
