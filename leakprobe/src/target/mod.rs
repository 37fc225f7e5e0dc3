//! stub
pub mod build_info;
pub mod elf;
pub mod maps;
pub mod memory;
