//! Gives every resident byte exactly one owner, and every byte of growth a call site or none. Pure.
//!
//! [`ledger`] divides one snapshot, [`growth`] finds the pages gained between two, [`sites`] credits them to stacks
//! and [`sampling`] says how well that is known, [`origin`] says what a stack tells of the memory it mapped or
//! touched, `bursts` what pages touched in one go tell of each other, [`files`] what the rows of files are made of.

mod bursts;
pub mod files;
pub mod growth;
pub mod held;
pub mod last_known;
pub mod ledger;
pub mod mappings;
pub mod origin;
pub mod sampling;
pub mod sites;
pub mod slack;
