//! stub
#[allow(missing_docs)]
pub mod go; pub mod malloc; pub mod sanitizer; pub mod threads;
