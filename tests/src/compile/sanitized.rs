//! Builds LANGUAGE/sanitized with a sanitizer: by gcc, by clang, by rustc.
//!
//! The surprise: not everything that can be written down exists. [`SanitizedBuild::all`] has what does.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::{Recipe, programs, sources, up_to_date};

/// How the program is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SanitizedBuild {
    /// What it is written in.
    pub language: Language,
    /// What compiles it.
    pub compiler: Compiler,
    /// What it carries.
    pub sanitizer: Sanitizer,
    /// Where it carries it.
    pub runtime: Runtime,
    /// Without a symbol table.
    pub is_stripped: bool,
}

/// A language that has sanitizers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// C.
    C,
    /// C++.
    Cpp,
    /// Rust.
    Rust,
}

/// A compiler that has sanitizers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compiler {
    /// Debian's own gcc.
    Gcc,
    /// A release of clang, by its number.
    Clang(u32),
    /// The rustc that builds leakprobe.
    Rustc,
}

/// A sanitizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sanitizer {
    /// AddressSanitizer.
    Address,
    /// ThreadSanitizer.
    Thread,
    /// MemorySanitizer.
    Memory,
    /// MemorySanitizer that remembers where uninitialised memory comes from.
    MemoryOrigins,
    /// HWAddressSanitizer as x86_64 has it without tagged addresses.
    HwAddress,
    /// LeakSanitizer alone.
    Leak,
}

/// Where the runtime is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// In the executable.
    Static,
    /// In a library.
    Shared,
}

/// The clang of every test run: that of the LLVM which builds the BPF object.
pub const NEWEST_CLANG: u32 = 22;
/// Debian 12's own.
pub const OLDEST_CLANG: u32 = 14;

impl SanitizedBuild {
    /// What every test run tries: each sanitizer once, each compiler and each language at least once.
    pub fn corners() -> Vec<Self> {
        use {Compiler::*, Language::*, Runtime::*, Sanitizer::*};
        let clang = Clang(NEWEST_CLANG);
        let build = |language, compiler, sanitizer, runtime, is_stripped| Self {
            language,
            compiler,
            sanitizer,
            runtime,
            is_stripped,
        };
        vec![
            build(C, Gcc, Address, Shared, true),
            build(C, Gcc, Thread, Static, false),
            build(Cpp, clang, Address, Static, false),
            build(Cpp, clang, Thread, Shared, false),
            build(C, clang, MemoryOrigins, Static, false),
            build(C, clang, HwAddress, Shared, false),
            build(C, clang, Leak, Static, true),
            build(Rust, Rustc, Address, Static, true),
            build(Rust, Rustc, Memory, Static, false),
        ]
    }

    /// Everything that exists.
    pub fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for compiler in
            [Compiler::Gcc, Compiler::Clang(OLDEST_CLANG), Compiler::Clang(NEWEST_CLANG), Compiler::Rustc]
        {
            for sanitizer in Sanitizer::ALL {
                for runtime in [Runtime::Static, Runtime::Shared] {
                    if !exists(compiler, sanitizer, runtime) {
                        continue;
                    }
                    for language in compiler.languages() {
                        for is_stripped in [false, true] {
                            all.push(Self { language: *language, compiler, sanitizer, runtime, is_stripped });
                        }
                    }
                }
            }
        }
        all
    }

    fn arguments(self) -> Vec<String> {
        let mut arguments = match self.compiler {
            Compiler::Rustc => {
                vec!["--edition=2021", "-O", "-g", "-Cunsafe-allow-abi-mismatch=sanitizer"]
            }
            _ => vec!["-O2", "-g", "-Wall", "-Wextra", "-pthread", "-I../c"],
        };
        if self.is_stripped {
            arguments.push(if self.compiler == Compiler::Rustc { "-Cstrip=symbols" } else { "-s" });
        }
        let mut arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
        let flag = self.sanitizer.flag();
        if self.compiler == Compiler::Rustc {
            arguments.push(format!("-Zsanitizer={flag}"));
            arguments.extend(["--cfg".to_owned(), format!("shadow=\"{flag}\"")]);
            arguments.push("--check-cfg=cfg(shadow,values(any()))".to_owned());
        } else {
            arguments.push(format!("-fsanitize={flag}"));
        }
        match (self.compiler, self.sanitizer) {
            (Compiler::Rustc, Sanitizer::MemoryOrigins) => {
                arguments.push("-Zsanitizer-memory-track-origins".to_owned());
            }
            (_, Sanitizer::MemoryOrigins) => arguments.push("-fsanitize-memory-track-origins".to_owned()),
            (_, Sanitizer::HwAddress) => {
                arguments.push("-fsanitize-hwaddress-experimental-aliasing".to_owned());
            }
            _ => {}
        }
        match (self.compiler, self.runtime) {
            (Compiler::Gcc, Runtime::Static) => {
                let library = if self.sanitizer == Sanitizer::Thread { "tsan" } else { "asan" };
                arguments.push(format!("-static-lib{library}"));
            }
            (Compiler::Clang(version), Runtime::Shared) => {
                let folder = format!("/usr/lib/llvm-{version}/lib/clang/{}/lib/linux", resources(version));
                arguments.extend(["-shared-libsan".to_owned(), format!("-Wl,-rpath,{folder}")]);
            }
            _ => {}
        }
        arguments
    }
}

/// The name of the folder of clang's own files: its whole version until LLVM 16 made it the first number.
fn resources(version: u32) -> String {
    if version < 16 { format!("{version}.0.6") } else { version.to_string() }
}

/// Whether there is such a runtime, and a program with it runs: gcc's static LeakSanitizer and clang 14's shared
/// ThreadSanitizer end before `main`.
fn exists(compiler: Compiler, sanitizer: Sanitizer, runtime: Runtime) -> bool {
    use {Compiler::*, Sanitizer::*};
    let is_static = runtime == Runtime::Static;
    match (compiler, sanitizer) {
        (Gcc, Address | Thread) => true,
        (Gcc, Leak) => !is_static,
        (Gcc, _) => false,
        (Clang(OLDEST_CLANG), Thread) => is_static,
        (Clang(_), Address | Thread | HwAddress) => true,
        (Clang(_), _) => is_static,
        (Rustc, HwAddress) => false,
        (Rustc, _) => is_static,
    }
}

impl Compiler {
    fn languages(self) -> &'static [Language] {
        if self == Self::Rustc { &[Language::Rust] } else { &[Language::C, Language::Cpp] }
    }

    fn program(self, language: Language) -> String {
        match (self, language) {
            (Self::Gcc, Language::Cpp) => "g++".to_owned(),
            (Self::Gcc, _) => "gcc".to_owned(),
            (Self::Clang(version), Language::Cpp) => format!("clang++-{version}"),
            (Self::Clang(version), _) => format!("clang-{version}"),
            (Self::Rustc, _) => "rustc".to_owned(),
        }
    }
}

impl Sanitizer {
    const ALL: [Self; 6] =
        [Self::Address, Self::Thread, Self::Memory, Self::MemoryOrigins, Self::HwAddress, Self::Leak];

    const fn flag(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Thread => "thread",
            Self::Memory | Self::MemoryOrigins => "memory",
            Self::HwAddress => "hwaddress",
            Self::Leak => "leak",
        }
    }

    /// How the ids of its rows begin.
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Address => "asan",
            Self::Thread => "tsan",
            Self::Memory | Self::MemoryOrigins => "msan",
            Self::HwAddress => "hwasan",
            Self::Leak => "lsan",
        }
    }
}

impl fmt::Display for Language {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::C => "C",
            Self::Cpp => "C++",
            Self::Rust => "Rust",
        })
    }
}

impl fmt::Display for SanitizedBuild {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let language = self.language;
        match self.compiler {
            Compiler::Gcc => write!(formatter, "{language}, gcc")?,
            Compiler::Clang(version) => write!(formatter, "{language}, clang {version}")?,
            Compiler::Rustc => write!(formatter, "{language}")?,
        }
        let origins = if self.sanitizer == Sanitizer::MemoryOrigins { " with origins" } else { "" };
        let runtime = if self.runtime == Runtime::Static { "static" } else { "shared" };
        let stripped = if self.is_stripped { ", stripped" } else { "" };
        write!(formatter, ", {}{origins}, {runtime}{stripped}", self.sanitizer.prefix())
    }
}

/// Builds the program where its sources are newer; says where it is.
pub fn sanitized_workload(build: SanitizedBuild) -> Result<PathBuf> {
    let (folder, source) = match build.language {
        Language::C => ("c", "sanitized/main.c"),
        Language::Cpp => ("cpp", "sanitized/main.cpp"),
        Language::Rust => ("rust", "sanitized/main.rs"),
    };
    let folder = sources().join(folder);
    let mut compiler = Command::new(build.compiler.program(build.language));
    compiler.current_dir(&folder).args(build.arguments());
    if build.compiler == Compiler::Rustc {
        // Sanitizers are not stable yet; the toolchain has their runtimes nevertheless.
        compiler.env("RUSTC_BOOTSTRAP", "1");
    }
    let c = sources().join("c");
    let name: String =
        build.to_string().chars().map(|letter| if letter.is_alphanumeric() { letter } else { '_' }).collect();
    let mut sources = vec![folder.join("sanitized")];
    if build.language != Language::Rust {
        sources.extend([c.join("contract.h"), c.join("sanitized")]);
    }
    let program = programs().join("sanitized").join(Path::new(&name));
    up_to_date(Recipe { sources, program, compiler, input: source.to_owned() })
}
