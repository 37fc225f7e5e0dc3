//! stub
pub mod code;
pub mod go;
pub mod malloc;
pub mod sanitizer;
pub mod threads;
