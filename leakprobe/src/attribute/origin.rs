//! What a stack tells of the memory it mapped or touched.

use crate::claim::Component;
use crate::runtimes::code::Role;

/// Whose memory it is that this stack mapped, or touched first. Innermost frame first; `None` where no
/// frame decides.
///
/// The first decisive frame counts: a `malloc` called by the race detector is rare, the race detector
/// called by everything is the rule. A touch is the weaker evidence, since memory may be mapped by one
/// and filled by another.
pub fn of_stack(roles: impl Iterator<Item = Role>) -> Option<Component> {
    for (depth, role) in roles.enumerate() {
        match role {
            // It makes its own system calls; deeper down it only passes on what the program called.
            Role::Sanitizer(component) if depth == 0 => return Some(component),
            Role::RaceRuntime => return Some(Component::TsanRuntime),
            Role::Allocator => return Some(Component::CHeapInUse),
            Role::ThreadCreation => return Some(Component::ThreadStacks),
            Role::GoRuntime => return Some(Component::GoRuntime),
            Role::GoCode => return Some(Component::GoMmap),
            Role::Native => return Some(Component::CMmap),
            // These work for whoever called them.
            Role::CLibrary | Role::CgoBridge | Role::GoCopy | Role::Sanitizer(_) | Role::Unknown => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_decisive_frame_counts() {
        for (roles, expected) in [
            (vec![Role::CLibrary, Role::Allocator, Role::Native], Some(Component::CHeapInUse)),
            (vec![Role::CLibrary, Role::Native], Some(Component::CMmap)),
            (
                vec![Role::CLibrary, Role::CgoBridge, Role::GoRuntime, Role::GoCode],
                Some(Component::GoRuntime),
            ),
            (vec![Role::GoCopy, Role::GoCode], Some(Component::GoMmap)),
            (vec![Role::RaceRuntime, Role::GoRuntime], Some(Component::TsanRuntime)),
            (vec![Role::Sanitizer(Component::AsanRuntime), Role::Native], Some(Component::AsanRuntime)),
            (
                vec![Role::CLibrary, Role::Sanitizer(Component::AsanRuntime), Role::Native],
                Some(Component::CMmap),
            ),
            (vec![Role::CLibrary, Role::Unknown], None),
            (vec![], None),
        ] {
            assert_eq!(of_stack(roles.clone().into_iter()), expected, "{roles:?}");
        }
    }
}
