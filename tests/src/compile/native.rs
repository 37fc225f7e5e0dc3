//! Builds LANGUAGE/stacks, a chain of calls in C, C++ or Rust, in the ways that matter to who walks its stacks.

use std::fmt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

pub use super::sanitized::Language;
use super::{Recipe, gcc, programs, sources, up_to_date};

/// How the program is built; always with -O2 or what is like it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NativeBuild {
    /// What it is written in.
    pub language: Language,
    /// What it is linked into.
    pub link: Link,
    /// Whether its functions keep the frame pointer, which compilers leave out of their own accord.
    pub keeps_frame_pointers: bool,
    /// Without a symbol table.
    pub is_stripped: bool,
}

/// What a native program is linked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// At addresses the kernel chooses, with shared libraries.
    Pie,
    /// At fixed addresses, with shared libraries.
    Fixed,
    /// With all libraries in it.
    Static,
}

impl NativeBuild {
    /// Every way to build them.
    pub fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for language in [Language::C, Language::Cpp, Language::Rust] {
            for link in [Link::Pie, Link::Fixed, Link::Static] {
                for is_stripped in [false, true] {
                    let keeps_frame_pointers = false;
                    all.push(Self { language, link, keeps_frame_pointers, is_stripped });
                }
            }
            all.push(Self { language, link: Link::Pie, keeps_frame_pointers: true, is_stripped: true });
        }
        all
    }

    fn compiler(self) -> Command {
        let mut arguments = Vec::new();
        let mut compiler = match self.language {
            Language::C => gcc(&sources().join("c"), "gcc"),
            Language::Cpp => {
                let mut compiler = gcc(&sources().join("cpp"), "g++");
                compiler.arg("-I../c");
                compiler
            }
            Language::Rust => {
                arguments.extend(["--edition=2024", "-O", "-g", "--crate-name=stacks"]);
                let mut compiler = Command::new("rustc");
                compiler.current_dir(sources().join("rust"));
                compiler
            }
        };
        let is_rust = self.language == Language::Rust;
        match self.link {
            Link::Pie => {}
            Link::Fixed => arguments.push(if is_rust { "-Crelocation-model=static" } else { "-no-pie" }),
            Link::Static if is_rust => {
                arguments.extend(["-Crelocation-model=static", "-Ctarget-feature=+crt-static"]);
            }
            Link::Static => arguments.push("-static"),
        }
        if self.keeps_frame_pointers {
            arguments.push(if is_rust { "-Cforce-frame-pointers=yes" } else { "-fno-omit-frame-pointer" });
        }
        if self.is_stripped {
            arguments.push(if is_rust { "-Cstrip=symbols" } else { "-s" });
        }
        compiler.args(arguments);
        compiler
    }
}

impl fmt::Display for NativeBuild {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let link = match self.link {
            Link::Pie => "PIE",
            Link::Fixed => "fixed addresses",
            Link::Static => "static",
        };
        let frames = if self.keeps_frame_pointers { ", frame pointers" } else { "" };
        let stripped = if self.is_stripped { ", stripped" } else { "" };
        write!(formatter, "{}, {link}{frames}{stripped}", self.language)
    }
}

/// Builds the program where its sources are newer; says where it is.
pub fn native_chain(build: NativeBuild) -> Result<PathBuf> {
    let (folder, input) = match build.language {
        Language::C => ("c", "stacks/main.c"),
        Language::Cpp => ("cpp", "stacks/main.cc"),
        Language::Rust => ("rust", "stacks/main.rs"),
    };
    let mut read = vec![sources().join(folder).join("stacks")];
    if build.language != Language::Rust {
        read.extend([sources().join("c/contract.h"), sources().join("c/stacks")]);
    }
    let name: String =
        build.to_string().chars().map(|letter| if letter.is_alphanumeric() { letter } else { '_' }).collect();
    let program = programs().join("chains").join(name);
    up_to_date(Recipe { sources: read, program, compiler: build.compiler(), input: input.to_owned() })
}
