//! stub
pub mod elf;
pub mod maps;
pub mod memory;
