//! stub
pub mod image;
pub mod pclntab;
