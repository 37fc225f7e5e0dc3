//! The messages of pprof's `profile.proto`, as far as they are written here. Strings are indices into the profile's
//! table, whose first one is empty.
//!
//! Numbers and meanings:
//! <https://github.com/google/pprof/blob/a15ffb7f9dcc/proto/profile.proto>

use prost::Message;

/// A whole profile.
#[derive(Clone, PartialEq, Message)]
pub struct Profile {
    /// What the values of a sample are.
    #[prost(message, repeated, tag = "1")]
    pub sample_types: Vec<ValueType>,
    /// The samples.
    #[prost(message, repeated, tag = "2")]
    pub samples: Vec<Sample>,
    /// Mapped files; the first one is the program.
    #[prost(message, repeated, tag = "3")]
    pub mappings: Vec<Mapping>,
    /// Places in the code.
    #[prost(message, repeated, tag = "4")]
    pub locations: Vec<Location>,
    /// Functions.
    #[prost(message, repeated, tag = "5")]
    pub functions: Vec<Function>,
    /// All strings.
    #[prost(string, repeated, tag = "6")]
    pub strings: Vec<String>,
    /// When the window began, since 1970.
    #[prost(int64, tag = "9")]
    pub time_nanos: i64,
    /// How long it lasted.
    #[prost(int64, tag = "10")]
    pub duration_nanos: i64,
    /// Sentences for the reader.
    #[prost(int64, repeated, tag = "13")]
    pub comments: Vec<i64>,
    /// The sample type to show first.
    #[prost(int64, tag = "14")]
    pub default_sample_type: i64,
}

/// What a value is.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct ValueType {
    /// Its name.
    #[prost(int64, tag = "1")]
    pub name: i64,
    /// Its unit.
    #[prost(int64, tag = "2")]
    pub unit: i64,
}

/// Values of a stack.
#[derive(Clone, PartialEq, Message)]
pub struct Sample {
    /// Ids of locations, innermost first.
    #[prost(uint64, repeated, tag = "1")]
    pub location_ids: Vec<u64>,
    /// One for each sample type.
    #[prost(int64, repeated, tag = "2")]
    pub values: Vec<i64>,
    /// What else is known.
    #[prost(message, repeated, tag = "3")]
    pub labels: Vec<Label>,
}

/// A word about a sample.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Label {
    /// What it tells.
    #[prost(int64, tag = "1")]
    pub key: i64,
    /// The word.
    #[prost(int64, tag = "2")]
    pub text: i64,
}

/// A mapped file. Where it is mapped is not known: the report keeps no addresses of files.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Mapping {
    /// From 1 on.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// Its path.
    #[prost(int64, tag = "5")]
    pub filename: i64,
    /// Nobody needs to look for functions.
    #[prost(bool, tag = "7")]
    pub has_functions: bool,
    /// Nor for source files.
    #[prost(bool, tag = "8")]
    pub has_filenames: bool,
    /// Nor for lines.
    #[prost(bool, tag = "9")]
    pub has_line_numbers: bool,
    /// Nor for inlined calls.
    #[prost(bool, tag = "10")]
    pub has_inline_frames: bool,
}

/// A place in the code.
#[derive(Clone, PartialEq, Message)]
pub struct Location {
    /// From 1 on.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// The mapped file; 0 for what is no code.
    #[prost(uint64, tag = "2")]
    pub mapping_id: u64,
    /// In the process; 0 for what is no code.
    #[prost(uint64, tag = "3")]
    pub address: u64,
    /// The function, after those inlined into it; none where nothing names the address.
    #[prost(message, repeated, tag = "4")]
    pub lines: Vec<Line>,
}

/// A line of the source.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Line {
    /// The function's id.
    #[prost(uint64, tag = "1")]
    pub function_id: u64,
    /// 0 where it is not known.
    #[prost(int64, tag = "2")]
    pub line: i64,
}

/// A function.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Function {
    /// From 1 on.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// For people.
    #[prost(int64, tag = "2")]
    pub name: i64,
    /// For the linker; the same here.
    #[prost(int64, tag = "3")]
    pub system_name: i64,
    /// The source file.
    #[prost(int64, tag = "4")]
    pub filename: i64,
}
