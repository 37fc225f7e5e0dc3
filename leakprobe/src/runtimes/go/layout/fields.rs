//! A structure of offsets, declared once: each field with the place in the Go runtime that it stands for.
//!
//! What is declared is read from a program's debug information ([`super::dwarf`]) and from the checked-in table
//! ([`super::table`]) by the same list, so the two cannot differ in what they mean.

use anyhow::{Context as _, Result, bail};

/// No structure of the runtime is larger: a `heapArena` of Go 1.19 takes 2 MiB.
const MAX_PLACE: u32 = 16 << 20;
/// The same for structures that are read as a whole, one by one.
const MAX_SMALL_PLACE: u32 = 16 << 10;
const SMALL_TYPES: [&str; 4] = ["mspan", "g", "gobuf", "memRecordCycle"];

/// What a field of a layout can be: a number that every version has, or one that some have.
pub(super) trait Field: Sized {
    /// `None` where the version lacks what it must have.
    fn from_place(place: Option<u32>) -> Option<Self>;
}

impl Field for u64 {
    fn from_place(place: Option<u32>) -> Option<Self> {
        place.map(Self::from)
    }
}

impl Field for usize {
    fn from_place(place: Option<u32>) -> Option<Self> {
        place.and_then(|place| Self::try_from(place).ok())
    }
}

impl<T: Field> Field for Option<T> {
    fn from_place(place: Option<u32>) -> Option<Self> {
        Some(place.and_then(|place| T::from_place(Some(place))))
    }
}

/// One field, from what says where things lie.
pub(super) fn field<T: Field>(path: &str, places: &dyn Places) -> Result<T> {
    let place = places.place(path);
    let type_name = type_name(path);
    let max = if SMALL_TYPES.contains(&type_name) { MAX_SMALL_PLACE } else { MAX_PLACE };
    if place.is_some_and(|place| place > max) {
        bail!("{path} of {place:?} bytes");
    }
    T::from_place(place).with_context(|| format!("there is no {path}"))
}

/// What knows where the fields of the runtime's types lie.
pub trait Places {
    /// The offset of `type.field` (and on, `.field.field`), or the size for `sizeof(…)`; `None` where there is no
    /// such thing. Of names with ` | ` between them the first one that there is.
    fn place(&self, path: &str) -> Option<u32>;
}

/// The type that a path starts with.
pub(super) fn type_name(path: &str) -> &str {
    let inner = path.strip_prefix("sizeof(").unwrap_or(path);
    inner.find(['.', ')', ' ']).map_or(inner, |end| &inner[..end])
}

/// Declares a layout: a structure with `arch`, the listed fields, the list of their paths, and how it is built.
macro_rules! layout {
    ($(#[$meta:meta])* pub struct $name:ident {
        $($(#[$doc:meta])* $field:ident: $type:ty = $path:literal,)*
    }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name {
            /// The processor it is for.
            pub arch: crate::runtimes::go::image::Arch,
            $($(#[$doc])* #[doc = concat!("\n\n`", $path, "`")] pub $field: $type,)*
        }

        impl $name {
            /// Where each field comes from, as [`Places`](crate::runtimes::go::layout::fields::Places) takes it.
            pub const PATHS: &'static [&'static str] = &[$($path),*];

            /// Builds it from what says where things lie.
            ///
            /// # Errors
            /// Where something is missing that all known versions have, or lies absurdly far away.
            pub fn from_places(
                arch: crate::runtimes::go::image::Arch,
                places: &dyn crate::runtimes::go::layout::fields::Places,
            ) -> anyhow::Result<Self> {
                Ok(Self {
                    arch,
                    $($field: crate::runtimes::go::layout::fields::field($path, places)?,)*
                })
            }
        }
    };
}

pub(super) use layout;
